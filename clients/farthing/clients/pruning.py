"""What a vendor's spool need not remember any longer is forgotten, while the vendor serves.

Boundary: when, and in how small steps; what may be forgotten is each table's affair.
Source: spec/payments-mcp.md.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from farthing.protocol.times import DAY_US, SECOND_US

__all__ = ["KEEP_US", "Forget", "Pruning"]

log = logging.getLogger(__name__)

Forget: TypeAlias = Callable[[int, int], int]
"""Forgets what is before an instant, of each kind so many rows at most; gives how many it did."""

KEEP_US: Final = 31 * DAY_US
"""How long what is settled is kept: a dispute may ask for it."""
_EVERY_US: Final = 3600 * SECOND_US
# A step holds the file: no call's answer waits long for it.
_STEP_ROWS: Final = 500


class Pruning:
    """Prunes once an hour, by the calls that come: without any, nothing grows.

    Args:
        forgets: What is asked to forget, in turn.
    """

    def __init__(self, forgets: Sequence[Forget]) -> None:
        self._forgets = forgets
        self._began_us = -_EVERY_US
        self._task: asyncio.Task[None] | None = None

    def look(self, now_us: int) -> None:
        """Prune beside whatever else is done, where it is time."""
        # A clock that is set back is no reason to wait for it.
        if not 0 <= now_us - self._began_us < _EVERY_US and self._task is None:
            self._began_us = now_us
            self._task = asyncio.create_task(self._prune(now_us - KEEP_US))
            self._task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Prune no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _prune(self, before_us: int) -> None:
        for forget in self._forgets:
            while await asyncio.to_thread(forget, before_us, _STEP_ROWS):
                pass

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the spool is not pruned: %r", error)
