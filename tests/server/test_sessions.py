"""Spend sessions over the real server: entitlements, signed batches, vouchers, forgeries."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from farthing.clients.operators import Member
from farthing.clients.transport import Connection
from farthing.protocol.batches import sign_batch
from farthing.protocol.errors import Code, Refusal, Refused
from farthing.protocol.ids import AgreementId, SessionId
from farthing.protocol.keys import PublicKey, Signer
from farthing.protocol.messages.sessions import (
    CLOSE_SESSION,
    GET_SESSION,
    LIST_SESSIONS,
    OPEN_SESSION,
    REPORT_USAGE,
    TOP_UP_SESSION,
    CloseSession,
    GetSession,
    ListSessions,
    OpenSession,
    ReportUsage,
    Session,
    TopUpSession,
    UsageReport,
)
from farthing.protocol.messages.trails import GET_OUTCOME, GetOutcome
from farthing.protocol.proofs import Entitlement, Voucher, check_entitlement, voucher_jwt
from farthing.protocol.signatures import Typ, sign_detached
from farthing.protocol.times import parse_time
from farthing.protocol.usage import batch_bytes
from farthing.protocol.wire import Money
from farthing.settlement.engine.questions import FiguresNow, RecordAt
from tests.papers import signing_key
from tests.protocol.replay.metered import events
from tests.server.listening import held
from tests.serving import Shop, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")


def usd(amount: str) -> Money:
    return Money(amount=amount, asset="USD")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    async with held(serving(tmp_path_factory.mktemp("sessions"))) as server:
        yield await Shop.opened(server, balance="1000", per_day="1000")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A session of the shop's, and what its sides would send."""

    shop: Shop
    session: Session

    @property
    def vendor(self) -> Connection:
        return self.shop.vendor.connection

    @property
    def payer(self) -> Signer:
        return signing_key("Agent One")

    def batch(self, first: int, *pages: int) -> str:
        at_us = parse_time(self.session.opened_at)
        return batch_bytes(self.session.session_id, events(first, *pages, at_us=at_us)).decode()

    def signature(self, batch: str, signer: Signer | None = None, session_id: str = "") -> str:
        whose = session_id or self.session.session_id
        return sign_batch(signer or self.shop.vendor.signer, whose, batch.encode())

    def voucher(self, seq: int = 100, signer: Signer | None = None, **other: Any) -> str:
        voucher = Voucher(
            agreement_id=AgreementId(self.session.agreement_id),
            session_id=SessionId(self.session.session_id),
            args_sha256="a" * 64,
            seq=seq,
            max_cum_units=10**8,
            ack="",
        )
        return voucher_jwt(
            signer or self.payer,
            replace(voucher, **other),
            now_us=parse_time(self.session.opened_at),
            jti=self.vendor.new_key(),
            lifetime_s=60,
        )

    def ask(self, batch: str, **other: Any) -> ReportUsage:
        ask = ReportUsage(
            session_id=self.session.session_id,
            batch=batch,
            batch_signature=self.signature(batch),
            voucher=self.voucher(),
            idempotency_key=self.vendor.new_key(),
        )
        return replace(ask, **other)

    async def report(self, batch: str, **other: Any) -> UsageReport:
        return await self.vendor.call(REPORT_USAGE, self.ask(batch, **other))

    async def refused(self, batch: str, **other: Any) -> Refusal:
        with pytest.raises(Refused) as refused:
            await self.report(batch, **other)
        return refused.value.refusal


async def opened(shop: Shop, cap: str = "0.1", **ask: Any) -> Opened:
    quote = await shop.buyer.quote(shop.listing_id, {"page": 1})
    agreement = await shop.buyer.accept(quote)
    connection = shop.buyer.connection
    body = OpenSession(
        agreement_id=agreement.agreement_id,
        cap=usd(cap),
        per_call=usd("0.05"),
        idempotency_key=connection.new_key(),
    )
    return Opened(shop=shop, session=await connection.call(OPEN_SESSION, replace(body, **ask)))


def entitled(shop: Shop, token: str) -> Entitlement:
    keys = [PublicKey.from_jwk(jwk) for jwk in shop.serving.service.market.quote_keys]
    return check_entitlement(
        token,
        key_of={key.thumbprint: key for key in keys}.get,
        vendor_id=shop.vendor.vendor_id,
        now_us=shop.serving.clock(),
    )


async def test_an_entitlement_says_what_the_vendor_may_believe_of_a_session(shop: Shop) -> None:
    made = await opened(shop, unsigned=usd("0.01"))
    found = entitled(shop, made.session.entitlement)

    assert (found.session_id, found.hold_id) == (made.session.session_id, None)
    assert (found.cap_units, found.per_call_units) == (10**8, 5 * 10**7)
    assert found.unsigned_units == 10**7
    assert found.card_sha256 == made.session.rate_card_sha256
    assert found.payer_jwk == made.payer.public.jwk()


async def test_a_top_up_is_answered_with_an_entitlement_for_more(shop: Shop) -> None:
    made = await opened(shop)
    buyer = shop.buyer.connection
    ask = TopUpSession(
        session_id=made.session.session_id,
        amount=usd("0.2"),
        idempotency_key=buyer.new_key(),
    )
    raised = await buyer.call(TOP_UP_SESSION, ask)
    again = await buyer.call(TOP_UP_SESSION, ask)
    shown = await buyer.call(GET_SESSION, GetSession(session_id=made.session.session_id))

    assert raised.cap == again.cap == shown.cap == usd("0.3")
    assert entitled(shop, raised.entitlement).cap_units == 3 * 10**8
    assert again.entitlement == raised.entitlement
    assert entitled(shop, shown.entitlement).cap_units == 3 * 10**8


async def test_a_batch_is_billed_and_its_retry_is_answered_alike(shop: Shop) -> None:
    made = await opened(shop)
    ask = made.ask(made.batch(1, 2, 3))
    first = await made.vendor.call(REPORT_USAGE, ask)
    again = await made.vendor.call(REPORT_USAGE, ask)

    assert (first.amount, first.accepted, first.billed) == (usd("0.01"), 2, 2)
    assert first.spent == usd("0.01")
    assert first.remaining == usd("0.09")
    assert replace(again, standing=None) == replace(first, standing=None)
    assert first.standing is not None


async def test_who_lost_a_reply_about_a_session_is_told_what_became_of_the_call(shop: Shop) -> None:
    made = await opened(shop, idempotency_key="open_session-lost")
    session_id, buyer = made.session.session_id, shop.buyer.connection
    more = TopUpSession(
        session_id=session_id, amount=usd("0.2"), idempotency_key="top_up_session-lost"
    )
    await buyer.call(TOP_UP_SESSION, more)
    await made.report(made.batch(1, 2), idempotency_key="report_usage-lost")
    close = CloseSession(session_id=session_id, idempotency_key="close_session-lost")
    await made.vendor.call(CLOSE_SESSION, close)

    told = {
        name: await who.call(GET_OUTCOME, GetOutcome(operation=name, key=f"{name}-lost"))
        for who, names in (
            (buyer, ("open_session", "top_up_session")),
            (made.vendor, ("report_usage", "close_session")),
        )
        for name in names
    }

    assert {(each.outcome, (each.answer or {})["session_id"]) for each in told.values()} == {
        ("done", session_id)
    }


async def test_each_side_sees_the_session_and_only_the_buyer_its_entitlement(shop: Shop) -> None:
    made = await opened(shop)
    await made.report(made.batch(1, 2))
    ask = GetSession(session_id=made.session.session_id)
    buyer, operator, vendor = [
        await side.call(GET_SESSION, ask)
        for side in (shop.buyer.connection, shop.operator.connection, made.vendor)
    ]
    listed = await made.vendor.call(LIST_SESSIONS, ListSessions(limit=1))

    assert buyer.entitlement
    assert replace(buyer, entitlement="") == operator == vendor == listed.sessions[0]
    assert (vendor.calls, vendor.top_seq, vendor.voucher_seq) == (1, 1, 100)


async def test_forged_and_foreign_signatures_bill_nothing(shop: Shop) -> None:
    made, other = await opened(shop), await opened(shop)
    batch, changed = made.batch(1, 2), made.batch(1, 3)
    stranger = signing_key("nobody")
    foreign = SessionId(other.session.session_id)
    forgeries: dict[str, dict[str, Any]] = {
        "the agent signs the batch": {"batch_signature": made.signature(batch, made.payer)},
        "a key of nobody's signs it": {"batch_signature": made.signature(batch, stranger)},
        "another batch was signed": {"batch_signature": made.signature(changed)},
        "as another thing": {
            "batch_signature": sign_detached(made.shop.vendor.signer, Typ.DELIVERY, batch.encode())
        },
        "as usage of another session": {
            "batch_signature": made.signature(batch, session_id="ses_" + "0" * 26)
        },
        "no signature": {"batch_signature": "e30..e30"},
        "the vendor signs the voucher": {"voucher": made.voucher(signer=shop.vendor.signer)},
        "of another session": {"voucher": made.voucher(session_id=foreign)},
        "under another agreement": {
            "voucher": made.voucher(agreement_id=AgreementId(other.session.agreement_id))
        },
        "no voucher": {"voucher": "e30.e30.e30"},
    }
    given = {name: await made.refused(batch, **how) for name, how in forgeries.items()}

    assert {each.code for each in given.values()} == {Code.SIGNATURE_INVALID}
    paths = [each.path for each in given.values()]
    assert paths == ["batch_signature"] * 6 + ["voucher"] * 4
    shown = await made.vendor.call(GET_SESSION, GetSession(session_id=made.session.session_id))
    assert shown.spent == usd("0")


async def test_a_batch_of_another_session_is_unreadable_for_this_one(shop: Shop) -> None:
    made, other = await opened(shop), await opened(shop)
    refusal = await made.refused(other.batch(1, 2))

    assert (refusal.code, refusal.path) == (Code.USAGE_INVALID, "batch.0.source")


async def test_content_in_an_event_is_refused_at_its_place(shop: Shop) -> None:
    made = await opened(shop)
    batch = made.batch(1, 2).replace('"outcome"', '"note":"secret","outcome"')
    refusal = await made.refused(batch)

    assert (refusal.code, refusal.path) == (Code.USAGE_INVALID, "batch.0.data.note")
    market = shop.serving.service.market
    record = await market.ask(RecordAt(seq=(await market.ask(FiguresNow())).seq))
    assert record is not None
    assert b"report_usage" in record
    assert b"secret" not in record


async def test_reports_that_race_for_one_sessions_cap_never_pass_it(shop: Shop) -> None:
    made = await opened(shop, cap="0.05")
    batches = [made.batch(1 + 4 * n, 3, 3, 3, 3) for n in range(10)]
    answers = await asyncio.gather(*(made.report(batch) for batch in batches))

    shown = await made.vendor.call(GET_SESSION, GetSession(session_id=made.session.session_id))
    assert sum(each.amount.units for each in answers) == shown.spent.units
    assert shown.spent.units <= 50_000_000
    assert shown.rejected == sum(len(each.rejected) for each in answers) > 0
    assert {each.reason for answer in answers for each in answer.rejected} == {"over_cap"}


async def test_one_batch_sent_many_times_at_once_is_billed_once(shop: Shop) -> None:
    made = await opened(shop)
    batch = made.batch(1, 2, 3)
    answers = await asyncio.gather(*(made.report(batch) for _ in range(8)))

    assert sorted(each.billed for each in answers) == [0] * 7 + [2]


async def test_a_batch_that_was_signed_before_the_key_was_rotated_is_signed_anew(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server, balance="10", per_day="10")
        made = await opened(shop)
        batch = made.batch(1, 2)
        new = signing_key("Vendor One, rotated")
        await Member(shop.vendor.connection).rotate_key(new)
        rotated = server.connect(new, shop.vendor.vendor_id)
        with pytest.raises(Refused) as refused:
            await rotated.call(REPORT_USAGE, made.ask(batch))
        anew = made.ask(batch, batch_signature=made.signature(batch, new))

        assert refused.value.refusal.code is Code.SIGNATURE_INVALID
        assert (await rotated.call(REPORT_USAGE, anew)).billed == 1


async def test_a_closed_session_takes_nothing_and_frees_the_rest(shop: Shop) -> None:
    made = await opened(shop)
    await made.report(made.batch(1, 2))
    ask = CloseSession(session_id=made.session.session_id, idempotency_key=made.vendor.new_key())
    closed = await made.vendor.call(CLOSE_SESSION, ask)

    assert (closed.status, closed.remaining) == ("closed", usd("0"))
    assert (await made.refused(made.batch(2, 1))).code is Code.SESSION_CLOSED
