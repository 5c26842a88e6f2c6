"""How many usage events a second come in over HTTP, are rated, debited and durable when answered.

Against a real server of two front ends. Each session has its signed batches reported one after the
other, and those of several sessions go in one request, as a vendor's reporter sends them. Requests
are made and signed before the clock starts: what that costs is a vendor's, and part of what
`session` measures.
"""

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

import httpx2

from farthing.clients.transport import Connection
from farthing.protocol.batches import sign_batch
from farthing.protocol.ids import AgreementId, SessionId
from farthing.protocol.messages.sessions import (
    OPEN_SESSION,
    REPORT_USAGE,
    OpenSession,
    ReportUsage,
)
from farthing.protocol.money import format_units
from farthing.protocol.proofs import Voucher, voucher_jwt
from farthing.protocol.usage import UsageEvent, UsageOutcome, batch_bytes
from farthing.protocol.wire import Money
from farthing.server.engine import now_us
from tests.bench.report import Row, percentile
from tests.bench.sending import catching, connected, request_of
from tests.processes import ServerProcess, free_port
from tests.remote import Market, opened

__all__ = ["reported"]

FRONT_ENDS: Final = 2
SESSIONS: Final = 128
EVENTS: Final = 256_000
# How many batches of a size are a request, each of another session: below a mebibyte.
TOGETHER: Final = {100: 8, 500: 4}
CAP_UNITS: Final = 10**12
PER_CALL_UNITS: Final = 10**9


class _Batches(NamedTuple):
    """Batches of several sessions as they are sent together, and how many events they have."""

    request: bytes
    events: int


async def reported() -> list[Row]:
    """What comes in over HTTP, by size of the batches."""
    figures: list[Row] = []
    with TemporaryDirectory(dir=Path.cwd()) as folder:
        server = ServerProcess(Path(folder), free_port(), workers=FRONT_ENDS)
        try:
            facts = await server.start()
            async with httpx2.AsyncClient() as http:
                market = await opened(facts, http)
                for size, together in TOGETHER.items():
                    lanes = [
                        await _lane(market, size, together) for _ in range(SESSIONS // together)
                    ]
                    figures += await _reported(server.port, lanes, size)
        finally:
            server.stop()
    return figures


async def _lane(market: Market, size: int, together: int) -> list[_Batches]:
    """Some sessions, and the requests that report their calls."""
    known = market.vendor.connection
    reporting = Connection(
        known.url, signer=known.signer, principal=known.principal, http=catching()
    )
    sessions = [await _session(market, size, EVENTS // SESSIONS) for _ in range(together)]
    requests: list[_Batches] = []
    for asks in zip(*sessions, strict=True):
        calls = asyncio.gather(*(reporting.call(REPORT_USAGE, ask) for ask in asks))
        requests.append(_Batches(await request_of(calls), size * len(asks)))
    return requests


async def _session(market: Market, size: int, events: int) -> list[ReportUsage]:
    """A session, and the batches of its calls."""
    connection = market.buyer.connection
    agreement_id = AgreementId(market.agreement.agreement_id)
    session = await connection.call(
        OPEN_SESSION,
        OpenSession(
            agreement_id=agreement_id,
            cap=Money(amount=format_units(CAP_UNITS, "USD"), asset="USD"),
            per_call=Money(amount=format_units(PER_CALL_UNITS, "USD"), asset="USD"),
            idempotency_key=connection.new_key(),
        ),
    )
    session_id, signer, at_us = SessionId(session.session_id), connection.signer, now_us()
    assert signer is not None
    voucher = voucher_jwt(
        signer,
        Voucher(
            agreement_id=agreement_id,
            session_id=session_id,
            args_sha256="a" * 64,
            seq=events,
            max_cum_units=CAP_UNITS,
            ack="",
        ),
        now_us=at_us,
        jti=f"bench-{session_id}",
        lifetime_s=600,
    )
    asks: list[ReportUsage] = []
    for first in range(1, events + 1, size):
        batch = batch_bytes(
            session_id,
            [
                UsageEvent(
                    seq=seq,
                    at_us=at_us,
                    usage={"page": 1 + seq % 3},
                    outcome=UsageOutcome.SUCCEEDED,
                    args_sha256=f"{seq:064x}",
                    result_sha256=f"{seq:064x}",
                )
                for seq in range(first, first + size)
            ],
        )
        asks.append(
            ReportUsage(
                session_id=session_id,
                batch=batch.decode(),
                batch_signature=sign_batch(market.vendor.signer, session_id, batch),
                voucher=voucher,
                idempotency_key=connection.new_key(),
            )
        )
    return asks


async def _reported(port: int, lanes: list[list[_Batches]], size: int) -> list[Row]:
    times: list[float] = []

    async def report(lane: list[_Batches]) -> int:
        taken = 0
        async with connected(port) as line:
            for batches in lane:
                began = time.perf_counter_ns()
                answers = (await line.send(batches.request))["answers"]
                times.append((time.perf_counter_ns() - began) / 1e6)
                assert sum(each["answer"]["billed"] for each in answers) == batches.events, answers
                taken += batches.events
        return taken

    began = time.perf_counter()
    taken = sum(await asyncio.gather(*map(report, lanes)))
    rate = taken / (time.perf_counter() - began)
    name = f"usage events over HTTP, batches of {size}"
    return [
        Row(name=name, unit="1/s", value=rate, target=100_000),
        Row(name=f"{name}, p50 of a request", unit="ms", value=percentile(times, 0.5)),
        Row(name=f"{name}, p99 of a request", unit="ms", value=percentile(times, 0.99)),
    ]
