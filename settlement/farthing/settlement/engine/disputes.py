"""Disputes: filed by the buyer's side, answered by the vendor, decided by rule.

Boundary: the case is assembled from state, the rule is the law's (`protocol.disputes`), the money
is held from filing to ruling. Source: spec/disputes.md.
"""

from dataclasses import dataclass
from typing import Literal, cast

from msgspec.structs import replace

from farthing.protocol.canonical import Json
from farthing.protocol.disputes import rules
from farthing.protocol.disputes.case import Case, Evidence, Outcome, Reason, Ruling
from farthing.protocol.errors import Code, Refusal, refuse
from farthing.protocol.ids import derive_id
from farthing.protocol.ledger import Transfer
from farthing.protocol.messages.disputes import Dispute as DisputeView
from farthing.protocol.messages.disputes import InitiateDispute, SubmitEvidence
from farthing.protocol.records import Record
from farthing.protocol.refunds import Split
from farthing.protocol.times import SECOND_US, format_time
from farthing.protocol.wire import money
from farthing.settlement.engine import lots, shares
from farthing.settlement.engine.charges import given_back, split_of
from farthing.settlement.engine.drafts import Call, Draft, change
from farthing.settlement.engine.state import State
from farthing.settlement.engine.things import Charge, Dispute

__all__ = [
    "CloseEvidence",
    "Examined",
    "answer_with_evidence",
    "close_evidence",
    "dispute_answer",
    "dispute_view",
    "initiate",
    "preview",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """Evidence as the platform found it: the body itself stays outside the journal."""

    ask: SubmitEvidence
    body_sha256: str
    schema_valid: bool

    @property
    def asked(self) -> dict[str, Json]:
        """What stands in the record, refused or not: never the body."""
        return {"body_sha256": self.body_sha256, "dispute_id": self.ask.dispute_id}


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseEvidence:
    """The platform's command: the vendor's time to answer is over."""

    dispute_id: str


def initiate(state: State, call: Call) -> Draft | Refusal:
    """File a dispute: hold the money, and decide at once where the rule can."""
    body = call.command.body
    assert isinstance(body, InitiateDispute)
    charge = _disputable(state, call.principal_id, body.charge_id, Reason(body.reason), call.now_us)
    if isinstance(charge, Refusal):
        return charge
    agreement = state.agreements[charge.agreement_id]
    left_units = charge.amount_units - charge.refunded_units
    held = split_of(charge, left_units)
    dispute = Dispute(
        dispute_id=derive_id("dsp", charge.charge_id),
        charge_id=charge.charge_id,
        filed_by=call.principal_id,
        operator_id=charge.operator_id,
        buyer_id=charge.buyer_id,
        vendor_id=charge.vendor_id,
        reason=body.reason,
        status="needs_evidence",
        asset=charge.asset,
        held_net_units=held.net_units,
        held_fee_units=held.fee_units,
        held_partner_units=held.partner_units,
        evidence_due_at_us=call.now_us + agreement.evidence_window_s * SECOND_US,
        seq=call.seq,
    )
    into_escrow = tuple(shares.escrow(charge, held))
    return _ruled(state, call, charge, dispute, moved=into_escrow)


def answer_with_evidence(state: State, call: Call) -> Draft | Refusal:
    """Decide a dispute on the body the vendor produced."""
    body = call.command.body
    assert isinstance(body, Examined)
    dispute = state.disputes.get(body.ask.dispute_id)
    if dispute is None or dispute.vendor_id != call.principal_id:
        return refuse(Code.NOT_FOUND, path="dispute_id")
    if dispute.status == "decided":
        return refuse(Code.DISPUTE_DECIDED, path="dispute_id")
    if dispute.evidence_due_at_us <= call.now_us:
        text = "The time to answer with evidence is over."
        return refuse(Code.DISPUTE_WINDOW_CLOSED, path="dispute_id", message=text)
    evidence = Evidence(body_sha256=body.body_sha256, schema_valid=body.schema_valid)
    charge = state.charges[dispute.charge_id]
    return _ruled(state, call, charge, dispute, evidence=evidence)


def close_evidence(state: State, call: Call) -> Draft | Refusal:
    """Decide a dispute that the vendor did not answer; the platform's own command."""
    body = call.command.body
    assert isinstance(body, CloseEvidence)
    dispute = state.disputes[body.dispute_id]
    assert dispute.status == "needs_evidence"
    assert dispute.evidence_due_at_us <= call.now_us
    return _ruled(state, call, state.charges[dispute.charge_id], dispute, overdue=True)


def preview(
    state: State, principal_id: str, charge_id: str, reason: Reason, now_us: int
) -> Ruling | Refusal:
    """What the rule says of a charge now, with no evidence yet."""
    charge = _disputable(state, principal_id, charge_id, reason, now_us)
    if isinstance(charge, Refusal):
        return charge
    return _judged(state, reason, _case(state, charge, None, overdue=False))


def _disputable(
    state: State, principal_id: str, charge_id: str, reason: Reason, now_us: int
) -> Charge | Refusal:
    """The charge, where the caller is its buyer or the buyer's operator and the time is right."""
    charge = state.charges.get(charge_id)
    if charge is None or principal_id not in (charge.buyer_id, charge.operator_id):
        return refuse(Code.NOT_FOUND, path="charge_id")
    if charge.dispute_id:
        return refuse(Code.ALREADY_DISPUTED, path="charge_id")
    if charge.status != "pending" or charge.window_closes_at_us <= now_us:
        return refuse(Code.DISPUTE_WINDOW_CLOSED, path="charge_id")
    terms = state.terms[state.agreements[charge.agreement_id].terms_sha256]
    if charge.amount_units == charge.refunded_units:
        text = "Nothing is left of the charge that could be given back."
        return refuse(Code.NOT_DISPUTABLE, path="charge_id", message=text)
    if reason not in terms.dispute.tier1:
        return refuse(
            Code.NOT_DISPUTABLE, path="reason", message="The terms do not list this reason."
        )
    if charge.session_id and reason is Reason.NOT_DELIVERED:
        # A batch is many results, each acknowledged by a voucher or not: no one body proves them.
        text = "What was delivered in a session is acknowledged call by call."
        return refuse(Code.NOT_DISPUTABLE, path="reason", message=text)
    return charge


def dispute_answer(record: Record) -> DisputeView:
    """The answer of filing and of evidence, from the record alone."""
    after = next(each.after for each in record.changed if each.noun == "dispute")
    return dispute_view(Dispute.from_document(after), record)


def dispute_view(dispute: Dispute, record: Record) -> DisputeView:
    """A dispute as its parties see it, with the trace of the record that changed it last."""
    decided = record.decided
    assert decided is not None
    ruling = cast("dict[str, Json]", decided["ruling"])
    is_decided = dispute.status == "decided"
    return DisputeView(
        dispute_id=dispute.dispute_id,
        charge_id=dispute.charge_id,
        reason=dispute.reason,
        status=cast("Literal['needs_evidence', 'decided']", dispute.status),
        outcome=dispute.outcome,
        rule_id=str(ruling["rule_id"]),
        held=money(0 if is_decided else _held_units(dispute), dispute.asset),
        credit=money(dispute.credit_units, dispute.asset) if is_decided else None,
        evidence_due_at="" if is_decided else format_time(dispute.evidence_due_at_us),
        trace=tuple(cast("list[dict[str, object]]", ruling["trace"])),
    )


def _case(state: State, charge: Charge, evidence: Evidence | None, *, overdue: bool) -> Case:
    return Case(
        charge_id=charge.charge_id,
        asset=charge.asset,
        charged_units=charge.amount_units - charge.refunded_units,
        card_sha256=state.agreements[charge.agreement_id].rate_card_sha256,
        posted_card_sha256=charge.rate_card_sha256,
        position=charge.position,
        usage=charge.usage,
        result_sha256=charge.result_sha256,
        evidence=evidence,
        evidence_overdue=overdue,
    )


def _judged(state: State, reason: Reason, case: Case) -> Ruling:
    """The ruling by the card that the agreement is bound to, whichever one was charged by."""
    return rules.decide(reason, case, state.cards[case.card_sha256])


def _ruled(
    state: State,
    call: Call,
    charge: Charge,
    dispute: Dispute,
    *,
    evidence: Evidence | None = None,
    overdue: bool = False,
    moved: tuple[Transfer, ...] = (),
) -> Draft:
    case = _case(state, charge, evidence, overdue=overdue)
    ruling = _judged(state, Reason(dispute.reason), case)
    decided: dict[str, Json] = {"case": case.document(), "ruling": ruling.document()}
    trail_seqs = (*charge.trail_seqs, call.seq)
    if ruling.outcome is Outcome.NEEDS_EVIDENCE:
        disputed = replace(
            charge, status="disputed", dispute_id=dispute.dispute_id, trail_seqs=trail_seqs
        )
        return Draft(
            moved=moved,
            changed=(
                change("charge", charge.charge_id, disputed),
                change("dispute", dispute.dispute_id, dispute),
            ),
            decided=decided,
        )
    credit = split_of(charge, ruling.credit_units)
    decided_dispute = replace(
        dispute,
        status="decided",
        outcome=ruling.outcome.value,
        rule_id=ruling.rule_id,
        credit_units=ruling.credit_units,
        ruled_seq=call.seq,
    )
    after = replace(
        given_back(charge, credit, call.seq), status="pending", dispute_id=dispute.dispute_id
    )
    kept = Split(
        dispute.held_net_units - credit.net_units,
        dispute.held_fee_units - credit.fee_units,
        dispute.held_partner_units - credit.partner_units,
    )
    return Draft(
        moved=(*moved, *shares.ruling(charge, ruling.credit_units, kept)),
        changed=(
            change("charge", charge.charge_id, after),
            change("dispute", dispute.dispute_id, decided_dispute),
            *lots.returned(
                state,
                charge.drawn,
                charge.amount_units,
                charge.refunded_units,
                ruling.credit_units,
            ),
        ),
        decided=decided,
    )


def _held_units(dispute: Dispute) -> int:
    return dispute.held_net_units + dispute.held_fee_units + dispute.held_partner_units
