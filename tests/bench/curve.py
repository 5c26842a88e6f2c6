"""The writer alone: what a record costs as the journal grows, and what a start then costs."""

import resource
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from farthing.protocol.chain import Chain
from farthing.protocol.records import parse_record
from farthing.server.upkeep import spare_the_collector
from farthing.settlement.engine.commands import Command, Outcome
from farthing.settlement.engine.state import State
from farthing.settlement.journal.recovery import recover
from farthing.settlement.journal.sealing import Draft
from farthing.settlement.journal.sqlite import SqliteStore
from farthing.settlement.journal.stepper import Stepper
from farthing.settlement.machine import MACHINE
from tests.bench.load import Load
from tests.bench.processes import ORIGIN, opened
from tests.bench.report import Row
from tests.construction import Trade
from tests.papers import signing_key

__all__ = ["grow", "life"]

BATCH = 256
# Rounds at a point of the curve, each beside one of a journal that is young again at each point:
# the machine's neighbours come and go in minutes, so only what was measured at once is compared.
WINDOW = 96
YOUNG = 10_000
MILLION = 1_000_000


def grow(folder: Path, trade: Trade, rows: int) -> list[Row]:
    """Let a journal grow to `rows` records in batches of 256; the cost of a record on the way."""
    stepper = _begun(folder, trade)
    spare_the_collector()
    load = Load(trade)
    points = [10**power for power in range(4, 10) if 10**power <= rows] or [rows]
    figures: list[Row] = []
    for point in points:
        _grow(stepper, load, point)
        cost_us, young_us = _beside_young(folder, stepper, load)
        figures.append(
            Row(
                name=f"writer alone, batches of {BATCH}, at {point:,} records",
                unit="us/record",
                value=cost_us,
                baseline=young_us,
                ratio_target=1.1,
            )
        )
    figures.insert(
        0,
        Row(
            name=f"writer alone, batches of {BATCH}",
            unit="1/s",
            value=MILLION / figures[0].value,
            target=100_000,
        ),
    )
    _grow(stepper, load, rows)
    began = time.perf_counter()
    stepper.close()
    figures.append(
        Row(
            name="graceful stop, snapshot written",
            unit="ms",
            value=(time.perf_counter() - began) * 1000,
        )
    )
    return figures


def life(folder: Path, process: BaseProcess, rows: int) -> list[Row]:
    """What the journal costs to keep and to start from."""
    journal_bytes = (folder / "journal.sqlite").stat().st_size
    index = folder / "journal.sqlite-index"
    index_bytes = sum(path.stat().st_size for path in index.iterdir())
    store = SqliteStore(folder / "journal.sqlite")
    keys = (signing_key("journal").public,)
    began = time.perf_counter()
    found = recover(store, MACHINE, origin=ORIGIN, keys=keys)
    seq, tail = found.chain.seq, found.chain.seq - found.snapshot_seq
    quick_s = time.perf_counter() - began
    began = time.perf_counter()
    recover(store, MACHINE, origin=ORIGIN)  # without keys no snapshot is believed
    whole_s = time.perf_counter() - began
    return [
        Row(name=f"recovery, snapshot and {tail:,} records", unit="s", value=quick_s, target=10),
        Row(
            name="recovery fully verified, a million records",
            unit="s",
            value=whole_s / seq * MILLION,
            target=5,
        ),
        Row(name="memory of the engine's process", unit="MB", value=_resident_mb(process)),
        Row(name="journal, a million records", unit="MB", value=journal_bytes / seq),
        Row(name="index of keys, a million records", unit="MB", value=index_bytes / seq),
        Row(name="records before the clock started", unit="1", value=rows),
    ]


def _beside_young(folder: Path, stepper: Stepper[State], load: Load) -> tuple[float, float]:
    """What a record costs, and what it costs in a young journal; medians of rounds in turn."""
    with TemporaryDirectory(dir=folder) as name:
        young = _begun(Path(name), load.trade)
        fresh = Load(load.trade)
        _grow(young, fresh, YOUNG)
        rounds = [(_round(stepper, load), _round(young, fresh)) for _ in range(WINDOW)]
        young.close()
    old_us, young_us = zip(*rounds, strict=True)
    return median(old_us), median(young_us)


def _grow(stepper: Stepper[State], load: Load, rows: int) -> None:
    while stepper.recent.last_seq < rows:
        _round(stepper, load)


def _round(stepper: Stepper[State], load: Load) -> float:
    """A batch of holds and one that releases them; microseconds a record."""
    holds = [load.hold() for _ in range(BATCH)]
    placed, first_s = _timed(stepper, holds)
    releases = [load.release(outcome.record.changed[0].id) for outcome in placed]
    _, second_s = _timed(stepper, releases)
    return (first_s + second_s) / (2 * BATCH) * 1e6


def _timed(stepper: Stepper[State], commands: list[Command]) -> tuple[list[Outcome], float]:
    began = time.perf_counter()
    replies = stepper.step(commands)
    elapsed_s = time.perf_counter() - began
    done = [reply for reply in replies if isinstance(reply, Outcome) and reply.refusal is None]
    assert len(done) == len(commands)
    return done, elapsed_s


def _begun(folder: Path, trade: Trade) -> Stepper[State]:
    """The engine over a journal of the records that made the market."""
    store = SqliteStore(folder / "journal.sqlite")
    epoch = store.acquire()
    draft = Draft(Chain())
    for data in trade.room.journal:
        draft.add(parse_record(data)[0], data, ())
    store.commit(draft.seal(epoch=epoch, signer=signing_key("journal"), origin=ORIGIN))
    store.close()
    return opened(folder)


def _resident_mb(process: BaseProcess) -> float:
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    (line,) = (each for each in status.read_text().splitlines() if each.startswith("VmRSS"))
    return int(line.split()[1]) / 1024
