"""What paying for a call through a session costs a vendor, beside the same call paid otherwise.

One tool, one MCP server in a process of its own, six ways in:

- unpaid;
- `checked`: the signatures of entitlement and voucher, the digest of the arguments, the life of
  both, and nothing else; the entitlement's signature once, as in a session;
- `unmetered`: the same door at no price: all of that, the result held against the schema it is sold
  under, digested, and answered in x402's shape, but counted and written nowhere;
- paid from a session: all of that, rated, durable in the vendor's spool before it is answered, and
  reported in signed batches; by a voucher for each call, or by MACs and a voucher for every 64;
- sold by x402's own package with a facilitator in the same process that believes everything.

The vendor has a processor of its own, and uvloop, which uvicorn takes where it finds it. CPU is
user and system time of the vendor's process, of a session until its last call is settled; what that
costs the platform's processes is added. What processes take when nobody calls is no call's. The
ways take turns: what one way adds to another is the median of what it added in each round, since
the machine is not as fast in every one.
"""

import asyncio
import multiprocessing
import os
import socket
import sqlite3
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final, NamedTuple

import httpx2
import uvicorn
import uvloop
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp_types import CallToolResult
from pydantic import BaseModel

from farthing.clients.documents import Offer, arguments_sha256
from farthing.clients.entitlements import claimed
from farthing.clients.maclane import MacLane
from farthing.clients.paid import Seller
from farthing.clients.payable import Payable
from farthing.clients.tools import Endpoint
from farthing.clients.transport import Connection
from farthing.clients.usage_spool import BatchState
from farthing.clients.vendors import Vendor
from farthing.protocol.ids import AgreementId, SessionId
from farthing.protocol.messages.agreements import Agreement
from farthing.protocol.messages.sessions import OPEN_SESSION, OpenSession
from farthing.protocol.proofs import Voucher, voucher_jwt
from farthing.protocol.rating import parse_card
from farthing.protocol.rating.running import Running
from farthing.protocol.vouchers import MAC_KEY_BYTES
from farthing.protocol.wire import Money, money
from farthing.protocol.x402 import PAYMENT, Presented, Price, payment
from farthing.server.engine import now_us
from tests.bench import usage, x402_tool
from tests.bench.driving import Driven, cpu_us, drive
from tests.bench.free_door import FreeDoor
from tests.bench.report import Row
from tests.bench.sending import Line, catching, connected, request_of
from tests.papers import card_document, listing_document, signing_key, terms_document
from tests.processes import ServerProcess, free_port
from tests.remote import Market, opened

__all__ = ["run"]

CALLERS: Final = 64
CALLS: Final = 2_000
ROUNDS: Final = 13
RATED: Final = 100_000
PER_CALL_UNITS: Final = 10_000_000
ARGUMENTS: Final[dict[str, object]] = {"pdf": "a|b"}
# By MACs so many calls' worth may run unsigned; a buyer then signs one call of these.
UNSIGNED_CALLS: Final = 4 * CALLERS
VOUCHER_EVERY: Final = CALLERS
WAIT_S: Final = 60
IDLE_S: Final = 5
LOOKED_EVERY_S: Final = 0.1
SPOOL: Final = "spool"
_BILLED: Final = """
SELECT count(*) FROM batch JOIN call ON call.session_id = batch.session_id
    AND call.place BETWEEN batch.first AND batch.place
WHERE batch.session_id = ? AND call.rejected = '' AND batch.state = ?
"""
_SPAWN: Final = multiprocessing.get_context("spawn")

Meta = Mapping[str, object]


class PageTexts(BaseModel):
    pages: list[str]


async def run(rows: int) -> list[Row]:
    """The figures of the session suite."""
    del rows
    return [*await usage.reported(), *await _calls()]


async def _calls() -> list[Row]:
    with TemporaryDirectory(dir=Path.cwd()) as name, _processor_apart() as processor:
        folder = Path(name)
        server = ServerProcess(folder, free_port())
        try:
            facts = await server.start()
            limits = httpx2.Limits(max_connections=CALLERS, max_keepalive_connections=CALLERS)
            async with httpx2.AsyncClient(limits=limits, timeout=WAIT_S) as http:
                market = await opened(facts, http)
                port = free_port()
                vendor = _vendor(folder, market, port, processor)
                try:
                    assert vendor.pid is not None
                    vendors = (vendor.pid,)
                    platforms = (server.engine_pid, *server.front_end_pids)
                    machine = _Machine(
                        port=port,
                        spool=folder / SPOOL,
                        vendors=vendors,
                        platforms=platforms,
                        vendors_idle_us=await _idle(vendors),
                        platforms_idle_us=await _idle(platforms),
                    )
                    return await _figures(machine, market)
                finally:
                    vendor.terminate()
                    vendor.join(WAIT_S)
        finally:
            server.stop()


class _Cost(NamedTuple):
    """How calls went, and what CPU one took of the vendor and of the platform, in us."""

    driven: Driven
    vendor_us: float
    platform_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Machine:
    """The processes that are measured; what a second costs them when nobody calls, in us."""

    port: int
    spool: Path
    vendors: tuple[int, ...]
    platforms: tuple[int, ...]
    vendors_idle_us: float
    platforms_idle_us: float

    async def cost(self, tool: str, metas: list[Meta], *, is_settled: bool) -> _Cost:
        """Make calls one way, until the last one is settled where they are."""
        requests = await _requests(f"http://127.0.0.1:{self.port}/mcp", tool, metas)
        async with AsyncExitStack() as opened_here:
            lines = [
                await opened_here.enter_async_context(connected(self.port)) for _ in range(CALLERS)
            ]
            vendors_us, platforms_us = cpu_us(self.vendors), cpu_us(self.platforms)
            began_s = time.perf_counter()
            driven = await _drive(requests, lines)
            if is_settled:
                await _settled(self.spool, metas)
            took_s = time.perf_counter() - began_s
            vendors_us += self.vendors_idle_us * took_s
            platforms_us += self.platforms_idle_us * took_s
        return _Cost(
            driven,
            (cpu_us(self.vendors) - vendors_us) / CALLS,
            (cpu_us(self.platforms) - platforms_us) / CALLS,
        )


async def _figures(machine: _Machine, market: Market) -> list[Row]:
    free: Meta = {}
    x402: Meta = {PAYMENT: x402_tool.PAYMENT}
    rounds = [
        {
            way: await machine.cost(tool, metas, is_settled=tool == "extract_text")
            for way, tool, metas in (
                ("unpaid", "unpaid", [free] * CALLS),
                ("checked", "checked", await _payments(market, CALLS)),
                ("unmetered", "unmetered", await _payments(market, CALLS)),
                ("vouchers", "extract_text", await _payments(market, CALLS)),
                ("macs", "extract_text", await _payments(market, CALLS, by_mac=True)),
                ("x402", "x402", [x402] * CALLS),
            )
        }
        for _ in range(ROUNDS)
    ]

    def middle(tool: str) -> tuple[Driven, float]:
        cost = sorted((each[tool] for each in rounds), key=lambda each: each.vendor_us)[ROUNDS // 2]
        return cost.driven, cost.vendor_us

    def added_us(tool: str, session: str = "vouchers") -> float:
        """What a session adds to another way, vendor and platform."""
        pairs = [(each[session], each[tool]) for each in rounds]
        return statistics.median(
            paid.vendor_us + paid.platform_us - other.vendor_us for paid, other in pairs
        )

    unpaid, checked_at, door, session, by_macs, x402_at = map(
        middle, ("unpaid", "checked", "unmetered", "vouchers", "macs", "x402")
    )
    share_us = statistics.median(each["vouchers"].platform_us for each in rounds)
    name = f"{CALLERS} calls in flight"
    return [
        Row(name=f"session calls, {name}, beside unpaid", unit="1/s", value=session[0].rate,
            baseline=unpaid[0].rate),
        Row(name=f"session calls, {name}, p50", unit="ms", value=session[0].p50_ms,
            baseline=unpaid[0].p50_ms),
        Row(name="vendor CPU, unpaid", unit="us", value=unpaid[1]),
        Row(name="vendor CPU, signature checked", unit="us", value=checked_at[1],
            baseline=unpaid[1]),
        Row(name="vendor CPU, the same door at no price", unit="us", value=door[1],
            baseline=unpaid[1]),
        Row(name="vendor CPU, paid from a session", unit="us", value=session[1],
            baseline=unpaid[1]),
        Row(name=f"vendor CPU, paid by MACs, a voucher for every {VOUCHER_EVERY}", unit="us",
            value=by_macs[1], baseline=unpaid[1]),
        Row(name="vendor CPU, sold by x402", unit="us", value=x402_at[1], baseline=unpaid[1]),
        Row(name="platform CPU a call, in batches", unit="us", value=share_us),
        Row(name="of it rating", unit="us", value=_rating_us()),
        Row(
            name="CPU that a session adds to checked signatures, vendor and platform",
            unit="us",
            value=added_us("checked"),
        ),
        Row(
            name="CPU that a session adds to the same door at no price, vendor and platform",
            unit="us",
            value=added_us("unmetered"),
            target=100,
        ),
        Row(
            name="by MACs it adds to the same door at no price, which checks signatures",
            unit="us",
            value=added_us("unmetered", "macs"),
            target=100,
        ),
    ]  # fmt: skip


async def _payments(market: Market, calls: int, *, by_mac: bool = False) -> list[Meta]:
    """A session, and the payments of its calls: signed before the clock starts."""
    connection, agreement = market.buyer.connection, market.agreement
    amount = Money(amount="100", asset="USD")
    unsigned_units = UNSIGNED_CALLS * PER_CALL_UNITS if by_mac else 0
    lane = MacLane(bytes(MAC_KEY_BYTES), unsigned_units)
    session = await connection.call(
        OPEN_SESSION,
        OpenSession(
            agreement_id=agreement.agreement_id,
            cap=amount,
            per_call=Money(amount="0.01", asset="USD"),
            unsigned=money(unsigned_units, "USD") if by_mac else None,
            idempotency_key=connection.new_key(),
        ),
    )
    signer, at_us, args = connection.signer, now_us(), arguments_sha256(ARGUMENTS)
    assert signer is not None
    price = _price(connection.url, agreement)
    metas: list[Meta] = []
    for seq in range(1, calls + 1):
        voucher = Voucher(
            agreement_id=AgreementId(agreement.agreement_id),
            session_id=SessionId(session.session_id),
            args_sha256=args,
            seq=seq,
            max_cum_units=min((seq + CALLERS) * PER_CALL_UNITS, amount.units),
            ack="",
        )
        # The first calls hand the key over, whichever arrives first; the last one signs for all.
        if not by_mac or seq <= CALLERS or seq % VOUCHER_EVERY == 0 or seq == calls:
            token = voucher_jwt(
                signer,
                lane.to_sign(voucher),
                now_us=at_us,
                jti=f"{session.session_id}-{seq}",
                lifetime_s=3000,
            )
            presented = Presented(
                entitlement=session.entitlement, voucher=token, mac_key=lane.handed_over
            )
            lane.arrived(seq)
        else:
            presented = Presented(entitlement=session.entitlement, mac=lane.mac(voucher))
        metas.append({PAYMENT: payment(price, presented)})
    return metas


def _price(platform: str, agreement: Agreement) -> Price:
    return Price(
        tool="extract_text",
        platform=platform,
        vendor_id=agreement.vendor_id,
        listing_id=agreement.listing_id,
        listing_sha256=agreement.listing_sha256,
        rate_card_sha256=agreement.rate_card_sha256,
        terms_sha256=agreement.terms_sha256,
        asset=agreement.asset,
        amount_units=PER_CALL_UNITS,
        exact=False,
        deadline_s=0,
    )


async def _requests(url: str, tool: str, metas: list[Meta]) -> list[bytes]:
    endpoint = Endpoint(catching(), url, timeout_s=WAIT_S)
    return [await request_of(endpoint.call_tool(tool, ARGUMENTS, meta=meta)) for meta in metas]


async def _drive(requests: list[bytes], lines: list[Line]) -> Driven:
    left, free = iter(requests), list(lines)

    async def call() -> None:
        line = free.pop()
        answer = await line.send(next(left))
        assert not answer["result"]["isError"], answer
        free.append(line)

    return await drive(call, len(requests), len(lines))


def _rating_us() -> float:
    """What the law's rating of one call after the other costs a call."""
    running = Running(parse_card(card_document()), {})
    before = time.process_time_ns()
    for _ in range(RATED):
        running.price({"page": 1})
        running.take()
    return (time.process_time_ns() - before) / 1000 / RATED


async def _idle(pids: tuple[int, ...]) -> float:
    """What CPU processes take in a second in which nobody calls, in microseconds."""
    before_us = cpu_us(pids)
    await asyncio.sleep(IDLE_S)
    return (cpu_us(pids) - before_us) / IDLE_S


async def _settled(spool: Path, metas: list[Meta]) -> None:
    """Wait until the platform has billed every call, by the vendor's word: to ask it costs CPU."""
    sent: Any = metas[0][PAYMENT]
    session_id = str(claimed(sent["payload"]["entitlement"])["session_id"])
    with closing(sqlite3.connect(f"file:{spool}?mode=ro", uri=True)) as file:
        while True:
            await asyncio.sleep(LOOKED_EVERY_S)
            (billed,) = file.execute(_BILLED, (session_id, BatchState.TAKEN.value)).fetchone()
            if billed == len(metas):
                return


@contextmanager
def _processor_apart() -> Iterator[int]:
    """Keep this process, and all that it starts, off one processor, and give that one's number."""
    processors = os.sched_getaffinity(0)
    apart = min(processors)
    os.sched_setaffinity(0, processors - {apart} or processors)
    try:
        yield apart
    finally:
        os.sched_setaffinity(0, processors)


def _vendor(folder: Path, market: Market, port: int, processor: int) -> BaseProcess:
    ready = _SPAWN.Event()
    url, vendor_id = market.vendor.connection.url, market.vendor.vendor_id
    process = _SPAWN.Process(target=_sell, args=(folder, url, vendor_id, port, ready))
    process.start()
    assert process.pid is not None
    os.sched_setaffinity(process.pid, {processor})
    assert ready.wait(WAIT_S), "the vendor did not start"
    return process


def _sell(folder: Path, platform: str, vendor_id: str, port: int, ready: Event) -> None:
    # As uvicorn serves an application where it finds uvloop.
    uvloop.run(_serve(folder, platform, vendor_id, port, ready))


async def _serve(folder: Path, platform: str, vendor_id: str, port: int, ready: Event) -> None:
    signer = signing_key("Vendor One")
    connection = Connection(platform, signer=signer, principal=vendor_id, transport="http")
    keys = await connection.platform_keys()
    card, terms = card_document(), terms_document()
    listing = listing_document(vendor_id, card, terms)
    listing["limits"] = {"input_bytes_max": 1_000_000, "concurrency_max": 2 * CALLERS}
    offer = Offer.bind(listing, card, terms)
    seller = Seller(
        Vendor(connection),
        platform_keys=keys,
        spool=folder / SPOOL,
        offer=lambda _: offer,
        unsigned_calls_max=UNSIGNED_CALLS,
    )
    mcp: MCPServer[Any] = MCPServer("bench", lifespan=seller.lifespan, log_level="CRITICAL")
    sold = x402_tool.sold_by_x402(lambda arguments: _read(str(arguments["pdf"])).model_dump())
    payable = Payable(_read_later, offer, {"page": lambda result: len(result.pages)})
    door = FreeDoor(payable, keys, platform, vendor_id)

    @mcp.tool()
    @seller.paid(listing="pdf-text", meter={"page": lambda result: len(result.pages)})
    async def extract_text(pdf: str) -> PageTexts:
        return _read(pdf)

    @mcp.tool()
    async def unpaid(pdf: str) -> PageTexts:
        return _read(pdf)

    @mcp.tool()
    async def checked(pdf: str, context: Context[Any, Any]) -> PageTexts:
        door.check(context)
        return _read(pdf)

    @mcp.tool()
    async def unmetered(
        pdf: str, context: Context[Any, Any]
    ) -> Annotated[CallToolResult, PageTexts]:
        return await door.sell(pdf, context)

    @mcp.tool()
    async def x402(pdf: str, context: Context[Any, Any]) -> CallToolResult:
        params = context.request_context.params or {}
        return await sold({"pdf": pdf}, params.get("_meta") or {})

    app = mcp.streamable_http_app(json_response=True)
    config = uvicorn.Config(app, log_level="critical", access_log=False)
    listener = socket.create_server(("127.0.0.1", port), backlog=2 * CALLERS)
    # Whoever connects from now on waits until the first turn of the loop takes it.
    ready.set()
    await uvicorn.Server(config).serve(sockets=[listener])


async def _read_later(pdf: str) -> PageTexts:
    return _read(pdf)


def _read(pdf: str) -> PageTexts:
    return PageTexts(pages=pdf.split("|"))
