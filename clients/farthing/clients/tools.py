"""One MCP tool call as bytes over HTTP, on the 2026-07-28 wire, whole in itself: it can be signed.

Boundary: MCP's envelope only. What a result means, and what may be retried, is `transport`'s or the
buyer's affair. The official SDK's client opens a session where one POST does, and gives no hold of
the bytes that are signed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson
from mcp.shared.inbound import encode_header_value, mcp_param_headers, x_mcp_header_map

from farthing.clients.posting import JsonObject, Poster, json_object, quoted, refused_by
from farthing.protocol.canonical import LooseJson
from farthing.protocol.errors import Code, Refused, Unreachable, refuse

__all__ = ["PROTOCOL_VERSION", "Endpoint", "ToolResult"]

PROTOCOL_VERSION: Final = "2026-07-28"
_PAGES_MAX: Final = 100
_ENVELOPE: Final = {
    "io.modelcontextprotocol/protocolVersion": PROTOCOL_VERSION,
    "io.modelcontextprotocol/clientInfo": {"name": "farthing", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
# JSON-RPC's own codes for a request the other side did not take: it never ran.
_NOT_RUN: Final = {
    -32700: Code.MALFORMED,
    -32600: Code.MALFORMED,
    -32601: Code.UNKNOWN_OPERATION,
    -32602: Code.INVALID_ARGUMENT,
    -32020: Code.MALFORMED,
    -32022: Code.MALFORMED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """What a tool gave back, as MCP carries it."""

    structured: LooseJson
    text: str
    is_error: bool
    meta: Mapping[str, LooseJson] = field(default_factory=dict)
    content: list[LooseJson] = field(default_factory=list)


class Endpoint(Poster):
    """One MCP server, at the URL where it takes its POSTs."""

    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, object],
        *,
        meta: Mapping[str, object] | None = None,
        input_schema: Mapping[str, object] | None = None,
    ) -> ToolResult:
        """Call one tool.

        Args:
            name: The tool.
            arguments: Its arguments.
            meta: More members of `_meta`, such as a payment.
            input_schema: The tool's schema, where it may want arguments mirrored into headers.

        Raises:
            Refused: The other side did not take the request.
            Unreachable: No answer, or one that is not MCP: whether the tool ran is not known.
        """
        headers = {"mcp-name": encode_header_value(name)}
        if input_schema is not None:
            headers |= mcp_param_headers(x_mcp_header_map(input_schema), arguments)
        params = {
            "name": name,
            "arguments": arguments,
            "_meta": {**(meta or {}), **_ENVELOPE},
        }
        result = await self._request("tools/call", params, headers)
        content, found = result.get("content"), result.get("_meta")
        blocks = content if isinstance(content, list) else []
        return ToolResult(
            structured=result.get("structuredContent"),
            text="\n".join(_texts(blocks)),
            is_error=result.get("isError") is True,
            meta=found if isinstance(found, dict) else {},
            content=blocks,
        )

    async def list_tools(self) -> list[JsonObject]:
        """The tools that the server shows to this caller, all pages.

        Raises:
            Refused, Unreachable: As `call_tool`; also where the pages do not end.
        """
        tools: list[JsonObject] = []
        params: dict[str, object] = {"_meta": _ENVELOPE}
        for _ in range(_PAGES_MAX):
            page = await self._request("tools/list", params, {})
            listed = page.get("tools")
            if isinstance(listed, list):
                tools += [each for each in listed if isinstance(each, dict)]
            cursor = page.get("nextCursor")
            if not isinstance(cursor, str):
                return tools
            params = {"_meta": _ENVELOPE, "cursor": cursor}
        raise Unreachable(f"{self.url} lists its tools on more than {_PAGES_MAX} pages")

    async def _request(
        self, method: str, params: Mapping[str, object], headers: Mapping[str, str]
    ) -> JsonObject:
        # In the order of canonical JSON, for which the strict reader has a short way.
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        body = orjson.dumps(message, option=orjson.OPT_SORT_KEYS)
        answered = await self._post(
            body,
            {
                "accept": "application/json, text/event-stream",
                "mcp-protocol-version": PROTOCOL_VERSION,
                "mcp-method": method,
                **headers,
            },
        )
        kind = answered.headers.get("content-type", "")
        return self._result(answered.status, _reply(kind, answered.data))

    def _result(self, status: int, reply: JsonObject | None) -> JsonObject:
        if reply is None:
            raise Unreachable(f"{self.url} answered HTTP {status} without a JSON-RPC reply")
        if isinstance(result := reply.get("result"), dict):
            return result
        # A door refuses with the error shape alone; JSON-RPC puts it, or its own, under `error`.
        error = reply.get("error", reply)
        raise self._failure(error if isinstance(error, dict) else {})

    def _failure(self, error: JsonObject) -> Refused | Unreachable:
        data = error.get("data")
        for shape in (data, error):
            if isinstance(shape, dict) and isinstance(shape.get("code"), str):
                return refused_by(shape)
        number, message = error.get("code"), error.get("message")
        text = message if isinstance(message, str) else ""
        if isinstance(number, int) and number in _NOT_RUN:
            return Refused(refuse(_NOT_RUN[number], message=text))
        return Unreachable(f"{self.url} failed: {quoted(text) if text else number}")


def _reply(kind: str, data: bytes) -> JsonObject | None:
    if kind.partition(";")[0].strip().lower() != "text/event-stream":
        return json_object(data)
    # A slow tool may be answered as a stream of events; the reply is the one that is no progress.
    for event in data.replace(b"\r\n", b"\n").split(b"\n\n"):
        lines = [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]
        reply = json_object(b"\n".join(lines)) if lines else None
        if reply is not None and "id" in reply:
            return reply
    return None


def _texts(blocks: list[LooseJson]) -> list[str]:
    return [
        text
        for block in blocks
        if isinstance(block, dict) and isinstance(text := block.get("text"), str)
    ]
