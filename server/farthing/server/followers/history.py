"""Follows the journal into the statement lines: beside the paid path, in exactly one process.

Boundary: the engine's port in, one file out. Whatever is lost here is followed again.
Source: spec/statements.md.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Final, cast

import structlog

from farthing.protocol.errors import FarthingError, Refused
from farthing.protocol.records import head_of
from farthing.settlement.engine.commands import Committed
from farthing.settlement.engine.questions import RecordAt
from farthing.settlement.journal.store import Unreadable
from farthing.settlement.port import Engine
from farthing.settlement.reports.projection import BATCH_MAX, Followed

__all__ = ["follow_history", "following_history"]

log = structlog.get_logger(__name__)

_PAUSE_S: Final = 1.0
_REST_S: Final = 0.02

Queue = asyncio.Queue[Committed | None]
Sleep = Callable[[float], Awaitable[object]]


async def follow_history(
    engine: Engine,
    path: Path,
    *,
    batch_max: int = BATCH_MAX,
    sleep: Sleep = asyncio.sleep,
) -> None:
    """Keep the statement lines up with the journal until it ends or the task is cancelled.

    Where the file cannot be written, or the engine is away, it tries again after a pause.

    Args:
        engine: whose journal.
        path: the read model's file; made where it is missing, made anew where it is of another
            journal.
        batch_max: the most records of one transaction.
        sleep: waits between two attempts, and two transactions.
    """
    while True:
        try:
            await _follow(engine, Followed(path), batch_max, sleep)
        except (Unreadable, Refused) as error:
            log.warning("history_interrupted", reason=str(error))
            await sleep(_PAUSE_S)
        except (FarthingError, AssertionError):
            # A defect, which would be met again. What is read from now on says how old it is.
            log.critical("history_stops", exc_info=True)
            return
        else:
            return


@asynccontextmanager
async def following_history(engine: Engine, path: Path) -> AsyncIterator[None]:
    """Follow while the block runs; what is left at its end is followed at the next start."""
    task = asyncio.create_task(follow_history(engine, path))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _follow(engine: Engine, followed: Followed, batch_max: int, sleep: Sleep) -> None:
    try:
        seq, record_sha256 = await asyncio.to_thread(followed.open)
        if seq and not await _is_in(engine, seq, record_sha256):
            log.warning("history_of_another_journal", seq=seq)
            await asyncio.to_thread(followed.clear)
            seq = 0
        queue: Queue = asyncio.Queue(batch_max)
        pumping = asyncio.create_task(_pump(engine, seq, queue))
        try:
            while batch := await _next_batch(followed, queue, batch_max):
                began_ns = time.perf_counter_ns()
                await asyncio.to_thread(followed.extend, batch)
                took_s = (time.perf_counter_ns() - began_ns) / 1_000_000_000
                # At most half of the time, so that those who are served here have the other; and
                # what comes meanwhile shares a transaction.
                await sleep(max(took_s, _REST_S))
            await pumping
        finally:
            pumping.cancel()
            await asyncio.wait({pumping})
    finally:
        followed.close()


async def _is_in(engine: Engine, seq: int, record_sha256: str) -> bool:
    """Whether the journal still has the last record that was followed: a restore may not have."""
    data = await engine.ask(RecordAt(seq=seq))
    return data is not None and head_of(data) == record_sha256


async def _pump(engine: Engine, seq: int, queue: Queue) -> None:
    """Put records where a transaction takes them from; what is not taken is not asked for."""
    cancelled = False
    try:
        async with aclosing(cast("AsyncGenerator[Committed, None]", engine.follow(seq))) as records:
            async for committed in records:
                await queue.put(committed)
    except asyncio.CancelledError:
        cancelled = True
        raise
    finally:
        if not cancelled:  # then nobody takes anything any more, and the queue may be full
            await queue.put(None)


async def _next_batch(followed: Followed, queue: Queue, batch_max: int) -> list[Committed]:
    """What is there, waiting while there is nothing and the file stays; empty at the end."""
    batch: list[Committed] = []
    while len(batch) < batch_max:
        if batch and queue.empty():
            break
        try:
            async with asyncio.timeout(_PAUSE_S):
                committed = await queue.get()
        except TimeoutError:
            followed.check()
            continue
        if committed is None:
            # Left for the next call, which then finds the end at once.
            if batch:
                queue.put_nowait(None)
            break
        batch.append(committed)
    return batch
