"""Searching: filter, match, price for this caller, judge, rank, and say why.

Boundary: reads, and decides nothing for good; what a purchase costs and whether it is allowed is
decided again where the effect is. Limits are applied inside the query, before anything is ranked.
The only floats of the room are here, in how well words match. Source: spec/search.md.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from farthing.catalog.cards import CardShelf
from farthing.catalog.margins import Offered, covered, judge
from farthing.catalog.needs import Need, need_of
from farthing.catalog.queries import CANDIDATES_MAX, FACTS, MARKED_FACTS, matching, near_by
from farthing.catalog.ranking import POLICY, RELEVANCE_PPM_MIN, Candidate, Ranked, components, rank
from farthing.catalog.text import marked
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

__all__ = ["NEAREST_MAX", "FrozenAmong", "search"]

NEAREST_MAX: Final = 3
_MATCHED_MAX: Final = 8

FrozenAmong: TypeAlias = Callable[[Collection[str]], Awaitable[frozenset[str]]]
"""Those of some vendors that are frozen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asking:
    """Everything one search knows: the need, who asks, and with what."""

    conn: AsyncConnection
    need: Need
    standing: Standing
    cards: CardShelf
    now_us: int
    barred: Refusal | None
    frozen_among: FrozenAmong

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
    frozen_among: FrozenAmong,
    barred: Refusal | None = None,
) -> SearchAnswer:
    """Find, price and rank listings for one caller.

    Args:
        conn: A connection that cannot write.
        ask: The need, the workload and the limits.
        standing: The caller's money, authority and rating positions; `NOBODY` for anyone.
        cards: The shelf of rate cards; what is missing is put on it.
        vocabulary: What tags mean now.
        now_us: When the question is asked, for grants that expire.
        frozen_among: Tells of vendors which are frozen.
        barred: Why the caller, whoever sells, buys nothing at all.

    Raises:
        Refused: An argument cannot be applied.
    """
    need = need_of(ask, vocabulary)
    if isinstance(need, Refusal):
        raise Refused(need)
    asking = _Asking(
        conn=conn,
        need=need,
        standing=standing,
        cards=cards,
        now_us=now_us,
        barred=barred,
        frozen_among=frozen_among,
    )
    priced = await _priced(asking, await _matching(asking))
    ranked = rank(priced.candidates)
    return SearchAnswer(
        results=await _results(asking, ranked[: need.limit]) if ranked else (),
        left_out=max(len(ranked) - need.limit, 0),
        unpriced=priced.unpriced,
        truncated=priced.truncated,
        nearest_infeasible=() if ranked else await _nearest(asking),
        applied_constraints=need.applied,
        ranking_policy=POLICY,
        paid_placement=False,
        as_of_seq=standing.as_of_seq,
    )


async def _matching(asking: _Asking) -> Sequence[Row[Any]]:
    """The listings that keep every limit of the query, best match first."""
    need = asking.need
    rows: Sequence[Row[Any]] = (await asking.conn.execute(matching(need), _parameters(need))).all()
    return rows


def _parameters(need: Need) -> dict[str, object]:
    return {"match": need.query} if need.query else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Priced:
    """What can be ranked, and what was left behind on the way."""

    candidates: list[Candidate]
    unpriced: int
    truncated: bool


async def _priced(asking: _Asking, rows: Sequence[Row[Any]]) -> _Priced:
    """Those whose words and whose total for this caller fit."""
    need = asking.need
    await asking.cards.load(asking.conn, (row.rate_card_sha256 for row in rows))
    candidates: list[Candidate] = []
    unpriced = 0
    best = _best(need, rows)
    for place, row in enumerate(rows):
        relevance_ppm = _share_ppm(row.relevance, best) if need.query else 0
        if need.query and relevance_ppm < RELEVANCE_PPM_MIN:
            break  # the best come first
        if place == CANDIDATES_MAX:
            return _Priced(candidates=candidates, unpriced=unpriced, truncated=True)
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
                # Whoever names tags says that what they cover will do; else like goes with like.
                peers="" if need.tags else row.primary_tag,
                latency_ms_p95=row.latency_ms_p95,
                relevance_ppm=relevance_ppm,
                rating=rating,
            )
        )
    return _Priced(candidates=candidates, unpriced=unpriced, truncated=False)


def _best(need: Need, rows: Sequence[Row[Any]]) -> float:
    """The relevance of the best match in the whole catalog."""
    if not need.query or not rows:
        return 0
    return float(rows[0].best if need.limited else rows[0].relevance)


def _share_ppm(relevance: float, best: float) -> int:
    return round(relevance / best * PPM) if best > 0 else 0


async def _results(asking: _Asking, ranked: Sequence[Ranked]) -> tuple[Result, ...]:
    """The facts of the best, with the words that matched."""
    row_ids = [each.candidate.row_id for each in ranked]
    query = MARKED_FACTS if asking.need.query else FACTS
    parameters = _parameters(asking.need) | {"row_ids": row_ids}
    rows = {row.row_id: row for row in await asking.conn.execute(query, parameters)}
    # A listing that was replaced since it was matched has left the text index; it is left out.
    still = [each for each in ranked if each.candidate.row_id in rows]
    frozen = frozenset[str]()
    if asking.barred is None:
        frozen = await asking.frozen_among({row.vendor_id for row in rows.values()})
    return tuple(
        _result(asking, place, each, rows[each.candidate.row_id], frozen)
        for place, each in enumerate(still, 1)
    )


def _result(
    asking: _Asking, place: int, ranked: Ranked, row: Row[Any], frozen: frozenset[str]
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
        lines=tuple(Line.of(line, row.asset) for line in rating.lines) if rating else (),
        unused_meters=tuple(sorted(need.workload.keys() - set(offered.meters))),
        purchasable=_purchasable(asking, offered, vendor_frozen=row.vendor_id in frozen),
        score_ppm=ranked.score_ppm,
        why=Why(
            matched=_matched(row) if need.query else (),
            tags=tuple(tag for tag in offered.tags if covered(tag, need.tags)),
            margins=tuple(each.margin for each in judge(need, offered)),
            components=components(ranked),
        ),
        vendor_text=VendorText(untrusted=True, name=row.name, summary=row.summary),
    )


def _matched(row: Row[Any]) -> tuple[Match, ...]:
    """The words of the need in each field of the listing, as `marks` marked them."""
    fields = (
        ("name", marked(row.name_marked)),
        ("summary", marked(row.summary_marked)),
        ("tags", marked(row.tag_words_marked)),
        ("example_requests", marked(row.example_requests_marked)),
    )
    return tuple(Match(field=field, words=words[:_MATCHED_MAX]) for field, words in fields if words)


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


def _purchasable(asking: _Asking, offered: Offered, *, vendor_frozen: bool) -> Purchasable:
    """Whether the caller's money and authority cover it; without a workload, authority alone."""
    if asking.barred is not None:
        return Purchasable(ok=False, reasons=(_reason(asking.barred),))
    purchase = Purchase(
        vendor_id=offered.vendor_id,
        tags=offered.tags,
        asset=offered.asset,
        units=offered.total_units or 0,
        vendor_frozen=vendor_frozen,
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
    rows = (await asking.conn.execute(near_by(need), _parameters(need))).all()
    await asking.cards.load(asking.conn, (row.rate_card_sha256 for row in rows))
    near: list[tuple[int, int, Infeasible]] = []
    for place, row in enumerate(rows):
        if need.query and _share_ppm(row.relevance, rows[0].relevance) < RELEVANCE_PPM_MIN:
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
