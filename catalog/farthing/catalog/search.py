"""Searching: filter, match, price for this caller, judge, rank, and say why.

Boundary: reads, and decides nothing for good; what a purchase costs and whether it is allowed is
decided again where the effect is. Limits are applied inside the query, before anything is ranked.
The only floats of the room are here, in how well words match. Source: spec/search.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Select, exists, select
from sqlalchemy.ext.asyncio import AsyncConnection

from farthing.catalog.cards import CardShelf
from farthing.catalog.margins import Offered, covered, judge
from farthing.catalog.needs import Need, need_of
from farthing.catalog.ranking import POLICY, RELEVANCE_PPM_MIN, Candidate, Ranked, rank
from farthing.catalog.tables import (
    ACTIVE,
    LISTING,
    LISTING_HEAD,
    LISTING_REGION,
    LISTING_TAG,
    TEXT_COLUMNS,
)
from farthing.catalog.text import TEXT, marked, marks, matches, relevance
from farthing.catalog.vocabulary import Vocabulary
from farthing.protocol.authority.decide import Purchase
from farthing.protocol.authority.standing import Standing, decide_purchase
from farthing.protocol.errors import Refusal, Refused
from farthing.protocol.messages.agreements import Line
from farthing.protocol.messages.catalog import (
    Infeasible,
    Margin,
    Match,
    Purchasable,
    Reason,
    Result,
    SearchAnswer,
    SearchCatalog,
    VendorText,
    Why,
)
from farthing.protocol.money import PPM
from farthing.protocol.rating import START, Rating, RatingError, rate
from farthing.protocol.wire import money

__all__ = ["CANDIDATES_MAX", "NEAREST_MAX", "search"]

CANDIDATES_MAX: Final = 200
"""How many listings that keep the limits are priced for one search, best matches first."""
NEAREST_MAX: Final = 3
_NEAR_CANDIDATES_MAX: Final = 50
_MATCHED_WORDS_MAX: Final = 8
_FIELDS: Final = dict(
    zip(TEXT_COLUMNS, ("name", "summary", "tags", "example_requests"), strict=True)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asking:
    """Everything one search knows: the need, who asks, and with what."""

    conn: AsyncConnection
    need: Need
    standing: Standing
    cards: CardShelf
    now_us: int

    def price(self, listing_id: str, card_sha256: str) -> Rating | None:
        """What the workload costs this caller; None where it does not name every meter.

        Meters that the card lacks cost nothing and are said to be unused.
        """
        card = self.cards[card_sha256]
        if not card.by_meter.keys() <= self.need.workload.keys():
            return None
        usage = {meter: self.need.workload[meter] for meter in card.by_meter}
        try:
            return rate(card, self.standing.positions.get(listing_id, START), usage)
        except RatingError:
            return None


async def search(
    conn: AsyncConnection,
    ask: SearchCatalog,
    *,
    standing: Standing,
    cards: CardShelf,
    vocabulary: Vocabulary,
    now_us: int,
) -> SearchAnswer:
    """Find, price and rank listings for one caller.

    Args:
        conn: A connection that cannot write.
        ask: The need, the workload and the limits.
        standing: The caller's money, authority and rating positions; `NOBODY` for anyone.
        cards: The shelf of rate cards; what is missing is put on it.
        vocabulary: What tags mean now.
        now_us: When the question is asked, for grants that expire.

    Raises:
        Refused: An argument cannot be applied.
    """
    need = need_of(ask, vocabulary)
    if isinstance(need, Refusal):
        raise Refused(need)
    asking = _Asking(conn=conn, need=need, standing=standing, cards=cards, now_us=now_us)
    rows, best = await _matching(asking)
    candidates, unpriced = await _candidates(asking, rows[:CANDIDATES_MAX], best)
    ranked = rank(candidates)
    return SearchAnswer(
        results=await _results(asking, ranked[: need.limit]),
        left_out=max(len(ranked) - need.limit, 0),
        unpriced=unpriced,
        truncated=len(rows) > CANDIDATES_MAX,
        nearest_infeasible=() if ranked else await _nearest(asking),
        applied_constraints=need.applied,
        ranking_policy=POLICY,
        paid_placement=False,
        as_of_seq=standing.as_of_seq,
    )


async def _matching(asking: _Asking) -> tuple[Sequence[Row[Any]], float]:
    """The listings that keep every limit of the query, best first, and the catalog's best match."""
    need = asking.need
    columns = (
        LISTING.c.row_id,
        LISTING.c.listing_id,
        LISTING.c.rate_card_sha256,
        LISTING.c.primary_tag,
        LISTING.c.latency_ms_p95,
    )
    query = _offered(need, columns).where(*_limits(need)).limit(CANDIDATES_MAX + 1)
    rows = (await asking.conn.execute(query)).all()
    if not need.query:
        return rows, 0
    if not need.limited:
        return rows, rows[0].relevance if rows else 0
    unlimited = _offered(need, (LISTING.c.row_id,)).limit(1)
    first = (await asking.conn.execute(unlimited)).one_or_none()
    return rows, first.relevance if first else 0


def _offered(need: Need, columns: Sequence[ColumnElement[Any]]) -> Select[Any]:
    """What is offered now, best match first; without words in the order of publication."""
    if need.query:
        # The text index holds what is offered and nothing else.
        return (
            select(*columns, relevance())
            .select_from(TEXT.join(LISTING, LISTING.c.row_id == TEXT.c.rowid))
            .where(matches(need.query))
            .order_by(relevance().desc(), LISTING.c.row_id)
        )
    return (
        select(*columns)
        .select_from(LISTING_HEAD.join(LISTING, LISTING.c.row_id == LISTING_HEAD.c.row_id))
        .where(LISTING_HEAD.c.state == ACTIVE)
        .order_by(LISTING.c.row_id)
    )


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


async def _candidates(
    asking: _Asking, rows: Sequence[Row[Any]], best: float
) -> tuple[list[Candidate], int]:
    """Those whose words and whose total for this caller fit, and how many had no total."""
    need = asking.need
    await asking.cards.load(asking.conn, (row.rate_card_sha256 for row in rows))
    candidates: list[Candidate] = []
    unpriced = 0
    for row in rows:
        relevance_ppm = _relevance_ppm(row, best)
        if need.query and relevance_ppm < RELEVANCE_PPM_MIN:
            continue
        rating = asking.price(row.listing_id, row.rate_card_sha256)
        if need.workload and rating is None:
            unpriced += 1
            continue
        limit_units = need.max_total_units
        if rating is not None and limit_units is not None and rating.total_units > limit_units:
            continue
        candidates.append(
            Candidate(
                row_id=row.row_id,
                listing_id=row.listing_id,
                rate_card_sha256=row.rate_card_sha256,
                # Whoever names tags says that what they cover will do; else like goes with like.
                peers="" if need.tags else row.primary_tag,
                latency_ms_p95=row.latency_ms_p95,
                relevance_ppm=relevance_ppm,
                rating=rating,
            )
        )
    return candidates, unpriced


def _relevance_ppm(row: Row[Any], best: float) -> int:
    return min(round(row.relevance / best * PPM), PPM) if best > 0 else 0


async def _results(asking: _Asking, ranked: Sequence[Ranked]) -> tuple[Result, ...]:
    """The facts of the best, with the words that matched."""
    row_ids = [each.candidate.row_id for each in ranked]
    facts = await _facts(asking.conn, row_ids)
    words = await _matched(asking, row_ids)
    return tuple(
        _result(asking, place, each, facts[each.candidate.row_id], words)
        for place, each in enumerate(ranked, 1)
    )


async def _facts(conn: AsyncConnection, row_ids: Sequence[int]) -> dict[int, Row[Any]]:
    rows = await conn.execute(select(LISTING).where(LISTING.c.row_id.in_(row_ids)))
    return {row.row_id: row for row in rows}


async def _matched(asking: _Asking, row_ids: Sequence[int]) -> Mapping[int, tuple[Match, ...]]:
    if not asking.need.query:
        return {}
    matched: dict[int, tuple[Match, ...]] = {}
    for row in await asking.conn.execute(marks(asking.need.query, row_ids)):
        fields = ((name, marked(getattr(row, column))) for column, name in _FIELDS.items())
        matched[row.rowid] = tuple(
            Match(field=name, words=words[:_MATCHED_WORDS_MAX]) for name, words in fields if words
        )
    return matched


def _result(
    asking: _Asking,
    place: int,
    ranked: Ranked,
    row: Row[Any],
    words: Mapping[int, tuple[Match, ...]],
) -> Result:
    need, rating = asking.need, ranked.candidate.rating
    offered = _offer(row, ranked.candidate.total_units)
    return Result(
        rank=place,
        listing_id=row.listing_id,
        version=row.version,
        vendor_id=row.vendor_id,
        listing_sha256=row.listing_sha256,
        rate_card_sha256=row.rate_card_sha256,
        terms_sha256=row.terms_sha256,
        primary_tag=row.primary_tag,
        tags=offered.tags,
        asset=row.asset,
        meters=offered.meters,
        latency_ms_p50=row.latency_ms_p50,
        latency_ms_p95=row.latency_ms_p95,
        availability_ppm=row.availability_ppm,
        regions=offered.regions,
        retention_days=row.retention_days,
        training_use=bool(row.training_use),
        total=None if rating is None else money(rating.total_units, row.asset),
        lines=_lines(rating, row.asset),
        unused_meters=tuple(sorted(need.workload.keys() - set(offered.meters))),
        purchasable=_purchasable(asking, offered),
        score_ppm=ranked.score_ppm,
        why=Why(
            matched=words.get(row.row_id, ()),
            tags=tuple(tag for tag in offered.tags if covered(tag, need.tags)),
            margins=tuple(each.margin for each in judge(need, offered)),
            components=ranked.components,
        ),
        vendor_text=VendorText(untrusted=True, name=row.name, summary=row.summary),
    )


def _offer(row: Row[Any], total_units: int | None) -> Offered:
    return Offered(
        vendor_id=row.vendor_id,
        tags=tuple(row.tags.split()),
        asset=row.asset,
        meters=tuple(row.meters.split()),
        latency_ms_p95=row.latency_ms_p95,
        availability_ppm=row.availability_ppm,
        regions=tuple(row.regions.split()),
        terms_sha256=row.terms_sha256,
        total_units=total_units,
    )


def _lines(rating: Rating | None, asset: str) -> tuple[Line, ...]:
    if rating is None:
        return ()
    return tuple(
        Line(
            rule_id=line.rule_id,
            meter=line.meter,
            quantity=str(line.quantity),
            amount=money(line.amount_units, asset),
        )
        for line in rating.lines
    )


def _purchasable(asking: _Asking, offered: Offered) -> Purchasable:
    """Whether the caller's money and authority cover it; without a workload, authority alone."""
    purchase = Purchase(
        vendor_id=offered.vendor_id,
        tags=offered.tags,
        asset=offered.asset,
        units=offered.total_units or 0,
    )
    reasons = decide_purchase(asking.standing, purchase, asking.now_us)
    return Purchasable(ok=not reasons, reasons=tuple(_reason(each) for each in reasons))


def _reason(refusal: Refusal) -> Reason:
    return Reason(
        code=refusal.code.value,
        message=refusal.message,
        required=refusal.required,
        remaining=refusal.remaining,
        asset=refusal.asset,
        next_action=refusal.next_action.value,
    )


async def _nearest(asking: _Asking) -> tuple[Infeasible, ...]:
    """Where nothing keeps every limit: who fails the fewest, and by how much."""
    need = asking.need
    unlimited = _offered(need, tuple(LISTING.c)).limit(_NEAR_CANDIDATES_MAX)
    if need.tags and not need.query:
        # Without words only the tags say what is meant, so they are kept.
        unlimited = unlimited.where(_tagged(need))
    rows = (await asking.conn.execute(unlimited)).all()
    await asking.cards.load(asking.conn, (row.rate_card_sha256 for row in rows))
    near: list[tuple[int, int, Infeasible]] = []
    for place, row in enumerate(rows):
        if need.query and _relevance_ppm(row, rows[0].relevance) < RELEVANCE_PPM_MIN:
            break
        rating = asking.price(row.listing_id, row.rate_card_sha256)
        offered = _offer(row, None if rating is None else rating.total_units)
        fails = tuple(each.margin for each in judge(need, offered) if not each.holds)
        near.append((len(fails), place, _infeasible(row, rating, fails)))
    return tuple(each for _, _, each in sorted(near, key=lambda each: each[:2])[:NEAREST_MAX])


def _infeasible(row: Row[Any], rating: Rating | None, fails: tuple[Margin, ...]) -> Infeasible:
    return Infeasible(
        listing_id=row.listing_id,
        version=row.version,
        vendor_id=row.vendor_id,
        primary_tag=row.primary_tag,
        total=None if rating is None else money(rating.total_units, row.asset),
        fails=fails,
        vendor_text=VendorText(untrusted=True, name=row.name, summary=row.summary),
    )
