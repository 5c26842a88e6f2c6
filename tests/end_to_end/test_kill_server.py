"""kill -9 of the server under load: nothing acknowledged is missing, nothing unasked exists.

The oracle is the client's own log: what was sent, and what was acknowledged.
"""

import asyncio
import os
import random
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from farthing.clients.documents import sign_delivery
from farthing.clients.operators import Operator
from farthing.clients.transport import Connection
from farthing.protocol.canonical import sha256_hex
from farthing.protocol.chain import Chain
from farthing.protocol.contracts import DeliveryRecord
from farthing.protocol.errors import Code, Refused, Unreachable
from farthing.protocol.messages.accounts import FUND_ACCOUNT, FundAccount
from farthing.protocol.messages.charges import REFUND_CHARGE, RefundCharge
from farthing.protocol.messages.holds import (
    CAPTURE_HOLD,
    PLACE_HOLD,
    RELEASE_HOLD,
    CaptureHold,
    PlaceHold,
    ReleaseHold,
)
from farthing.protocol.messages.trails import OutcomeView
from farthing.protocol.records import Record, parse_record
from farthing.protocol.wire import Money, Operation, Usage
from tests.patience import patiently
from tests.processes import ServerProcess, free_port
from tests.remote import Market, opened
from tests.settlement.oracle import Oracle

KILLS = int(os.environ.get("KILLS", "20"))
IN_FLIGHT = 16
ARGS = sha256_hex(b"{}")


@dataclass(slots=True)
class Log:
    """What this client sent, and what it was told, by (operation, key)."""

    sent: set[tuple[str, str]] = field(default_factory=set)
    told: dict[tuple[str, str], str] = field(default_factory=dict)
    acknowledged: int = 0


class Worker:
    """One caller that holds, captures, releases, refunds and funds, at random."""

    def __init__(self, market: Market, log: Log, seed: int) -> None:
        self.market = market
        self.log = log
        self.random = random.Random(seed)
        self.holds: list[str] = []
        self.charges: list[str] = []

    async def run(self) -> None:
        """Call until the server is gone."""
        while True:
            try:
                await self._once()
            except Refused:
                continue
            except Unreachable:
                return

    async def _once(self) -> None:
        choice = self.random.random()
        if self.holds and choice < 0.4:
            await self._capture(self.holds.pop())
        elif self.holds and choice < 0.5:
            ask = ReleaseHold(hold_id=self.holds.pop(), idempotency_key=self._key())
            await self._call(self.market.vendor.connection, RELEASE_HOLD, ask, "hold_id")
        elif self.charges and choice < 0.6:
            amount = Money(amount="0.0001", asset="USD")
            refund = RefundCharge(
                charge_id=self.charges.pop(), amount=amount, idempotency_key=self._key()
            )
            await self._call(self.market.vendor.connection, REFUND_CHARGE, refund, "refund_id")
        elif choice < 0.65:
            fund = FundAccount(
                organisation_id=self.market.operator.connection.principal,
                amount=Money(amount="0.001", asset="USD"),
                reference="more",
                idempotency_key=self._key(),
            )
            await self._call(self.market.treasurer, FUND_ACCOUNT, fund, "funding_id")
        else:
            place = PlaceHold(
                agreement_id=self.market.agreement.agreement_id,
                workload=(Usage(meter="page", quantity="1"),),
                args_sha256=ARGS,
                idempotency_key=self._key(),
            )
            connection = self.market.buyer.connection
            self.holds.append(await self._call(connection, PLACE_HOLD, place, "hold_id"))

    async def _capture(self, hold_id: str) -> None:
        ask = capture_of(self.market, hold_id, self._key())
        connection = self.market.vendor.connection
        self.charges.append(await self._call(connection, CAPTURE_HOLD, ask, "charge_id"))

    async def _call(
        self, connection: Connection, operation: Operation[Any, Any], ask: Any, id_: str
    ) -> str:
        call = (operation.name, ask.idempotency_key)
        self.log.sent.add(call)
        reply = await connection.send(operation, ask)
        told: str = getattr(reply.answer, id_)
        self.log.told[call] = told
        self.log.acknowledged += 1
        return told

    def _key(self) -> str:
        return f"kill-{self.random.getrandbits(96):024x}"


def capture_of(market: Market, hold_id: str, key: str) -> CaptureHold:
    """A capture of one page."""
    delivery = DeliveryRecord(
        hold_id=hold_id,  # type: ignore[arg-type]
        agreement_id=market.agreement.agreement_id,  # type: ignore[arg-type]
        vendor_id=market.agreement.vendor_id,  # type: ignore[arg-type]
        listing_id=market.agreement.listing_id,  # type: ignore[arg-type]
        args_sha256=ARGS,
        result_sha256="b" * 64,
        output_schema_sha256=market.output_schema_sha256,
        usage={"page": 1},
        delivered_at_us=market.vendor.connection.clock(),
    )
    signed = sign_delivery(market.vendor.signer, delivery)
    return CaptureHold(
        hold_id=hold_id,
        delivery=dict(signed.document),
        delivery_signature=signed.signature,
        idempotency_key=key,
    )


async def test_nothing_acknowledged_is_lost_and_nothing_unasked_exists(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, free_port())
    moments = random.Random(20_261_121)
    log = Log()
    try:
        facts = await server.start()
        async with httpx2.AsyncClient() as http:
            market = await opened(facts, http)
            setup = {
                record.request.key for record in _records(tmp_path) if record.request is not None
            }
            for kill in range(KILLS):
                before = dict(log.told)
                await _load_until_killed(server, market, log, moments.randint(20, 90), kill)
                await server.start()
                told = {call: log.told[call] for call in log.told.keys() - before.keys()}
                await _check_told(market, told)
            await _killed_between_capture_and_reply(server, market, log)
    finally:
        server.stop()
    _check_journal(tmp_path, log, setup)


async def _load_until_killed(
    server: ServerProcess, market: Market, log: Log, acknowledgements: int, kill: int
) -> None:
    target = log.acknowledged + acknowledgements
    workers = [Worker(market, log, seed=kill * IN_FLIGHT + each) for each in range(IN_FLIGHT)]
    running = [asyncio.create_task(worker.run()) for worker in workers]
    while log.acknowledged < target:
        done, _ = await asyncio.wait(running, timeout=0.001)
        assert not done, "a worker ended before the server did"
    server.kill()
    await asyncio.gather(*running)


async def _check_told(market: Market, told: dict[tuple[str, str], str]) -> None:
    """Every acknowledged call has the outcome it was told."""
    by_operation = {
        "place_hold": (market.buyer.connection, "hold_id"),
        "capture_hold": (market.vendor.connection, "charge_id"),
        "release_hold": (market.vendor.connection, "hold_id"),
        "refund_charge": (market.vendor.connection, "refund_id"),
        "fund_account": (market.treasurer, "funding_id"),
    }
    for (operation, key), thing_id in told.items():
        connection, id_name = by_operation[operation]
        outcome = await _outcome(connection, operation, key)
        assert outcome.outcome == "done", (operation, key)
        assert outcome.answer is not None
        assert outcome.answer[id_name] == thing_id


async def _outcome(connection: Connection, operation: str, key: str) -> OutcomeView:
    """What became of a call; a front end may still be looking for the engine that came after."""
    async with patiently():
        while True:
            try:
                return await Operator(connection).outcome(operation, key)
            except Refused as refused:
                if refused.code is not Code.UNAVAILABLE:
                    raise
                await asyncio.sleep(0)


async def _killed_between_capture_and_reply(
    server: ServerProcess, market: Market, log: Log
) -> None:
    """The capture is in the journal, the reply never arrives; asked again, it is the same one."""
    hold = await market.buyer.hold(
        market.agreement.agreement_id, {"page": 1}, {}, key="aimed-hold-0000000000"
    )
    log.sent.add(("place_hold", "aimed-hold-0000000000"))
    ask = capture_of(market, hold.answer.hold_id, "aimed-capture-00000000")
    log.sent.add(("capture_hold", ask.idempotency_key))
    sending = asyncio.create_task(market.vendor.connection.send(CAPTURE_HOLD, ask))
    while not _holds_key(server.data_dir, ask.idempotency_key):
        await asyncio.wait([sending], timeout=0)
    server.kill()
    told = await asyncio.gather(sending, return_exceptions=True)
    await server.start()
    again = await market.vendor.connection.send(CAPTURE_HOLD, ask)
    assert again.replayed
    if not isinstance(told[0], BaseException):
        assert told[0].answer.charge_id == again.answer.charge_id


def _holds_key(data_dir: Path, key: str) -> bool:
    query = "SELECT 1 FROM journal_batch WHERE instr(records, ?) > 0 AND first_seq > 0"
    with closing(sqlite3.connect(f"file:{data_dir}/journal.sqlite?mode=ro", uri=True)) as database:
        return database.execute(query, (key.encode(),)).fetchone() is not None


def _lines(data_dir: Path) -> list[bytes]:
    query = "SELECT records FROM journal_batch ORDER BY first_seq"
    with closing(sqlite3.connect(f"file:{data_dir}/journal.sqlite?mode=ro", uri=True)) as database:
        return [line for (records,) in database.execute(query) for line in records.split(b"\n")]


def _records(data_dir: Path) -> list[Record]:
    return [parse_record(line)[0] for line in _lines(data_dir)]


def _check_journal(data_dir: Path, log: Log, setup: set[str]) -> None:
    """The file alone: books, chain, tree; and it holds what was asked and nothing else."""
    lines = _lines(data_dir)
    Oracle().read(lines)
    chain = Chain()
    for line in lines:
        chain.add(line)
    query = "SELECT root FROM journal_batch ORDER BY first_seq DESC LIMIT 1"
    with closing(sqlite3.connect(data_dir / "journal.sqlite")) as database:
        assert database.execute(query).fetchone()[0] == chain.tree.root().hex()
    recorded = {
        (record.operation, record.request.key)
        for record in (parse_record(line)[0] for line in lines)
        if record.request is not None and record.request.key not in setup
    }
    assert log.told.keys() <= recorded
    assert recorded <= log.sent
    assert len(log.told) > KILLS * IN_FLIGHT
