"""How fast the engine places holds and captures them, durable, chained and in a tree.

In a process of its own with two front ends, every caller awaiting its own acknowledgement. Beside
it, from the same run and on the same disk: the same checks in one pooled SQLAlchemy transaction
each, and in one plain `sqlite3` transaction each.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from farthing.server.engine import now_us
from farthing.settlement.journal.index import Index
from farthing.settlement.journal.sqlite import SqliteStore
from farthing.settlement.journal.writer import Writer
from farthing.settlement.machine import MACHINE
from tests.bench.curve import grow, life
from tests.bench.driving import Driven, drive
from tests.bench.load import Load, market
from tests.bench.orm import baseline
from tests.bench.plain import plain
from tests.bench.processes import ORIGIN, Fronts, Hollow, call_of, engine_process, keep_busy
from tests.bench.report import Row
from tests.papers import signing_key

__all__ = ["run"]

CALLERS = (1, 16, 256)
# Calls per caller count: enough for a steady figure, few enough for the slow baselines.
CALLS = {1: 3_000, 16: 30_000, 256: 60_000}
PLAIN_CALLS = {1: 2_000, 16: 4_000, 256: 4_000}
ORM_CALLS = {1: 200, 16: 400, 256: 600}
BUSY_PPM = 750_000
BUSY_CALLERS = 16
BUSY_CALLS = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Baselines:
    """Holds by those who do not know better, and by those who do."""

    orm: Driven
    plain: Driven


async def run(rows: int) -> list[Row]:
    """The figures of the engine suite, on a journal of `rows` records."""
    with TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        at_us = now_us()
        figures = grow(folder, market(at_us), rows)
        baselines = {callers: await _baselines(folder, callers) for callers in CALLERS}
        fronts = Fronts(folder, at_us)
        with engine_process(folder) as process:
            for callers in CALLERS:
                held = fronts.drive("hold", CALLS[callers], callers)
                figures += _holds(callers, held, baselines[callers])
            paired = fronts.drive("pair", CALLS[256] // 2, 256)
            figures += _pairs(paired)
            figures += _busy(
                "own process", fronts.drive("hold", BUSY_CALLS, BUSY_CALLERS, busy_ppm=BUSY_PPM)
            )
            figures += life(folder, process, rows)
        with engine_process(folder, Hollow):
            figures += _hollow(fronts.drive("hold", CALLS[256], 256))
        figures += await _in_process(folder, at_us)
    return figures


async def _baselines(folder: Path, callers: int) -> Baselines:
    async with baseline(folder / f"orm-{callers}.sqlite") as orm:
        by_orm = await drive(_hold_of(orm.hold), ORM_CALLS[callers], callers)
    with plain(folder / f"plain-{callers}.sqlite") as bare:
        by_plain = await drive(_hold_of(bare.hold), PLAIN_CALLS[callers], callers)
    return Baselines(orm=by_orm, plain=by_plain)


def _hold_of(hold: Callable[[str, str, int], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    numbers = count()

    async def place() -> None:
        await hold(f"key-{next(numbers)}", "agr", 1)

    return place


def _holds(callers: int, held: Driven, beside: Baselines) -> list[Row]:
    name = f"holds, {callers} caller{'s' if callers > 1 else ''}"
    many = callers == max(CALLERS)
    return [
        Row(name=name, unit="1/s", value=held.rate, target=55_000 if many else None),
        Row(
            name=f"{name}, beside plain sqlite3",
            unit="1/s",
            value=held.rate,
            baseline=beside.plain.rate,
            ratio_target=6 if many else 0.2 if callers == 1 else None,
        ),
        Row(
            name=f"{name}, beside pooled SQLAlchemy",
            unit="1/s",
            value=held.rate,
            baseline=beside.orm.rate,
            ratio_target=150 if many else None,
        ),
        Row(
            name=f"{name}, p50",
            unit="ms",
            value=held.p50_ms,
            baseline=beside.plain.p50_ms,
            target=1 if callers == 1 else None,
        ),
        Row(
            name=f"{name}, p99",
            unit="ms",
            value=held.p99_ms,
            baseline=beside.plain.p99_ms,
            target=15 if many else None,
        ),
    ]


def _pairs(paired: Driven) -> list[Row]:
    return [
        Row(name="hold+capture pairs, 256 callers", unit="1/s", value=paired.rate, target=25_000),
        Row(name="hold+capture pairs, 256 callers, p99", unit="ms", value=paired.p99_ms),
    ]


def _busy(where: str, held: Driven) -> list[Row]:
    name = f"holds, loops 75 % busy with other calls, engine in {where}"
    own = where == "own process"
    return [
        Row(name=name, unit="1/s", value=held.rate),
        Row(name=f"{name}, p50", unit="ms", value=held.p50_ms, target=10 if own else None),
        Row(name=f"{name}, p99", unit="ms", value=held.p99_ms, target=50 if own else None),
    ]


def _hollow(given: Driven) -> list[Row]:
    return [
        Row(
            name="the same, 256 callers, at an engine that does nothing",
            unit="1/s",
            value=given.rate,
        )
    ]


async def _in_process(folder: Path, at_us: int) -> list[Row]:
    """The same engine on a thread beside the loop, for what a process of its own is worth."""
    writer = Writer(
        SqliteStore(folder / "journal.sqlite"),
        MACHINE,
        signer=signing_key("journal"),
        origin=ORIGIN,
        now_us=now_us,
        index=Index(folder / "journal.sqlite-index"),
    )
    writer.start()
    load = Load(market(at_us), 9_999)
    call = call_of(writer, load, "hold")
    quiet = await drive(call, CALLS[256], 256)
    busy = asyncio.create_task(keep_busy(BUSY_PPM))
    held = await drive(call, BUSY_CALLS // 4, BUSY_CALLERS)
    busy.cancel()
    await writer.close()
    return [
        Row(
            name="holds, 256 callers, engine on a thread",
            unit="1/s",
            value=quiet.rate,
        ),
        *_busy("a thread of the front end", held),
    ]
