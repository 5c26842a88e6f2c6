"""Group commit: what many callers note goes to disk together, one flush for all who wait.

Boundary: when to write, not what. One write is the next one's waiting room. Who comes alone is
written at once; while callers keep coming each write waits longer the more shared the last one, for
a flush costs as much for one as for many.
"""

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Generic, TypeAlias, TypeVar

__all__ = ["Commits", "Told", "settle"]

T = TypeVar("T")
V = TypeVar("V")

Told: TypeAlias = Callable[[BaseException | None], None]
"""Told that it is on disk, or why it is not; `CancelledError` where nobody writes any more."""

log = logging.getLogger(__name__)

# From the beginning of one write to that of the next: for each who shared it, and at most.
_EACH_S: Final = 0.001
_MOST_S: Final = 0.02
# What is wrong with a value, not with the file: the same value will never be taken.
_OF_A_VALUE: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
)
_OF_THE_FILE: Final = (OSError, MemoryError, RuntimeError, sqlite3.Error)


class Commits(Generic[T]):
    """The one writer of a file, for callers of one event loop.

    Args:
        write: Puts what was noted on disk, in its order, all or nothing; it may block.
    """

    def __init__(self, write: Callable[[Sequence[T]], None]) -> None:
        self._write = write
        self._noted: list[T] = []
        self._drafts: dict[Callable[[], T], None] = {}
        self._waiting: deque[Told] = deque()
        self._writer: asyncio.Task[None] | None = None

    def note(self, *items: T) -> None:
        """Have items written with the next commit."""
        self._noted += items

    def draft(self, make: Callable[[], T]) -> None:
        """Have what `make` gives when it is time written with the next commit, once."""
        self._drafts[make] = None

    def then(self, tell: Told) -> None:
        """Have somebody told when everything noted so far is on disk, or why it is not.

        What is not stays noted, but for what no file takes: that is left out, and said to be.
        """
        self._waiting.append(tell)
        if self._writer is None:
            self._writer = asyncio.create_task(self._commit())

    async def kept(self) -> None:
        """Wait until everything noted so far is on disk.

        Raises:
            OSError, sqlite3.Error: It is not, as `then`.
        """
        # A future for each: a caller that goes away takes nobody's commit with it.
        waiting = asyncio.get_running_loop().create_future()
        self.then(partial(settle, waiting, None))
        await waiting

    async def _commit(self) -> None:
        waiting: deque[Told] = deque()
        clock = asyncio.get_running_loop().time
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, deque()
                next_s = clock() + min(len(waiting) * _EACH_S, _MOST_S)
                fault = await self._write_noted()
                while waiting:
                    waiting.popleft()(fault)
                # What they do next may be to wait here again.
                await asyncio.sleep(0)
                if self._waiting:
                    await asyncio.sleep(max(next_s - clock(), 0))
        finally:
            self._writer = None
            # Where this was cut off nobody waits for ever.
            cut_off, self._waiting = waiting + self._waiting, deque()
            for tell in cut_off:
                tell(asyncio.CancelledError())

    async def _write_noted(self) -> Exception | None:
        drafts, self._drafts = self._drafts, {}
        noted, self._noted = [*self._noted, *(make() for make in drafts)], []
        try:
            if noted:
                await asyncio.to_thread(self._write, noted)
        except _OF_A_VALUE:
            return await self._write_apart(noted)
        except _OF_THE_FILE as error:
            self._noted = noted + self._noted
            return error
        return None

    async def _write_apart(self, noted: Sequence[T]) -> Exception | None:
        """Write each by itself: what can never be written takes nobody else's along."""
        fault: Exception | None = None
        for place, each in enumerate(noted):
            try:
                await asyncio.to_thread(self._write, [each])
            except _OF_A_VALUE as error:
                log.error("left out, for it cannot be written: %r", error)  # noqa: TRY400 - in full
                fault = sqlite3.DataError(f"what cannot be written is left out: {error!r}")
            except _OF_THE_FILE as error:
                self._noted = [*noted[place:], *self._noted]
                return error
        return fault


def settle(waiting: asyncio.Future[V], value: V, fault: BaseException | None) -> None:
    """Give somebody who waits a value or a fault, unless he went away."""
    if waiting.done():
        return
    if fault is None:
        waiting.set_result(value)
    elif isinstance(fault, asyncio.CancelledError):
        waiting.cancel()
    else:
        waiting.set_exception(fault)
