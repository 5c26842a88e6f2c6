"""Top-ups and payouts in two phases: whatever comes twice, late or out of order does no harm."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.protocol.errors import Code
from farthing.protocol.ledger import COUNTER_MAX, Account, imbalances
from farthing.protocol.messages.agents import FREEZE, UNFREEZE, Freeze, Unfreeze
from farthing.protocol.wire import Role
from farthing.settlement.engine.accounts import is_full
from farthing.settlement.engine.state import State
from tests.construction import Trade
from tests.settlement.engine.treasurer import DOLLAR, Treasury


def market() -> Treasury:
    return Treasury(Trade.opened(funds=DOLLAR))


def earned(pages: int = 10) -> Treasury:
    """A market whose vendor has money to be paid out."""
    treasury = market()
    treasury.trade.captured(pages)
    treasury.room.advance(86_400)
    return treasury


def prepaid(treasury: Treasury) -> int:
    return treasury.trade.balance(treasury.trade.operator, "prepaid")


def test_a_top_up_can_be_spent_once_its_money_has_come() -> None:
    treasury = market()
    top_up_id = treasury.top_up(5 * DOLLAR)
    assert prepaid(treasury) == DOLLAR
    confirmed = treasury.ask(treasury.treasurer, "confirm_top_up", top_up_id=top_up_id)
    assert confirmed.refused is None
    assert prepaid(treasury) == 6 * DOLLAR
    again = treasury.ask(treasury.treasurer, "confirm_top_up", top_up_id=top_up_id)
    assert (again.code, again.refusal.message) == (Code.PAYMENT_RESOLVED, "It is posted already.")
    failed = treasury.ask(treasury.treasurer, "fail_top_up", top_up_id=top_up_id)
    assert failed.code is Code.PAYMENT_RESOLVED


def test_a_top_up_that_nobody_pays_ends_and_money_that_comes_later_is_still_taken() -> None:
    treasury = market()
    top_up_id = treasury.top_up(5 * DOLLAR)
    (record,) = treasury.room.advance(86_400)
    assert record.operation == "expire_top_up"
    name = f"{treasury.trade.operator.principal_id}:prepaid:USD"
    assert treasury.room.state.accounts[name].credits_pending == 0
    treasury.event(top_up_id, "paid", "evt_late")
    assert prepaid(treasury) == 6 * DOLLAR


@pytest.mark.parametrize(
    ("operation", "units"), [("confirm_top_up", 11 * DOLLAR), ("fail_top_up", 6 * DOLLAR)]
)
def test_a_second_payment_of_a_top_up_waits_for_the_treasurer(operation: str, units: int) -> None:
    treasury = market()
    top_up_id = treasury.top_up(5 * DOLLAR)
    treasury.event(top_up_id, "paid", "evt_1")
    (change,) = treasury.event(top_up_id, "paid", "evt_2").changed
    told_twice = treasury.event(top_up_id, "paid", "evt_2")
    before = prepaid(treasury)
    decided = treasury.ask(treasury.treasurer, operation, top_up_id=change.id, reference="seen")
    told_late = treasury.event(top_up_id, "paid", "evt_2")

    assert change.after["status"] == "pending"
    assert change.after["reference"] == "ref_evt_2"
    assert before == 6 * DOLLAR
    assert (told_twice.changed, told_late.changed) == ((), ())
    assert decided.refused is None
    assert prepaid(treasury) == units
    assert not imbalances(treasury.room.state.accounts)


def test_a_second_payment_of_a_top_up_waits_for_thirty_days() -> None:
    treasury = market()
    top_up_id = treasury.top_up(5 * DOLLAR)
    treasury.event(top_up_id, "paid", "evt_1")
    (change,) = treasury.event(top_up_id, "paid", "evt_2").changed
    assert treasury.room.advance(30 * 86_400 - 1) == []
    (expired,) = treasury.room.advance(1)
    assert (expired.operation, expired.changed[0].id) == ("expire_top_up", change.id)


def test_what_is_pending_counts_towards_the_end_of_a_lifetime_counter() -> None:
    full = Account(debits_pending=5, debits_posted=COUNTER_MAX - 10)
    state = State(accounts={"debit": full})
    assert not is_full(state, "credit", "debit", 5)
    assert is_full(state, "credit", "debit", 6)


@given(st.lists(st.sampled_from(["paid", "failed", "day"]), max_size=8))
def test_in_whatever_order_events_come_money_that_came_is_there_once(said: list[str]) -> None:
    treasury = market()
    top_up_id = treasury.top_up(5 * DOLLAR)
    for number, each in enumerate(said):
        if each == "day":
            treasury.room.advance(86_400)
        else:
            treasury.event(top_up_id, each, f"evt_{number}")  # type: ignore[arg-type]

    assert prepaid(treasury) == (6 if "paid" in said else 1) * DOLLAR
    assert not imbalances(treasury.room.state.accounts)


def test_a_payout_is_set_aside_sent_and_paid() -> None:
    treasury = earned()
    vendor = treasury.trade.vendor
    before = treasury.trade.balance(vendor, "vendor_payable")
    payout_id = treasury.payout(before, destination="acct_1").changed[0].id
    assert treasury.trade.balance(vendor, "vendor_payable") == 0
    assert treasury.payout(1).code is Code.INSUFFICIENT_FUNDS
    assert treasury.ask(treasury.treasurer, "send_payout", payout_id=payout_id).refused is None
    twice = treasury.ask(treasury.treasurer, "send_payout", payout_id=payout_id)
    assert (twice.code, twice.refusal.message) == (Code.PAYMENT_RESOLVED, "It is sent already.")
    treasury.event(payout_id, "paid", "evt_1")
    treasury.event(payout_id, "paid", "evt_1")
    treasury.event(payout_id, "failed", "evt_2")
    account = treasury.room.state.accounts[f"{vendor.principal_id}:vendor_payable:USD"]
    assert (account.debits_posted, account.debits_pending) == (before, 0)


def test_nothing_is_paid_out_to_who_is_frozen_until_the_freeze_is_lifted() -> None:
    treasury = earned()
    vendor, admin = treasury.trade.vendor, treasury.room.staff(Role.ADMIN)
    units = treasury.trade.balance(vendor, "vendor_payable") // 2
    before, late = (treasury.payout(units).changed[0].id for _ in range(2))
    treasury.ask(treasury.treasurer, "send_payout", payout_id=before)
    named = {"principal_id": vendor.principal_id, "reason": "fraud?"}
    freeze = Freeze(**named, idempotency_key=treasury.room.key())
    treasury.room.done(admin, FREEZE, freeze)

    assert treasury.payout(1).code is Code.FROZEN
    sent = treasury.ask(treasury.treasurer, "send_payout", payout_id=late)
    assert sent.code is Code.FROZEN
    # What had left before is said to have left.
    assert treasury.event(before, "paid", "evt_1").moved

    unfreeze = Unfreeze(**named, idempotency_key=treasury.room.key())
    treasury.room.done(admin, UNFREEZE, unfreeze)
    assert treasury.ask(treasury.treasurer, "send_payout", payout_id=late).refused is None


def test_a_payout_that_failed_is_the_vendors_again() -> None:
    treasury = earned()
    vendor = treasury.trade.vendor
    before = treasury.trade.balance(vendor, "vendor_payable")
    payout_id = treasury.payout(before).changed[0].id
    failed = treasury.ask(treasury.treasurer, "fail_payout", payout_id=payout_id, reference="x")
    assert failed.refused is None
    assert treasury.trade.balance(vendor, "vendor_payable") == before
    # It had left all the same: what the processor says last is what happened to the money.
    treasury.event(payout_id, "paid", "evt_1")
    assert treasury.trade.balance(vendor, "vendor_payable") == 0


def test_a_payout_that_its_processor_may_still_pay_is_not_given_back_by_hand() -> None:
    treasury = earned()
    vendor = treasury.trade.vendor
    before = treasury.trade.balance(vendor, "vendor_payable")
    payout_id = treasury.payout(before, processor="stripe").changed[0].id
    treasury.ask(treasury.treasurer, "send_payout", payout_id=payout_id)
    failing = {"payout_id": payout_id, "reference": "x"}

    at_once = treasury.ask(treasury.treasurer, "fail_payout", **failing)
    treasury.room.advance(12 * 3_600)
    while_asked = treasury.ask(treasury.treasurer, "fail_payout", **failing)
    treasury.room.advance(600)
    assert treasury.trade.balance(vendor, "vendor_payable") == 0
    after = treasury.ask(treasury.treasurer, "fail_payout", **failing)

    assert (at_once.code, while_asked.code) == (Code.PAYMENT_RESOLVED, Code.PAYMENT_RESOLVED)
    assert at_once.refusal.required == while_asked.refusal.required
    assert after.refused is None
    assert treasury.trade.balance(vendor, "vendor_payable") == before


def test_a_payout_that_no_processor_was_asked_for_is_given_back_at_once() -> None:
    treasury = earned()
    by_hand, unsent = (
        treasury.payout(1, processor=processor).changed[0].id for processor in ("manual", "stripe")
    )
    treasury.ask(treasury.treasurer, "send_payout", payout_id=by_hand)

    for payout_id in (by_hand, unsent):
        failed = treasury.ask(treasury.treasurer, "fail_payout", payout_id=payout_id)
        assert failed.refused is None


def given_up_and_asked_for_again(treasury: Treasury, *shares: int) -> tuple[str, list[str]]:
    """A payout of all that failed, and others of so many parts of four since."""
    before = treasury.trade.balance(treasury.trade.vendor, "vendor_payable")
    first = treasury.payout(before).changed[0].id
    treasury.event(first, "failed", "evt_1")
    return first, [treasury.payout(before * each // 4).changed[0].id for each in shares]


def test_money_that_left_after_all_overdraws_nobody() -> None:
    treasury = earned()
    first, (second,) = given_up_and_asked_for_again(treasury, 4)
    treasury.ask(treasury.treasurer, "send_payout", payout_id=second)
    treasury.event(first, "paid", "evt_2")
    assert treasury.room.state.payouts[first].status == "failed"
    assert treasury.room.state.payouts[second].status == "sent"


@pytest.mark.parametrize(
    ("shares", "status"),
    [((4,), ["failed"]), ((1, 1, 2), ["failed"] * 3), ((1,), ["failed"]), ((), [])],
)
def test_what_was_asked_for_since_gives_way_to_money_that_left_after_all(
    shares: tuple[int, ...], status: list[str]
) -> None:
    treasury = earned()
    first, later = given_up_and_asked_for_again(treasury, *shares)
    treasury.event(first, "paid", "evt_2")
    payouts = treasury.room.state.payouts
    account = treasury.room.state.accounts[
        f"{treasury.trade.vendor.principal_id}:vendor_payable:USD"
    ]

    assert payouts[first].status == "paid"
    assert [payouts[each].status for each in later] == status
    assert (account.available_units, account.debits_pending) == (0, 0)
    assert not imbalances(treasury.room.state.accounts)
    for each in later:
        sent = treasury.ask(treasury.treasurer, "send_payout", payout_id=each)
        assert sent.code is Code.PAYMENT_RESOLVED


def test_no_more_gives_way_than_has_to() -> None:
    treasury = earned()
    vendor = treasury.trade.vendor
    before = treasury.trade.balance(vendor, "vendor_payable")
    first = treasury.payout(before // 2).changed[0].id
    treasury.event(first, "failed", "evt_1")
    older, newer = (treasury.payout(before // 2).changed[0].id for _ in range(2))
    treasury.event(first, "paid", "evt_2")

    assert treasury.room.state.payouts[older].status == "requested"
    assert treasury.room.state.payouts[newer].status == "failed"


def test_an_event_of_something_unknown_changes_nothing() -> None:
    treasury = market()
    record = treasury.event("top_00000000000000000000000000", "paid", "evt_1")

    assert (record.moved, record.changed) == ((), ())


def test_another_amount_than_was_asked_for_is_not_taken_for_it() -> None:
    treasury = market()
    top_up_id = treasury.top_up(5 * DOLLAR)
    record = treasury.event(top_up_id, "paid", "evt_1", units=str(6 * DOLLAR))

    assert (record.moved, record.changed) == ((), ())
    assert prepaid(treasury) == DOLLAR


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        ("confirm_top_up", "top_up_id"),
        ("fail_top_up", "top_up_id"),
        ("send_payout", "payout_id"),
        ("confirm_payout", "payout_id"),
        ("fail_payout", "payout_id"),
    ],
)
def test_what_was_never_asked_for_is_not_found(operation: str, name: str) -> None:
    treasury = market()
    absent = f"{'top' if name == 'top_up_id' else 'pay'}_{'0' * 26}"

    assert treasury.ask(treasury.treasurer, operation, **{name: absent}).code is Code.NOT_FOUND


def test_who_has_earned_nothing_has_no_account_to_be_paid_out() -> None:
    treasury = market()

    assert treasury.payout(1).code is Code.ACCOUNT_UNKNOWN
