"""What is left of an agreement's allowance, as far as its vendor knows: no call runs beyond it.

Boundary: one agreement in one process of a vendor. The platform says what was used, now and then;
what was delivered since is counted here. Settlement judges in the end.
Source: spec/metering.md#before-the-work.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Final, TypeAlias

from farthing.protocol.allowances import Enforcement, Guard
from farthing.protocol.errors import Code, Refusal, Refused, Unreachable, Unverified, refuse
from farthing.protocol.messages.allowances import AllowanceUse
from farthing.protocol.times import SECOND_US, parse_time, utc_day
from farthing.protocol.wire import quantities_of

__all__ = ["AllowanceWatch", "Judge"]

log = logging.getLogger(__name__)

Judge: TypeAlias = Callable[[Mapping[str, int]], Awaitable[Refusal | None]]
"""Says why a call that will use so much is not worth running; None where it is."""

_EVERY_US: Final = 60 * SECOND_US
# A refusal is by what the platform said no longer ago than this, where it can be asked.
_FRESH_US: Final = 5 * SECOND_US
_WAIT_S: Final = 2.0


class AllowanceWatch:
    """The watch.

    Args:
        ask: Asks the platform.
        unsettled: Gives the use of each call that was delivered and is not settled yet.
        clock: The time now, in microseconds.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[AllowanceUse]],
        unsettled: Callable[[], Iterable[Mapping[str, int]]],
        clock: Callable[[], int],
    ) -> None:
        self._ask = ask
        self._unsettled = unsettled
        self._clock = clock
        self._said: AllowanceUse | None = None
        self._day = ""
        # Delivered and not in what the platform said; delivered since it was last asked; running.
        self._counted: Counter[str] = Counter()
        self._since: Counter[str] = Counter()
        self._running: dict[object, Mapping[str, int]] = {}
        self._guard: Guard | None = None
        self._asked_at_us = 0
        self._asking: asyncio.Task[None] | None = None

    async def look(self, doubted_at_us: int = 0) -> None:
        """Ask where it is time, and wait for what is needed; a platform that is away is no fault.

        Args:
            doubted_at_us: When settlement did not take what was within the allowance as it is
                known here; 0 for never.
        """
        now_us = self._clock()
        if not self._asked_at_us or doubted_at_us >= self._asked_at_us:
            await self._answer()
        elif self._spent(now_us) is not None:
            await self._fresh(now_us)
        elif now_us >= self._asked_at_us + _EVERY_US:
            self._begin()

    def spent(self) -> Refusal | None:
        """Why nothing more is worth running, None where something may be."""
        meter = None if self._guard is None else self._spent(self._clock())
        return None if meter is None else _refused(meter)

    async def reserve(self, call: object, usage: Mapping[str, int]) -> Refusal | None:
        """Keep of the allowance what a call will use, until `use` or `free`; or why it may not."""
        if (refusal := await self._beyond(usage)) is None:
            self._running[call] = usage
            if self._guard is not None:
                self._guard.take(usage)
        return refusal

    async def use(self, call: object, usage: Mapping[str, int]) -> Refusal | None:
        """Count what a call has used; or why it is not paid, and so not to be given."""
        if self._guard is None and self._asking is None:
            # Nothing bounds it, and whatever is learnt next is learnt with all that was used.
            return None
        self.free(call)
        if (refusal := await self._beyond(usage)) is None:
            self._counted.update(usage)
            self._since.update(usage)
            if self._guard is not None:
                self._guard.take(usage)
        return refusal

    def free(self, call: object) -> None:
        """A call will use nothing, or what it used is counted."""
        usage = self._running.pop(call, None)
        if usage is not None and self._guard is not None:
            self._guard.take({meter: -quantity for meter, quantity in usage.items()})

    async def close(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _beyond(self, usage: Mapping[str, int]) -> Refusal | None:
        now_us = self._clock()
        if self._exceeded(usage, now_us) is not None:
            await self._fresh(now_us)
        meter = self._exceeded(usage, now_us)
        return None if meter is None else _refused(meter)

    def _spent(self, now_us: int) -> str | None:
        """The meter of which nothing is left; `""` where the allowance's time is over."""
        if self._guard is None or self._said is None:
            return None
        return self._exceeded(dict.fromkeys((each.meter for each in self._said.meters), 1), now_us)

    def _exceeded(self, usage: Mapping[str, int], now_us: int) -> str | None:
        if self._guard is not None and utc_day(now_us) != self._day:
            self._day = utc_day(now_us)
            self._guard = self._judged(is_same_day=False)
        return None if self._guard is None else self._guard.exceeded(usage, now_us)

    async def _fresh(self, now_us: int) -> None:
        if now_us >= self._asked_at_us + _FRESH_US:
            await self._answer()

    async def _answer(self) -> None:
        self._begin()
        assert self._asking is not None, "it was begun"
        with suppress(TimeoutError):
            async with asyncio.timeout(_WAIT_S):
                await asyncio.shield(self._asking)

    def _begin(self) -> None:
        if self._asking is None:
            self._asking = asyncio.create_task(self._learn())
            self._asking.add_done_callback(self._learnt)

    def _learnt(self, task: asyncio.Task[None]) -> None:
        self._asking = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the allowance is not known: %r", error)

    async def _learn(self) -> None:
        self._asked_at_us = self._clock()
        # What is settled while the platform is asked counts twice until it is asked again: that
        # refuses too early, not too late.
        counted: Counter[str] = Counter()
        for usage in self._unsettled():
            counted.update(usage)
        self._since = Counter()
        try:
            said = await self._ask()
        except (Refused, Unreachable, Unverified) as error:
            log.warning("the allowance is as it was last known: %s", error)
            return
        self._said, self._day = said, utc_day(self._asked_at_us)
        self._counted = counted + self._since
        self._guard = self._judged(is_same_day=True)

    def _judged(self, *, is_same_day: bool) -> Guard | None:
        """The allowance as it was said, less what was delivered since and what runs."""
        said = self._said
        limits = said.in_force if said is not None else None
        if said is None or limits is None or limits.enforcement != Enforcement.REFUSE.value:
            return None
        of_day = [each for each in said.meters if each.period == "day"]
        guard = Guard(
            # On another day what was used of the last one is of no account, and of this unknown.
            per_day=quantities_of(limits.per_day) if is_same_day else {},
            in_all=quantities_of(limits.in_all),
            refuses=True,
            expires_at_us=parse_time(limits.expires_at) if limits.expires_at else 0,
            used_today={each.meter: int(each.used) for each in of_day},
            used={each.meter: int(each.used) for each in said.meters if each not in of_day},
            held={each.meter: int(each.held) for each in said.meters},
        )
        for usage in (self._counted, *self._running.values()):
            guard.take(usage)
        return guard


def _refused(meter: str) -> Refusal:
    text = "The agreement's allowance leaves no room for this call."
    return refuse(Code.ALLOWANCE_EXCEEDED, path=f"usage.{meter}" if meter else "", message=text)
