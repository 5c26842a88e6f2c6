"""What a signed MCP call costs, paid and unpaid, against a real server in a process of its own.

Paid is `place_hold`: proof, authority, rating, balance, a durable record. Unpaid is `get_hold`:
the same door and proof, one question, nothing written. CPU is of all the server's processes.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2

from tests.bench.driving import costed
from tests.bench.report import Row
from tests.processes import ServerProcess, free_port
from tests.remote import Market, opened

__all__ = ["run"]

CALLERS = (1, 16, 64)
CALLS = {1: 200, 16: 1_000, 64: 2_000}


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

    pids = (server.engine_pid, *server.front_end_pids)
    free, free_us = await costed(unpaid, CALLS[callers], callers, pids)
    cost, cost_us = await costed(paid, CALLS[callers], callers, pids)
    name = f"{callers} caller{'s' if callers > 1 else ''}"
    return [
        Row(name=f"paid calls, {name}", unit="1/s", value=cost.rate, baseline=free.rate),
        Row(name=f"paid calls, {name}, p50", unit="ms", value=cost.p50_ms, baseline=free.p50_ms),
        Row(name=f"paid calls, {name}, p99", unit="ms", value=cost.p99_ms, baseline=free.p99_ms),
        Row(name=f"server CPU a paid call, {name}", unit="us", value=cost_us, baseline=free_us),
        Row(
            name=f"CPU that payment adds, {name}",
            unit="us",
            value=cost_us - free_us,
            target=100 if callers == 64 else None,
        ),
    ]
