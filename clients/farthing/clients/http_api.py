"""One operation as plain JSON over signed HTTP: `POST /v1/NAME`, and what came back.

Boundary: the envelope only, as `tools` is MCP's; what an answer means, and what may be repeated, is
`transport`'s affair. Source: spec/transport-http.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from http import HTTPStatus
from typing import Final

import httpx2
import orjson

from farthing.clients.posting import Answered, Poster, json_object
from farthing.clients.together import Together
from farthing.clients.tools import ToolResult
from farthing.protocol.canonical import LooseJson
from farthing.protocol.errors import Unreachable
from farthing.protocol.messages.http import (
    BODY_BYTES_MAX,
    LINES_TYPE,
    MEDIA_TYPE,
    lines_of,
    raw_of,
)
from farthing.protocol.messages.operations import OPERATIONS
from farthing.protocol.wire import REPLAYED

__all__ = ["HttpEndpoint", "Sendable"]

# The others are made by whoever sends it.
_SHOWN: Final = frozenset({"accept", "authorization", "content-type"})
_ACCEPT: Final = "application/json, application/problem+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sendable:
    """A request with all that its receiver judges, for another program to send."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes


class HttpEndpoint(Poster):
    """A platform's `/v1`, at the platform's public URL."""

    @cached_property
    def _together(self) -> dict[str, Together[ToolResult | Unreachable]]:
        return {}

    async def call_tool(self, name: str, arguments: Mapping[str, object]) -> ToolResult:
        """Carry out one operation; a refusal is a result with `is_error`.

        Raises:
            Unreachable: No answer, or one that is not of this API: whether it ran is not known.
        """
        path, headers, content = _posted(name, arguments)
        if headers["content-type"] == LINES_TYPE:
            told = await self._sent_together(name).call(content)
            if isinstance(told, Unreachable):
                raise told
            return told
        return self._result(await self._post(content, headers, path))

    def request(self, name: str, arguments: Mapping[str, object]) -> Sendable:
        """The same request, signed and not sent: whoever sends it within 30 seconds calls."""
        path, headers, content = _posted(name, arguments)
        made = httpx2.Request("POST", f"{self.url}{path}", content=content, headers=headers)
        if self._auth is not None:
            made = next(self._auth.auth_flow(made))
        shown = {key: value for key, value in made.headers.items() if key in _SHOWN}
        return Sendable(method=made.method, url=f"{self.url}{path}", headers=shown, body=content)

    def _sent_together(self, name: str) -> Together[ToolResult | Unreachable]:
        """Who sends what is asked of an operation in lines."""
        raw = raw_of(name)
        assert raw is not None, "it is sent in lines"
        if name not in self._together:
            self._together[name] = Together(
                partial(self._send, OPERATIONS[name].raw_path),
                asks_max=raw.asks_max,
                bytes_max=BODY_BYTES_MAX,
            )
        return self._together[name]

    async def _send(self, path: str, some: Sequence[bytes]) -> Sequence[ToolResult | Unreachable]:
        answered = await self._post(b"\n".join(some), _headers(LINES_TYPE), path)
        if answered.status != HTTPStatus.OK:
            return [self._result(answered)] * len(some)
        shape = json_object(answered.data) or {}
        answers = shape.get("answers")
        if not isinstance(answers, list) or len(answers) != len(some):
            raise self._of_another_form(answered)
        return [self._part(answered, each) for each in answers]

    def _part(self, answered: Answered, each: LooseJson) -> ToolResult | Unreachable:
        """One of several answers; one of another form is nobody's affair but its caller's."""
        if isinstance(each, dict):
            meta = {REPLAYED: each.get("replayed") is True}
            if isinstance(shape := each.get("answer"), dict):
                return ToolResult(structured=shape, text="", is_error=False, meta=meta)
            if isinstance(problem := each.get("problem"), dict) and isinstance(
                problem.get("code"), str
            ):
                return ToolResult(structured=problem, text="", is_error=True, meta=meta)
        return self._of_another_form(answered)

    def _result(self, answered: Answered) -> ToolResult:
        shape = json_object(answered.data)
        is_error = answered.status != HTTPStatus.OK
        if shape is None or (is_error and not isinstance(shape.get("code"), str)):
            raise self._of_another_form(answered)
        replayed = answered.headers.get("idempotent-replayed") == "true"
        return ToolResult(structured=shape, text="", is_error=is_error, meta={REPLAYED: replayed})

    def _of_another_form(self, answered: Answered) -> Unreachable:
        return Unreachable(f"{self.url} answered HTTP {answered.status} in another form")


def _posted(name: str, arguments: Mapping[str, object]) -> tuple[str, dict[str, str], bytes]:
    """The path, headers and body that ask for an operation: in lines, where it is asked so."""
    raw = raw_of(name)
    lines = None if raw is None else lines_of(raw, arguments)
    if lines is not None:
        return OPERATIONS[name].raw_path, _headers(LINES_TYPE), lines
    # In the order of canonical JSON, for which the strict reader has a short way.
    content = orjson.dumps(arguments, option=orjson.OPT_SORT_KEYS)
    return f"/v1/{name}", _headers(MEDIA_TYPE), content


def _headers(media_type: str) -> dict[str, str]:
    return {"accept": _ACCEPT, "content-type": media_type}
