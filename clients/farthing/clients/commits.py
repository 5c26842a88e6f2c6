"""Group commit: what many callers note goes to disk together, one flush for all who wait.

Boundary: when to write, not what. One write is the next one's waiting room. Who comes alone is
written at once; while callers keep coming a write begins every few milliseconds and no sooner, for
a flush costs as much for one as for many.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

__all__ = ["Commits"]

T = TypeVar("T")

_EVERY_S: Final = 0.005


class Commits(Generic[T]):
    """The one writer of a file, for callers of one event loop.

    Args:
        write: Puts what was noted on disk, in its order, all or nothing; it may block.
    """

    def __init__(self, write: Callable[[Sequence[T]], None]) -> None:
        self._write = write
        self._noted: list[T] = []
        self._drafts: dict[Callable[[], T], None] = {}
        self._waiting: list[asyncio.Future[None]] = []
        self._writer: asyncio.Task[None] | None = None

    def note(self, *items: T) -> None:
        """Have items written with the next commit."""
        self._noted += items

    def draft(self, make: Callable[[], T]) -> None:
        """Have what `make` gives when it is time written with the next commit, once."""
        self._drafts[make] = None

    async def kept(self) -> None:
        """Wait until everything noted so far is on disk.

        Raises:
            OSError, sqlite3.Error: It is not; it stays noted, for the next commit.
        """
        # A future for each: a caller that goes away takes nobody's commit with it.
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        if self._writer is None:
            self._writer = asyncio.create_task(self._commit())
        await waiting

    async def _commit(self) -> None:
        waiting: list[asyncio.Future[None]] = []
        clock = asyncio.get_running_loop().time
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                began_s = clock()
                fault = await self._write_noted()
                for each in waiting:
                    if each.done():
                        continue
                    if fault is None:
                        each.set_result(None)
                    else:
                        each.set_exception(fault)
                # What they do next may be to wait here again.
                await asyncio.sleep(0)
                if self._waiting:
                    await asyncio.sleep(max(began_s + _EVERY_S - clock(), 0))
        finally:
            self._writer = None
            # Where this was cut off nobody waits for ever.
            for each in (*waiting, *self._waiting):
                each.cancel()

    async def _write_noted(self) -> Exception | None:
        noted = [*self._noted, *(make() for make in self._drafts)]
        self._noted, self._drafts = [], {}
        try:
            if noted:
                await asyncio.to_thread(self._write, noted)
        except (OSError, sqlite3.Error) as error:
            self._noted = noted + self._noted
            return error
        return None
