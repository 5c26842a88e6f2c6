"""The life of a spend session and its money: opened, topped up, ended, always exactly set aside."""

from typing import Any

import pytest

from farthing.protocol.errors import Code, Refusal
from farthing.protocol.messages.agents import FREEZE, Freeze
from farthing.protocol.messages.agreements import TERMINATE_AGREEMENT, TerminateAgreement
from farthing.protocol.messages.charges import REFUND_CHARGE, RefundCharge
from farthing.protocol.messages.disputes import INITIATE_DISPUTE, InitiateDispute
from farthing.protocol.messages.sessions import (
    CLOSE_SESSION,
    OPEN_SESSION,
    TOP_UP_SESSION,
    CloseSession,
    OpenSession,
    TopUpSession,
)
from farthing.protocol.records import Record
from farthing.protocol.wire import Money, Role, money
from farthing.settlement.engine.sessions import session_answer
from farthing.settlement.engine.things import Session
from farthing.settlement.engine.usage import report_answer
from tests.construction import Trade
from tests.protocol.replay.metered import PAGE_UNITS as PAGE
from tests.protocol.replay.metered import Metered, events
from tests.settlement.engine.treasurer import Treasury, card_of

FUNDS = 100 * PAGE


def market(*, funds: int = FUNDS, per_call: int = 10 * PAGE, per_day: int = 10**9) -> Trade:
    """A market in which every page costs the same."""
    trade = Trade.opened(funds=funds, per_call=per_call, per_day=per_day)
    listing_id = trade.room.publish(
        trade.vendor, card=card_of(money(PAGE, "USD").amount), name="Flat pages"
    )
    trade.agreement_id = trade.room.agree(trade.agent, listing_id)
    return trade


def session_of(metered: Metered) -> Session:
    return metered.trade.room.state.sessions[metered.session_id]


def pending(trade: Trade) -> tuple[int, int]:
    """What is set aside of the operator's, and for the vendor."""
    accounts = trade.room.state.accounts
    prepaid = accounts[f"{trade.operator.principal_id}:prepaid:USD"]
    vendor = accounts[f"{trade.vendor.principal_id}:vendor_pending:USD"]
    return prepaid.debits_pending, vendor.credits_pending


def counted(trade: Trade) -> int:
    return sum(trade.room.state.counters.values())


def open_(trade: Trade, **ask: Any) -> Any:
    terms: dict[str, Any] = {
        "agreement_id": trade.agreement_id,
        "cap": money(40 * PAGE, "USD"),
        "per_call": money(10 * PAGE, "USD"),
        "idempotency_key": trade.room.key(),
    }
    return trade.room.submit(trade.agent, OPEN_SESSION, OpenSession(**{**terms, **ask}))


def top_up(metered: Metered, units: int, asset: str = "USD") -> Any:
    ask = TopUpSession(
        session_id=metered.session_id,
        amount=money(units, asset),
        idempotency_key=metered.trade.room.key(),
    )
    return metered.trade.room.submit(metered.trade.agent, TOP_UP_SESSION, ask)


def close(metered: Metered, by: Any) -> Any:
    key = metered.trade.room.key()
    ask = CloseSession(session_id=metered.session_id, idempotency_key=key)
    return metered.trade.room.submit(by, CLOSE_SESSION, ask)


def test_opening_sets_the_cap_aside_and_counts_it_today() -> None:
    trade = market()
    record = open_(trade, low_water=money(5 * PAGE, "USD"), unsigned=money(PAGE, "USD"))
    view = session_answer(record)
    assert trade.balance(trade.operator, "prepaid") == 60 * PAGE
    assert pending(trade) == (40 * PAGE, 40 * PAGE)
    assert counted(trade) == 40 * PAGE
    assert (view.status, view.cap, view.remaining) == (
        "open",
        whole := money(40 * PAGE, "USD"),
        whole,
    )
    assert (view.low_water, view.unsigned) == (money(5 * PAGE, "USD"), money(PAGE, "USD"))
    assert (view.calls, view.closes_at) == (0, "")


def test_a_report_posts_what_is_billed_and_leaves_the_rest_pending() -> None:
    metered = Metered.opened(trade := market())
    record = metered.report(events(1, 3, 4, at_us=trade.room.now_us))
    charge_id = next(each.id for each in record.changed if each.noun == "charge")
    charge = trade.room.state.charges[charge_id]
    assert (charge.amount_units, charge.fee_units) == (7 * PAGE, 7 * PAGE // 40)
    assert (charge.session_id, charge.hold_id, charge.usage) == (
        metered.session_id,
        "",
        {"page": 7},
    )
    assert pending(trade) == (33 * PAGE, 33 * PAGE)
    assert trade.balance(trade.vendor, "vendor_pending") == 7 * PAGE - 7 * PAGE // 40
    assert trade.balance(trade.operator, "prepaid") == 60 * PAGE
    assert counted(trade) == 40 * PAGE
    assert trade.room.state.positions[trade.agreement_id] == {"page": 7}


def test_a_top_up_raises_the_cap_under_the_same_limits() -> None:
    metered = Metered.opened(trade := market(per_day=60 * PAGE))
    assert top_up(metered, 20 * PAGE).code is None
    assert session_of(metered).cap_units == 60 * PAGE
    assert pending(trade) == (60 * PAGE, 60 * PAGE)
    assert top_up(metered, 1).code is Code.BUDGET_EXCEEDED


def test_the_vendors_close_gives_the_rest_back_at_once() -> None:
    metered = Metered.opened(trade := market())
    metered.report(events(1, 3, at_us=trade.room.now_us))
    assert close(metered, trade.vendor).code is None
    assert session_of(metered).status == "closed"
    assert pending(trade) == (0, 0)
    assert trade.balance(trade.operator, "prepaid") == 97 * PAGE
    assert counted(trade) == 3 * PAGE
    assert close(metered, trade.vendor).code is Code.SESSION_CLOSED


@pytest.mark.parametrize("by", ["agent", "operator"])
def test_the_buyers_close_does_not_deny_settlement(by: str) -> None:
    metered = Metered.opened(trade := market())
    done_at_us = trade.room.now_us
    trade.room.advance(10)
    assert close(metered, getattr(trade, by)).code is None
    assert session_of(metered).status == "closing"
    assert pending(trade) == (40 * PAGE, 40 * PAGE)
    trade.room.advance(299)
    # What the vendor took before it could know is paid for too: the buyer signed for it.
    late = events(2, 5, at_us=done_at_us + 10_000_001)
    record = metered.report([*events(1, 3, at_us=done_at_us), *late])
    assert record.decided is not None
    assert record.decided["rejected"] == []
    assert report_answer(record).closes_at
    (ended,) = trade.room.advance(1)
    assert (ended.operation, session_of(metered).status) == ("expire_session", "closed")
    assert trade.balance(trade.operator, "prepaid") == 92 * PAGE
    assert pending(trade) == (0, 0)


def test_a_closing_session_is_neither_topped_up_nor_closed_by_the_buyer_again() -> None:
    metered = Metered.opened(trade := market())
    close(metered, trade.agent)
    assert top_up(metered, PAGE).code is Code.SESSION_CLOSED
    assert close(metered, trade.agent).code is Code.SESSION_CLOSED
    assert close(metered, trade.vendor).code is None


def test_a_dead_session_is_reaped_once_its_calls_can_no_longer_be_reported() -> None:
    metered = Metered.opened(trade := market(), expires_in_s=60)
    done_at_us = trade.room.now_us
    assert trade.room.advance(359) == []
    assert top_up(metered, PAGE).code is Code.SESSION_CLOSED
    assert close(metered, trade.agent).code is Code.SESSION_CLOSED
    metered.report(events(1, 3, at_us=done_at_us))
    (ended,) = [each for each in trade.room.advance(1) if each.operation == "expire_session"]
    assert ended.by.principal_id == "platform"
    assert session_of(metered).status == "expired"
    assert trade.balance(trade.operator, "prepaid") == 97 * PAGE
    refused = metered.send(events(2, 1, at_us=done_at_us))
    assert refused.code is Code.SESSION_CLOSED


def test_a_session_is_over_at_the_very_instant_of_its_end() -> None:
    metered = Metered.opened(trade := market(), expires_in_s=60)
    trade.room.advance(60)
    assert top_up(metered, PAGE).code is Code.SESSION_CLOSED
    assert close(metered, trade.agent).code is Code.SESSION_CLOSED


def test_what_was_set_aside_last_is_given_back_first_and_counts_on_no_day() -> None:
    trade = market(funds=10**9)
    trade.room.advance(12 * 3600 - 60)
    metered = Metered.opened(trade, expires_in_s=7200)
    trade.room.advance(120)
    assert top_up(metered, 20 * PAGE).code is None
    assert by_day(trade) == {"2026-11-20": 40 * PAGE, "2026-11-21": 20 * PAGE}
    metered.report(events(1, 10, at_us=trade.room.now_us))
    close(metered, trade.vendor)
    assert by_day(trade) == {"2026-11-20": 10 * PAGE, "2026-11-21": 0}


def by_day(trade: Trade) -> dict[str, int]:
    return {day: units for (_, day), units in trade.room.state.counters.items()}


def test_an_ended_agreement_lets_its_sessions_run_their_course() -> None:
    metered = Metered.opened(trade := market())
    ask = TerminateAgreement(
        agreement_id=trade.agreement_id, reason="", idempotency_key=trade.room.key()
    )
    trade.room.done(trade.agent, TERMINATE_AGREEMENT, ask)
    metered.report(events(1, 3, at_us=trade.room.now_us))
    assert open_(trade).code is Code.AGREEMENT_ENDED
    assert top_up(metered, PAGE).code is Code.AGREEMENT_ENDED


def test_lots_pay_first_and_what_is_left_of_them_comes_back() -> None:
    trade = market()
    treasury = Treasury(trade)
    treasury.grant_credit(5 * PAGE)
    metered = Metered.opened(trade)
    assert trade.balance(trade.operator, "prepaid") == 65 * PAGE
    treasury.grant_credit(4 * PAGE)
    assert top_up(metered, 6 * PAGE).code is None
    assert [each.amount_units for each in session_of(metered).drawn] == [5 * PAGE, 4 * PAGE]
    metered.report(events(1, 3, 3, at_us=trade.room.now_us))
    metered.report(events(3, 1, at_us=trade.room.now_us))
    assert [each.amount_units for each in session_of(metered).drawn] == [2 * PAGE]
    close(metered, trade.vendor)
    lots = trade.room.state.lots.values()
    assert sorted((each.free_units, each.held_units) for each in lots) == [(0, 0), (2 * PAGE, 0)]
    assert trade.balance(trade.operator, "prepaid") == FUNDS
    assert pending(trade) == (0, 0)


def test_however_often_it_is_topped_up_a_session_draws_on_sixteen_lots() -> None:
    trade = market()
    treasury = Treasury(trade)
    metered = Metered.opened(trade)
    for _ in range(18):
        treasury.grant_credit(PAGE)
        assert top_up(metered, PAGE).code is None
    assert len(session_of(metered).drawn) == 16
    assert pending(trade) == (42 * PAGE, 58 * PAGE)


def test_a_sessions_charge_is_refunded_settled_and_paid_like_any_other() -> None:
    metered = Metered.opened(trade := market())
    record = metered.report(events(1, 8, at_us=trade.room.now_us))
    charge_id = next(each.id for each in record.changed if each.noun == "charge")
    refund = RefundCharge(
        charge_id=charge_id, amount=money(4 * PAGE, "USD"), idempotency_key=trade.room.key()
    )
    trade.room.done(trade.vendor, REFUND_CHARGE, refund)
    trade.room.advance(600)
    charge = trade.room.state.charges[charge_id]
    assert (charge.status, charge.refunded_units) == ("payable", 4 * PAGE)
    assert trade.balance(trade.vendor, "vendor_payable") == 4 * PAGE - PAGE // 10


@pytest.mark.parametrize(
    ("reason", "code"),
    [("calculation_error", None), ("not_delivered", Code.NOT_DISPUTABLE)],
)
def test_a_batch_is_disputed_for_its_sum_alone(reason: Any, code: Code | None) -> None:
    metered = Metered.opened(trade := market())
    record = metered.report(events(1, 8, at_us=trade.room.now_us))
    charge_id = next(each.id for each in record.changed if each.noun == "charge")
    ask = InitiateDispute(charge_id=charge_id, reason=reason, idempotency_key=trade.room.key())
    answer = trade.room.submit(trade.agent, INITIATE_DISPUTE, ask)
    assert isinstance(answer, Record)
    assert answer.code is code


def freeze(trade: Trade, whom: str = "agent") -> None:
    ask = Freeze(
        principal_id=getattr(trade, whom).principal_id,
        reason="",
        idempotency_key=trade.room.key(),
    )
    trade.room.done(
        trade.room.staff(Role.ADMIN) if whom == "vendor" else trade.operator, FREEZE, ask
    )


def test_only_its_parties_end_a_session_and_only_its_buyer_tops_it_up() -> None:
    metered = Metered.opened(trade := market())
    stranger = trade.room.organisation("vendor", "Vendor Two")
    assert close(metered, stranger).code is Code.NOT_FOUND
    ask = TopUpSession(
        session_id=metered.session_id,
        amount=money(PAGE, "USD"),
        idempotency_key=trade.room.key(),
    )
    for other in (stranger, trade.operator, trade.vendor):
        refusal = trade.room.submit(other, TOP_UP_SESSION, ask)
        assert isinstance(refusal, Refusal)
        assert refusal.code is Code.NOT_FOUND


EURO = money(PAGE, "EUR")


@pytest.mark.parametrize(
    ("ask", "frozen", "code"),
    [
        ({"cap": money(0, "USD")}, "", Code.INVALID_AMOUNT),
        ({"per_call": money(0, "USD")}, "", Code.INVALID_AMOUNT),
        ({"per_call": money(41 * PAGE, "USD")}, "", Code.INVALID_AMOUNT),
        ({"cap": money(0, "USD"), "agreement_id": f"agr_{'0' * 26}"}, "", Code.INVALID_AMOUNT),
        ({"agreement_id": f"agr_{'0' * 26}"}, "agent", Code.NOT_FOUND),
        ({}, "agent", Code.FROZEN),
        ({}, "vendor", Code.FROZEN),
        ({"low_water": EURO}, "agent", Code.FROZEN),
        ({"per_call": money(11 * PAGE, "USD")}, "", Code.PER_CALL_LIMIT_EXCEEDED),
        ({"per_call": money(11 * PAGE, "USD"), "unsigned": EURO}, "", Code.ASSET_MISMATCH),
        ({"cap": money(201 * PAGE, "USD")}, "", Code.BUDGET_EXCEEDED),
        ({"cap": EURO}, "", Code.ASSET_MISMATCH),
        ({"cap": money(101 * PAGE, "USD")}, "", Code.INSUFFICIENT_FUNDS),
        ({"cap": money(10**18, "USD"), "per_call": money(11 * PAGE, "USD")}, "",
         Code.PER_CALL_LIMIT_EXCEEDED),
    ],
)  # fmt: skip
def test_what_cannot_be_opened_has_one_answer_and_sets_nothing_aside(
    ask: dict[str, Money | str], frozen: str, code: Code
) -> None:
    trade = market(per_day=200 * PAGE)
    if frozen:
        freeze(trade, frozen)
    assert open_(trade, **ask).code is code
    assert trade.balance(trade.operator, "prepaid") == FUNDS
    assert counted(trade) == 0


def test_a_top_up_in_another_asset_or_of_nothing_is_refused() -> None:
    metered = Metered.opened(market())
    assert top_up(metered, 0).code is Code.INVALID_AMOUNT
    assert top_up(metered, PAGE, "EUR").code is Code.ASSET_MISMATCH
    assert top_up(metered, 61 * PAGE).code is Code.INSUFFICIENT_FUNDS
    assert session_of(metered).cap_units == 40 * PAGE
