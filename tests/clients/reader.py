"""A buyer's process for tests: calls through a session, four at a time, and kills itself.

Started as `python reader.py URL AGENT HOME SESSION PLACE`.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

import httpx2

from farthing.clients.buyers import Buyer
from farthing.clients.home import Home
from farthing.clients.transport import Connection

PDF = {"pdf": "one|two"}
CALLS_BEFORE = 6


class Road(httpx2.AsyncBaseTransport):
    """The way to the vendor, on which the process ends before a call or with its answer there."""

    def __init__(self, platform: str, place: str) -> None:
        self._platform = platform
        self._place = place
        self._inner = httpx2.AsyncHTTPTransport()
        self._calls = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if str(request.url).startswith(self._platform):
            return await self._inner.handle_async_request(request)
        self._calls += 1
        is_last = self._calls > CALLS_BEFORE
        if is_last and self._place == "before_call":
            os.kill(os.getpid(), signal.SIGKILL)
        response = await self._inner.handle_async_request(request)
        if is_last and self._place == "with_answer":
            await response.aread()
            os.kill(os.getpid(), signal.SIGKILL)
        return response


async def main() -> None:
    url, principal, home_path, session_id, place = sys.argv[1:]
    home = Home(Path(home_path))
    http = httpx2.AsyncClient(transport=Road(url, place))
    connection = Connection(url, signer=home.key(), principal=principal, http=http)
    session = await Buyer(connection, books=home.books_path).resume_session(session_id)
    while True:
        await asyncio.gather(*(session.call(PDF) for _ in range(4)))


if __name__ == "__main__":
    asyncio.run(main())
