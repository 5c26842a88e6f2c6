"""Signed MCP requests beside tool calls: resources, and the stream of a subscription."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson

from farthing.clients.tools import PROTOCOL_VERSION
from farthing.clients.transport import Connection
from tests.server.listening import META

__all__ = ["asked", "subscribed"]


def rpc(method: str, params: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
    body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": {**params, "_meta": META}}
    headers = {
        "accept": "application/json, text/event-stream",
        "content-type": "application/json",
        "mcp-protocol-version": PROTOCOL_VERSION,
        "mcp-method": method,
    }
    if "uri" in params:
        headers["mcp-name"] = params["uri"]
    return orjson.dumps(body), headers


async def asked(connection: Connection, method: str, params: dict[str, Any]) -> Any:
    """The result or the error of one request."""
    body, headers = rpc(method, params)
    response = await connection.http.request(
        "POST", f"{connection.url}/mcp", content=body, headers=headers, auth=connection.auth
    )
    answer = response.json()
    return answer["result"] if "result" in answer else answer["error"]


@asynccontextmanager
async def subscribed(connection: Connection, params: dict[str, Any]) -> AsyncIterator[Any]:
    """The messages of a `subscriptions/listen`."""
    body, headers = rpc("subscriptions/listen", params)
    url = f"{connection.url}/mcp"

    async def messages(response: Any) -> AsyncIterator[Any]:
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                yield orjson.loads(line.removeprefix("data: "))

    async with connection.http.stream(
        "POST", url, content=body, headers=headers, auth=connection.auth
    ) as response:
        assert response.headers["content-type"] == "text/event-stream"
        yield messages(response)
