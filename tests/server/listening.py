"""A server on a real socket in this process, and the raw request a test sends to a door."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import orjson
import uvicorn

from farthing.clients.tools import PROTOCOL_VERSION
from farthing.protocol.keys import PrivateKey
from farthing.protocol.proofs import request_jwt
from farthing.server.app import build
from farthing.server.connections import BoundedConnection
from farthing.server.settings import Settings
from tests.serving import Clock, Serving

__all__ = ["Wire", "envelope", "held", "listening", "wire_of"]

T = TypeVar("T")

META = {
    "io.modelcontextprotocol/protocolVersion": PROTOCOL_VERSION,
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Announcing(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def listening(data_dir: Path) -> AsyncIterator[Serving]:
    """Serve on a free port of loopback until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        clock = Clock()
        port = listener.getsockname()[1]
        service = build(Settings(data_dir=data_dir), port=port, clock=clock)
        config = uvicorn.Config(
            service.app, lifespan="off", http=BoundedConnection, log_config=None, ws="none"
        )
        server = Announcing(config)
        async with service.running(), httpx2.AsyncClient() as http:
            task = asyncio.create_task(server.serve(sockets=[listener]))
            await server.ready.wait()
            try:
                yield Serving(service=service, http=http, clock=clock)
            finally:
                server.should_exit = True
                await http.aclose()
                await task


@asynccontextmanager
async def held(context: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """A context entered and left in one task, as a fixture of a module is not."""
    opened: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def hold() -> None:
        async with context as value:
            opened.set_result(value)
            await done.wait()

    task = asyncio.create_task(hold())
    either: set[asyncio.Future[Any]] = {task, opened}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        yield opened.result()
    finally:
        done.set()
        await task


def envelope(name: str, arguments: Any) -> bytes:
    """The body of a `tools/call`."""
    params = {"name": name, "arguments": arguments, "_meta": META}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    return orjson.dumps(call)


@dataclass(slots=True)
class Wire:
    """Sends exactly the bytes it is given."""

    server: Serving

    async def send(
        self,
        body: bytes,
        *,
        name: str = "search_catalog",
        proof: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx2.Response:
        """POST a body to the MCP door."""
        given = {
            "accept": "application/json, text/event-stream",
            "content-type": "application/json",
            "mcp-protocol-version": PROTOCOL_VERSION,
            "mcp-method": "tools/call",
            "mcp-name": name,
            **({} if proof is None else {"authorization": f"Bearer {proof}"}),
            **(headers or {}),
        }
        url = f"{self.server.service.issuer}/mcp"
        return await self.server.http.post(url, content=body, headers=given)

    async def call(self, name: str, arguments: Any, *, proof: str | None = None) -> httpx2.Response:
        """Call a tool."""
        return await self.send(envelope(name, arguments), name=name, proof=proof)

    def proof(self, key: PrivateKey, body: bytes, **lies: Any) -> str:
        """A request JWT for a body at the MCP door; what is given replaces what is true."""
        issuer = self.server.service.issuer
        claims: dict[str, Any] = {
            "principal": key.thumbprint,
            "audience": issuer,
            "method": "POST",
            "url": f"{issuer}/mcp",
            "body": body,
            "now_us": self.server.clock(),
            "jti": "proof-of-a-test",
        }
        return request_jwt(key, **{**claims, **lies})


def wire_of(server: Serving) -> Wire:
    """The wire to a server."""
    return Wire(server)
