"""Both sides of a session look into what was reported: receipts of calls, rejections, countings."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from farthing.clients.buyers import Buyer
from farthing.clients.countings import acknowledged_of
from farthing.clients.sessions import SpendSession
from farthing.identity.keyring import Purpose
from farthing.protocol.batches import sign_batch
from farthing.protocol.canonical import Json
from farthing.protocol.errors import Code, Refused, Unverified
from farthing.protocol.ids import derive_id
from farthing.protocol.messages.charges import EXPLAIN_CHARGE, ExplainCharge
from farthing.protocol.messages.metering import GET_CALL_RECEIPT, GetCallReceipt
from farthing.protocol.messages.sessions import REPORT_USAGE, ReportUsage
from farthing.protocol.platform_keys import PlatformKeys
from farthing.protocol.times import format_time
from farthing.protocol.usage import UsageEvent, UsageOutcome, batch_bytes
from farthing.server.operations import reconciliation
from tests.clients.forging import answering, proven_by
from tests.clients.trading import Trading, trading, usd
from tests.papers import card_document, signing_key

FLAT = card_document(({"amount": "0.002", "per_quantity": "1"},))
LIMITS: dict[str, Json] = {"limits": {"input_bytes_max": 10_000, "concurrency_max": 64}}


@asynccontextmanager
async def called(tmp_path: Path, calls: int = 5) -> AsyncIterator[tuple[Trading, SpendSession]]:
    """A session in which calls were made, reported and billed."""
    async with trading(tmp_path, card=FLAT, listing=LIMITS) as market:
        agreement = await market.buyer.accept(
            await market.buyer.quote(market.listing_id, {"page": 1})
        )
        session = await market.buyer.open_session(
            agreement.agreement_id, cap=usd("0.3"), per_call=usd("0.01")
        )
        await asyncio.gather(*(session.call({"pdf": "one|two"}) for _ in range(calls)))
        # Signs for the answers before it.
        await session.call({"pdf": "last"})
        await market.close_shop()
        yield market, session
        await session.aclose()


async def reported(
    market: Trading, session_id: str, *events: UsageEvent, voucher: str = ""
) -> None:
    """A report of the vendor's own making."""
    data = batch_bytes(session_id, events)
    connection = market.vendor.connection
    await connection.call(
        REPORT_USAGE,
        ReportUsage(
            session_id=session_id,
            batch=data.decode(),
            batch_signature=sign_batch(market.vendor.signer, session_id, data),
            voucher=voucher,
            idempotency_key=connection.new_key(),
        ),
    )


async def test_a_session_s_charge_is_explained_down_to_its_calls(tmp_path: Path) -> None:
    async with called(tmp_path) as (market, session):
        charges = (await market.buyer.charges()).charges
        explained = [await market.buyer.explain(each.charge_id) for each in charges]
        largest = max(explained, key=lambda each: each.calls_in_all)
        paged = await market.buyer.connection.call(
            EXPLAIN_CHARGE,
            ExplainCharge(
                charge_id=largest.charge.charge_id, first=largest.calls_in_all - 1, limit=10
            ),
        )

    for each in explained:
        assert each.charge.session_id == session.session_id
        assert each.charge.hold_id == ""
        assert sum(call.amount.units for call in each.calls) == each.charge.amount.units
        assert sum(line.amount.units for line in each.charge.lines) == each.charge.amount.units
    assert sorted(call.call for each in explained for call in each.calls) == [1, 2, 3, 4, 5, 6]
    assert paged.calls == largest.calls[-1:]


async def test_every_call_has_a_receipt_that_proves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with called(tmp_path) as (market, session):
        answered = {each.seq: each for each in await session.calls()}
        proven = {
            seq: (await side.call_receipt(session.session_id, seq))[1]
            for side in (market.buyer, market.vendor)
            for seq in answered
        }
        stranger = signing_key("stranger").public
        for side in (market.buyer, market.vendor, market.operator):
            pinned = type(side)(side.connection, platform_keys=PlatformKeys.of(journal=[stranger]))
            with pytest.raises(Unverified):
                await pinned.call_receipt(session.session_id, 1)
            keyring = market.serving.service.keyring
            forge = proven_by(keyring[Purpose.PLATFORM], keyring.public(Purpose.JOURNAL))
            forger = market.serving.connect(side.connection.signer, side.connection.principal)
            monkeypatch.setattr(forger, "call", answering(forger.call, forge))
            with pytest.raises(Unverified, match="not signed by"):
                await type(side)(forger).call_receipt(session.session_id, 1)
        with pytest.raises(Refused) as unknown:
            await market.buyer.call_receipt(session.session_id, 7)
        with pytest.raises(Refused) as foreign:
            await market.serving.treasurer.connection.call(
                GET_CALL_RECEIPT, GetCallReceipt(session_id=session.session_id, call=1)
            )

    for seq, call in proven.items():
        assert (call.seq, call.fault) == (seq, "")
        assert call.amount_units == answered[seq].units
        assert call.result_sha256 == answered[seq].result_sha256
        assert call.args_sha256 == answered[seq].args_sha256
    assert (unknown.value.code, unknown.value.refusal.path) == (Code.NOT_FOUND, "call")
    assert foreign.value.code is Code.NOT_PERMITTED


async def test_an_agent_of_another_operator_sees_nothing_of_a_session(tmp_path: Path) -> None:
    async with called(tmp_path, 1) as (market, session):
        operator = await market.serving.organisation("operator", "Operator Two")
        other = Buyer(await market.serving.agent(operator, "Agent Two"))
        event = UsageEvent(
            seq=1,
            at_us=market.serving.clock(),
            usage={"page": 1},
            outcome=UsageOutcome.SUCCEEDED,
            args_sha256="a" * 64,
            result_sha256="b" * 64,
        )
        with pytest.raises(Refused):
            await reported(market, session.session_id, event, voucher="none")
        refusals = []
        for ask in (
            other.call_receipt(session.session_id, 1),
            other.reconcile(session.session_id),
        ):
            with pytest.raises(Refused) as caught:
                await ask
            refusals.append((caught.value.code, caught.value.refusal.path))
        seen = await other.rejected_usage(session_id=session.session_id)

    assert refusals == [(Code.NOT_FOUND, "session_id")] * 2
    assert (seen.rejected, seen.reasons) == ((), ())


async def test_the_countings_of_an_honest_buyer_and_vendor_agree(tmp_path: Path) -> None:
    async with called(tmp_path) as (market, session):
        listed = acknowledged_of(await session.calls())
        found = await market.buyer.reconcile(session.session_id, listed)
        same = await market.vendor.reconcile(session.session_id, listed)

    assert found.within
    assert found.differences == ()
    (one,) = found.sessions
    assert found.billed == found.acknowledged == one.counted == usd("0.022")
    assert (found.calls.billed, one.counted_calls, found.calls.acknowledged) == ("6", 6, "6")
    assert (found.meters[0].count.reported, found.meters[0].count.acknowledged) == ("11", "11")
    # The last answer is acknowledged by no voucher yet.
    assert one.proven == 5
    assert same == found


async def test_a_session_that_is_too_long_is_not_compared_in_one_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciliation, "REPORTED_MAX", 5)
    async with called(tmp_path) as (market, session):
        with pytest.raises(Refused) as caught:
            await market.buyer.reconcile(session.session_id)

    assert (caught.value.code, caught.value.refusal.path) == (Code.INVALID_ARGUMENT, "session_id")


async def test_what_one_side_leaves_out_the_other_sees(tmp_path: Path) -> None:
    async with called(tmp_path) as (market, session):
        listed = acknowledged_of(await session.calls())
        short = await market.vendor.reconcile(session.session_id, listed[1:])
        more = replace(listed[0], call=1000)
        long = await market.buyer.reconcile(session.session_id, (*listed, more))
        with pytest.raises(Refused) as twice:
            await market.buyer.reconcile(session.session_id, (*listed, listed[0]))

    assert not short.within
    assert [(each.call, each.kind, each.direction) for each in short.differences] == [
        (listed[0].call, "unacknowledged", "over")
    ]
    assert short.sessions[0].proven == 0
    assert [(each.call, each.kind, each.direction) for each in long.differences] == [
        (1000, "unreported", "under")
    ]
    assert long.sessions[0].proven == 5
    assert twice.value.refusal.path == "acknowledged.0.calls.0.call"


async def test_rejected_events_are_listed_with_reasons_for_both_sides(tmp_path: Path) -> None:
    async with called(tmp_path) as (market, session):
        record = (await market.vendor.call_receipt(session.session_id, 6))[0].receipt.record
        voucher = record.split('"voucher":"')[1].split('"')[0]
        now_us = market.serving.clock()

        def event(seq: int, at_us: int, meter: str = "page") -> UsageEvent:
            return UsageEvent(
                seq=seq,
                at_us=at_us,
                usage={meter: 1},
                outcome=UsageOutcome.SUCCEEDED,
                args_sha256="a" * 64,
                result_sha256="b" * 64,
            )

        listed = (
            event(6, now_us),
            event(7, now_us - 10**9),
            event(8, now_us, "unknown"),
            event(9, now_us),
            event(5000, now_us),
        )
        await reported(market, session.session_id, *listed, voucher=voucher)
        found = await market.buyer.rejected_usage(session_id=session.session_id, limit=2)
        rest = await market.buyer.rejected_usage(
            session_id=session.session_id, limit=10, cursor=found.cursor
        )
        of_the_agreement = (await market.buyer.session_status(session.session_id)).agreement_id
        sellers = await market.vendor.rejected_usage(agreement_id=of_the_agreement)
        one = await market.vendor.rejected_usage(reason="duplicate")
        with pytest.raises(Refused) as caught:
            await market.vendor.rejected_usage(reason="no-such")
        with pytest.raises(Refused) as of_the_future:
            await market.vendor.rejected_usage(cursor=f"1-0-{10**9}")

    assert of_the_future.value.code is Code.INVALID_ARGUMENT
    assert of_the_future.value.refusal.path == "cursor"

    assert [(each.call, each.reason) for each in (*found.rejected, *rest.rejected)] == [
        (5000, "out_of_window"),
        (9, "beyond_voucher"),
        (8, "unknown_meter"),
        (7, "before_session"),
        (6, "duplicate"),
    ]
    assert {each.reason: each.events for each in found.reasons} == dict.fromkeys(
        ("beyond_voucher", "before_session", "duplicate", "out_of_window", "unknown_meter"), 1
    )
    assert (rest.cursor, rest.reasons) == ("", found.reasons)
    assert sellers.rejected == (*found.rejected, *rest.rejected)
    assert [each.call for each in one.rejected] == [6]
    assert caught.value.refusal.path == "reason"


async def test_usage_that_is_nobody_s_is_told_to_its_sender_alone(tmp_path: Path) -> None:
    async with called(tmp_path, 1) as (market, session):
        event = UsageEvent(
            seq=9,
            at_us=market.serving.clock(),
            usage={"page": 1},
            outcome=UsageOutcome.SUCCEEDED,
            args_sha256="a" * 64,
            result_sha256="b" * 64,
        )
        nobodys = derive_id("ses", "nobody's")
        for session_id in (nobodys, session.session_id):
            with pytest.raises(Refused):
                await reported(market, session_id, event, event, voucher="no voucher")
        sender = await market.vendor.rejected_usage()
        page = await market.serving.http.get(f"{market.serving.service.issuer}/metrics")
        buyer = await market.buyer.rejected_usage()

    assert [(each.session_id, each.reason, each.events) for each in sender.rejected] == [
        (session.session_id, "unattributed", 2),
        (nobodys, "unattributed", 2),
    ]
    assert buyer.rejected == ()
    verdict = 'farthing_usage_events_total{front_end="1",verdict="%s"} '
    assert verdict % "billed" in page.text
    assert f"{verdict % 'unattributed'}4.0\n" in page.text
    assert format_time(event.at_us)[:10] == sender.rejected[0].reported_at[:10]
