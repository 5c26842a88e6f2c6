"""What was funded, given or asked for by mistake is taken back, as far as it is there."""

from typing import Any

from farthing.protocol.errors import Code, Refusal
from farthing.protocol.messages.accounts import WITHDRAW_FUNDS, WithdrawFunds
from farthing.protocol.messages.holds import RELEASE_HOLD, ReleaseHold
from farthing.protocol.wire import money
from farthing.settlement.engine.lots import lot_answer
from farthing.settlement.engine.reversals import withdrawal_answer
from tests.construction import Trade
from tests.settlement.engine.test_reversals import audited, balance, market
from tests.settlement.engine.treasurer import DOLLAR, Treasury

PAGE = 2_000_000


def withdraw(treasury: Treasury, units: int, **other: Any) -> Any:
    ask = WithdrawFunds(
        organisation_id=treasury.trade.operator.principal_id,
        amount=money(units, "USD"),
        reference="wire 42, booked twice",
        idempotency_key=treasury.room.key(),
        **other,
    )
    return treasury.room.submit(treasury.treasurer, WITHDRAW_FUNDS, ask)


def refusal(decided: Any) -> Refusal:
    found = decided if isinstance(decided, Refusal) else decided.refusal
    assert isinstance(found, Refusal)
    return found


def paid(treasury: Treasury, units: int) -> str:
    """A payout of what the vendor has earned."""
    return str(treasury.payout(units).changed[0].id)


def earned() -> Treasury:
    trade = Trade.opened()
    trade.captured(10)
    trade.room.advance(86_400)
    return Treasury(trade)


def payable(treasury: Treasury) -> int:
    return treasury.trade.balance(treasury.trade.vendor, "vendor_payable")


def test_what_was_funded_by_mistake_goes_back_where_it_came_from() -> None:
    treasury = market()
    treasury.room.fund(treasury.trade.operator, 5 * DOLLAR)
    answer = withdrawal_answer(withdraw(treasury, 3 * DOLLAR))
    assert (answer.amount, answer.owed) == (money(3 * DOLLAR, "USD"), money(0, "USD"))
    assert answer.withdrawal_id.startswith("wdl_")
    assert balance(treasury, "prepaid") == 2 * DOLLAR
    audited(treasury)


def test_what_is_spent_or_set_aside_is_not_taken_unless_its_operator_is_to_owe_it() -> None:
    treasury = market()
    treasury.room.fund(treasury.trade.operator, DOLLAR)
    treasury.trade.held(10)
    short = refusal(withdraw(treasury, DOLLAR))
    assert (short.code, short.path, short.required, short.remaining) == (
        Code.INSUFFICIENT_FUNDS, "amount.amount", "1", "0.98",
    )  # fmt: skip
    answer = withdrawal_answer(withdraw(treasury, DOLLAR, may_owe=True))
    assert (answer.amount, answer.owed) == (money(DOLLAR, "USD"), money(10 * PAGE, "USD"))
    assert balance(treasury, "prepaid") == 0
    assert balance(treasury, "receivable") == -10 * PAGE
    audited(treasury)


def test_who_owes_has_nothing_that_could_be_taken_out() -> None:
    treasury = market()
    trade = treasury.trade
    treasury.room.fund(trade.operator, DOLLAR)
    hold_id = trade.held(10)
    withdraw(treasury, DOLLAR, may_owe=True)
    release = ReleaseHold(hold_id=hold_id, idempotency_key=trade.room.key())
    trade.room.done(trade.vendor, RELEASE_HOLD, release)
    assert balance(treasury, "prepaid") == -balance(treasury, "receivable") == 10 * PAGE
    assert refusal(withdraw(treasury, 1)).remaining == "0"
    treasury.room.fund(trade.operator, DOLLAR)
    assert balance(treasury, "prepaid") == DOLLAR
    audited(treasury)


def test_of_a_lot_what_is_free_is_taken_back_to_where_it_came_from() -> None:
    treasury = Treasury(Trade.opened(funds=0, per_call=10 * DOLLAR, per_day=100 * DOLLAR))
    bought, given = (treasury.grant_credit(DOLLAR, kind) for kind in ("bought", "promotional"))
    treasury.trade.captured(10)
    for lot_id, units in ((bought, DOLLAR - 10 * PAGE), (given, DOLLAR // 2)):
        taken = treasury.ask(
            treasury.treasurer, "withdraw_credit", lot_id=lot_id, amount=money(units, "USD")
        )
        lot = lot_answer(taken)
        assert lot.withdrawn == money(units, "USD")
    assert balance(treasury, "deferred_revenue") == 0
    assert balance(treasury, "promotional_credit") == DOLLAR // 2
    assert (lot.free, lot.spent) == (money(DOLLAR // 2, "USD"), money(0, "USD"))
    more = refusal(
        treasury.ask(treasury.treasurer, "withdraw_credit", lot_id=bought, amount=money(1, "USD"))
    )
    assert (more.code, more.remaining) == (Code.INSUFFICIENT_FUNDS, "0")
    audited(treasury)


def test_what_comes_back_to_a_lot_can_be_taken_back_too() -> None:
    treasury = Treasury(Trade.opened(funds=0, per_call=10 * DOLLAR, per_day=100 * DOLLAR))
    lot_id = treasury.grant_credit(10 * PAGE)
    charge_id = treasury.trade.captured(10)
    treasury.refund(charge_id, 4 * PAGE)
    named = {"lot_id": lot_id, "amount": money(4 * PAGE, "USD")}
    lot = lot_answer(treasury.ask(treasury.treasurer, "withdraw_credit", **named))
    assert (lot.free, lot.spent) == (money(0, "USD"), money(6 * PAGE, "USD"))
    audited(treasury)


def test_who_asked_for_a_payout_takes_it_back_until_it_is_sent() -> None:
    treasury = earned()
    before = payable(treasury)
    taken, sent = paid(treasury, PAGE), paid(treasury, 2 * PAGE)
    treasury.ask(treasury.treasurer, "send_payout", payout_id=sent)
    treasury.ask(treasury.trade.vendor, "cancel_payout", payout_id=taken)
    assert treasury.room.state.payouts[taken].status == "cancelled"
    assert payable(treasury) == before - 2 * PAGE
    late = refusal(treasury.ask(treasury.trade.vendor, "cancel_payout", payout_id=sent))
    assert (late.code, late.message) == (Code.PAYMENT_RESOLVED, "It is sent already.")
    audited(treasury)


def test_nobody_takes_back_what_another_has_asked_for() -> None:
    treasury = earned()
    payout_id = paid(treasury, PAGE)
    other = treasury.ask(treasury.trade.operator, "cancel_payout", payout_id=payout_id)
    assert refusal(other).code is Code.NOT_FOUND
    assert treasury.room.state.payouts[payout_id].status == "requested"


def test_a_payout_that_was_given_up_and_left_all_the_same_is_booked_by_hand() -> None:
    for word in ("fail_payout", "cancel_payout"):
        treasury = earned()
        before = payable(treasury)
        payout_id = paid(treasury, before)
        by = treasury.trade.vendor if word == "cancel_payout" else treasury.treasurer
        treasury.ask(by, word, payout_id=payout_id)
        since = paid(treasury, PAGE)
        named = {"payout_id": payout_id, "reference": "wire-43"}
        booked = treasury.ask(treasury.treasurer, "confirm_payout", **named)
        assert booked.refused is None
        # What was asked for since gives way: the same money would leave twice.
        assert treasury.room.state.payouts[payout_id].status == "paid"
        assert treasury.room.state.payouts[since].status == "failed"
        assert payable(treasury) == 0
        audited(treasury)


def test_a_payout_that_was_given_up_is_not_booked_out_of_what_is_not_there() -> None:
    treasury = earned()
    before = payable(treasury)
    first = paid(treasury, before)
    treasury.ask(treasury.treasurer, "fail_payout", payout_id=first)
    second = paid(treasury, before)
    treasury.ask(treasury.treasurer, "confirm_payout", payout_id=second)
    short = refusal(treasury.ask(treasury.treasurer, "confirm_payout", payout_id=first))
    assert (short.code, short.path, short.remaining) == (
        Code.INSUFFICIENT_FUNDS, "payout_id", "0",
    )  # fmt: skip
    assert "It is failed" in short.message
    audited(treasury)
