from dataclasses import replace
from typing import Any

import pytest

from farthing.protocol.disputes.case import Case, Evidence, Outcome, Reason
from farthing.protocol.disputes.rules import decide
from farthing.protocol.rating import parse_card
from tests.protocol.vectors import cases, vectors

VECTORS = vectors("disputes")
CARD = parse_card(VECTORS["card"])


def test_the_cards_digest_is_the_vectors() -> None:
    assert CARD.card_sha256 == VECTORS["card_sha256"]


@pytest.mark.parametrize("case", cases(VECTORS["cases"]))
def test_disputes_are_decided_as_the_vectors_say(case: dict[str, Any]) -> None:
    frozen = Case.from_document(case["case"])

    assert frozen.document() == case["case"]
    assert decide(Reason(case["reason"]), frozen, CARD).document() == case["ruling"]


@pytest.mark.parametrize("case", cases(VECTORS["cases"]))
def test_no_ruling_gives_back_more_than_was_charged(case: dict[str, Any]) -> None:
    frozen = Case.from_document(case["case"])
    ruling = decide(Reason(case["reason"]), frozen, CARD)

    assert 0 <= ruling.credit_units <= frozen.charged_units
    assert (ruling.credit_units > 0) == (ruling.outcome is Outcome.CREDIT)


def test_only_a_missing_body_is_asked_for_and_only_until_its_time_is_over() -> None:
    waiting = Case.from_document(VECTORS["cases"][0]["case"])
    produced = Evidence(body_sha256=waiting.result_sha256, schema_valid=True)
    outcomes = {
        decide(Reason.NOT_DELIVERED, case, CARD).outcome
        for case in (replace(waiting, evidence_overdue=True), replace(waiting, evidence=produced))
    }

    assert decide(Reason.NOT_DELIVERED, waiting, CARD).outcome is Outcome.NEEDS_EVIDENCE
    assert Outcome.NEEDS_EVIDENCE not in outcomes


def test_a_case_is_never_decided_with_the_card_of_another() -> None:
    other = replace(Case.from_document(VECTORS["cases"][0]["case"]), card_sha256="0" * 64)

    with pytest.raises(AssertionError):
        decide(Reason.NOT_DELIVERED, other, CARD)
