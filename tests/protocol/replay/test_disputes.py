"""A platform that rules otherwise than the rules do is found, though all its books agree."""

from functools import cache

import pytest
from msgspec import structs

from farthing.protocol.canonical import Json
from farthing.protocol.faults import Fault, FaultKind
from farthing.protocol.messages.disputes import (
    INITIATE_DISPUTE,
    SUBMIT_EVIDENCE,
    InitiateDispute,
    SubmitEvidence,
)
from farthing.protocol.records import Record, parse_record
from farthing.settlement.engine.disputes import Examined
from tests.construction import Trade
from tests.protocol.replay.forging import Forge, after, audited, by, rewritten
from tests.settlement.engine.treasurer import Treasury

GOOD, BAD = "b" * 64, "c" * 64


def disputed(trade: Trade, reason: str, pages: int = 2) -> str:
    ask = InitiateDispute(
        charge_id=trade.captured(pages),
        reason=reason,  # type: ignore[arg-type]
        idempotency_key=trade.room.key(),
    )
    return trade.room.done(trade.agent, INITIATE_DISPUTE, ask).changed[1].id


def answered(trade: Trade, dispute_id: str, body_sha256: str) -> None:
    ask = SubmitEvidence(dispute_id=dispute_id, body="aGVsbG8=", idempotency_key=trade.room.key())
    body = Examined(ask=ask, body_sha256=body_sha256, schema_valid=True)
    trade.room.done(trade.vendor, SUBMIT_EVIDENCE, ask, body=body)


@cache
def journal() -> tuple[Record, ...]:
    """A complaint about a price, a delivery that is shown, another body shown, and none."""
    trade = Trade.opened()
    Treasury(trade).partner(trade.room.organisation("operator", "Partner One"), 50_000)
    trade.agreement_id = trade.room.agree(trade.agent, trade.listing_id)
    disputed(trade, "calculation_error")
    answered(trade, disputed(trade, "not_delivered"), GOOD)
    answered(trade, disputed(trade, "not_delivered"), BAD)
    disputed(trade, "not_delivered")
    trade.room.advance(10**6)
    return tuple(parse_record(data)[0] for data in trade.room.journal)


def the(operation: str, number: int = -1) -> Record:
    return [each for each in journal() if each.operation == operation][number]


def fault_of(record: Record, forge: Forge) -> Fault | None:
    return audited(rewritten(journal(), record.seq, forge)).fault


def ruling(**members: Json) -> Forge:
    def forge(record: Record) -> Record:
        decided = dict(record.decided or {})
        found = decided["ruling"]
        assert isinstance(found, dict)
        return structs.replace(record, decided={**decided, "ruling": {**found, **members}})

    return forge


def as_in(other: Record) -> Forge:
    """What another dispute came to, of the same amount, is written for this one."""

    def forge(record: Record) -> Record:
        charge, dispute = (each.after for each in record.changed)
        others_charge, others_dispute = (each.after for each in other.changed)
        same = ("refunded_units", "fee_returned_units", "status", "tail")
        came = ("status", "outcome", "rule_id", "credit_units")
        first, second = record.changed
        return structs.replace(
            record,
            moved=other.moved,
            decided={
                **(other.decided or {}),
                "case": {**case_of(other), "charge_id": charge["charge_id"]},
            },
            changed=(
                structs.replace(
                    first, after={**charge, **{name: others_charge[name] for name in same}}
                ),
                structs.replace(
                    second, after={**dispute, **{name: others_dispute[name] for name in came}}
                ),
            ),
        )

    return forge


def case_of(record: Record) -> dict[str, Json]:
    case = (record.decided or {})["case"]
    assert isinstance(case, dict)
    return case


def test_the_journal_as_it_is_has_no_fault() -> None:
    disputes = [c.after for each in journal() for c in each.changed if c.noun == "dispute"]
    outcomes = [each["outcome"] for each in disputes]
    assert outcomes == ["reject", "", "reject", "", "credit", "", "credit"]
    assert audited(rewritten(journal(), 0, lambda record: record)).fault is None


FORGERIES: dict[str, tuple[str, int, Forge]] = {
    "an answer that shows it is ruled as none": (
        "submit_evidence", 0, as_in(the("close_evidence")),
    ),
    "none at all is ruled as an answer": (
        "close_evidence", -1, as_in(the("submit_evidence", 0)),
    ),
    "another body is ruled as the right one": (
        "submit_evidence", 1, as_in(the("submit_evidence", 0)),
    ),
    "another ruling is told": ("close_evidence", -1, ruling(outcome="reject")),
    "another rule is named": ("initiate_dispute", 0, ruling(rule_id="calculation_error/2")),
    "an outcome without its ruling": ("close_evidence", -1, after("dispute", outcome="reject")),
    "more time to answer": ("initiate_dispute", 1, after("dispute", evidence_due_at_us=2**52)),
    "less is held": ("initiate_dispute", 1, after("dispute", held_net_units="1")),
    "another filed it": ("initiate_dispute", 1, after("dispute", filed_by="agt_x")),
    "another reason": ("initiate_dispute", 1, after("dispute", reason="calculation_error")),
}  # fmt: skip


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_ruling_is_found(forgery: str) -> None:
    operation, number, forge = FORGERIES[forgery]
    record = the(operation, number)
    fault = fault_of(record, forge)
    assert fault is not None
    assert (fault.seq, fault.kind) == (record.seq, FaultKind.CHARGE), fault


def test_a_stranger_disputes_nothing() -> None:
    vendor = the("submit_evidence").by
    record = the("initiate_dispute")
    named = {name: getattr(vendor, name) for name in ("key_thumbprint", "principal_id")}
    house = {"organisation_id": vendor.organisation_id, "role": vendor.role}

    def forge(record: Record) -> Record:
        filed = after("dispute", filed_by=vendor.principal_id)(record)
        return by(**named, **house)(filed)

    fault = fault_of(record, forge)
    assert fault is not None
    assert fault.seq == record.seq
