"""Group commit: what many callers note goes to disk together, one flush for all who wait.

Boundary: when to write, not what. One write is the next one's waiting room, so nobody waits for
more than the write that runs and their own.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

__all__ = ["Commits"]

T = TypeVar("T")


class Commits(Generic[T]):
    """The one writer of a file, for callers of one event loop.

    Args:
        write: Puts what was noted on disk, in its order, all or nothing; it may block.
    """

    def __init__(self, write: Callable[[Sequence[T]], None]) -> None:
        self._write = write
        self._noted: list[T] = []
        self._drafts: dict[Callable[[], T], None] = {}
        self._writing: asyncio.Task[None] | None = None
        self._waiting: asyncio.Task[None] | None = None

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
        if self._waiting is None:
            self._waiting = asyncio.create_task(self._commit(self._writing))
        # A caller that goes away must not take the others' commit with it.
        await asyncio.shield(self._waiting)

    async def _commit(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        self._writing, self._waiting = self._waiting, None
        noted = [*self._noted, *(make() for make in self._drafts)]
        self._noted, self._drafts = [], {}
        try:
            if noted:
                await asyncio.to_thread(self._write, noted)
        except BaseException:
            self._noted = noted + self._noted
            raise
