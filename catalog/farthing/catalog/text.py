"""Matching free text: from a need in somebody's own words to a query of the text index.

Boundary: the one place that speaks FTS5. Every word is quoted, so that nothing in a need is syntax.
"""

import re
from typing import Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Float,
    Label,
    Subquery,
    bindparam,
    column,
    func,
    literal_column,
    select,
    table,
)

from farthing.catalog.tables import TEXT_COLUMNS

__all__ = [
    "TERMS_MAX",
    "TEXT",
    "best_matches",
    "marked",
    "marks",
    "match_query",
    "matches",
    "relevance",
]

TERMS_MAX: Final = 32
_TERM_LENGTH_MAX: Final = 40
_WORD: Final = re.compile(r"[^\W_]+")
# How much a hit in each of TEXT_COLUMNS counts: what the vendor is called and claims to be, what
# the vocabulary says of its tags, and the asks it says it answers.
_WEIGHTS: Final = "3.0, 2.0, 2.0, 4.0"
# Words that every need holds say nothing about it, and each would touch half the index.
_STOP: Final = frozenset({
    "a", "about", "all", "am", "an", "and", "any", "are", "as", "at", "be", "but", "by", "can",
    "could", "do", "does", "for", "from", "get", "give", "has", "have", "how", "i", "if", "in",
    "into", "is", "it", "its", "like", "make", "many", "me", "much", "my", "need", "of", "on", "or",
    "our", "out", "please", "some", "that", "the", "their", "them", "then", "there", "these",
    "they", "this", "those", "to", "turn", "up", "us", "want", "was", "we", "what", "when", "where",
    "which", "who", "will", "with", "would", "you", "your",
})  # fmt: skip
_OPEN, _CLOSE = "\x02", "\x03"
_MARKED: Final = re.compile(f"{_OPEN}([^{_CLOSE}]*){_CLOSE}")

TEXT: Final = table("listing_text", column("rowid"))


def match_query(need: str) -> str:
    """The FTS5 query for a need: any of its words, `""` when it has none worth looking for."""
    words = [found.group().lower() for found in _WORD.finditer(need)]
    words = [word for word in dict.fromkeys(words) if len(word) <= _TERM_LENGTH_MAX]
    telling = [word for word in words if word not in _STOP] or words
    terms = [form for word in telling[:TERMS_MAX] for form in _forms(word)]
    return " OR ".join(f'"{term}"' for term in dict.fromkeys(terms))


# Statements are made once and take the query, the count and the row ids when they run: making one
# costs SQLAlchemy more than running it costs SQLite.
_RELEVANCE: Final[ColumnElement[float]] = literal_column(f"-bm25(listing_text, {_WEIGHTS})", Float)


def matches() -> ColumnElement[bool]:
    """The condition that a row of the text index matches the parameter `match`."""
    return literal_column("listing_text").bool_op("MATCH")(bindparam("match"))


def relevance() -> Label[float]:
    """How well a matching row fits, as `relevance`; more is better."""
    return _RELEVANCE.label("relevance")


def best_matches(count_max: int) -> Subquery:
    """The best rows of the whole index for `match`, as `row_id` and `relevance`.

    A subquery with a limit is not flattened by SQLite, so only these rows are joined to anything.
    """
    relevant = relevance()
    return (
        select(TEXT.c.rowid.label("row_id"), relevant)
        .where(matches())
        .order_by(relevant.desc(), TEXT.c.rowid)
        .limit(count_max)
        .subquery(f"best_{count_max}")
    )


def marks(count_max: int) -> Subquery:
    """The rows of the parameter `row_ids`, with each text column as `<column>_marked`."""
    index: ColumnElement[str] = literal_column("listing_text")
    columns = [
        func.highlight(index, place, _OPEN, _CLOSE).label(f"{name}_marked")
        for place, name in enumerate(TEXT_COLUMNS)
    ]
    # The plus keeps SQLite from running the whole match once for each row id.
    row_id = literal_column("+listing_text.rowid", BigInteger)
    return (
        select(TEXT.c.rowid.label("row_id"), *columns)
        .select_from(TEXT)
        .where(matches(), row_id.in_(bindparam("row_ids", expanding=True)))
        .limit(count_max)
        .subquery("marks")
    )


def marked(text: str) -> tuple[str, ...]:
    """The marked words of a column, each once."""
    return tuple(dict.fromkeys(found.group(1).lower() for found in _MARKED.finditer(text)))


def _forms(word: str) -> tuple[str, ...]:
    """A word as Britain and as America spell it; the stemmer knows nothing of either."""
    for mine, theirs in (("is", "iz"), ("iz", "is"), ("ys", "yz"), ("yz", "ys")):
        for ending in ("e", "es", "ed", "er", "ing", "ation"):
            if word.endswith(mine + ending) and len(word) > len(mine + ending) + 2:
                return word, word.removesuffix(mine + ending) + theirs + ending
    return (word,)
