"""What a dispute must say: as it is filed, the case that it comes to, and once it is ruled on.

Boundary: makes what follows and compares nothing; `disputes` holds it against a whole journal,
`trail` against the records of one charge. Source: spec/disputes.md.
"""

from farthing.protocol.disputes.case import Case, Evidence, Reason, Ruling
from farthing.protocol.ids import derive_id
from farthing.protocol.records import Record
from farthing.protocol.replay.reading import JsonObject, integer, member, quantities, units
from farthing.protocol.replay.shares import split_of
from farthing.protocol.times import SECOND_US

__all__ = ["case_of", "filed", "left_units", "produced", "ruled"]


def left_units(charge: JsonObject) -> int:
    """What of a charge was not given back."""
    return units(charge, "amount_units") - units(charge, "refunded_units")


def filed(record: Record, charge: JsonObject, agreement: JsonObject) -> JsonObject:
    """What a dispute must say as it is filed, before anything is ruled."""
    held = split_of(charge, left_units(charge))
    window_us = integer(agreement, "evidence_window_s") * SECOND_US
    dispute: JsonObject = {
        "dispute_id": derive_id("dsp", member(charge, "charge_id")),
        **{name: charge[name] for name in ("charge_id", "operator_id", "buyer_id", "vendor_id")},
        "filed_by": record.by.principal_id,
        "reason": Reason(member(record.asked, "reason")).value,
        "status": "needs_evidence",
        "asset": charge["asset"],
        "held_net_units": str(held.net_units),
        "held_fee_units": str(held.fee_units),
        "evidence_due_at_us": record.at_us + window_us,
        "outcome": "",
        "rule_id": "",
        "credit_units": "0",
        "seq": record.seq,
        "ruled_seq": 0,
    }
    if held.partner_units:
        dispute["held_partner_units"] = str(held.partner_units)
    return dispute


def produced(record: Record) -> Evidence | None:
    """What the platform found of a body that a vendor answered with, if it is the one named."""
    found = (record.decided or {}).get("case")
    evidence = None if not isinstance(found, dict) else Case.from_document(found).evidence
    if evidence is None or evidence.body_sha256 != record.asked.get("body_sha256"):
        return None
    return evidence


def case_of(
    charge: JsonObject, agreement: JsonObject, evidence: Evidence | None, *, overdue: bool
) -> Case:
    """The case that a dispute of a charge comes to."""
    return Case(
        charge_id=member(charge, "charge_id"),
        asset=member(charge, "asset"),
        charged_units=left_units(charge),
        card_sha256=member(agreement, "rate_card_sha256"),
        posted_card_sha256=member(charge, "rate_card_sha256"),
        position=quantities(charge["position"]),
        usage=quantities(charge["usage"]),
        result_sha256=member(charge, "result_sha256"),
        evidence=evidence,
        evidence_overdue=overdue,
    )


def ruled(dispute: JsonObject, ruling: Ruling, seq: int) -> JsonObject:
    """A dispute once it is decided."""
    return {
        **dispute,
        "status": "decided",
        "outcome": ruling.outcome.value,
        "rule_id": ruling.rule_id,
        "credit_units": str(ruling.credit_units),
        "ruled_seq": seq,
    }
