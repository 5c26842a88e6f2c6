"""Terms are a closed set of clauses, and the published schema says the same as the reader."""

import json
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from farthing.protocol.disputes.case import Reason
from farthing.protocol.documents import DocumentError
from farthing.protocol.terms import (
    TERMS_SCHEMA,
    TOLERANCE_PPM_MAX,
    parse_terms,
    standard_terms,
    terms_sha256,
)
from tests.protocol.documents import changed
from tests.protocol.vectors import cases, vectors

VECTORS = vectors("terms")
DOCUMENT: dict[str, Any] = VECTORS["document"]
SCHEMA = Draft202012Validator(
    json.loads((files("farthing.spec") / "schemas" / "terms.schema.json").read_bytes())
)


def test_the_standard_terms_are_those_of_the_vectors() -> None:
    assert standard_terms() == DOCUMENT
    assert terms_sha256(DOCUMENT) == VECTORS["terms_sha256"]
    assert terms_sha256(standard_terms(**VECTORS["windows"])) == VECTORS["windows_sha256"]
    assert SCHEMA.is_valid(DOCUMENT)


def test_a_tolerance_makes_terms_of_the_next_schema_and_none_leaves_them_as_they_were() -> None:
    document = standard_terms(**VECTORS["tolerance"])
    clauses = DOCUMENT["clauses"] | {"usage": VECTORS["tolerance_clause"]}

    assert document == DOCUMENT | {"schema": TERMS_SCHEMA, "clauses": clauses}
    assert terms_sha256(document) == VECTORS["tolerance_sha256"]
    assert parse_terms(document).usage.tolerance_ppm == 1000
    assert parse_terms(DOCUMENT).usage.tolerance_ppm == 0
    assert SCHEMA.is_valid(document)


def test_the_params_are_read_with_their_types() -> None:
    terms = parse_terms(DOCUMENT)
    assert terms.terms_sha256 == VECTORS["terms_sha256"]
    assert terms.dispute.window_s == 7 * 86_400
    assert terms.dispute.tier1 == tuple(Reason)
    assert terms.refunds.vendor_may_refund is True
    assert terms.liability.window_s == 365 * 86_400


@given(
    delivery_deadline_s=st.integers(1, 10**6),
    dispute_window_s=st.integers(1, 10**6),
    evidence_window_s=st.integers(1, 10**6),
    correction_window_s=st.integers(0, 10**6),
    usage_tolerance_ppm=st.integers(0, TOLERANCE_PPM_MAX),
)
def test_standard_terms_of_any_windows_and_tolerance_can_be_read(
    delivery_deadline_s: int,
    dispute_window_s: int,
    evidence_window_s: int,
    correction_window_s: int,
    usage_tolerance_ppm: int,
) -> None:
    document = standard_terms(
        delivery_deadline_s=delivery_deadline_s,
        dispute_window_s=dispute_window_s,
        evidence_window_s=evidence_window_s,
        correction_window_s=correction_window_s,
        usage_tolerance_ppm=usage_tolerance_ppm,
    )
    terms = parse_terms(document)
    assert terms.delivery.deadline_s == delivery_deadline_s
    assert terms.dispute.window_s == dispute_window_s
    assert terms.dispute.evidence_window_s == evidence_window_s
    assert terms.correction.window_s == correction_window_s
    assert terms.usage.tolerance_ppm == usage_tolerance_ppm
    assert SCHEMA.is_valid(document)


@pytest.mark.parametrize("case", cases(VECTORS["refused"]))
def test_defective_terms_are_refused_at_the_place_of_the_defect(case: dict[str, Any]) -> None:
    document = changed(DOCUMENT, case)
    with pytest.raises(DocumentError) as refused:
        parse_terms(document)
    assert (refused.value.path, refused.value.reason) == (case["path"], case["reason"])
    assert not SCHEMA.is_valid(document)


def test_every_clause_is_needed() -> None:
    for clause in DOCUMENT["clauses"]:
        document = changed(DOCUMENT, {"unset": [f"clauses.{clause}"]})
        with pytest.raises(DocumentError) as refused:
            parse_terms(document)
        assert refused.value.path == f"clauses.{clause}"
