import pytest

from farthing.protocol.disputes import rules
from farthing.protocol.disputes.case import Case, Reason
from farthing.protocol.errors import Code
from farthing.protocol.messages.charges import REFUND_CHARGE, RefundCharge
from farthing.protocol.messages.disputes import (
    INITIATE_DISPUTE,
    SUBMIT_EVIDENCE,
    InitiateDispute,
    SubmitEvidence,
)
from farthing.protocol.records import Record
from farthing.protocol.wire import money
from farthing.settlement.engine.disputes import Examined
from tests.construction import Trade

PAGE = 2_000_000
FUNDS = 100 * PAGE


def disputed(trade: Trade, charge_id: str, reason: str = "not_delivered") -> Record:
    ask = InitiateDispute(
        charge_id=charge_id,
        reason=reason,  # type: ignore[arg-type]
        idempotency_key=trade.room.key(),
    )
    record = trade.room.submit(trade.agent, INITIATE_DISPUTE, ask)
    assert isinstance(record, Record), record
    return record


def answered(trade: Trade, dispute_id: str, body_sha256: str, *, fits: bool) -> Record:
    ask = SubmitEvidence(dispute_id=dispute_id, body="", idempotency_key=trade.room.key())
    body = Examined(ask=ask, body_sha256=body_sha256, schema_valid=fits)
    record = trade.room.submit(trade.vendor, SUBMIT_EVIDENCE, ask, body=body)
    assert isinstance(record, Record), record
    return record


def dispute_of(record: Record) -> str:
    return next(each.id for each in record.changed if each.noun == "dispute")


def test_filing_holds_the_whole_charge_in_escrow() -> None:
    trade = Trade.opened(funds=FUNDS)
    record = disputed(trade, trade.captured(10))
    assert trade.balance("platform", "dispute_escrow") == 10 * PAGE
    assert trade.balance(trade.vendor, "vendor_pending") == 0
    assert trade.balance("platform", "platform_fee") == 0
    assert trade.room.state.disputes[dispute_of(record)].status == "needs_evidence"


def test_a_disputed_charge_keeps_the_trail_of_what_was_given_back_before() -> None:
    trade = Trade.opened(funds=FUNDS)
    charge_id = trade.captured(10)
    refund = RefundCharge(
        charge_id=charge_id, amount=money(PAGE, "USD"), idempotency_key=trade.room.key()
    )
    refunded = trade.room.done(trade.vendor, REFUND_CHARGE, refund)
    record = disputed(trade, charge_id)
    assert trade.room.state.charges[charge_id].trail_seqs == (refunded.seq, record.seq)


@pytest.mark.parametrize(
    ("digest", "fits", "outcome"),
    [
        ("b" * 64, True, "reject"),
        ("b" * 64, False, "credit"),
        ("c" * 64, True, "credit"),
    ],
)
def test_digest_and_schema_decide_what_the_vendor_answers(
    *, digest: str, fits: bool, outcome: str
) -> None:
    trade = Trade.opened(funds=FUNDS)
    dispute_id = dispute_of(disputed(trade, trade.captured(10)))
    answered(trade, dispute_id, digest, fits=fits)
    assert trade.room.state.disputes[dispute_id].outcome == outcome
    assert trade.balance("platform", "dispute_escrow") == 0
    back = FUNDS if outcome == "credit" else FUNDS - 10 * PAGE
    assert trade.balance(trade.operator, "prepaid") == back


def test_a_vendor_that_does_not_answer_in_time_loses() -> None:
    trade = Trade.opened(funds=FUNDS)
    dispute_id = dispute_of(disputed(trade, trade.captured(10)))
    assert trade.room.advance(59) == []
    (ruling,) = trade.room.advance(1)
    assert ruling.operation == "close_evidence"
    assert trade.room.state.disputes[dispute_id].outcome == "credit"
    assert trade.balance(trade.operator, "prepaid") == FUNDS


def test_a_right_charge_is_not_a_calculation_error() -> None:
    trade = Trade.opened(funds=FUNDS)
    record = disputed(trade, trade.captured(10), "calculation_error")
    assert trade.room.state.disputes[dispute_of(record)].outcome == "reject"
    assert trade.balance(trade.vendor, "vendor_pending") == 10 * PAGE * 975 // 1000


def test_a_ruling_can_be_made_again_from_its_record() -> None:
    trade = Trade.opened(funds=FUNDS)
    record = disputed(trade, trade.captured(10))
    ruled = answered(trade, dispute_of(record), "c" * 64, fits=True)
    assert ruled.decided is not None
    case = Case.from_document(ruled.decided["case"])
    card = trade.room.state.cards[case.card_sha256]
    assert rules.decide(Reason.NOT_DELIVERED, case, card).document() == ruled.decided["ruling"]


def test_an_overcharge_credits_the_difference() -> None:
    trade = Trade.opened()
    card = next(iter(trade.room.state.cards.values()))
    case = Case(
        charge_id="chg",
        asset="USD",
        charged_units=11 * PAGE,
        card_sha256=card.card_sha256,
        posted_card_sha256=card.card_sha256,
        position={},
        usage={"page": 10},
        result_sha256="b" * 64,
    )
    ruling = rules.decide(Reason.CALCULATION_ERROR, case, card)
    assert (ruling.outcome, ruling.credit_units) == ("credit", PAGE)


def test_a_charge_is_disputed_once_and_in_time() -> None:
    trade = Trade.opened(funds=FUNDS)
    charge_id, late_id = trade.captured(1), trade.captured(1)
    disputed(trade, charge_id, "calculation_error")
    assert disputed(trade, charge_id).code is Code.ALREADY_DISPUTED
    trade.room.advance(600)
    assert disputed(trade, late_id).code is Code.DISPUTE_WINDOW_CLOSED


def test_a_decided_dispute_takes_no_more_evidence() -> None:
    trade = Trade.opened(funds=FUNDS)
    dispute_id = dispute_of(disputed(trade, trade.captured(1)))
    answered(trade, dispute_id, "c" * 64, fits=True)
    assert answered(trade, dispute_id, "b" * 64, fits=True).code is Code.DISPUTE_DECIDED


def test_a_refund_in_parts_gives_the_whole_fee_back_and_no_more() -> None:
    trade = Trade.opened(funds=FUNDS, fee_ppm=333_333)
    charge_id = trade.captured(10)
    for units in (7_000_001, 5_999_999, 7_000_000):
        ask = RefundCharge(
            charge_id=charge_id,
            amount=money(units, "USD"),
            idempotency_key=trade.room.key(),
        )
        trade.room.done(trade.vendor, REFUND_CHARGE, ask)
    assert trade.balance(trade.operator, "prepaid") == FUNDS
    assert trade.balance("platform", "platform_fee") == 0
    more = RefundCharge(
        charge_id=charge_id, amount=money(1, "USD"), idempotency_key=trade.room.key()
    )
    record = trade.room.submit(trade.vendor, REFUND_CHARGE, more)
    assert isinstance(record, Record)
    assert record.code is Code.REFUND_EXCEEDS_CHARGE
