"""Disputes of a whole journal: filed in time by the buyer's side, ruled as the rules of tier 1 do.

Boundary: the ruling, and what becomes of charge and dispute by it; where the money goes is
`charges`'. Of a vendor's body its digest is judged, and that it fits the schema is the platform's
word. Source: spec/disputes.md.
"""

from collections.abc import Mapping

from farthing.protocol.disputes import rules
from farthing.protocol.disputes.case import Evidence, Outcome, Reason
from farthing.protocol.faults import FaultKind, RuleBroken, rule
from farthing.protocol.rating import CompiledCard
from farthing.protocol.records import Change, Record
from farthing.protocol.replay.budgets import Budgets
from farthing.protocol.replay.charges import Charges
from farthing.protocol.replay.keys import PLATFORM
from farthing.protocol.replay.reading import JsonObject, integer, member
from farthing.protocol.replay.rulings import case_of, filed, left_units, produced, ruled
from farthing.protocol.terms import Terms

__all__ = ["Disputes"]

_dispute = rule(FaultKind.CHARGE, "the dispute")


class Disputes:
    """Disputes, as the records so far leave them.

    Args:
        budgets: Which agreements there are.
        charges: What is charged, before the record that is judged.
        cards: The cards that were published, by their hash.
        terms: The terms, by theirs.
    """

    def __init__(
        self,
        budgets: Budgets,
        charges: Charges,
        cards: Mapping[str, CompiledCard],
        terms: Mapping[str, Terms],
    ) -> None:
        self._budgets = budgets
        self._charges = charges
        self._cards = cards
        self._terms = terms
        self._open: dict[str, JsonObject] = {}
        self._decided: set[str] = set()

    def follow(self, record: Record) -> None:
        """Judge the next record, and learn from it. Raises `RuleBroken`."""
        disputes = [each for each in record.changed if each.noun == "dispute"]
        if not disputes:
            return
        _dispute(len(disputes) == 1, "more than one changes at once")
        (change,) = disputes
        (after,) = [each.after for each in record.changed if each.noun == "charge"]
        charge = self._charges.as_it_was(after)
        agreement = self._budgets.agreements[member(charge, "agreement_id")]
        evidence: Evidence | None = None
        if record.operation == "initiate_dispute":
            dispute = self._filed(record, charge, agreement)
        else:
            dispute = self._answered(record, change)
        if record.operation == "submit_evidence":
            evidence = produced(record)
            _dispute(evidence is not None, "it is of another body than was answered with")
        overdue = record.operation == "close_evidence"
        case = case_of(charge, agreement, evidence, overdue=overdue)
        card = self._cards[case.card_sha256].card
        ruling = rules.decide(Reason(member(dispute, "reason")), case, card)
        decided = {"case": case.document(), "ruling": ruling.document()}
        _dispute(record.decided == decided, "the rule decides otherwise")
        is_ruled = ruling.outcome is not Outcome.NEEDS_EVIDENCE
        expected = ruled(dispute, ruling, record.seq) if is_ruled else dispute
        _dispute(change.after == expected, "it does not follow from the ruling")
        back_units = left_units(charge) - left_units(after)
        stands = (after["status"], after["dispute_id"], back_units)
        status = "pending" if is_ruled else "disputed"
        followed = stands == (status, change.id, ruling.credit_units)
        _dispute(followed, "its charge does not follow from the ruling")
        self._open.pop(change.id, None)
        if is_ruled:
            self._decided.add(change.id)
        else:
            self._open[change.id] = expected

    def _filed(self, record: Record, charge: JsonObject, agreement: JsonObject) -> JsonObject:
        filer = record.by.principal_id
        buyers = (agreement["buyer_id"], agreement["operator_id"])
        _dispute(filer in buyers, "a stranger files it")
        dispute = filed(record, charge, agreement)
        known = member(dispute, "dispute_id") in self._open.keys() | self._decided
        _dispute(not known, "its charge was disputed before")
        _dispute(left_units(charge) > 0, "nothing is left of its charge")
        reason = Reason(member(dispute, "reason"))
        listed = self._terms[member(agreement, "terms_sha256")].dispute.tier1
        _dispute(reason in listed, "the terms do not list its reason")
        in_session = bool(charge.get("session_id")) and reason is Reason.NOT_DELIVERED
        _dispute(not in_session, "what was delivered in a session is acknowledged call by call")
        return dispute

    def _answered(self, record: Record, change: Change) -> JsonObject:
        """The dispute that a vendor answers in time, or the platform closes after it."""
        dispute = self._open.get(change.id)
        if dispute is None or record.asked["dispute_id"] != change.id:
            why = "the dispute: another is ruled on than was asked for, or once more"
            raise RuleBroken(FaultKind.CHARGE, why)
        is_over = integer(dispute, "evidence_due_at_us") <= record.at_us
        if record.operation == "close_evidence":
            _dispute(record.by.principal_id == PLATFORM and is_over, "its vendor still had time")
        else:
            vendor = record.by.principal_id == dispute["vendor_id"]
            _dispute(vendor and not is_over, "a stranger answers, or too late")
        return dispute
