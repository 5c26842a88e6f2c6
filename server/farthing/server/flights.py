"""One flight for each call that the platform makes, whoever asks for it and however often.

Boundary: who makes a call, who waits for it, and what is kept of it; what is done on the way, the
operation says. Front ends share the file of calls; a flight that ends with its front end is taken
up by whoever asks next. Source: spec/services.md#one-flight.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from farthing.protocol.errors import Code, FarthingError, Refused, refuse
from farthing.protocol.times import SECOND_US
from farthing.server.adapters.results import Kept, Results, Share
from farthing.server.ports import Progress

__all__ = ["Flights", "Fly", "Land", "Landed", "Listener", "listening"]

log = logging.getLogger(__name__)

_HELD_S: Final = 5
_HOLD_ON_S: Final = 1.0
_LOOK_S: Final = 0.1
_RETRY_S: Final = 1
_SWEEP_S: Final = 60
# Among how many owners the flights of a front end can always be shared.
_OWNERS_MIN: Final = 8
_TOLD_MAX: Final = 16
_TELL_S: Final = 1

Listener = Callable[[float, float | None, str], Awaitable[None]]
"""Told how far a call is, of how much if that is known, and the vendor's own words on it."""
_Told = asyncio.Queue[tuple[float, float | None, str] | None]

_LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)

Fly = Callable[[int, Progress], Awaitable[bytes]]
"""Makes the call, given how often somebody set out before; gives what is kept of its end."""
Land = Callable[[bytes], Awaitable[object]]
"""Does what is to be done once the end of a call is kept; done twice it is done once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """How a call ended, and whether it had ended before it was asked for."""

    kept: Kept
    replayed: bool

    @property
    def ending(self) -> bytes:
        """What is kept of it."""
        return self.kept.ending


@dataclass(slots=True)
class _Flight:
    task: "asyncio.Task[Kept]"
    owner: str
    told: list[_Told] = field(default_factory=list)

    def tell(self, done: float, total: float | None, said: str) -> None:
        """Tell all who listen; who is slow misses some."""
        for queue in self.told:
            _put(queue, (done, total, said))


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Have whatever is asked in the block tell its progress."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


class Flights:
    """The flights of one front end.

    Args:
        results: the file of calls.
        holder: names this front end's life; no other ever has the same.
        now_us: the clock.
        wait_s: how long one asking waits for a call that is on its way.
        kept_s: how long what a call came to can be asked for.
        flights_max: how many calls are made at once.
        share: the most that is kept for one owner, calls that are on their way included.
    """

    def __init__(
        self,
        results: Results,
        *,
        holder: str,
        now_us: Callable[[], int],
        wait_s: float,
        kept_s: int,
        flights_max: int,
        share: Share,
    ) -> None:
        self._results = results
        self._holder = holder
        self._now_us = now_us
        self._wait_s = wait_s
        self._kept_us = kept_s * SECOND_US
        self._flights_max = flights_max
        self._share = share
        self._share_max = max(flights_max // _OWNERS_MIN, 1)
        self._flights: dict[str, _Flight] = {}
        self._taken: dict[str, tuple[str, str]] = {}
        self._unclaimed: dict[str, str] = {}
        self._rooms = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the file open, and erase in it what is past its time."""
        await self._results.open()
        sweeping = asyncio.create_task(self._sweep())
        try:
            yield
        finally:
            tasks = [sweeping, *(flight.task for flight in self._flights.values())]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._results.close()

    @property
    def ending_bytes_max(self) -> int:
        """How large the end of a call may be."""
        return self._results.answer_bytes_max

    @property
    def in_flight(self) -> int:
        """How many calls are on their way from here."""
        return len(self._flights)

    @asynccontextmanager
    async def room(self, hold_id: str, owner: str) -> AsyncIterator[bool]:
        """Keep room for a call while it is begun; gives whether anybody set out for it before.

        No owner has more than its share of the flights: vendors that answer nobody are cheap.

        Raises:
            Refused: `overloaded`: there is none.
        """
        if hold_id in self._flights:
            yield True
            return
        self._rooms += 1
        asking = f"{self._holder}.{self._rooms}"
        is_new = await self._results.keep_room(
            hold_id, owner=owner, asking=asking, share=self._share, now_us=self._now_us()
        )
        if not is_new:
            yield True
            return
        try:
            self._take(asking, hold_id, owner)
            yield False
        finally:
            self._taken.pop(asking, None)
            if self._unclaimed.get(hold_id) == asking:
                del self._unclaimed[hold_id]
                with suppress(Refused):  # it is left in its time
                    await self._results.leave_room(hold_id, asking)

    def _take(self, asking: str, hold_id: str, owner: str) -> None:
        """Count a call that is begun among those of this front end; raises `overloaded`."""
        self._unclaimed[hold_id] = asking
        taken = dict(self._taken.values())
        taken |= {each: flight.owner for each, flight in self._flights.items()}
        own = sum(each == owner for each in taken.values())
        if hold_id not in taken and (len(taken) >= self._flights_max or own >= self._share_max):
            raise _no_room()
        self._taken[asking] = hold_id, owner

    async def kept(self, hold_id: str) -> bytes:
        """What is kept of the end of a call; empty where it has none, or none any more."""
        return await self._results.kept(hold_id, self._now_us())

    async def obtain(
        self, hold_id: str, owner: str, expires_at_us: int, fly: Fly, land: Land
    ) -> Landed:
        """What a call came to: made now, or before, or by another that is on the way.

        Args:
            hold_id: whose call.
            owner: whose money it is.
            expires_at_us: when its hold ends.
            fly: makes it.
            land: is done with its end once that is kept, and before anybody is told.

        Raises:
            Refused: `unavailable` where it is still on its way; `overloaded` where no room was
                kept for it and there is none; whatever `fly` raises.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._wait_s
        while True:
            flight = self._flights.get(hold_id)
            if flight is None:
                claim = await self._results.claim(
                    hold_id,
                    owner=owner,
                    holder=self._holder,
                    share=self._share,
                    now_us=self._now_us(),
                    held_until_us=self._now_us() + _HELD_S * SECOND_US,
                    expires_at_us=expires_at_us + self._kept_us,
                )
                if claim.ended is not None:
                    await land(claim.ended.ending)
                    # The time stands in the file as it is: nothing is promised beyond what can be.
                    until_us = min(claim.ended.until_us, self._now_us() + self._kept_us)
                    kept = replace(claim.ended, until_us=until_us)
                    return Landed(kept=kept, replayed=True)
                self._unclaimed.pop(hold_id, None)
                if claim.mine:
                    flight = self._begin(hold_id, owner, partial(fly, claim.flights), land)
            if flight is not None:
                return await self._wait_for(flight, until_s - loop.time())
            if loop.time() >= until_s:
                raise _on_its_way()
            await asyncio.sleep(_LOOK_S)

    def _begin(
        self, hold_id: str, owner: str, fly: Callable[[Progress], Awaitable[bytes]], land: Land
    ) -> _Flight:
        flight = _Flight(asyncio.create_task(self._fly(hold_id, fly, land)), owner)
        self._flights[hold_id] = flight
        flight.task.add_done_callback(partial(self._landed, hold_id))
        return flight

    async def _wait_for(self, flight: _Flight, rest_s: float) -> Landed:
        try:
            async with _told_by(flight), asyncio.timeout(max(rest_s, 0)):
                # The flight goes on when nobody waits any more: who asks again finds it.
                return Landed(kept=await asyncio.shield(flight.task), replayed=False)
        except TimeoutError:
            raise _on_its_way() from None

    async def _fly(
        self, hold_id: str, fly: Callable[[Progress], Awaitable[bytes]], land: Land
    ) -> Kept:
        holding = asyncio.create_task(self._hold_on(hold_id))
        kept: Kept | None = None
        try:
            ending = await fly(self._flights[hold_id].tell)
            until_us = self._now_us() + self._kept_us
            # Where two flew at once, the end that was kept first is the call's.
            kept = await self._results.end(hold_id, ending, until_us)
            await land(kept.ending)
            return kept
        finally:
            holding.cancel()
            await asyncio.gather(holding, return_exceptions=True)
            if kept is None:
                with suppress(Refused):
                    await self._results.hold_on(hold_id, self._holder, 0)

    async def _hold_on(self, hold_id: str) -> None:
        while True:
            await asyncio.sleep(_HOLD_ON_S)
            held_until_us = self._now_us() + _HELD_S * SECOND_US
            with suppress(Refused):  # it speaks again before _HELD_S are over
                await self._results.hold_on(hold_id, self._holder, held_until_us)

    async def _sweep(self) -> None:
        while True:
            with suppress(Refused):  # said in the log already
                while await self._results.forget(self._now_us()):
                    pass
            await asyncio.sleep(_SWEEP_S)

    def _landed(self, hold_id: str, task: "asyncio.Task[Kept]") -> None:
        del self._flights[hold_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            told = error if isinstance(error, FarthingError) else type(error).__name__
            log.warning("the call of hold %s: %s", hold_id, told)


@asynccontextmanager
async def _told_by(flight: _Flight) -> AsyncIterator[None]:
    """Tell the one who listens here, in a task of its own: no flight waits for a reader."""
    listener = _LISTENER.get()
    if listener is None:
        yield
        return
    queue: _Told = asyncio.Queue(_TOLD_MAX)
    flight.told.append(queue)
    telling = asyncio.create_task(_tell(queue, listener))
    try:
        yield
        _put(queue, None)
        await asyncio.wait({telling}, timeout=_TELL_S)
    finally:
        flight.told.remove(queue)
        telling.cancel()
        # What became of a reader that went away concerns nobody else.
        await asyncio.gather(telling, return_exceptions=True)


async def _tell(queue: _Told, listener: Listener) -> None:
    while (told := await queue.get()) is not None:
        await listener(*told)


def _put(queue: _Told, told: tuple[float, float | None, str] | None) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(told)


def _no_room() -> Refused:
    return Refused(refuse(Code.OVERLOADED, retry_after_s=_RETRY_S))


def _on_its_way() -> Refused:
    text = "The vendor is still at work on this call: ask again with the same key."
    return Refused(refuse(Code.UNAVAILABLE, message=text, retry_after_s=_RETRY_S))
