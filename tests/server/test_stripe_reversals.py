"""Refunds, chargebacks and transfers that come back, as Stripe tells of them."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from farthing.protocol.wire import Money
from tests.server.banking import Bank, opened
from tests.server.fake_stripe import (
    charge_of,
    dispute_event,
    refund_event,
    session_event,
)
from tests.server.listening import held

FIVE = Money(amount="5", asset="USD")
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
    records = await bank.records()
    bank.fake.broken = True
    assert await bank.send(dispute_event(300)) == 502
    assert await bank.records() == records
    bank.fake.broken = False
    assert await bank.send(dispute_event(300)) == 204
    assert await bank.send(dispute_event(300)) == 204
    assert await bank.prepaid() == before
    assert await bank.records() == records + 1


async def test_a_chargeback_of_somebody_elses_charge_says_nothing(bank: Bank) -> None:
    records = await bank.records()
    bank.fake.charges["ch_3Px"] = charge_of("")
    assert await bank.send(dispute_event(300)) == 204
    del bank.fake.charges["ch_3Px"]
    assert await bank.send(dispute_event(300)) == 204
    asked = len(bank.fake.asked)
    assert await bank.send(dispute_event(300, account="acct_1Vendor")) == 204
    assert await bank.send(dispute_event(300, livemode=True)) == 204
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
