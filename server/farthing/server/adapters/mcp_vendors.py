"""Calls a vendor's MCP tool with a payment: one POST, one answer, its progress passed on.

Boundary: MCP's envelope and x402's shapes. What an answer is worth, and whether a call may be made
again, the operation says. Source: spec/services.md, spec/payments-mcp.md.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Final

import orjson
from mcp.shared.inbound import encode_header_value, mcp_param_headers, x_mcp_header_map

from farthing.protocol.canonical import LooseJson
from farthing.protocol.errors import Code, Refusal, refuse
from farthing.protocol.x402 import PAYMENT, PAYMENT_RESPONSE, read_refusal, read_settlement
from farthing.server.adapters.outbound import Answering, Outbound
from farthing.server.adapters.said import (
    JsonObject,
    bounded,
    check_stays,
    is_passing,
    plain,
    quoted,
    read_object,
)
from farthing.server.ports import (
    Delivered,
    PaidCall,
    Progress,
    VendorFailed,
    VendorLost,
    VendorRefused,
)

__all__ = ["call_tool"]

_PROTOCOL_VERSION: Final = "2026-07-28"
_ENVELOPE: Final = {
    "io.modelcontextprotocol/protocolVersion": _PROTOCOL_VERSION,
    "io.modelcontextprotocol/clientInfo": {"name": "farthing", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
_CALL_ID: Final = "call"
_PROGRESS_CHARACTERS_MAX: Final = 200
_PROGRESS_MAX: Final = 10_000
_EVENTS: Final = "text/event-stream"
# JSON-RPC's own numbers for a request that was not taken: the tool never ran.
_NOT_RUN: Final = frozenset({-32700, -32600, -32601, -32602, -32020, -32022})


async def call_tool(
    outbound: Outbound, call: PaidCall, progress: Progress, bytes_max: int
) -> Delivered:
    """Call a tool once, and pass on what it says of its progress; raises as `VendorCaller`."""
    params = {
        "name": call.tool,
        "arguments": call.arguments,
        "_meta": {PAYMENT: call.payment, "progressToken": _CALL_ID, **_ENVELOPE},
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    async with outbound.post(
        call.url,
        orjson.dumps(body),
        _headers(call),
        timeout_s=call.timeout_s,
        bytes_max=bytes_max,
    ) as answering:
        reply = await _reply(answering, progress)
    return _delivered(_result(answering.status, reply))


def _headers(call: PaidCall) -> dict[str, str]:
    return {
        "accept": f"application/json, {_EVENTS}",
        "mcp-protocol-version": _PROTOCOL_VERSION,
        "mcp-method": "tools/call",
        "mcp-name": encode_header_value(call.tool),
        **mcp_param_headers(x_mcp_header_map(call.input_schema), call.arguments),
    }


async def _reply(answering: Answering, progress: Progress) -> JsonObject:
    """The JSON-RPC reply in an answer; what comes before it is progress.

    Raises:
        VendorFailed: it leads elsewhere, is too long, or is whole and no reply.
        VendorLost: it ended before a reply came, or is none of the vendor's.
    """
    check_stays(answering.status)
    kind = answering.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _EVENTS:
        body = b"".join([chunk async for chunk in answering.chunks()])
        reply = await answering.read(read_object, body)
        if reply is None:
            raise _none(answering.status)
        return reply
    told = 0
    async for event in _events(answering.chunks()):
        message = await answering.read(read_object, event)
        if message is None:
            continue
        if "id" in message and "method" not in message:
            return message
        if message.get("method") == "notifications/progress" and told < _PROGRESS_MAX:
            told += 1
            _pass_on(message.get("params"), progress)
    raise VendorLost("The vendor's answer ended before it was whole.")


async def _events(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data of each server-sent event, as soon as it is whole (WHATWG HTML, 9.2)."""
    parts: list[bytes] = []
    data: list[bytes] = []
    async for chunk in chunks:
        # Joined only where a line ends: a long one may come in many small parts.
        first, *more = chunk.split(b"\n")
        parts.append(first)
        for part in more:
            line = b"".join(parts).removesuffix(b"\r")
            parts = [part]
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif not line and data:
                yield b"\n".join(data)
                data = []


def _pass_on(params: LooseJson, progress: Progress) -> None:
    if not isinstance(params, dict) or params.get("progressToken") != _CALL_ID:
        return
    done, total, said = params.get("progress"), params.get("total"), params.get("message")
    if not _is_number(done):
        return
    text = plain(said if isinstance(said, str) else "", _PROGRESS_CHARACTERS_MAX)
    progress(done, total if _is_number(total) else None, text)  # type: ignore[arg-type]


def _result(status: int, reply: JsonObject) -> JsonObject:
    """The result in a reply.

    Raises:
        VendorRefused: there is an error in its place.
        VendorFailed: there is nothing that MCP knows.
        VendorLost: neither, and the vendor may not have said so.
    """
    if isinstance(result := reply.get("result"), dict):
        return result
    # A door refuses with the error shape alone; JSON-RPC puts it, or its own, under `error`.
    error = reply.get("error", reply)
    if isinstance(error, dict):
        for shape in (error.get("data"), error):
            if (refusal := read_refusal(shape)) is not None:
                raise VendorRefused(bounded(refusal))
        number, said = error.get("code"), error.get("message")
        if isinstance(number, int) and (number in _NOT_RUN or not is_passing(status)):
            text = quoted(said if isinstance(said, str) else "")
            raise VendorRefused(refuse(Code.VENDOR_FAILED, message=text))
    raise _none(status)


def _none(status: int) -> Exception:
    """What a whole answer is that is no MCP."""
    if is_passing(status):
        return VendorLost(f"The vendor answered HTTP {status}.")
    return VendorFailed(f"The vendor answered HTTP {status} and no MCP.")


def _delivered(result: JsonObject) -> Delivered:
    """What a tool gave, once it says that it was paid; raises `VendorRefused`, `VendorFailed`."""
    content = result.get("content")
    blocks = content if isinstance(content, list) else []
    if result.get("isError") is True:
        refusal = read_refusal(result.get("structuredContent"))
        raise VendorRefused(bounded(refusal) if refusal else _said(blocks))
    meta = result.get("_meta")
    settled = read_settlement(meta.get(PAYMENT_RESPONSE) if isinstance(meta, dict) else None)
    if settled is None:
        raise VendorFailed("The vendor answered without a delivery record.")
    return Delivered(
        hold_id=settled.hold_id,
        result=result.get("structuredContent"),
        content=tuple(blocks),
        delivery=settled.delivery,
        delivery_signature=settled.delivery_signature,
    )


def _said(blocks: list[LooseJson]) -> Refusal:
    texts = [
        text
        for block in blocks
        if isinstance(block, Mapping) and isinstance(text := block.get("text"), str)
    ]
    return refuse(Code.VENDOR_FAILED, message=quoted("\n".join(texts)))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
