"""Refunds, chargebacks and transfers that come back, as Stripe tells of them."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from farthing.protocol.errors import Code, Refused
from farthing.protocol.ledger import AccountKind
from farthing.protocol.messages.sessions import OPEN_SESSION, OpenSession
from farthing.protocol.wire import Money, money
from tests.patience import patiently, until
from tests.server.banking import Bank, opened
from tests.server.fake_stripe import (
    LOOKUP,
    TOP_UP,
    charge_of,
    dispute_event,
    dispute_of,
    refund_event,
    session_event,
    transfer_event,
)
from tests.server.listening import held

FIVE = Money(amount="5", asset="USD")
CENT = Money(amount="0.01", asset="USD")
DOLLAR = 10**9

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bank(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bank]:
    async with held(opened(tmp_path_factory.mktemp("stripe"))) as bank:
        yield bank


async def paid(bank: Bank) -> str:
    """A top-up of five dollars that was paid."""
    top_up = await bank.shop.operator.create_top_up(FIVE, processor="stripe")
    assert await bank.send(session_event(top_up.top_up_id)) == 204
    return top_up.top_up_id


async def test_a_refund_at_stripe_is_taken_from_what_the_operator_has(bank: Bank) -> None:
    before = await bank.prepaid()
    top_up_id = await paid(bank)
    sent = bank.fake.asked[-1][1]
    assert sent["payment_intent_data[metadata][payment_id]"] == top_up_id
    for refunded, left in ((200, 3), (500, 0), (200, 0)):
        assert await bank.send(refund_event(top_up_id, refunded)) == 204
        assert await bank.prepaid() == before + left * DOLLAR
    (top_up, *_) = (await bank.shop.operator.top_ups()).top_ups
    assert (top_up.status, top_up.reversed) == ("posted", FIVE)


async def test_a_chargeback_is_taken_with_what_was_refunded_before_it(bank: Bank) -> None:
    before = await bank.prepaid()
    top_up_id = await paid(bank)
    await bank.send(refund_event(top_up_id, 200))
    bank.fake.charges["ch_3Px"] = charge_of(top_up_id, refunded=200)
    bank.fake.disputes = [dispute_of(300)]
    records = await bank.records()
    bank.fake.broken = True
    assert await bank.send(dispute_event(dispute_of(300))) == 502
    assert await bank.records() == records
    bank.fake.broken = False
    assert await bank.send(dispute_event(dispute_of(300))) == 204
    assert await bank.send(dispute_event(dispute_of(300))) == 204
    assert await bank.prepaid() == before
    assert await bank.records() == records + 1


async def test_a_chargeback_of_somebody_elses_charge_says_nothing(bank: Bank) -> None:
    records = await bank.records()
    bank.fake.charges["ch_3Px"] = charge_of("")
    assert await bank.send(dispute_event(dispute_of(300))) == 204
    del bank.fake.charges["ch_3Px"]
    assert await bank.send(dispute_event(dispute_of(300))) == 204
    asked = len(bank.fake.asked)
    assert await bank.send(dispute_event(dispute_of(300), account="acct_1Vendor")) == 204
    assert await bank.send(dispute_event(dispute_of(300), livemode=True)) == 204
    assert len(bank.fake.asked) == asked
    assert await bank.records() == records


async def test_money_that_goes_back_before_it_is_said_to_have_come_is_told_again(
    bank: Bank,
) -> None:
    before = await bank.prepaid()
    top_up = await bank.shop.operator.create_top_up(FIVE, processor="stripe")
    assert await bank.send(refund_event(top_up.top_up_id, 500)) == 503
    assert await bank.send(session_event(top_up.top_up_id)) == 204
    assert await bank.send(refund_event(top_up.top_up_id, 500)) == 204
    assert await bank.prepaid() == before


async def test_a_charge_that_goes_back_in_parts_counts_every_part(bank: Bank) -> None:
    before = await bank.prepaid()
    top_up_id = await paid(bank)
    first, second = dispute_of(200), dispute_of(100, id="du_2Px", balance_transactions=[])
    inquiry = dispute_of(500, id="du_3Px", balance_transactions=[])
    bank.fake.charges["ch_3Px"] = charge_of(top_up_id, disputed=True)
    bank.fake.disputes = [inquiry, first]
    assert await bank.send(dispute_event(first)) == 204
    assert await bank.prepaid() == before + 3 * DOLLAR
    bank.fake.disputes = [inquiry, second, first]
    assert await bank.send(dispute_event(second)) == 204
    assert await bank.prepaid() == before + 2 * DOLLAR
    second["balance_transactions"] = [{"id": "txn_2Px", "amount": -100}]
    assert await bank.send(refund_event(top_up_id, 100, disputed=True)) == 204
    assert await bank.prepaid() == before + DOLLAR
    first["currency"] = "eur"
    assert await bank.send(refund_event(top_up_id, 200, disputed=True)) == 204
    assert await bank.prepaid() == before + DOLLAR


@pytest.mark.parametrize(
    "odd",
    [
        {"charge": {}},
        {"charge": charge_of("", id="ch_other")},
        {"charge": charge_of("top_1", -1)},
        {"dispute": {}},
        {"dispute": {**dispute_of(100, id="du_2Px"), "amount": -100}},
        {"dispute": {**dispute_of(100, id="du_2Px"), "amount": "100"}},
        {"dispute": dispute_of(100, id="du_2Px"), "has_more": True},
    ],
)
async def test_a_chargeback_of_which_stripe_answers_something_odd_is_told_again(
    bank: Bank, odd: dict[str, Any]
) -> None:
    before = await bank.prepaid()
    top_up_id = await paid(bank)
    told = dispute_event(dispute_of(300))
    bank.fake.charges["ch_3Px"] = odd.get("charge", charge_of(top_up_id))
    bank.fake.disputes = [{"charge": "ch_3Px", **odd["dispute"]}] if "dispute" in odd else []
    bank.fake.has_more = "has_more" in odd
    assert await bank.send(told) == 502
    bank.fake.charges["ch_3Px"], bank.fake.disputes = charge_of(top_up_id), []
    bank.fake.has_more = False
    assert await bank.send(told) == 204
    assert await bank.prepaid() == before + 2 * DOLLAR


async def test_a_charge_of_no_payment_is_taken_for_nobody_elses(bank: Bank) -> None:
    top_up_id = await paid(bank)
    asked = len(bank.fake.asked)
    with capture_logs() as lines:
        assert await bank.send(refund_event(top_up_id, 100, payment_intent=None)) == 204
    assert "event_not_taken" in {line["event"] for line in lines}
    assert len(bank.fake.asked) == asked


async def test_top_ups_that_wait_for_stripe_keep_no_refund_or_payout_out(bank: Bank) -> None:
    await bank.earned()
    payout = await bank.shop.vendor.request_payout(
        CENT, processor="stripe", destination="acct_1Vendor"
    )
    top_up_id = await paid(bank)
    before = await bank.prepaid()
    bank.fake.answering[TOP_UP] = threading.Event()
    first = len(bank.fake.asked)
    try:
        asked = [
            asyncio.create_task(bank.shop.operator.create_top_up(FIVE, processor="stripe"))
            for _ in range(60)
        ]
        await until(lambda: len(bank.fake.asked) - first == 8)
        assert await bank.send(refund_event(top_up_id, 500)) == 204
        async with patiently():
            await bank.server.treasurer.send_payout(payout.payout_id)
    finally:
        bank.fake.answering.pop(TOP_UP).set()
        await asyncio.gather(*asked, return_exceptions=True)
    assert await bank.prepaid() == before - 5 * DOLLAR


async def test_refunds_that_wait_for_stripe_keep_no_top_up_out(bank: Bank) -> None:
    top_up_id = await paid(bank)
    asked = len(bank.fake.asked)
    bank.fake.answering[LOOKUP] = threading.Event()
    try:
        told = [
            asyncio.create_task(bank.send(refund_event(top_up_id, refunded)))
            for refunded in range(1, 61)
        ]
        await until(lambda: len(bank.fake.asked) - asked == 8)
        async with patiently():
            await bank.shop.operator.create_top_up(FIVE, processor="stripe")
    finally:
        bank.fake.answering.pop(LOOKUP).set()
        answered = await asyncio.gather(*told)
    assert set(answered) == {204}


async def test_a_chargeback_that_is_not_listed_yet_counts(bank: Bank) -> None:
    before = await bank.prepaid()
    top_up_id = await paid(bank)
    bank.fake.charges["ch_3Px"] = charge_of(top_up_id)
    bank.fake.disputes = []
    assert await bank.send(dispute_event(dispute_of(300))) == 204
    assert await bank.prepaid() == before + 2 * DOLLAR


async def test_what_goes_back_once_more_than_it_came_is_told_in_the_log(bank: Bank) -> None:
    top_up_id = await paid(bank)
    won = dispute_of(500)
    bank.fake.charges["ch_3Px"] = charge_of(top_up_id, disputed=True)
    bank.fake.disputes = [won]
    assert await bank.send(dispute_event(won)) == 204
    before = await bank.prepaid()
    with capture_logs() as lines:
        assert await bank.send(refund_event(top_up_id, 500, disputed=True)) == 204
    assert await bank.prepaid() == before
    assert "gone_back_twice" in {line["event"] for line in lines}


@pytest.mark.parametrize("kind", ["charge.dispute.funds_reinstated", "refund.failed"])
async def test_money_that_is_back_is_told_in_the_log_for_the_treasurer(
    bank: Bank, kind: str
) -> None:
    event = json.loads(dispute_event(dispute_of(500)))
    ours, others = ({**event, "type": kind, **more} for more in ({}, {"account": "acct_1Vendor"}))
    with capture_logs() as lines:
        assert await bank.send(json.dumps(ours).encode()) == 204
        assert await bank.send(json.dumps(others).encode()) == 204
    (told,) = [line for line in lines if line["event"] == "event_not_taken"]
    assert "money that is back" in told["why"]


async def paid_again(bank: Bank, top_up_id: str) -> str:
    """The top-up that another payment of one makes."""
    bank.fake.sessions["pi_again"] = "cs_again"
    assert await bank.send(session_event(top_up_id, id="cs_again")) == 204
    (again, *_) = (await bank.shop.operator.top_ups()).top_ups
    assert again.reference == "cs_again"
    return again.top_up_id


async def test_of_what_was_paid_twice_the_payment_goes_back_that_did(bank: Bank) -> None:
    top_up_id = await paid(bank)
    refund = refund_event(top_up_id, 500, id="ch_again", payment_intent="pi_again")
    bank.fake.sessions["pi_again"] = "cs_again"
    assert await bank.send(refund) == 503
    again_id = await paid_again(bank, top_up_id)
    before = await bank.prepaid()
    assert await bank.send(refund) == 503
    await bank.server.treasurer.confirm_top_up(again_id, "cs_again")
    assert await bank.prepaid() == before + 5 * DOLLAR
    assert await bank.send(refund) == 204
    assert await bank.prepaid() == before
    (again, first, *_) = (await bank.shop.operator.top_ups()).top_ups
    assert (again.reversed, first.reversed.amount) == (FIVE, "0")


@pytest.mark.parametrize("gone", [0, 200, 500])
async def test_what_went_back_while_a_payment_waited_is_booked_once_it_is_accepted(
    bank: Bank, gone: int
) -> None:
    top_up_id, treasurer = await paid(bank), bank.server.treasurer
    again_id = await paid_again(bank, top_up_id)
    charge = charge_of(top_up_id, gone, id="ch_again", payment_intent="pi_again")
    failed = {**charge, "id": "ch_failed", "paid": False, "amount_refunded": 0}
    bank.fake.charges = {each["id"]: each for each in (failed, charge)}
    if gone:
        # Stripe tells it for days, and then no more.
        assert (
            await bank.send(
                refund_event(top_up_id, gone, id=charge["id"], payment_intent="pi_again")
            )
            == 503
        )
    key, before = treasurer.connection.new_key(), await bank.prepaid()
    bank.fake.broken = True
    with pytest.raises(Refused) as refused:
        await treasurer.confirm_top_up(again_id, "wire-7", key=key)
    bank.fake.broken = False
    for _ in range(2):
        confirmed = await treasurer.confirm_top_up(again_id, "wire-7", key=key)
        assert (confirmed.status, confirmed.reversed) == (
            "posted",
            money(gone * DOLLAR // 100, "USD"),
        )
        records = await bank.records()
        assert await bank.prepaid() == before + (500 - gone) * DOLLAR // 100
    assert await bank.records() == records
    assert refused.value.code is Code.PROCESSOR_FAILED


@pytest.mark.parametrize(
    ("reference", "back"),
    [("cs_test_a1b2c3", 300), ("cs_others", 0), ("cs_none", 0), ("pi_3Px", 0), ("", 0)],
)
async def test_what_is_confirmed_by_hand_under_its_session_counts_what_has_gone_back(
    bank: Bank, reference: str, back: int
) -> None:
    before = await bank.prepaid()
    top_up = await bank.shop.operator.create_top_up(FIVE, processor="stripe")
    bank.fake.sessions["pi_others"] = "cs_others"
    bank.fake.charges = {
        "ch_3Px": charge_of(top_up.top_up_id, 300),
        "ch_others": charge_of("top_others", 300, payment_intent="pi_others"),
    }
    with capture_logs() as lines:
        confirmed = await bank.server.treasurer.confirm_top_up(top_up.top_up_id, reference)
    assert ("not_looked_up" in {line["event"] for line in lines}) is (back == 0)
    assert confirmed.reversed == money(back * DOLLAR // 100, "USD")
    assert await bank.prepaid() == before + (500 - back) * DOLLAR // 100


async def test_what_the_treasurer_gave_up_and_refunds_costs_its_operator_nothing(
    bank: Bank,
) -> None:
    top_up_id = await paid(bank)
    await bank.server.treasurer.fail_top_up(await paid_again(bank, top_up_id), "refunded")
    records, before = await bank.records(), await bank.prepaid()
    with capture_logs() as lines:
        refund = refund_event(top_up_id, 500, id="ch_again", payment_intent="pi_again")
        assert await bank.send(refund) == 204
    assert "event_without_effect" in {line["event"] for line in lines}
    assert (await bank.records(), await bank.prepaid()) == (records, before)


async def test_a_transfer_that_left_twice_and_comes_back_once_is_not_the_vendors(
    bank: Bank,
) -> None:
    await bank.earned()
    vendor = bank.shop.vendor
    payout = await vendor.request_payout(CENT, processor="stripe", destination="acct_1Vendor")
    await bank.server.treasurer.send_payout(payout.payout_id)
    for transfer_id in ("tr_1Px", "tr_2Px"):
        assert await bank.send(transfer_event(payout.payout_id, 1, id=transfer_id)) == 204
    before = await bank.units(vendor.vendor_id, AccountKind.VENDOR_PAYABLE)
    assert await bank.send(transfer_event(payout.payout_id, 1, back=1, id="tr_2Px")) == 204
    assert await bank.units(vendor.vendor_id, AccountKind.VENDOR_PAYABLE) == before
    assert await bank.send(transfer_event(payout.payout_id, 1, back=1)) == 204
    assert await bank.units(vendor.vendor_id, AccountKind.VENDOR_PAYABLE) == before + 10**7


async def test_that_an_operator_comes_to_owe_is_told_in_the_log(bank: Bank) -> None:
    shop, much = bank.shop, Money(amount="1000", asset="USD")
    agent = shop.buyer.connection.principal
    await shop.operator.set_authority(agent, per_call_max=much, per_day_max=much)
    top_up_id = await paid(bank)
    agreement = await shop.buyer.accept(await shop.buyer.quote(shop.listing_id, {"page": 1}))
    asked = OpenSession(
        agreement_id=agreement.agreement_id,
        cap=money(await bank.prepaid() - 2 * DOLLAR, "USD"),
        per_call=CENT,
        idempotency_key=shop.buyer.connection.new_key(),
    )
    await shop.buyer.connection.call(OPEN_SESSION, asked)
    with capture_logs() as lines:
        assert await bank.send(refund_event(top_up_id, 200)) == 204
        assert [line for line in lines if line["event"] == "operator_owes"] == []
        assert await bank.send(refund_event(top_up_id, 500)) == 204
    (told,) = (line for line in lines if line["event"] == "operator_owes")
    operator = shop.operator.connection.principal
    assert (told["account"], told["payment_id"]) == (f"{operator}:receivable:USD", top_up_id)
