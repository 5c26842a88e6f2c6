"""Money that had come goes back, money that had left comes back: what has gone has gone."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.protocol.audit import verify_journal
from farthing.protocol.errors import Code, Refusal
from farthing.protocol.ledger import imbalances
from farthing.protocol.messages.holds import RELEASE_HOLD, ReleaseHold
from farthing.protocol.replay.rulebook import Rulebook
from farthing.protocol.wire import money
from tests.construction import Trade
from tests.settlement.engine.treasurer import DOLLAR, Treasury, posted

PAGE = 2_000_000


def market() -> Treasury:
    """A market whose operator has nothing but what it tops up."""
    return Treasury(Trade.opened(funds=0, per_call=10 * DOLLAR, per_day=100 * DOLLAR))


def reverse(treasury: Treasury, payment_id: str, units: int, **other: Any) -> Refusal | None:
    noun = "top_up" if payment_id.startswith("top") else "payout"
    named = {f"{noun}_id": payment_id, "total": money(units, "USD"), **other}
    answer = treasury.ask(treasury.treasurer, f"reverse_{noun}", **named)
    return answer if isinstance(answer, Refusal) else answer.refusal


def balance(treasury: Treasury, kind: str) -> int:
    return treasury.trade.balance(treasury.trade.operator, kind)


def audited(treasury: Treasury) -> None:
    room = treasury.room
    assert not imbalances(room.state.accounts)
    fault = verify_journal(room.journal, follow=Rulebook().follow).fault
    assert fault is None, fault


def test_a_top_up_is_paid_back_out_of_what_is_left_of_it() -> None:
    treasury = market()
    top_up_id = posted(treasury, 5 * DOLLAR)
    assert reverse(treasury, top_up_id, 2 * DOLLAR, reference="wire-9") is None
    assert balance(treasury, "prepaid") == 3 * DOLLAR
    again = reverse(treasury, top_up_id, 2 * DOLLAR)
    assert again is not None
    assert (again.code, again.path) == (Code.PAYMENT_RESOLVED, "total.amount")
    assert reverse(treasury, top_up_id, 5 * DOLLAR) is None
    assert balance(treasury, "prepaid") == 0
    more = reverse(treasury, top_up_id, 5 * DOLLAR + 1)
    assert more is not None
    assert (more.code, more.required) == (Code.INVALID_AMOUNT, "5")
    audited(treasury)


def test_nobody_is_paid_back_what_it_has_spent_or_set_aside_unless_it_is_to_owe_it() -> None:
    treasury = market()
    top_up_id = posted(treasury, DOLLAR)
    treasury.trade.held(10)
    short = reverse(treasury, top_up_id, DOLLAR)
    assert short is not None
    assert (short.code, short.required, short.remaining) == (
        Code.INSUFFICIENT_FUNDS, "1", "0.98",
    )  # fmt: skip
    assert reverse(treasury, top_up_id, DOLLAR, may_owe=True) is None
    assert balance(treasury, "prepaid") == 0
    assert balance(treasury, "receivable") == -10 * PAGE
    audited(treasury)


def test_who_owes_spends_nothing_until_more_has_come_than_it_owes() -> None:
    treasury = market()
    trade = treasury.trade
    top_up_id = posted(treasury, DOLLAR)
    hold_id = trade.held(10)
    reverse(treasury, top_up_id, DOLLAR, may_owe=True)
    release = ReleaseHold(hold_id=hold_id, idempotency_key=trade.room.key())
    trade.room.done(trade.vendor, RELEASE_HOLD, release)
    assert balance(treasury, "prepaid") == 10 * PAGE
    refused = trade.room.hold(trade.agent, trade.agreement_id, 1).refusal
    assert (refused.code, refused.remaining) == (Code.INSUFFICIENT_FUNDS, "0")
    assert "0.02 USD is owed" in refused.message

    posted(treasury, 20 * PAGE)
    assert balance(treasury, "receivable") == 0
    assert balance(treasury, "prepaid") == 20 * PAGE
    assert trade.held(20)
    audited(treasury)


def test_what_is_owed_is_taken_from_whatever_comes_as_far_as_it_goes() -> None:
    treasury = market()
    top_up_id = posted(treasury, DOLLAR)
    treasury.trade.captured(100)
    spent = DOLLAR - balance(treasury, "prepaid")
    reverse(treasury, top_up_id, DOLLAR, may_owe=True)
    assert balance(treasury, "receivable") == -spent
    treasury.trade.room.fund(treasury.trade.operator, PAGE)
    assert (balance(treasury, "prepaid"), balance(treasury, "receivable")) == (0, PAGE - spent)
    posted(treasury, DOLLAR)
    left = DOLLAR - (spent - PAGE)
    assert (balance(treasury, "prepaid"), balance(treasury, "receivable")) == (left, 0)
    audited(treasury)


def test_a_reversal_of_who_owes_and_has_pays_what_was_owed_before() -> None:
    treasury = market()
    first, second = posted(treasury, DOLLAR), posted(treasury, DOLLAR)
    hold_id = treasury.trade.held(500)
    held = 2 * DOLLAR - balance(treasury, "prepaid")
    reverse(treasury, first, DOLLAR, may_owe=True)
    reverse(treasury, second, DOLLAR // 2, may_owe=True)
    owed = -balance(treasury, "receivable")
    release = ReleaseHold(hold_id=hold_id, idempotency_key=treasury.room.key())
    treasury.room.done(treasury.trade.vendor, RELEASE_HOLD, release)
    assert owed > 0
    assert reverse(treasury, second, DOLLAR // 2 + PAGE) is None
    assert (balance(treasury, "prepaid"), balance(treasury, "receivable")) == (
        held - PAGE - owed, 0,
    )  # fmt: skip
    audited(treasury)


def test_a_captured_hold_still_pays_its_vendor_when_the_top_up_behind_it_went_back() -> None:
    treasury = market()
    top_up_id = posted(treasury, DOLLAR)
    hold_id = treasury.trade.held(10)
    reverse(treasury, top_up_id, DOLLAR, may_owe=True)
    treasury.room.capture(treasury.trade.vendor, hold_id, 10)
    assert treasury.trade.balance(treasury.trade.vendor, "vendor_pending") > 0
    assert balance(treasury, "prepaid") == 0
    audited(treasury)


def test_a_grace_in_use_is_not_paid_back_and_stays_within_its_bound() -> None:
    treasury = market()
    top_up_id = posted(treasury, 4 * PAGE)
    treasury.grace(DOLLAR)
    treasury.trade.captured(10)
    assert balance(treasury, "prepaid") == -6 * PAGE
    reverse(treasury, top_up_id, 4 * PAGE, may_owe=True)
    assert (balance(treasury, "prepaid"), balance(treasury, "receivable")) == (-6 * PAGE, -4 * PAGE)
    posted(treasury, 8 * PAGE)
    assert (balance(treasury, "prepaid"), balance(treasury, "receivable")) == (0, -2 * PAGE)
    audited(treasury)


def test_a_payout_that_came_back_is_the_vendors_again() -> None:
    treasury = Treasury(Trade.opened(funds=DOLLAR))
    treasury.trade.captured(10)
    treasury.room.advance(86_400)
    vendor = treasury.trade.vendor
    earned = treasury.trade.balance(vendor, "vendor_payable")
    payout_id = treasury.payout(earned).changed[0].id
    early = reverse(treasury, payout_id, 1)
    assert early is not None
    assert (early.code, early.path) == (Code.PAYMENT_RESOLVED, "payout_id")
    treasury.event(payout_id, "paid", "evt_1")
    treasury.event(payout_id, "reversed", "evt_2", units="1")
    assert treasury.trade.balance(vendor, "vendor_payable") == 1
    assert reverse(treasury, payout_id, earned) is None
    assert treasury.trade.balance(vendor, "vendor_payable") == earned
    assert treasury.payout(earned).refused is None
    audited(treasury)


@given(st.lists(st.integers(0, 6), max_size=6), st.data())
def test_in_whatever_order_it_is_said_what_went_back_has_gone_once(
    said: list[int], data: st.DataObject
) -> None:
    treasury = market()
    top_up_id = posted(treasury, 5 * DOLLAR)
    for number, dollars in enumerate(said):
        if data.draw(st.booleans()):
            treasury.event(top_up_id, "reversed", f"evt_{number}", units=str(dollars * DOLLAR))
        else:
            reverse(treasury, top_up_id, dollars * DOLLAR, may_owe=data.draw(st.booleans()))
    gone = max([0, *(dollars for dollars in said if dollars <= 5)])

    assert balance(treasury, "prepaid") == (5 - gone) * DOLLAR
    audited(treasury)


def test_an_account_is_not_closed_while_its_owner_owes() -> None:
    treasury = market()
    top_up_id = posted(treasury, DOLLAR)
    treasury.trade.captured(10)
    treasury.event(top_up_id, "reversed", "evt_back", units=str(DOLLAR))
    refused = treasury.close(treasury.trade.operator, "prepaid").refusal
    assert (refused.code, refused.remaining) == (Code.ACCOUNT_IN_USE, "-0.02")
    assert "owes" in refused.message


def test_what_a_closed_account_owes_can_still_be_paid() -> None:
    treasury = market()
    room, operator = treasury.room, treasury.trade.operator
    top_up_id = posted(treasury, DOLLAR)
    treasury.trade.captured(10)
    room.advance(86_400)
    reverse(treasury, top_up_id, balance(treasury, "prepaid"))
    assert treasury.close(operator, "prepaid").refused is None
    refused = treasury.ask(operator, "create_top_up", amount=money(1, "USD"))
    assert refused.code is Code.ACCOUNT_CLOSED
    reverse(treasury, top_up_id, DOLLAR, may_owe=True)
    assert balance(treasury, "receivable") == -10 * PAGE
    posted(treasury, 6 * PAGE)
    room.fund(operator, 5 * PAGE)
    assert (balance(treasury, "prepaid"), balance(treasury, "receivable")) == (PAGE, 0)
    assert treasury.ask(operator, "create_top_up", amount=money(1, "USD")).code is refused.code
    audited(treasury)


def test_of_what_a_partner_earned_no_more_is_paid_out_than_is_over_its_debt() -> None:
    treasury = market()
    trade, top_up_id = treasury.trade, posted(treasury, DOLLAR)
    treasury.earned_as_partner()
    reverse(treasury, top_up_id, DOLLAR - 6 * PAGE, may_owe=True)
    assert (balance(treasury, "partner_payable"), balance(treasury, "receivable")) == (
        5 * PAGE, -4 * PAGE,
    )  # fmt: skip
    owing = treasury.payout(PAGE + 1, trade.operator, account="partner_payable").refusal
    assert (owing.code, owing.remaining) == (Code.INSUFFICIENT_FUNDS, "0.002")
    assert "0.008 USD is owed" in owing.message
    paid = treasury.payout(PAGE, trade.operator, account="partner_payable")
    assert paid.refused is None
    audited(treasury)


def test_a_top_up_whose_money_never_came_goes_not_back() -> None:
    treasury = market()
    refused = reverse(treasury, treasury.top_up(DOLLAR), DOLLAR)
    assert refused is not None
    assert (refused.code, refused.path) == (Code.PAYMENT_RESOLVED, "top_up_id")


@pytest.mark.parametrize("units", ["0", "6000000000"])
def test_an_event_of_nothing_or_of_more_than_came_says_nothing(units: str) -> None:
    treasury = market()
    top_up_id = posted(treasury, 5 * DOLLAR)
    assert treasury.event(top_up_id, "reversed", "evt_1", units=units).changed == ()


def test_a_payment_that_came_twice_goes_back_by_itself() -> None:
    treasury = market()
    top_up_id = posted(treasury, 5 * DOLLAR)
    treasury.event(top_up_id, "reversed", "evt_2", units=str(DOLLAR))
    (again,) = treasury.event(top_up_id, "paid", "evt_3").changed
    assert "reversed_units" not in again.after
    confirmed = treasury.ask(treasury.treasurer, "confirm_top_up", top_up_id=again.id)
    assert confirmed.refused is None
    assert balance(treasury, "prepaid") == 9 * DOLLAR
    audited(treasury)


def test_who_owes_is_not_paid_back_what_it_owes() -> None:
    treasury = market()
    first, second = posted(treasury, DOLLAR), posted(treasury, DOLLAR)
    hold_id, _ = treasury.trade.held(250), treasury.trade.held(250)
    treasury.event(first, "reversed", "evt_1", units=str(DOLLAR))
    treasury.event(second, "reversed", "evt_2", units=str(DOLLAR // 2))
    release = ReleaseHold(hold_id=hold_id, idempotency_key=treasury.room.key())
    treasury.room.done(treasury.trade.vendor, RELEASE_HOLD, release)
    assert (balance(treasury, "prepaid"), balance(treasury, "receivable")) == (
        380 * 10**6,
        -260 * 10**6,
    )
    short = reverse(treasury, second, DOLLAR // 2 + 121 * 10**6)
    assert short is not None
    assert (short.code, short.remaining) == (Code.INSUFFICIENT_FUNDS, "0.12")
    assert reverse(treasury, second, DOLLAR // 2 + 120 * 10**6) is None
    assert (balance(treasury, "prepaid"), balance(treasury, "receivable")) == (0, 0)
    audited(treasury)
