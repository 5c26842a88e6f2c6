"""What can become of a charge, each story told by the real engine."""

from tests.papers import card_document
from tests.protocol.evidence_market import Told


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
)
