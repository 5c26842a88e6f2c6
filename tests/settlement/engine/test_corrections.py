"""Billed usage taken back: what is given back for it, what is refused, and what stays true."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from farthing.protocol.audit import verify_journal
from farthing.protocol.corrections import CHANGES_MAX
from farthing.protocol.errors import Code, Refusal, refuse
from farthing.protocol.messages.charges import REFUND_CHARGE, RefundCharge
from farthing.protocol.rating import rate
from farthing.protocol.records import Record
from farthing.protocol.replay.rulebook import Rulebook
from farthing.protocol.usage import UsageOutcome
from farthing.protocol.wire import money
from farthing.settlement.engine.commands import Seen
from farthing.settlement.engine.corrections import correction_answer
from farthing.settlement.engine.things import Charge
from tests.construction import Trade
from tests.papers import card_document
from tests.protocol.replay.correcting import charge_of, correct, corrected
from tests.protocol.replay.metered import PAGE_UNITS as PAGE
from tests.protocol.replay.metered import Metered, events
from tests.settlement.engine.test_allowances import approved, proposed
from tests.settlement.engine.test_session_usage import graduated
from tests.settlement.engine.test_sessions import counted, market, pending
from tests.settlement.engine.treasurer import Treasury, card_of

DAY_S = 86_400


def reported(*pages: int) -> tuple[Trade, str]:
    """A market in which a session's calls 1, 2, … of so many pages were billed."""
    metered = Metered.opened(trade := market())
    return trade, charge_of(metered.report(events(1, *pages, at_us=trade.room.now_us)))


def charge(trade: Trade, charge_id: str) -> Charge:
    return trade.room.state.charges[charge_id]


def test_what_a_call_used_too_much_is_given_back_with_the_fee_on_it() -> None:
    trade, charge_id = reported(3, 4, 5)
    fee_units = charge(trade, charge_id).fee_units
    record = corrected(trade, charge_id, {1: 1, 3: 3})
    after = charge(trade, charge_id)
    assert (after.refunded_units, after.fee_returned_units) == (4 * PAGE, fee_units * 4 // 12)
    assert (after.amount_units, after.corrected) == (12 * PAGE, (1, 3))
    assert after.trail_seqs == (record.seq,)
    assert trade.room.state.positions[trade.agreement_id] == {"page": 8}
    assert trade.balance(trade.operator, "prepaid") == 64 * PAGE
    assert trade.balance(trade.vendor, "vendor_pending") == 8 * PAGE - fee_units * 8 // 12
    view = correction_answer(record)
    assert (view.calls, view.amount) == (2, money(4 * PAGE, "USD"))
    assert [(each.meter, each.quantity) for each in view.lines] == [("page", "4")]
    assert [(each.meter, each.quantity) for each in view.position] == [("page", "8")]


def test_what_is_set_aside_and_the_budget_stay_as_a_refund_leaves_them() -> None:
    trade, charge_id = reported(3, 4)
    before = pending(trade), counted(trade)
    corrected(trade, charge_id, {2: 4})
    assert (pending(trade), counted(trade)) == before


def test_other_calls_of_a_charge_can_be_corrected_later_each_once() -> None:
    trade, charge_id = reported(3, 4, 5)
    corrected(trade, charge_id, {3: 1})
    corrected(trade, charge_id, {1: 1, 2: 1})
    assert charge(trade, charge_id).corrected == (1, 2, 3)
    assert charge(trade, charge_id).refunded_units == 3 * PAGE


def test_a_charge_can_be_corrected_when_the_vendors_share_is_payable() -> None:
    trade, charge_id = reported(4)
    trade.room.advance(100_000)
    assert charge(trade, charge_id).status == "payable"
    corrected(trade, charge_id, {1: 4})
    assert trade.balance(trade.vendor, "vendor_payable") == 0
    assert trade.balance(trade.operator, "prepaid") == 100 * PAGE


def test_later_usage_is_rated_from_the_position_that_went_back() -> None:
    metered = graduated()
    room, agreement_id = metered.trade.room, metered.trade.agreement_id
    first = charge_of(metered.report(events(1, 30, 29, at_us=room.now_us)))
    corrected(metered.trade, first, {1: 20})
    record = metered.report(events(3, 20, at_us=room.now_us))
    assert room.state.charges[charge_of(record)].position == {"page": 39}
    assert room.state.positions[agreement_id] == {"page": 59}


def test_lots_and_a_partner_give_and_take_as_at_a_refund() -> None:
    trade = Trade.opened(funds=10**9)
    treasury = Treasury(trade)
    treasury.partner(trade.room.organisation("operator", "Operator Two"), 50_001)
    lot_id = treasury.grant_credit(5_000_001, priority=1)
    trade.agreement_id = trade.room.agree(trade.agent, trade.listing_id)
    metered = Metered.opened(trade)
    charge_id = charge_of(metered.report(events(1, 2, at_us=trade.room.now_us)))
    spent = charge(trade, charge_id)
    assert spent.drawn
    free_units = trade.room.state.lots[lot_id].free_units
    corrected(trade, charge_id, {1: 2})
    after = charge(trade, charge_id)
    assert after.refunded_units == spent.amount_units
    assert after.tail is not None
    assert after.tail.kept_units == 0
    assert trade.room.state.lots[lot_id].free_units == free_units + spent.drawn[0].amount_units


def test_what_comes_to_nothing_moves_the_position_alone() -> None:
    trade = Trade.opened(funds=10**9)
    card = card_of("0.000000001", per="1000")
    listing_id = trade.room.publish(trade.vendor, card=card, name="Cheap pages")
    trade.agreement_id = trade.room.agree(trade.agent, listing_id)
    metered = Metered.opened(trade)
    charge_id = charge_of(metered.report(events(1, 1400, at_us=trade.room.now_us)))
    record = corrected(trade, charge_id, {1: 100})
    assert record.moved == ()
    assert correction_answer(record).amount == money(0, "USD")
    assert trade.room.state.positions[trade.agreement_id] == {"page": 1300}


@pytest.mark.parametrize(("later_s", "left"), [(0, 7), (DAY_S, 3)])
def test_what_is_taken_back_leaves_the_day_that_it_counted_on(later_s: int, left: int) -> None:
    trade = market()
    proposed(trade, trade.agent, per_day=10, in_all=30)
    approved(trade, trade.vendor)
    trade.room.now_us += 1
    first = Metered.opened(trade, cap=20 * PAGE, expires_in_s=DAY_S)
    charge_id = charge_of(first.report(events(1, 3, 3, at_us=trade.room.now_us)))
    trade.room.now_us += later_s * 10**6
    second = Metered.opened(trade, cap=20 * PAGE, expires_in_s=600)
    second.report(events(1, 3, at_us=trade.room.now_us))
    corrected(trade, charge_id, {1: 2})
    allowance = trade.room.state.allowances[trade.agreement_id]
    assert allowance.used_today == {"page": left}
    assert trade.room.state.positions[trade.agreement_id] == {"page": 7}


def test_a_charge_is_corrected_so_often_and_refunded_from_then_on() -> None:
    trade, charge_id = reported(*[1] * (CHANGES_MAX + 1))
    for seq in range(1, CHANGES_MAX + 1):
        corrected(trade, charge_id, {seq: 1})

    more = correct(trade, charge_id, {CHANGES_MAX + 1: {"page": 1}})

    assert more.refusal.code is Code.USAGE_INVALID
    assert more.refusal.path == "charge_id"
    Treasury(trade).refund(charge_id, PAGE)


def test_what_was_billed_before_the_limits_frees_nothing_of_the_day() -> None:
    trade, charge_id = reported(5)
    proposed(trade, trade.agent, per_day=4)
    approved(trade, trade.vendor)
    session = Metered.opened(trade, cap=20 * PAGE)
    session.report(events(1, 4, at_us=trade.room.now_us))

    corrected(trade, charge_id, {1: 4})

    assert trade.room.state.allowances[trade.agreement_id].used_today == {"page": 4}
    over = session.report(events(2, 1, at_us=trade.room.now_us))
    assert over.decided is not None
    assert over.decided["rejected"] == [[0, "over_allowance", 2]]
    assert verify_journal(trade.room.journal, follow=Rulebook().follow).ok


def test_a_retry_is_answered_again_and_gives_nothing_back() -> None:
    trade, charge_id = reported(3)
    record = corrected(trade, charge_id, {1: 1}, key="again-000000000000")
    again = correct(trade, charge_id, {1: {"page": 1}}, key="again-000000000000")
    assert again == Seen(seq=record.seq)
    assert charge(trade, charge_id).refunded_units == PAGE


def _unsigned(trade: Trade, charge_id: str) -> Any:
    fault = refuse(Code.SIGNATURE_INVALID, path="signature")
    return correct(trade, charge_id, {1: {"page": 9}}, fault=fault)


def _unread(trade: Trade, charge_id: str) -> Any:
    fault = refuse(Code.USAGE_INVALID, path="corrections.0.call")
    return correct(trade, charge_id, {1: {"page": 1}}, fault=fault)


def _anothers_key(trade: Trade, charge_id: str) -> Any:
    return correct(trade, charge_id, {1: {"page": 1}}, key_thumbprint=trade.agent.key_thumbprint)


def _retired_key(trade: Trade, charge_id: str) -> Any:
    keys = trade.room.state.keys
    own = keys[trade.vendor.key_thumbprint]
    keys["old"] = structs.replace(own, thumbprint="old", status="retired")
    return correct(trade, charge_id, {1: {"page": 1}}, key_thumbprint="old")


def _metering_key(trade: Trade, charge_id: str) -> Any:
    keys = trade.room.state.keys
    own = keys[trade.vendor.key_thumbprint]
    keys["meter"] = structs.replace(own, thumbprint="meter", purpose="metering")
    return correct(trade, charge_id, {1: {"page": 1}}, key_thumbprint="meter")


def _of_a_hold(trade: Trade, _: str) -> Any:
    hold = trade.room.hold(trade.agent, trade.agreement_id, 2)
    record = trade.room.capture(trade.vendor, hold.changed[0].id, 2)
    return correct(trade, charge_of(record), {1: {"page": 1}})


def _anothers(trade: Trade, charge_id: str) -> Any:
    other = trade.room.organisation("vendor", "Vendor Two")
    return correct(trade, charge_id, {1: {"page": 1}}, by=other)


def _unknown(trade: Trade, charge_id: str) -> Any:
    return correct(trade, charge_id.replace("chg_", "chg_0")[:30], {1: {"page": 1}})


def _no_such_call(trade: Trade, charge_id: str) -> Any:
    return correct(trade, charge_id, {1: {"page": 1}, 7: {"page": 1}})


def _not_billed(trade: Trade, charge_id: str) -> Any:
    return correct(trade, charge_id, {4: {"page": 1}})


def _not_taken(trade: Trade, charge_id: str) -> Any:
    return correct(trade, charge_id, {5: {"page": 1}})


def _twice(trade: Trade, charge_id: str) -> Any:
    corrected(trade, charge_id, {1: 1})
    return correct(trade, charge_id, {1: {"page": 1}})


def _too_much(trade: Trade, charge_id: str) -> Any:
    return correct(trade, charge_id, {1: {"page": 3}, 2: {"page": 5}})


def _unused_meter(trade: Trade, charge_id: str) -> Any:
    return correct(trade, charge_id, {1: {"minute": 1}})


def _disputed(trade: Trade, charge_id: str) -> Any:
    charges = trade.room.state.charges
    charges[charge_id] = structs.replace(charges[charge_id], status="disputed")
    return correct(trade, charge_id, {1: {"page": 1}})


def _refund(trade: Trade, charge_id: str, units: int) -> None:
    ask = RefundCharge(
        charge_id=charge_id, amount=money(units, "USD"), idempotency_key=trade.room.key()
    )
    trade.room.done(trade.vendor, REFUND_CHARGE, ask)


def _refunded(trade: Trade, charge_id: str) -> Any:
    _refund(trade, charge_id, 7 * PAGE)
    return correct(trade, charge_id, {1: {"page": 1}})


def _more_than_is_left(trade: Trade, charge_id: str) -> Any:
    _refund(trade, charge_id, 5 * PAGE)
    return correct(trade, charge_id, {1: {"page": 3}})


def _spent(trade: Trade, charge_id: str) -> Any:
    trade.room.advance(100_000)
    units = trade.balance(trade.vendor, "vendor_payable")
    Treasury(trade).payout(units)
    return correct(trade, charge_id, {1: {"page": 1}})


# What is asked of a charge of calls 1 to 3 of 3, 4 and 0 pages, 4 that failed and 5 not taken.
TABLE: tuple[tuple[Callable[[Trade, str], Any], Code, str], ...] = (
    (_unknown, Code.NOT_FOUND, "charge_id"),
    (_anothers, Code.NOT_FOUND, "charge_id"),
    (_unsigned, Code.SIGNATURE_INVALID, "signature"),
    (_anothers_key, Code.SIGNATURE_INVALID, "signature"),
    (_retired_key, Code.SIGNATURE_INVALID, "signature"),
    (_metering_key, Code.SIGNATURE_INVALID, "signature"),
    (_of_a_hold, Code.USAGE_INVALID, "charge_id"),
    (_unread, Code.USAGE_INVALID, "corrections.0.call"),
    (_no_such_call, Code.USAGE_INVALID, "corrections.1.call"),
    (_not_billed, Code.USAGE_INVALID, "corrections.0.call"),
    (_not_taken, Code.USAGE_INVALID, "corrections.0.call"),
    (_twice, Code.USAGE_INVALID, "corrections.0.call"),
    (_too_much, Code.USAGE_INVALID, "corrections.1.usage.page"),
    (_unused_meter, Code.USAGE_INVALID, "corrections.0.usage.minute"),
    (_disputed, Code.REFUND_EXCEEDS_CHARGE, "corrections"),
    (_refunded, Code.REFUND_EXCEEDS_CHARGE, "corrections"),
    (_more_than_is_left, Code.REFUND_EXCEEDS_CHARGE, "corrections"),
    (_spent, Code.INSUFFICIENT_FUNDS, "corrections"),
)


@pytest.mark.parametrize(
    ("asked", "code", "path"), TABLE, ids=[each[0].__name__.strip("_") for each in TABLE]
)
def test_what_cannot_be_taken_back_is_refused_and_moves_nothing(
    asked: Callable[[Trade, str], Any], code: Code, path: str
) -> None:
    metered = Metered.opened(trade := market())
    now_us = trade.room.now_us
    charge_id = charge_of(
        metered.report(
            [
                *events(1, 3, 4, 0, at_us=now_us),
                *events(4, 2, at_us=now_us, outcome=UsageOutcome.FAILED_VENDOR),
                *events(5, 11, at_us=now_us),
            ]
        )
    )
    refused = asked(trade, charge_id)
    refusal = refused if isinstance(refused, Refusal) else refused.refusal
    assert (refusal.code, refusal.path) == (code, path)
    if isinstance(refused, Record):
        assert not refused.changed
        assert not refused.moved
        assert refused.facts is None


def test_more_than_the_charge_is_not_given_back_where_later_usage_costs_more() -> None:
    """The first pages were free of the dear tier; what is taken back now lies in it."""
    trade = (metered := rising()).trade
    first = charge_of(metered.report(events(1, 5, at_us=trade.room.now_us)))
    metered.report(events(2, 10, at_us=trade.room.now_us))
    refused = correct(trade, first, {1: {"page": 5}}).refusal
    assert (refused.code, refused.remaining) == (Code.REFUND_EXCEEDS_CHARGE, "0.005")
    assert refused.required == "0.05"


def rising() -> Metered:
    """A session under a card whose pages from the eleventh cost ten times as much."""
    trade = Trade.opened(funds=10**12, per_call=10**12, per_day=10**12)
    card = card_document((
        {"up_to": "10", "amount": "0.001", "per_quantity": "1"},
        {"amount": "0.01", "per_quantity": "1"},
    ))  # fmt: skip
    listing_id = trade.room.publish(trade.vendor, card=card, name="Rising pages")
    trade.agreement_id = trade.room.agree(trade.agent, listing_id)
    return Metered.opened(trade, cap=10**10, per_call=10**9)


# A batch of calls, or a call to correct: the place of its charge, of the call, how much of it.
STEPS = st.lists(
    st.one_of(
        st.lists(st.integers(0, 9), min_size=1, max_size=6),
        st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 9)),
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=60)
@given(steps=STEPS, make=st.sampled_from((graduated, rising)))
def test_all_charges_less_all_corrections_are_the_price_of_the_position(
    steps: list[Any], make: Callable[[], Metered]
) -> None:
    metered = make()
    trade, room = metered.trade, metered.trade.room
    count, charges = 0, []
    for step in steps:
        if isinstance(step, list):
            record = metered.report(events(count + 1, *step, at_us=room.now_us))
            if any(each.noun == "charge" for each in record.changed):
                charges.append((charge_of(record), count + 1, step))
            count += len(step)
        elif charges:
            place, call, quantity = step
            charge_id, first, pages = charges[place % len(charges)]
            call %= len(pages)
            correct(trade, charge_id, {first + call: {"page": quantity}})
        position = room.state.positions.get(trade.agreement_id, {})
        agreement = room.state.agreements[trade.agreement_id]
        card = room.state.cards[agreement.rate_card_sha256]
        kept = [each.amount_units - each.refunded_units for each in room.state.charges.values()]
        assert sum(kept) == (rate(card, {}, position).total_units if position else 0)
