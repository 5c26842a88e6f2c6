"""The chapters name everything the code has, and no figure in them has drifted."""

import re
from pathlib import Path

import pytest

from farthing.catalog import lint, needs, queries, ranking, search, text, vocabulary
from farthing.protocol import schemas
from farthing.protocol.documents import Fault
from farthing.protocol.messages.catalog import RESULTS_MAX
from farthing.protocol.terms import standard_terms
from tests.catalog.test_asks import ASKS, MISSES

SPEC = Path(__file__).parents[2] / "spec"


def chapter(name: str) -> str:
    return (SPEC / f"{name}.md").read_text(encoding="utf-8")


def words(name: str) -> set[str]:
    """Every word that a chapter sets as code."""
    return {word for each in re.findall(r"`([^`]+)`", chapter(name)) for word in each.split()}


def test_the_chapter_on_listings_names_every_finding_and_every_fault() -> None:
    assert {code.value for code in lint.LintCode} <= words("listing")
    assert {fault.value for fault in Fault} <= words("listing")


def test_the_chapter_on_listings_names_every_keyword_of_the_schema_subset() -> None:
    assert words("listing") >= schemas.KEYWORDS


def test_the_chapter_on_terms_names_every_clause_and_parameter() -> None:
    clauses = standard_terms(usage_tolerance_ppm=1)["clauses"]
    assert isinstance(clauses, dict)
    for name, clause in clauses.items():
        assert isinstance(clause, dict)
        assert isinstance(clause["params"], dict)
        assert {name, *clause["params"]} <= words("terms")


def test_the_chapter_on_the_vocabulary_names_every_part_of_the_file() -> None:
    parts = {"branches", "leaves", "deprecated", "domains", "meters"}
    assert parts <= words("vocabulary")
    assert all(hasattr(vocabulary.load(), part) for part in parts)


@pytest.mark.parametrize(
    ("name", "figure"),
    [
        ("listing", f"{lint.DOCUMENT_BYTES_MAX:,} bytes"),
        ("listing", f"at most {lint.FINDINGS_MAX}"),
        ("listing", f"{schemas.STEPS_MAX:,} steps"),
        ("search", f"at most {queries.CANDIDATES_MAX} listings"),
        ("search", f"at most {text.TERMS_MAX}"),
        ("search", f"at most {RESULTS_MAX}"),
        ("search", f"`text` | {ranking.POLICY.text_weight_ppm / 10**6}"),
        ("search", f"`price` | {ranking.POLICY.price_weight_ppm / 10**6}"),
        ("search", f"`latency` | {ranking.POLICY.latency_weight_ppm / 10**6}"),
        ("search", f"`outcome` | {ranking.POLICY.outcome_weight_ppm / 10**6}"),
        ("search", f"exactly the expected listings come first for {len(ASKS) - len(MISSES)}"),
    ],
)
def test_a_figure_of_a_chapter_is_that_of_the_code(name: str, figure: str) -> None:
    assert figure in chapter(name).replace("At most", "at most")


def test_the_bounds_said_in_words_are_those_of_the_code() -> None:
    assert ranking.RELEVANCE_PPM_MIN * 4 == 10**6
    assert search.NEAREST_MAX == 3
    assert len(needs.EUROPEAN_UNION) == 27
