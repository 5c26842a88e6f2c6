"""The publish report finds each defect, at its place, and lets what is sound be published."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.catalog.lint import FINDINGS_MAX, LintCode, LintSeverity, lint
from farthing.catalog.vocabulary import load
from farthing.protocol.listing import parse_listing
from farthing.protocol.messages.listings import LintReport
from farthing.protocol.messages.operations import OPERATIONS
from farthing.protocol.rating import parse_card
from farthing.protocol.terms import parse_terms
from tests.catalog.corpus import CORPUS, HERE, Publication, publication
from tests.protocol.documents import changed

DEFECTIVE: list[dict[str, Any]] = json.loads((HERE / "defective.json").read_text(encoding="utf-8"))
LONG = {"LONG": "x" * 281, "BOOK": "x" * 70_000}


def report(documents: Publication) -> LintReport:
    return lint(
        documents.listing,
        documents.rate_card,
        documents.terms,
        vocabulary=load(),
        tool_names=OPERATIONS.keys(),
    )


def with_defect(case: dict[str, Any]) -> Publication:
    sound = publication(CORPUS[0])
    trio = {"listing": sound.listing, "rate_card": sound.rate_card, "terms": sound.terms}
    values = {path: LONG.get(str(value), value) for path, value in case.get("set", {}).items()}
    defective = Publication(**changed(trio, {**case, "set": values}))
    return defective.sealed() if case.get("sealed", True) else defective


@pytest.mark.parametrize("row", CORPUS, ids=lambda row: row["key"])
def test_a_sound_publication_has_no_finding(row: dict[str, Any]) -> None:
    assert report(publication(row)) == LintReport(publishable=True)


@pytest.mark.parametrize("case", DEFECTIVE, ids=lambda case: case["says"])
def test_a_defect_is_found_at_its_place(case: dict[str, Any]) -> None:
    findings = report(with_defect(case))
    assert (case["code"], case["path"]) in [(each.code, each.path) for each in findings.findings]
    assert findings.publishable == case.get("publishable", False)


def test_one_defect_gives_one_kind_of_finding() -> None:
    # Where a document cannot be read at all, what depends on it cannot be said; where a meter is
    # renamed on one side, both sides are wrong.
    several = {"a price for a meter that is not declared"}
    for case in DEFECTIVE:
        codes = {finding.code for finding in report(with_defect(case)).findings}
        assert case["says"] in several or codes == {case["code"]}, case["says"]


def test_every_code_has_a_defective_listing() -> None:
    assert {case["code"] for case in DEFECTIVE} == {code.value for code in LintCode}


def test_ten_defects_at_once_give_ten_findings() -> None:
    chosen = [
        "a name with a bidirectional override",
        "a link in prose",
        "an example request twice but for a comma",
        "a domain that nobody knows",
        "a tag that nobody knows",
        "a meter without a price",
        "an example output that does not fit",
        "a median above the 95th percentile",
        "a service called in the clear",
        "evidence that may come after the window",
    ]
    cases = [case for case in DEFECTIVE if case["says"] in chosen]
    # The override alone keeps the listing from being read, so it is put where it is only prose.
    together = {path: value for case in cases[1:] for path, value in case["set"].items()}
    together["listing.input_schema.description"] = "Page\u202ewell"
    findings = report(with_defect({"set": together})).findings
    assert {finding.code for finding in findings} == {case["code"] for case in cases}
    assert len(findings) == len(chosen)


def test_findings_come_in_the_order_of_their_codes_and_say_how_much_they_matter() -> None:
    case = {"set": {"listing.tags": ["documents.text.extract", "documents.ocr", "nowhere.at.all"]}}
    findings = report(with_defect(case)).findings
    assert [finding.code for finding in findings] == ["tag_unknown", "tag_deprecated"]
    assert [finding.severity for finding in findings] == [
        LintSeverity.ERROR,
        LintSeverity.WARNING,
    ]


def test_what_a_listing_lacks_is_named_once() -> None:
    sound = publication(CORPUS[0])
    listing = {name: it for name, it in sound.listing.items() if name not in {"sla", "limits"}}
    defective = Publication(listing=listing, rate_card=sound.rate_card, terms=sound.terms)
    found = [each for each in report(defective).findings if each.path == "listing"]

    assert [(each.code, each.message) for each in found] == [
        ("listing_schema", "Lacks sla, limits.")
    ]


def test_a_report_is_bounded() -> None:
    properties = {f"p{number}": {"title": "Visit www.example.org"} for number in range(200)}
    findings = report(with_defect({"set": {"listing.input_schema.properties": properties}}))
    assert len(findings.findings) == FINDINGS_MAX
    assert not findings.publishable


def test_an_example_may_not_take_more_than_it_is_worth() -> None:
    """Anybody may have a listing linted, and its schema and its example are whatever they send."""
    any_of = {"anyOf": [*[{"type": "integer"}] * 90, {"type": "string"}]}
    schema = {"type": "object", "additionalProperties": {"type": "array", "items": any_of}}

    def found(count: int) -> set[str]:
        case = {"input_schema": schema, "example.input": {"words": ["one"] * count}}
        changes = {f"listing.{path}": value for path, value in case.items()}
        return {each.code for each in report(with_defect({"set": changes})).findings}

    assert "example_input" not in found(30)
    assert "example_input" in found(100)


JUNK: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.text(max_size=8), st.integers(-9, 9), st.booleans()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("ab_", max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)
PLACES = sorted(publication(CORPUS[0]).listing)


@given(name=st.sampled_from(PLACES), value=JUNK)
def test_what_is_publishable_can_be_read_whatever_was_sent(name: str, value: Any) -> None:
    documents = with_defect({"set": {f"listing.{name}": value}, "sealed": False})
    if report(documents).publishable:
        listing = parse_listing(documents.listing)
        assert parse_card(documents.rate_card).card_sha256 == listing.rate_card_sha256
        assert parse_terms(documents.terms).terms_sha256 == listing.terms_sha256


@given(JUNK, JUNK, JUNK)
def test_three_documents_of_junk_get_a_report_and_no_error(one: Any, two: Any, three: Any) -> None:
    documents = [each if isinstance(each, dict) else {"a": each} for each in (one, two, three)]
    made = Publication(listing=documents[0], rate_card=documents[1], terms=documents[2])
    assert not report(made).publishable
