"""The rules of tier 1: `decide(reason, case)`, the same answer for everybody, for ever.

Boundary: pure. A rule compares recorded facts and never reads prose; the vendor bears the proof of
delivery, the card bears the proof of the price. A changed rule gets a new id and the old one
stays. Source: spec/disputes.md.
"""

from farthing.protocol.disputes.case import Case, Outcome, Reason, Ruling, Step
from farthing.protocol.rating import RateCard, rate

__all__ = ["decide"]


def decide(reason: Reason, case: Case, card: RateCard) -> Ruling:
    """The ruling of a case.

    Args:
        reason: why the charge is disputed.
        case: the frozen inputs.
        card: the rate card whose content hash is `case.card_sha256`.
    """
    assert card.card_sha256 == case.card_sha256, "the card of another case"
    match reason:
        case Reason.NOT_DELIVERED:
            return _not_delivered(case)
        case Reason.CALCULATION_ERROR:
            return _calculation_error(case, card)


def _not_delivered(case: Case) -> Ruling:
    rule_id = "not_delivered/1"
    evidence = case.evidence
    if evidence is None:
        answered = Step(
            says="the vendor produced the body that its delivery record names",
            left="nothing",
            right=case.result_sha256,
            holds=False,
        )
        if not case.evidence_overdue:
            return Ruling(
                outcome=Outcome.NEEDS_EVIDENCE, credit_units=0, rule_id=rule_id, trace=(answered,)
            )
        return _credit(case, rule_id, answered)
    same = Step(
        says="the body's digest is the one in the delivery record",
        left=evidence.body_sha256,
        right=case.result_sha256,
        holds=evidence.body_sha256 == case.result_sha256,
    )
    fits = Step(
        says="the body fits the listing's output schema",
        left="valid" if evidence.schema_valid else "invalid",
        right="valid",
        holds=evidence.schema_valid,
    )
    if same.holds and fits.holds:
        return Ruling(outcome=Outcome.REJECT, credit_units=0, rule_id=rule_id, trace=(same, fits))
    return _credit(case, rule_id, same, fits)


def _calculation_error(case: Case, card: RateCard) -> Ruling:
    rule_id = "calculation_error/1"
    bound = Step(
        says="the charge was rated by the card the agreement is bound to",
        left=case.posted_card_sha256,
        right=case.card_sha256,
        holds=case.posted_card_sha256 == case.card_sha256,
    )
    recomputed_units = rate(card, case.position, case.usage).total_units
    equal = Step(
        says="the charge is not above what the card gives for the signed usage",
        left=str(case.charged_units),
        right=str(recomputed_units),
        holds=case.charged_units <= recomputed_units,
    )
    credit_units = max(case.charged_units - recomputed_units, 0)
    outcome = Outcome.CREDIT if credit_units else Outcome.REJECT
    return Ruling(outcome=outcome, credit_units=credit_units, rule_id=rule_id, trace=(bound, equal))


def _credit(case: Case, rule_id: str, *trace: Step) -> Ruling:
    return Ruling(
        outcome=Outcome.CREDIT, credit_units=case.charged_units, rule_id=rule_id, trace=trace
    )
