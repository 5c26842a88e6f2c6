"""Requests as bytes, made before the clock starts: sending them takes little beside answering.

A whole client takes as much of the two cores as the server that it calls.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import orjson

__all__ = ["Line", "catching", "connected", "request_of"]


class _Caught(Exception):
    """No fault: a request on its way out."""

    def __init__(self, request: bytes) -> None:
        super().__init__(request)
        self.request = request


class _Catching(httpx2.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        lines = [f"{request.method} {request.url.raw_path.decode()} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]
        raise _Caught("\r\n".join([*lines, "", ""]).encode() + await request.aread())


def catching() -> httpx2.AsyncClient:
    """A client that sends nothing: `request_of` gives what it would have."""
    return httpx2.AsyncClient(transport=_Catching())


async def request_of(call: Awaitable[Any]) -> bytes:
    """What a call over a `catching` client sends first."""
    try:
        await call
    except _Caught as caught:
        return caught.request
    raise AssertionError("the call sent nothing")


class Line:
    """One connection that stays open, for one request after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, request: bytes) -> dict[str, Any]:
        """Send a request; gives its answer, JSON under status 200."""
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        _, _, rest = head.partition(b"\r\ncontent-length:")
        body = await self._reader.readexactly(int(rest.partition(b"\r\n")[0]))
        assert head.startswith(b"http/1.1 200 "), (head, body)
        found: dict[str, Any] = orjson.loads(body)
        return found


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Line]:
    """A line to a port of this machine, for the length of a block."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Line(reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()
