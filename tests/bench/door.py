"""What a signed MCP call costs, paid and unpaid, against a real server in a process of its own.

Paid is `place_hold`: proof, authority, rating, balance, a durable record. Unpaid is `get_hold`:
the same door and proof, one question, nothing written. CPU is the server process's own.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2

from farthing.clients.buyers import Buyer
from farthing.clients.operators import Admin, Newcomer, Operator, Treasurer
from farthing.clients.transport import Connection
from farthing.clients.vendors import Offer, Vendor
from farthing.protocol.ids import derive_id
from farthing.protocol.keys import PrivateKey
from farthing.protocol.wire import Money
from tests.bench.report import Row, percentile
from tests.construction import card_document, listing_document, signing_key, terms_document

__all__ = ["run"]

CALLERS = (1, 16, 64)
CALLS = {1: 200, 16: 1_000, 64: 2_000}
TICKS = os.sysconf("SC_CLK_TCK")


async def run(rows: int) -> list[Row]:
    """The figures of the door suite."""
    del rows
    figures: list[Row] = []
    with TemporaryDirectory(dir=Path.cwd()) as folder:
        ready = Path(folder) / "ready.json"
        command = [sys.executable, "-m", "farthing.clients.cli", "serve"]
        command += ["--data-dir", folder, "--port", "0", "--ready-file", str(ready)]
        with (Path(folder) / "log").open("wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: ASYNC220  # starts at once
        try:
            facts = await _ready(ready, server)
            limits = httpx2.Limits(max_connections=128, max_keepalive_connections=128)
            async with httpx2.AsyncClient(limits=limits) as http:
                buyer, agreement_id = await _market(facts, http)
                for callers in CALLERS:
                    figures += await _figures(buyer, agreement_id, callers, server.pid)
        finally:
            server.terminate()
            server.wait()
    return figures


async def _figures(buyer: Buyer, agreement_id: str, callers: int, pid: int) -> list[Row]:
    held = await buyer.hold(agreement_id, {"page": 1}, {})

    async def paid() -> None:
        await buyer.hold(agreement_id, {"page": 1}, {})

    async def unpaid() -> None:
        await buyer.hold_status(held.answer.hold_id)

    free = await _drive(unpaid, callers, pid)
    cost = await _drive(paid, callers, pid)
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
    call: Callable[[], Awaitable[None]], callers: int, pid: int
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

    cpu = _cpu_us(pid)
    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    took = time.perf_counter() - began
    return (
        len(times) / took,
        percentile(times, 0.5),
        percentile(times, 0.99),
        (_cpu_us(pid) - cpu) / len(times),
    )


def _cpu_us(pid: int) -> float:
    """User and system time of a process; the kernel counts it in ticks."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) * 1e6 / TICKS


async def _ready(path: Path, server: "subprocess.Popen[bytes]") -> dict[str, str]:
    for _ in range(300):
        if path.exists():
            facts: dict[str, str] = json.loads(path.read_text())
            return facts
        assert server.poll() is None, "the server did not start"
        await asyncio.sleep(0.1)
    raise AssertionError("the server was not ready in time")


async def _market(facts: dict[str, str], http: httpx2.AsyncClient) -> tuple[Buyer, str]:
    issuer = facts["issuer"]

    def member(path: str) -> Connection:
        key = PrivateKey.from_jwk(json.loads(Path(path).read_text()))
        return Connection(issuer, signer=key, principal=derive_id("stf", key.thumbprint), http=http)

    admin, treasurer = Admin(member(facts["admin_key"])), Treasurer(member(facts["treasurer_key"]))
    usd = Money(amount="1000000", asset="USD")

    async def organisation(kind: str, name: str) -> Connection:
        newcomer = Newcomer(Connection(issuer, signer=signing_key(name), http=http))
        registration = await newcomer.enrol(kind, name)  # type: ignore[arg-type]
        await admin.approve(registration.principal_id)
        return newcomer.member(registration)

    operator = await organisation("operator", "Operator One")
    vendor = await organisation("vendor", "Vendor One")
    newcomer = Newcomer(Connection(issuer, signer=signing_key("Agent One"), http=http))
    agent = await newcomer.register(operator.principal, "Agent One")
    await Operator(operator).approve(agent.principal_id)
    await treasurer.fund(operator.principal, usd, "bench")
    await Operator(operator).set_authority(agent.principal_id, per_call_max=usd, per_day_max=usd)
    card, terms = card_document(), terms_document()
    listing = listing_document(vendor.principal, card, terms)
    published = await Vendor(vendor).publish(Offer(listing=listing, rate_card=card, terms=terms))
    buyer = Buyer(newcomer.member(agent))
    quote = await buyer.quote(published.listing_id, {"page": 1})
    return buyer, (await buyer.accept(quote)).agreement_id
