"""Turns at what is costly to read: few at once, of one organisation fewer, and nobody waits long.

Boundary: knows nothing of what is read. Source: spec/statements.md#the-read-model.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from weakref import WeakValueDictionary

from farthing.protocol.errors import Code, Refused, refuse

__all__ = ["Turns"]


class Turns:
    """Who may go on and who waits.

    Args:
        in_all: how many turns there are at once.
        of_one: how many of one organisation: the others are left to others, whatever it asks for.
        wait_s: how long one may wait for a turn.
    """

    def __init__(self, *, in_all: int, of_one: int, wait_s: int) -> None:
        self._in_all = asyncio.Semaphore(in_all)
        self._of_one_max = of_one
        self._wait_s = wait_s
        # Of whoever has a turn or waits.
        self._of_one = WeakValueDictionary[str, asyncio.Semaphore]()

    @asynccontextmanager
    async def of(self, whose: str) -> AsyncIterator[None]:
        """A turn of an organisation. Raises `Refused`: `overloaded` where none comes in time."""
        own = self._of_one.setdefault(whose, asyncio.Semaphore(self._of_one_max))
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(self._wait_s):
                    await held.enter_async_context(own)
                    await held.enter_async_context(self._in_all)
            except TimeoutError:
                raise Refused(refuse(Code.OVERLOADED, retry_after_s=1)) from None
            yield
