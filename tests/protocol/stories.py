"""What can become of a charge, each story told by the real engine."""

from tests.construction import Trade
from tests.papers import card_document
from tests.protocol.evidence_market import Told
from tests.settlement.engine.treasurer import Treasury


def refunded() -> Told:
    told = Told.of()
    told.refund(3_000_001)
    told.refund(7)
    return told


def given_back_whole_after_it_was_payable() -> Told:
    told = Told.of(room={"fee_ppm": 333_333})
    told.refund(1)
    told.trade.room.advance(601)
    told.refund(22_999_999)
    return told


def rejected_as_calculated_rightly() -> Told:
    told = refunded()
    told.dispute("calculation_error")
    return told


def waiting_for_evidence() -> Told:
    told = refunded()
    told.dispute("not_delivered")
    return told


def reversed_for_another_body() -> Told:
    told = refunded()
    told.answer(told.dispute("not_delivered"), "c" * 64, schema_valid=True)
    return told


def rejected_as_delivered() -> Told:
    told = Told.of()
    told.answer(told.dispute("not_delivered"), "b" * 64, schema_valid=True)
    told.trade.room.advance(601)
    return told


def reversed_for_silence() -> Told:
    told = Told.of()
    told.dispute("not_delivered")
    told.trade.room.advance(61)
    return told


def second_of_its_agreement() -> Told:
    told = Told.of()
    return Told(told.trade, told.trade.captured(3))


def partly_used() -> Told:
    return Told.of(pages=4, held=12)


def not_used_at_all() -> Told:
    return Told.of(pages=0, held=12)


def free_of_charge() -> Told:
    return Told.of(card=card_document(({"amount": "0", "per_quantity": "1"},)))


def captured_with_a_rotated_key() -> Told:
    return Told.of(rotated=True)


def everything_that_can_happen() -> Told:
    told = reversed_for_another_body()
    told.trade.room.advance(601)
    return told


def shared(pages: int = 12, held: int = 12) -> Told:
    """A partner has its share, two lots pay first, and money pays the rest."""
    trade = Trade.opened()
    treasury = Treasury(trade)
    treasury.partner(trade.room.organisation("operator", "Operator Two"), 50_001)
    treasury.grant_credit(5_000_001, priority=1)
    treasury.grant_credit(7_000_003, "promotional", priority=2)
    trade.agreement_id = trade.room.agree(trade.agent, trade.listing_id)
    record = trade.room.capture(trade.vendor, trade.held(held), pages)
    return Told(trade, record.changed[1].id)


def shared_and_given_back_in_parts() -> Told:
    told = shared()
    for units in (1, 12_999_999, 3):
        told.refund(units)
    told.trade.room.advance(601)
    told.refund(9_000_000)
    return told


def shared_and_reversed() -> Told:
    told = shared()
    told.refund(12_000_001)
    told.dispute("not_delivered")
    told.trade.room.advance(700)
    return told


def shared_and_rejected() -> Told:
    told = shared(pages=3, held=9)
    told.refund(1)
    told.answer(told.dispute("not_delivered"), "b" * 64, schema_valid=True)
    told.trade.room.advance(601)
    return told


def shared_and_waiting_for_evidence() -> Told:
    told = shared(pages=2, held=9)
    told.dispute("not_delivered")
    return told


def shared_and_used_not_at_all() -> Told:
    told = shared(pages=0)
    told.trade.room.advance(601)
    return told


STORIES = (
    refunded,
    given_back_whole_after_it_was_payable,
    rejected_as_calculated_rightly,
    waiting_for_evidence,
    reversed_for_another_body,
    rejected_as_delivered,
    reversed_for_silence,
    second_of_its_agreement,
    partly_used,
    not_used_at_all,
    free_of_charge,
    captured_with_a_rotated_key,
    everything_that_can_happen,
    shared_and_given_back_in_parts,
    shared_and_reversed,
    shared_and_rejected,
    shared_and_waiting_for_evidence,
    shared_and_used_not_at_all,
)
