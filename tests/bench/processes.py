"""The engine in a process of its own, and front ends in theirs, as `farthing serve` has them.

No door and no signature: what crosses the socket is what a front end sends once it has judged a
call, so the figures are the engine's.
"""

import asyncio
import gc
import multiprocessing
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Final

import uvloop

from farthing.protocol.errors import Refused
from farthing.server.engine import now_us
from farthing.server.upkeep import keep_freed_memory, spare_the_collector
from farthing.settlement.engine.commands import Command, Outcome
from farthing.settlement.engine.state import State
from farthing.settlement.journal.index import Index
from farthing.settlement.journal.remote import RemoteEngine
from farthing.settlement.journal.service import EngineServer
from farthing.settlement.journal.sqlite import SqliteStore
from farthing.settlement.journal.stepper import Limits, Stepper, no_rows
from farthing.settlement.machine import MACHINE
from farthing.settlement.port import Engine
from tests.bench.driving import Driven, drive
from tests.bench.load import Load, market
from tests.papers import signing_key

__all__ = ["ORIGIN", "Fronts", "Hollow", "call_of", "engine_process", "keep_busy", "opened"]

ORIGIN: Final = "bench/journal"
FRONTS: Final = 2
BUSY_US: Final = 300
WAIT_S: Final = 120
_SPAWN: Final = multiprocessing.get_context("spawn")


class Hollow(Stepper[State]):
    """Does one command and gives its outcome to all after it: what a call costs beside the engine.

    The callers are none the wiser, front ends and sockets have as much to carry.
    """

    _given: Outcome | Refused | None = None

    def step(self, commands: Sequence[Command]) -> list[Outcome | Refused]:
        if self._given is None:
            given = super().step(commands[:1])
            self._given = given[0] if given else None
            return given
        return [self._given] * len(commands)


def opened(folder: Path, kind: type[Stepper[State]] = Stepper) -> Stepper[State]:
    """The stepper over a folder's journal, as the server's engine puts it together."""
    stepper = kind(
        SqliteStore(folder / "journal.sqlite"),
        MACHINE,
        signer=signing_key("journal"),
        origin=ORIGIN,
        now_us=now_us,
        rows=no_rows,
        earlier_keys=(),
        limits=Limits(),
        index=Index(folder / "journal.sqlite-index"),
    )
    stepper.open()
    return stepper


def call_of(engine: Engine, load: Load, kind: str) -> Callable[[], Awaitable[object]]:
    """One call of a kind: a hold, or a hold and its capture."""

    async def hold() -> Outcome:
        outcome = await engine.submit(load.hold())
        assert outcome.refusal is None, outcome.refusal
        return outcome

    async def pair() -> None:
        outcome = await hold()
        outcome = await engine.submit(load.capture(outcome.record.changed[0].id))
        assert outcome.refusal is None, outcome.refusal

    return hold if kind == "hold" else pair


@contextmanager
def engine_process(folder: Path, kind: type[Stepper[State]] = Stepper) -> Iterator[BaseProcess]:
    """The engine of a folder, until left."""
    ready = _SPAWN.Event()
    process = _SPAWN.Process(target=_serve, args=(folder, kind, ready))
    process.start()
    try:
        assert ready.wait(WAIT_S), "the engine did not start"
        yield process
    finally:
        process.terminate()
        process.join(WAIT_S)


class Fronts:
    """Front ends in processes of their own, all at the same engine.

    Args:
        folder: where the engine's socket lies.
        at_us: when the market was made.
        count: how many.
    """

    def __init__(self, folder: Path, at_us: int, count: int = FRONTS) -> None:
        self._folder = folder
        self._at_us = at_us
        self._count = count
        self._lane = 1

    def drive(self, kind: str, calls: int, callers: int, *, busy_ppm: int = 0) -> Driven:
        """Calls by all of them at once; rates add up, percentiles are the worst front end's."""
        count = min(self._count, callers)
        told: Queue[Driven] = _SPAWN.Queue()
        begin = _SPAWN.Barrier(count)
        share = (calls // count, callers // count)
        processes = []
        for _ in range(count):
            self._lane += 1
            arguments = (self._folder, self._at_us, self._lane, kind, *share, busy_ppm, begin, told)
            processes.append(_SPAWN.Process(target=_front, args=arguments))
        for process in processes:
            process.start()
        driven = [told.get(timeout=WAIT_S) for _ in processes]
        for process in processes:
            process.join(WAIT_S)
        return Driven(
            rate=sum(each.rate for each in driven),
            p50_ms=max(each.p50_ms for each in driven),
            p99_ms=max(each.p99_ms for each in driven),
        )


def _serve(
    folder: Path, kind: type[Stepper[State]], ready: "multiprocessing.synchronize.Event"
) -> None:
    keep_freed_memory()
    stepper = opened(folder, kind)
    server = EngineServer(stepper, folder / "socket")
    server.listen()
    signal.signal(signal.SIGTERM, lambda *_: server.stop(drain_s=0))
    spare_the_collector()
    ready.set()
    server.run()
    stepper.close()


def _front(  # noqa: PLR0917  # the arguments of a process have no names
    folder: Path,
    at_us: int,
    lane: int,
    kind: str,
    calls: int,
    callers: int,
    busy_ppm: int,
    begin: Barrier,
    told: "Queue[Driven]",
) -> None:
    async def run() -> Driven:
        engine = RemoteEngine(folder / "socket", in_flight_max=10_000)
        await engine.open()
        load = Load(market(at_us), lane)
        # A front end is forked with what is loaded left out of every collection.
        gc.freeze()
        begin.wait(WAIT_S)
        busy = asyncio.create_task(keep_busy(busy_ppm)) if busy_ppm else None
        driven = await drive(call_of(engine, load, kind), calls, callers)
        if busy is not None:
            busy.cancel()
        await engine.close()
        return driven

    # The loop that `farthing serve` runs its front ends on.
    told.put(uvloop.run(run()))


async def keep_busy(share_ppm: int) -> None:
    """Keep the loop busy for a share of the time, in pieces as long as a call of a door."""
    pause_s = BUSY_US * (1_000_000 - share_ppm) / share_ppm / 1_000_000
    while True:
        until_ns = time.perf_counter_ns() + BUSY_US * 1000
        while time.perf_counter_ns() < until_ns:
            pass
        await asyncio.sleep(pause_s)
