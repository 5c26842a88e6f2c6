"""One operation as plain JSON over signed HTTP: `POST /v1/NAME`, and what came back.

Boundary: the envelope only, as `tools` is MCP's; what an answer means, and what may be repeated, is
`transport`'s affair. Source: spec/transport-http.md.
"""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import httpx2
import orjson

from farthing.clients.tools import RESULT_BYTES_MAX, ToolResult
from farthing.protocol.canonical import InvalidJson, LooseJson, parse_json
from farthing.protocol.errors import Unreachable
from farthing.protocol.wire import ROOT

__all__ = ["HttpEndpoint"]

_REPLAYED: Final = f"{ROOT}/replayed"
_DEPTH_MAX: Final = 64


class HttpEndpoint:
    """A platform's `/v1`.

    Args:
        http: The client whose connections are used.
        url: The platform's public URL.
        timeout_s: How long one exchange may take, from the first byte to the last.
        auth: Signs each request.
    """

    def __init__(
        self,
        http: httpx2.AsyncClient,
        url: str,
        *,
        timeout_s: float,
        auth: httpx2.Auth | None = None,
    ) -> None:
        self.url = url
        self._http = http
        self._timeout_s = timeout_s
        self._auth = auth

    async def call_tool(self, name: str, arguments: Mapping[str, object]) -> ToolResult:
        """Carry out one operation; a refusal is a result with `is_error`.

        Raises:
            Unreachable: No answer, or one that is not of this API: whether it ran is not known.
        """
        request = self._http.build_request(
            "POST",
            f"{self.url}/v1/{name}",
            content=orjson.dumps(arguments),
            headers={
                "accept": "application/json, application/problem+json",
                "content-type": "application/json",
            },
            timeout=self._timeout_s,
        )
        try:
            # The client's own timeouts are between bytes: a server that drips would never end.
            async with asyncio.timeout(self._timeout_s):
                response, data = await self._exchange(request)
        except (httpx2.HTTPError, TimeoutError) as error:
            raise Unreachable(f"{self.url} did not answer: {type(error).__name__}") from error
        shape = _object(data)
        is_error = response.status_code != HTTPStatus.OK
        if shape is None or (is_error and not isinstance(shape.get("code"), str)):
            text = f"{self.url} answered HTTP {response.status_code} in another form"
            raise Unreachable(text)
        replayed = response.headers.get("idempotent-replayed") == "true"
        return ToolResult(structured=shape, text="", is_error=is_error, meta={_REPLAYED: replayed})

    async def _exchange(self, request: httpx2.Request) -> tuple[httpx2.Response, bytes]:
        response = await self._http.send(
            request, auth=self._auth, stream=True, follow_redirects=False
        )
        data = bytearray()
        try:
            async for chunk in response.aiter_bytes():
                data += chunk
                if len(data) > RESULT_BYTES_MAX:
                    raise Unreachable(f"{self.url} answers with more than {RESULT_BYTES_MAX} bytes")
        finally:
            await response.aclose()
        return response, bytes(data)


def _object(raw: bytes) -> dict[str, LooseJson] | None:
    try:
        value = parse_json(raw, allow_float=True, allow_null=True, depth_max=_DEPTH_MAX)
    except InvalidJson:
        return None
    return value if isinstance(value, dict) else None
