"""One operation as plain JSON over signed HTTP: `POST /v1/NAME`, and what came back.

Boundary: the envelope only, as `tools` is MCP's; what an answer means, and what may be repeated, is
`transport`'s affair. Source: spec/transport-http.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, cast
from urllib.parse import urlencode

import httpx2
import orjson

from farthing.clients.posting import Poster, json_object
from farthing.clients.tools import ToolResult
from farthing.protocol.errors import Unreachable
from farthing.protocol.messages.http import raw_of
from farthing.protocol.messages.operations import OPERATIONS
from farthing.protocol.wire import ROOT

__all__ = ["HttpEndpoint", "Sendable"]

_REPLAYED: Final = f"{ROOT}/replayed"
# The others are made by whoever sends it.
_SHOWN: Final = frozenset({"accept", "authorization", "content-type"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sendable:
    """A request with all that its receiver judges, for another program to send."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes


class HttpEndpoint(Poster):
    """A platform's `/v1`, at the platform's public URL."""

    async def call_tool(self, name: str, arguments: Mapping[str, object]) -> ToolResult:
        """Carry out one operation; a refusal is a result with `is_error`.

        Raises:
            Unreachable: No answer, or one that is not of this API: whether it ran is not known.
        """
        path, headers, content = _posted(name, arguments)
        answered = await self._post(content, headers, path)
        shape = json_object(answered.data)
        is_error = answered.status != HTTPStatus.OK
        if shape is None or (is_error and not isinstance(shape.get("code"), str)):
            text = f"{self.url} answered HTTP {answered.status} in another form"
            raise Unreachable(text)
        replayed = answered.headers.get("idempotent-replayed") == "true"
        return ToolResult(structured=shape, text="", is_error=is_error, meta={_REPLAYED: replayed})

    def request(self, name: str, arguments: Mapping[str, object]) -> Sendable:
        """The same request, signed and not sent: whoever sends it within 30 seconds calls."""
        path, headers, content = _posted(name, arguments)
        made = httpx2.Request("POST", f"{self.url}{path}", content=content, headers=headers)
        if self._auth is not None:
            made = next(self._auth.auth_flow(made))
        shown = {key: value for key, value in made.headers.items() if key in _SHOWN}
        return Sendable(method=made.method, url=f"{self.url}{path}", headers=shown, body=content)


def _posted(name: str, arguments: Mapping[str, object]) -> tuple[str, dict[str, str], bytes]:
    """The path, headers and body that ask for an operation."""
    path = f"/v1/{name}"
    headers = {
        "accept": "application/json, application/problem+json",
        "content-type": "application/json",
    }
    raw = raw_of(name)
    if raw is None or raw.name not in arguments:
        # In the order of canonical JSON, for which the strict reader has a short way.
        return path, headers, orjson.dumps(arguments, option=orjson.OPT_SORT_KEYS)
    rest = {member: value for member, value in arguments.items() if member != raw.name}
    path = f"{OPERATIONS[name].raw_path}?{urlencode(rest)}"
    content = cast("str", arguments[raw.name]).encode()
    return path, headers | {"content-type": raw.media_type}, content
