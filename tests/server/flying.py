"""Front ends that share one file of calls, and the calls that tests let end as they like."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from farthing.protocol.errors import Code, Refused, refuse
from farthing.server.adapters.results import Results, Share
from farthing.server.flights import Flights
from farthing.server.ports import Progress

__all__ = [
    "ANSWER_BYTES",
    "HOLD_ENDS_US",
    "KEPT_S",
    "SECOND_US",
    "SECRET",
    "SHARE",
    "Runway",
    "Server",
    "Work",
    "asked",
    "ended",
    "has_room",
    "land",
]

SECRET = bytes(range(32))
ANSWER_BYTES = 1_000
SHARE = Share(calls=100, size=100 * ANSWER_BYTES)
SECOND_US = 1_000_000
KEPT_S = 60
HOLD_ENDS_US = 1_100 * SECOND_US


@dataclass(slots=True)
class Clock:
    now_us: int = 1_000 * SECOND_US

    def __call__(self) -> int:
        return self.now_us


@dataclass(slots=True)
class Work:
    """A call that a test lets end when it likes."""

    ending: bytes = b"what came"
    slow: bool = False
    raises: BaseException | None = None
    told: int = 0
    flights: list[int] = field(default_factory=list)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, flights: int, progress: Progress) -> bytes:
        self.flights.append(flights)
        self.started.set()
        for number in range(self.told):
            progress(number, self.told, "")
        if self.slow:
            await self.go.wait()
        if self.raises is not None:
            raise self.raises
        return self.ending


@dataclass(slots=True)
class Runway:
    """Where ends land."""

    fails: bool = False
    landed: list[bytes] = field(default_factory=list)

    async def __call__(self, ending: bytes) -> None:
        self.landed.append(ending)
        if self.fails:
            raise Refused(refuse(Code.UNAVAILABLE))


async def land(ending: bytes) -> None:
    del ending


@dataclass(slots=True)
class Server:
    """Front ends that share one file."""

    folder: Path
    clock: Clock = field(default_factory=Clock)

    def results(self, secret: bytes = SECRET, bytes_max: int = 10_000_000) -> Results:
        return Results(
            self.folder / "results.sqlite",
            secret=secret,
            entropy=os.urandom,
            bytes_max=bytes_max,
            answer_bytes_max=ANSWER_BYTES,
        )

    async def forget(self) -> None:
        """Have forgotten what is kept no longer, as a front end does from time to time."""
        results = self.results()
        await results.forget(self.clock())
        await results.close()

    @asynccontextmanager
    async def front_end(
        self,
        holder: str,
        *,
        wait_s: float = 5,
        flights_max: int = 10,
        secret: bytes = SECRET,
        share: Share = SHARE,
    ) -> AsyncIterator[Flights]:
        flights = Flights(
            self.results(secret),
            holder=holder,
            now_us=self.clock,
            wait_s=wait_s,
            kept_s=KEPT_S,
            flights_max=flights_max,
            share=share,
        )
        async with flights.running():
            yield flights


async def ended(asked: Awaitable[object]) -> Code | None:
    try:
        await asked
    except Refused as refused:
        return refused.code
    return None


async def asked(flights: Flights, hold_id: str, owner: str) -> Code | bool:
    try:
        async with flights.room(hold_id, owner) as is_known:
            return is_known
    except Refused as refused:
        return refused.code


async def has_room(results: Results, name: str, share: Share) -> bool:
    """Whether there is room for one more call of one owner, which is begun then."""
    keeping = results.keep_room(
        name, owner="greedy", asking=name, share=share, now_us=1_000 * SECOND_US
    )
    told = await ended(keeping)
    assert told in {None, Code.OVERLOADED}
    return told is None
