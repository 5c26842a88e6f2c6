"""A need in somebody's own words becomes a query in which nothing is syntax."""

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.catalog.text import TERMS_MAX, marked, match_query


@pytest.mark.parametrize(
    ("need", "query"),
    [
        ("text of a PDF", '"text" OR "pdf"'),
        ("PDF, pdf; Pdf!", '"pdf"'),
        ('"NEAR" OR name:x*', '"near" OR "name" OR "x"'),
        ("what is it", '"what" OR "is" OR "it"'),
        ("summarise", '"summarise" OR "summarize"'),
        ("analyzing wise", '"analyzing" OR "analysing" OR "wise"'),
        ("naïve façade", '"naïve" OR "façade"'),
        ("snake_case", '"snake" OR "case"'),
        ("a" * 41, ""),
        ("...", ""),
        ("", ""),
    ],
)
def test_a_need_asks_for_any_of_its_telling_words(need: str, query: str) -> None:
    assert match_query(need) == query


def test_a_long_need_is_cut_at_a_bound() -> None:
    need = " ".join(f"word{number}" for number in range(100))
    assert match_query(need).count(" OR ") == TERMS_MAX - 1


@given(st.text(max_size=200))
def test_no_text_is_a_syntax_error(need: str) -> None:
    query = match_query(need)
    conn = sqlite3.connect(":memory:")
    conn.execute("CREATE VIRTUAL TABLE words USING fts5(text)")
    if query:
        assert conn.execute("SELECT * FROM words WHERE words MATCH ?", (query,)).fetchall() == []
    conn.close()


def test_marked_words_are_read_once_each() -> None:
    assert marked("\x02PDF\x03 and \x02pdf\x03 \x02pages\x03") == ("pdf", "pages")
