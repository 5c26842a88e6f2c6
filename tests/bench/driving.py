"""Callers that each await their own acknowledgement, and how long they waited."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.report import percentile

__all__ = ["Driven", "costed", "cpu_us", "drive"]

Call = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Driven:
    """Calls per second, and percentiles of how long a call took."""

    rate: float
    p50_ms: float
    p99_ms: float


async def drive(call: Call, calls: int, callers: int) -> Driven:
    """Make so many calls, so many at once."""
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
    elapsed_s = time.perf_counter() - began
    return Driven(
        rate=len(times) / elapsed_s,
        p50_ms=percentile(times, 0.5),
        p99_ms=percentile(times, 0.99),
    )


async def costed(call: Call, calls: int, callers: int, pids: Iterable[int]) -> tuple[Driven, float]:
    """As `drive`, with the CPU in microseconds that a call takes of processes."""
    pids = tuple(pids)
    before_us = cpu_us(pids)
    driven = await drive(call, calls, callers)
    return driven, (cpu_us(pids) - before_us) / calls


def cpu_us(pids: Iterable[int]) -> float:
    """User and system time of processes so far, as the kernel's scheduler counts it."""
    threads = (thread for pid in pids for thread in Path(f"/proc/{pid}/task").iterdir())
    return sum(int((each / "schedstat").read_text().split()[0]) for each in threads) / 1000
