"""How fast the engine places holds and captures them, durable and chained, in this process.

Every caller awaits its own acknowledgement; the journal holds `rows` records before the clock
starts. Beside it: the same checks in one pooled SQLAlchemy transaction each, on the same disk.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from farthing.protocol.chain import Chain
from farthing.protocol.messages.holds import PLACE_HOLD, PlaceHold
from farthing.protocol.records import Record, parse_record
from farthing.protocol.times import SECOND_US
from farthing.protocol.wire import Usage
from farthing.server.engine import now_us
from farthing.server.market import command_of
from farthing.settlement.engine.commands import Command
from farthing.settlement.journal.sealing import Draft
from farthing.settlement.journal.sqlite import SqliteStore
from farthing.settlement.journal.writer import Writer
from farthing.settlement.machine import MACHINE
from tests.bench.orm import baseline
from tests.bench.report import Row, percentile
from tests.construction import Trade
from tests.papers import signing_key

__all__ = ["run"]

CALLERS = (1, 16, 256)
ORIGIN = "bench/journal"
# Calls per caller count: enough for a steady figure, few enough for the slow baseline.
CALLS = {1: 2_000, 16: 20_000, 256: 60_000}
BASELINE_CALLS = {1: 200, 16: 400, 256: 600}


class Load:
    """Commands of one agent under one agreement, each with a key and a proof of its own."""

    def __init__(self, trade: Trade) -> None:
        self.trade = trade
        self.number = 0

    def hold(self) -> Command:
        """The next hold."""
        self.number += 1
        ask = PlaceHold(
            agreement_id=self.trade.agreement_id,
            workload=(Usage(meter="page", quantity="1"),),
            args_sha256="a" * 64,
            idempotency_key=f"bench-{self.number:016d}",
        )
        caller = replace(
            self.trade.agent,
            proof_jti=f"bench-{self.number}",
            proof_expires_at_us=now_us() + 30 * SECOND_US,
        )
        return command_of(caller, PLACE_HOLD, ask)


async def run(rows: int) -> list[Row]:
    """The figures of the engine suite."""
    with TemporaryDirectory(dir=Path.cwd()) as folder:
        figures: list[Row] = []
        trade = Trade.opened(funds=2**60, per_call=2**60, per_day=2**60, now_us=now_us())
        load = Load(trade)
        store = SqliteStore(Path(folder) / "journal.sqlite")
        _seed(store, trade)
        writer = Writer(store, MACHINE, signer=signing_key("journal"), origin=ORIGIN, now_us=now_us)
        writer.start()

        async def place() -> None:
            outcome = await writer.submit(load.hold())
            assert outcome.refusal is None

        await _drive(place, rows, 512)
        async with baseline(Path(folder) / "orm.sqlite") as orm:
            numbers = iter(range(10**9))

            async def place_by_orm() -> None:
                await orm.hold(f"key-{next(numbers)}", "agr", 1)

            for callers in CALLERS:
                rate, times = await _drive(place, CALLS[callers], callers)
                base_rate, base_times = await _drive(place_by_orm, BASELINE_CALLS[callers], callers)
                figures += _rows(callers, (rate, times), (base_rate, base_times))
        await writer.close()
        figures.append(_pairs(trade))
    return figures


def _rows(
    callers: int, own: tuple[float, list[float]], base: tuple[float, list[float]]
) -> list[Row]:
    name = f"holds, {callers} caller{'s' if callers > 1 else ''}"
    return [
        Row(
            name=name,
            unit="1/s",
            value=own[0],
            baseline=base[0],
            target=55_000 if callers == 256 else None,
        ),
        Row(
            name=f"{name}, p50",
            unit="ms",
            value=percentile(own[1], 0.5),
            baseline=percentile(base[1], 0.5),
            target=1 if callers == 1 else None,
        ),
        Row(
            name=f"{name}, p99",
            unit="ms",
            value=percentile(own[1], 0.99),
            baseline=percentile(base[1], 0.99),
            target=15 if callers == 256 else None,
        ),
    ]


def _seed(store: SqliteStore, trade: Trade) -> None:
    """Write the records that made the market, for the engine to recover from."""
    epoch = store.acquire()
    draft = Draft(Chain())
    for data in trade.room.journal:
        draft.add(parse_record(data)[0], data, ())
    store.commit(draft.seal(epoch=epoch, signer=signing_key("journal"), origin=ORIGIN))
    store.close()


async def _drive(
    call: Callable[[], Awaitable[None]], calls: int, callers: int
) -> tuple[float, list[float]]:
    """Calls per second, and how long each took in milliseconds."""
    times: list[float] = []
    left = calls

    async def caller() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            began = time.perf_counter_ns()
            await call()
            times.append((time.perf_counter_ns() - began) / 1e6)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return len(times) / (time.perf_counter() - began), times


def _pairs(trade: Trade) -> Row:
    """Decide and evolve alone: hold and capture, no storage."""
    began = time.perf_counter()
    for _ in range(2_000):
        hold = trade.room.hold(trade.agent, trade.agreement_id, 1)
        assert isinstance(hold, Record)
        trade.room.capture(trade.vendor, hold.changed[0].id, 1)
    return Row(
        name="hold+capture pairs, deciding alone, signed delivery included",
        unit="1/s",
        value=2_000 / (time.perf_counter() - began),
    )
