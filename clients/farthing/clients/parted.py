"""Usage of sessions whose desk is not in memory: parked in the spool, reported a few at a time.

Boundary: when such a session's usage is fetched and let go. How it is reported is `reporter`.
Source: spec/payments-mcp.md.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from farthing.clients.commits import Commits
from farthing.clients.reporter import Reporter, UsageQueue
from farthing.clients.usage_spool import Row, UsageSpool
from farthing.protocol.money import INT64_MAX
from farthing.protocol.times import SECOND_US

__all__ = ["Parted"]

log = logging.getLogger(__name__)

_AT_ONCE_MAX: Final = 64
_RETRY_US: Final = 60 * SECOND_US


class Parted:
    """The sessions that have something to report and no desk.

    Args:
        spool: Has them parked.
        commits: Writes what they learn.
        clock: Says what is due.
        turn: Held by whoever takes a session in or lets one go.
    """

    def __init__(
        self,
        spool: UsageSpool,
        commits: Commits[Row],
        clock: Callable[[], int],
        turn: asyncio.Lock,
    ) -> None:
        self._spool = spool
        self._commits = commits
        self._clock = clock
        self._turn = turn
        self._queues: dict[str, UsageQueue] = {}
        self._ended: deque[tuple[UsageQueue, bool]] = deque()
        self._next_due_us = INT64_MAX
        self._tending: asyncio.Task[None] | None = None

    @property
    def queues(self) -> list[UsageQueue]:
        """Those that are fetched."""
        return list(self._queues.values())

    async def open(self, reporter: Reporter) -> None:
        """Go on with whatever an earlier process left."""
        self._reporter = reporter
        await asyncio.to_thread(self._spool.park_all)
        self._next_due_us = 0
        async with self._turn:
            await self._fetch()

    async def close(self) -> None:
        """Fetch no more."""
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.gather(self._tending, return_exceptions=True)

    def find(self, session_id: str) -> UsageQueue | None:
        """A session's queue, where it is fetched."""
        return self._queues.get(session_id)

    async def give(self, session_id: str) -> None:
        """A session's desk has its queue from here on; the turn is the caller's."""
        await asyncio.to_thread(self._spool.unpark, session_id)
        self._queues.pop(session_id, None)

    async def park(self, queue: UsageQueue, from_us: int = 0) -> None:
        """Keep in mind that a queue holds something; the turn is the caller's.

        Args:
            queue: The queue, all of it on disk.
            from_us: When it is looked at again at the earliest.
        """
        if not queue.waiting and not queue.events:
            return
        is_due = queue.waiting or queue.due(self._clock())
        # What no signature covers is reported when the session is over.
        due_us = max(from_us, 0 if is_due else queue.ends_at_us)
        await asyncio.to_thread(self._spool.park, queue.session_id, due_us)
        self._next_due_us = min(self._next_due_us, due_us)

    def drained(self, queue: UsageQueue, fault: BaseException | None) -> None:
        """What can be reported of a queue is, whosever it is: there is room for others."""
        if self._queues.get(queue.session_id) is queue:
            self._ended.append((queue, fault is not None))
        self.look()

    def look(self) -> None:
        """See to those that are done and those that are due."""
        if self._tending is None and (self._ended or self._clock() >= self._next_due_us):
            self._tending = asyncio.create_task(self._tend())
            self._tending.add_done_callback(self._tended)

    async def _tend(self) -> None:
        async with self._turn:
            while self._ended:
                queue, has_failed = self._ended[0]
                if self.find(queue.session_id) is queue and not self._reporter.is_at(queue):
                    await self._let_go(queue, self._clock() + _RETRY_US if has_failed else 0)
                self._ended.popleft()
            await self._fetch()

    def _tended(self, task: asyncio.Task[None]) -> None:
        self._tending = None
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            log.error("usage stays in the spool: %r", error)
        elif self._ended:
            self.look()

    async def _fetch(self) -> None:
        """Have those reported that are due, as many as there is room for."""
        while self._clock() >= self._next_due_us and len(self._queues) < _AT_ONCE_MAX:
            room = _AT_ONCE_MAX - len(self._queues)
            for session_id in await asyncio.to_thread(self._spool.due, self._clock(), room):
                queue = await asyncio.to_thread(self._load, session_id)
                await asyncio.to_thread(self._spool.unpark, session_id)
                if queue is None:
                    continue
                self._queues[session_id] = queue
                self._reporter.wake(queue)
                if not self._reporter.is_at(queue):
                    await self._let_go(queue)
            self._next_due_us = await asyncio.to_thread(self._spool.next_due_us)

    def _load(self, session_id: str) -> UsageQueue | None:
        kept = self._spool.session(session_id)
        return None if kept is None else UsageQueue.restore(kept, self._spool)

    async def _let_go(self, queue: UsageQueue, from_us: int = 0) -> None:
        if queue.stopped_by:
            kept = await asyncio.to_thread(self._spool.session, queue.session_id)
            assert kept is not None, "it was fetched"
            self._commits.note(replace(kept, document={**kept.document, **queue.document()}))
        await self._commits.kept()
        await self.park(queue, from_us)
        del self._queues[queue.session_id]
