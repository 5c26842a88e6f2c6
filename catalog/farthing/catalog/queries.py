"""The statements of a search: each made once, taking its parameters when it runs.

Boundary: which rows are read and in what order; what they mean is `search`'s affair.
"""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, bindparam, exists, select

from farthing.catalog.needs import Need
from farthing.catalog.tables import (
    ACTIVE,
    LISTING,
    LISTING_HEAD,
    LISTING_REGION,
    LISTING_TAG,
)
from farthing.catalog.text import TEXT, best_matches, marks, matches, relevance
from farthing.protocol.messages.catalog import RESULTS_MAX

__all__ = ["CANDIDATES_MAX", "FACTS", "MARKED_FACTS", "matching", "near_by"]

CANDIDATES_MAX: Final = 200
"""How many listings that keep the limits are priced for one search, best matches first."""
_NEAR_CANDIDATES_MAX: Final = 50


def matching(need: Need) -> Select[Any]:
    """What keeps every limit that needs no price, one row more than is looked at."""
    if not need.query:
        return _LISTED.where(*_limits(need))
    return _FILTERED.where(*_limits(need)) if need.limited else _MATCHED


def near_by(need: Need) -> Select[Any]:
    """What answers the need if no limit is applied."""
    if need.query:
        return _NEAR
    # Without words only the tags say what is meant, so they are kept.
    return _NEAR_LISTED.where(_tagged(need)) if need.tags else _NEAR_LISTED


def _limits(need: Need) -> list[ColumnElement[bool]]:
    """Every limit that a row can be judged by without its price."""
    limits: list[ColumnElement[bool]] = []
    if need.tags:
        limits.append(_tagged(need))
    if need.asset:
        limits.append(LISTING.c.asset == need.asset)
    if need.latency_ms_p95_max is not None:
        limits.append(LISTING.c.latency_ms_p95 <= need.latency_ms_p95_max)
    if need.availability_ppm_min is not None:
        limits.append(LISTING.c.availability_ppm >= need.availability_ppm_min)
    if need.regions:
        elsewhere = exists().where(
            LISTING_REGION.c.row_id == LISTING.c.row_id,
            LISTING_REGION.c.region.not_in(need.regions),
        )
        limits.append(~elsewhere)
    if need.terms_sha256:
        limits.append(LISTING.c.terms_sha256.in_(need.terms_sha256))
    if need.vendors:
        limits.append(LISTING.c.vendor_id.in_(need.vendors))
    return limits


def _tagged(need: Need) -> ColumnElement[bool]:
    return exists().where(
        LISTING_TAG.c.row_id == LISTING.c.row_id, LISTING_TAG.c.path.in_(need.tags)
    )


_COLUMNS: Final = (
    LISTING.c.row_id,
    LISTING.c.listing_id,
    LISTING.c.rate_card_sha256,
    LISTING.c.primary_tag,
    LISTING.c.latency_ms_p95,
)


def _best_first(columns: Sequence[Any], count_max: int) -> Select[Any]:
    """The best matches of the whole catalog. The text index holds what is offered, nothing else."""
    found = best_matches(count_max)
    return (
        select(*columns, found.c.relevance)
        .select_from(found.join(LISTING, LISTING.c.row_id == found.c.row_id))
        .order_by(found.c.relevance.desc(), LISTING.c.row_id)
    )


def _best_first_within(columns: Sequence[Any], count_max: int) -> Select[Any]:
    """The best matches that keep limits still to be added, beside the best of the whole catalog."""
    best = best_matches(1)
    relevant = relevance()
    return (
        select(*columns, relevant, select(best.c.relevance).scalar_subquery().label("best"))
        .select_from(TEXT.join(LISTING, LISTING.c.row_id == TEXT.c.rowid))
        .where(matches())
        .order_by(relevant.desc(), LISTING.c.row_id)
        .limit(count_max)
    )


def _in_order(columns: Sequence[Any], count_max: int) -> Select[Any]:
    """What is offered, in the order of publication."""
    return (
        select(*columns)
        .select_from(LISTING_HEAD.join(LISTING, LISTING.c.row_id == LISTING_HEAD.c.row_id))
        .where(LISTING_HEAD.c.state == ACTIVE)
        # By the head's: SQLite then reads the heads in order, and no version that was replaced.
        .order_by(LISTING_HEAD.c.row_id)
        .limit(count_max)
    )


def _marked_facts() -> Select[Any]:
    """Whole listings with the words that matched."""
    found = marks(RESULTS_MAX)
    words = [column for column in found.c if column.name != "row_id"]
    return select(LISTING, *words).select_from(
        found.join(LISTING, LISTING.c.row_id == found.c.row_id)
    )


_MATCHED: Final = _best_first(_COLUMNS, CANDIDATES_MAX + 1)
_FILTERED: Final = _best_first_within(_COLUMNS, CANDIDATES_MAX + 1)
_LISTED: Final = _in_order(_COLUMNS, CANDIDATES_MAX + 1)
_NEAR: Final = _best_first(tuple(LISTING.c), _NEAR_CANDIDATES_MAX)
_NEAR_LISTED: Final = _in_order(tuple(LISTING.c), _NEAR_CANDIDATES_MAX)
FACTS: Final = select(LISTING).where(LISTING.c.row_id.in_(bindparam("row_ids", expanding=True)))
MARKED_FACTS: Final = _marked_facts()
