"""The calls of sessions that a vendor works for: who waits for each, until when it may run.

Boundary: no call's payment or result; what a call is and what becomes of it is `session_desk`.
Source: spec/payments-mcp.md.
"""

import asyncio
from math import inf
from typing import Final

from farthing.clients.commits import settle
from farthing.clients.usage_spool import KeptCall
from farthing.protocol.usage import UsageOutcome

__all__ = ["Flight", "Load"]

# How often what runs is looked at for what takes too long: a timer for each call costs more.
_LATE_EVERY_S: Final = 0.25


class Flight:
    """One call that is being worked for, and whoever waits for it.

    Once begun it may run until `ends_s` on the loop's clock.
    """

    __slots__ = ("args_sha256", "ends_s", "has_ended", "is_late", "task", "waiting")

    def __init__(self, args_sha256: str) -> None:
        self.args_sha256 = args_sha256
        self.task: asyncio.Task[None] | None = None
        self.ends_s = inf
        self.has_ended = False
        self.is_late = False
        self.waiting: set[asyncio.Future[KeptCall]] = set()

    async def landed(self) -> KeptCall:
        """Wait for the call, each with a future: one that goes away takes nobody's call with it."""
        landing: asyncio.Future[KeptCall] = asyncio.get_running_loop().create_future()
        self.waiting.add(landing)
        try:
            return await landing
        finally:
            self.waiting.discard(landing)

    def expire(self) -> None:
        """Its time is over."""
        assert self.task is not None, "it runs"
        self.is_late = True
        self.task.cancel()

    def cut_off(self) -> None:
        """Leave nobody waiting for ever."""
        for landing in self.waiting:
            landing.cancel()

    def land(self, call: KeptCall, fault: BaseException | None) -> None:
        """Tell all who wait what there is: the call, or why there is none."""
        if fault is None and call.outcome is not UsageOutcome.SUCCEEDED:
            fault = self._raised()
        for landing in self.waiting:
            settle(landing, call, fault)

    def _raised(self) -> BaseException | None:
        """What the work ended with, other than as foreseen."""
        if self.task is None or not self.task.done():
            return None
        return asyncio.CancelledError() if self.task.cancelled() else self.task.exception()


class Load:
    """The calls that are being worked for at all desks of one vendor; each ends in its time."""

    def __init__(self) -> None:
        self._flights: set[Flight] = set()
        self._is_watched = False

    @property
    def calls(self) -> int:
        """How many they are."""
        return len(self._flights)

    def add(self, flight: Flight) -> None:
        """One more."""
        self._flights.add(flight)
        if not self._is_watched:
            self._watch()

    def remove(self, flight: Flight) -> None:
        """It is written, or given up."""
        self._flights.discard(flight)

    def _watch(self) -> None:
        """End what takes too long, and look again while anything runs."""
        loop = asyncio.get_running_loop()
        for flight in self._flights:
            if not flight.has_ended and loop.time() >= flight.ends_s:
                flight.expire()
        if self._flights:
            loop.call_later(_LATE_EVERY_S, self._watch)
        self._is_watched = bool(self._flights)
