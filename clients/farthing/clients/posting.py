"""One request and its whole answer: bounded in time and in size, nowhere else redirected.

Boundary: bytes over HTTP; what they mean, `tools` and `http_api` know, each for its own envelope.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import httpx2

from farthing.protocol.canonical import InvalidJson, LooseJson, parse_json
from farthing.protocol.errors import Refusal, Refused, Unreachable

__all__ = [
    "Answered",
    "JsonObject",
    "Poster",
    "exchange",
    "json_object",
    "quoted",
    "read_json",
    "refused_by",
    "whole",
]

_RESULT_BYTES_MAX: Final = 64 * 1024 * 1024
_DEPTH_MAX: Final = 64
_SAID_CHARACTERS_MAX: Final = 500

JsonObject = dict[str, LooseJson]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class Poster:
    """One place that takes POSTs.

    Args:
        http: The client whose connections are used.
        url: Where the place is.
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

    async def _post(self, content: bytes, headers: Mapping[str, str], path: str = "") -> Answered:
        """Send JSON to the place, or to a path below it.

        Raises:
            Unreachable: No answer, or one that is too long.
        """
        request = self._http.build_request(
            "POST",
            f"{self.url}{path}",
            content=content,
            headers={"content-type": "application/json", **headers},
            timeout=self._timeout_s,
        )
        return await exchange(self._http, request, timeout_s=self._timeout_s, auth=self._auth)


async def exchange(
    http: httpx2.AsyncClient,
    request: httpx2.Request,
    *,
    timeout_s: float,
    auth: httpx2.Auth | None = None,
) -> Answered:
    """Send a request and read the whole answer.

    Raises:
        Unreachable: No answer, or one that is too long.
    """
    try:
        # The client's own timeouts are between bytes: a server that drips would never end.
        async with asyncio.timeout(timeout_s):
            response = await http.send(request, auth=auth, stream=True, follow_redirects=False)
            try:
                data = await whole(response)
            finally:
                await response.aclose()
    except (httpx2.HTTPError, TimeoutError) as error:
        raise Unreachable(f"{request.url} did not answer: {type(error).__name__}") from error
    return Answered(status=response.status_code, headers=response.headers, data=data)


async def whole(response: httpx2.Response) -> bytes:
    """The body of a response.

    Raises:
        Unreachable: It is too long.
    """
    data = bytearray()
    async for chunk in response.aiter_bytes():
        data += chunk
        if len(data) > _RESULT_BYTES_MAX:
            raise Unreachable(f"{response.url} answers with more than {_RESULT_BYTES_MAX} bytes")
    return bytes(data)


def read_json(raw: bytes) -> LooseJson:
    """Any JSON of a bounded depth; raises `InvalidJson`."""
    return parse_json(raw, allow_float=True, allow_null=True, depth_max=_DEPTH_MAX)


def json_object(raw: bytes) -> JsonObject | None:
    """The object that bytes are as JSON; None where they are none."""
    try:
        value = read_json(raw)
    except InvalidJson:
        return None
    return value if isinstance(value, dict) else None


def refused_by(shape: JsonObject, *, replayed: bool = False) -> Refused:
    """A refusal as it came, with the id of the request, and whether it had come before."""
    sent = shape.get("request_id")
    request_id = sent if isinstance(sent, str) else ""
    return Refused(Refusal.from_document(shape), request_id, replayed=replayed)


def quoted(text: str) -> str:
    """The beginning of what another side said, in quotes that it cannot end."""
    return json.dumps(text[:_SAID_CHARACTERS_MAX])
