"""The raw wire against the official SDK's own server: what we send is MCP, what it says is read."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx2
import pytest
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp_types import CallToolResult, TextContent
from pydantic import Field

from farthing.clients.tools import Endpoint
from farthing.protocol.errors import Code, Refused, Unreachable

BASE = "http://127.0.0.1:8000"
MIRRORED = {"json_schema_extra": {"x-mcp-header": "Colour"}}


def toy() -> MCPServer[Any]:
    mcp: MCPServer[Any] = MCPServer("toy", log_level="CRITICAL")

    @mcp.tool()
    async def meta(ctx: Context) -> CallToolResult:
        params = ctx.request_context.params or {}
        return CallToolResult(
            content=[TextContent(type="text", text="said")],
            structured_content={"meta": params["_meta"], "arguments": params["arguments"]},
            _meta={"org.example/back": 1},
        )

    @mcp.tool()
    async def fails() -> str:
        raise ValueError("the inside of the vendor")

    @mcp.tool()
    async def slow(ctx: Context) -> str:
        await ctx.report_progress(1, 2)
        return "at last"

    @mcp.tool()
    async def mirrored(colour: Annotated[str, Field(**MIRRORED)]) -> str:
        return colour

    return mcp


# A fixture would leave the server's task group in another task than it was entered in.
@asynccontextmanager
async def served(*, json: bool) -> AsyncIterator[Endpoint]:
    app = toy().streamable_http_app(json_response=json)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app)) as http,
    ):
        yield Endpoint(http, f"{BASE}/mcp", timeout_s=5)


BOTH = pytest.mark.parametrize("json", [True, False], ids=["json", "events"])


@BOTH
async def test_arguments_and_meta_arrive_and_come_back(*, json: bool) -> None:
    async with served(json=json) as endpoint:
        result = await endpoint.call_tool("meta", {"a": 1}, meta={"x402/payment": {"y": "é"}})

        assert not result.is_error
        assert result.text == "said"
        assert result.meta["org.example/back"] == 1
        assert isinstance(result.structured, dict)
        assert result.structured["arguments"] == {"a": 1}
        said = result.structured["meta"]
        assert isinstance(said, dict)
        assert said["x402/payment"] == {"y": "é"}


@BOTH
async def test_a_failing_tool_is_a_result_and_not_a_fault(*, json: bool) -> None:
    async with served(json=json) as endpoint:
        result = await endpoint.call_tool("fails", {})

        assert result.is_error
        assert "inside" not in result.text


@BOTH
async def test_a_reply_after_progress_is_found(*, json: bool) -> None:
    async with served(json=json) as endpoint:
        result = await endpoint.call_tool("slow", {}, meta={"progressToken": 1})

        assert result.structured == {"result": "at last"}


@BOTH
async def test_arguments_are_mirrored_where_the_schema_asks_for_it(*, json: bool) -> None:
    async with served(json=json) as endpoint:
        tools = {str(tool["name"]): tool for tool in await endpoint.list_tools()}
        schema = tools["mirrored"]["inputSchema"]
        assert isinstance(schema, dict)

        result = await endpoint.call_tool("mirrored", {"colour": "grün"}, input_schema=schema)

        assert result.structured == {"result": "grün"}
        with pytest.raises(Refused) as refused:
            await endpoint.call_tool("mirrored", {"colour": "grün"})
        assert refused.value.code is Code.MALFORMED


def answering(respond: Callable[[httpx2.Request], httpx2.Response]) -> Endpoint:
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(respond))
    return Endpoint(http, f"{BASE}/mcp", timeout_s=5)


def reply(status: int, content: bytes, kind: str = "application/json") -> Endpoint:
    return answering(
        lambda _: httpx2.Response(status, content=content, headers={"content-type": kind})
    )


async def test_a_list_of_tools_that_does_not_end_is_no_list() -> None:
    endless = reply(200, b'{"result":{"tools":[{"name":"t"}],"nextCursor":"on"}}')

    with pytest.raises(Unreachable, match="more than 100 pages"):
        await endless.list_tools()


@pytest.mark.parametrize(
    ("status", "content", "code"),
    [
        (401, b'{"code":"unknown_key","message":"m","request_id":"r"}', Code.UNKNOWN_KEY),
        (413, b'{"error":{"code":"payload_too_large"}}', Code.PAYLOAD_TOO_LARGE),
        (200, b'{"error":{"code":1,"data":{"code":"frozen"}}}', Code.FROZEN),
        (404, b'{"error":{"code":-32601,"message":"no"}}', Code.UNKNOWN_OPERATION),
        (400, b'{"error":{"code":-32700}}', Code.MALFORMED),
    ],
)
async def test_a_request_that_was_not_taken_is_refused(
    status: int, content: bytes, code: Code
) -> None:
    with pytest.raises(Refused) as refused:
        await reply(status, content).call_tool("any", {})

    assert refused.value.code is code


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"result":1}',
        b'{"result":{},"result":{}}',
        b'{"error":7}',
        b'{"error":{"code":-32603,"message":"boom"}}',
        b'{"result":{"a":NaN}}',
    ],
)
async def test_whatever_else_comes_back_says_nothing_about_what_happened(content: bytes) -> None:
    with pytest.raises(Unreachable):
        await reply(502, content).call_tool("any", {})


async def test_events_without_a_reply_are_no_answer() -> None:
    stream = b': ping\r\n\r\nevent: message\r\ndata: {"method":"notifications/progress"}\r\n\r\n'

    with pytest.raises(Unreachable):
        await reply(200, stream, "text/event-stream").call_tool("any", {})


async def test_a_server_that_breaks_off_is_unreachable() -> None:
    def broken(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadError("gone", request=request)

    with pytest.raises(Unreachable):
        await answering(broken).call_tool("any", {})


async def test_a_server_that_drips_for_ever_is_given_up() -> None:
    async def drip() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0)

    http = httpx2.AsyncClient(
        transport=httpx2.MockTransport(lambda _: httpx2.Response(200, content=drip()))
    )
    with pytest.raises(Unreachable):
        await Endpoint(http, f"{BASE}/mcp", timeout_s=0.05).call_tool("any", {})
