"""What a signed MCP call costs, paid and unpaid, against a real server in a process of its own.

Paid is `place_hold`: proof, authority, rating, balance, a durable record. Unpaid is `get_hold`:
the same door and proof, one question, nothing written. CPU is of all the server's processes.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2

from tests.bench.report import Row, percentile
from tests.processes import ServerProcess, free_port
from tests.remote import Market, opened

__all__ = ["run"]

CALLERS = (1, 16, 64)
CALLS = {1: 200, 16: 1_000, 64: 2_000}
TICKS = os.sysconf("SC_CLK_TCK")


async def run(rows: int) -> list[Row]:
    """The figures of the door suite."""
    del rows
    figures: list[Row] = []
    with TemporaryDirectory(dir=Path.cwd()) as folder:
        server = ServerProcess(Path(folder), free_port())
        try:
            facts = await server.start()
            limits = httpx2.Limits(max_connections=128, max_keepalive_connections=128)
            async with httpx2.AsyncClient(limits=limits) as http:
                market = await opened(facts, http)
                for callers in CALLERS:
                    figures += await _figures(market, callers, server)
        finally:
            server.stop()
    return figures


async def _figures(market: Market, callers: int, server: ServerProcess) -> list[Row]:
    buyer, agreement_id = market.buyer, market.agreement.agreement_id
    held = await buyer.hold(agreement_id, {"page": 1}, {})

    async def paid() -> None:
        await buyer.hold(agreement_id, {"page": 1}, {})

    async def unpaid() -> None:
        await buyer.hold_status(held.answer.hold_id)

    free = await _drive(unpaid, callers, server)
    cost = await _drive(paid, callers, server)
    name = f"{callers} caller{'s' if callers > 1 else ''}"
    return [
        Row(name=f"paid calls, {name}", unit="1/s", value=cost[0], baseline=free[0]),
        Row(name=f"paid calls, {name}, p50", unit="ms", value=cost[1], baseline=free[1]),
        Row(name=f"paid calls, {name}, p99", unit="ms", value=cost[2], baseline=free[2]),
        Row(name=f"server CPU a paid call, {name}", unit="us", value=cost[3], baseline=free[3]),
        Row(
            name=f"CPU that payment adds, {name}",
            unit="us",
            value=cost[3] - free[3],
            target=100 if callers == 64 else None,
        ),
    ]


async def _drive(
    call: Callable[[], Awaitable[None]], callers: int, server: ServerProcess
) -> tuple[float, float, float, float]:
    """Calls a second, p50 and p99 in ms, server CPU per call in us."""
    left = CALLS[callers]
    times: list[float] = []

    async def caller() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            began = time.perf_counter_ns()
            await call()
            times.append((time.perf_counter_ns() - began) / 1e6)

    cpu = _cpu_us(server)
    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    took = time.perf_counter() - began
    return (
        len(times) / took,
        percentile(times, 0.5),
        percentile(times, 0.99),
        (_cpu_us(server) - cpu) / len(times),
    )


def _cpu_us(server: ServerProcess) -> float:
    """User and system time of the engine and its front ends; the kernel counts it in ticks."""
    ticks = 0
    for pid in (server.engine_pid, *server.front_end_pids):
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(after_name[11]) + int(after_name[12])
    return ticks * 1e6 / TICKS
