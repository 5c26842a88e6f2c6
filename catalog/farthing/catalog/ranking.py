"""The published order: a weighted sum, the same for everybody, of figures that can be recomputed.

Boundary: integers in, integers out; text relevance arrives as parts per million of the best match.
No place is for sale. Source: spec/search.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from farthing.protocol.messages.catalog import Component, RankingPolicy
from farthing.protocol.money import PPM
from farthing.protocol.rating import Rating

__all__ = ["POLICY", "RELEVANCE_PPM_MIN", "Candidate", "Ranked", "components", "rank"]

POLICY: Final = RankingPolicy(
    policy_id="farthing-linear",
    version=1,
    text_weight_ppm=500_000,
    price_weight_ppm=200_000,
    latency_weight_ppm=100_000,
    outcome_weight_ppm=200_000,
)
_WEIGHTS_PPM: Final = (
    ("text", POLICY.text_weight_ppm),
    ("price", POLICY.price_weight_ppm),
    ("latency", POLICY.latency_weight_ppm),
    ("outcome", POLICY.outcome_weight_ppm),
)
RELEVANCE_PPM_MIN: Final = 250_000
"""Below a quarter of the best match in the catalog, shared words are taken for chance."""
_MIDDLE_PPM: Final = 500_000
"""Where a listing stands that cannot be compared: alone of its kind, or not yet measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A listing that keeps every limit, with what the order depends on.

    `peers` names the listings it is compared with in price and latency: whoever sells the same.
    """

    row_id: int
    listing_id: str
    peers: str
    latency_ms_p95: int
    relevance_ppm: int
    rating: Rating | None

    @property
    def total_units(self) -> int | None:
        """What the caller's workload costs; None where no workload was stated."""
        return None if self.rating is None else self.rating.total_units


class Ranked(NamedTuple):
    """A candidate in its place, with the four figures that its score is the weighted sum of."""

    candidate: Candidate
    values_ppm: tuple[int, int, int, int]
    score_ppm: int


def rank(candidates: Sequence[Candidate]) -> list[Ranked]:
    """Put candidates in order; equal scores go by total, latency, id: one input, one order."""
    totals: dict[str, list[int]] = {}
    latencies: dict[str, list[int]] = {}
    for each in candidates:
        latencies.setdefault(each.peers, []).append(each.latency_ms_p95)
        if each.total_units is not None:
            totals.setdefault(each.peers, []).append(each.total_units)
    cheapest = {peers: _best(figures) for peers, figures in totals.items()}
    fastest = {peers: _best(figures) for peers, figures in latencies.items()}
    ranked = [_ranked(each, cheapest.get(each.peers), fastest[each.peers]) for each in candidates]
    return sorted(ranked, key=_place)


def _best(figures: Sequence[int]) -> int | None:
    """The lowest of some figures; None where there is nothing to compare with."""
    return min(figures) if len(figures) > 1 else None


def components(ranked: Ranked) -> tuple[Component, ...]:
    """The parts of a score, as an answer shows them."""
    return tuple(
        Component(name=name, value_ppm=value_ppm, weight_ppm=weight_ppm)
        for (name, weight_ppm), value_ppm in zip(_WEIGHTS_PPM, ranked.values_ppm, strict=True)
    )


def _ranked(candidate: Candidate, cheapest_units: int | None, fastest_ms: int | None) -> Ranked:
    total_units = candidate.total_units
    text_ppm = candidate.relevance_ppm
    price_ppm = 0 if total_units is None else _share_ppm(cheapest_units, total_units)
    latency_ppm = _share_ppm(fastest_ms, candidate.latency_ms_p95)
    weighted = (
        text_ppm * POLICY.text_weight_ppm
        + price_ppm * POLICY.price_weight_ppm
        + latency_ppm * POLICY.latency_weight_ppm
        + _MIDDLE_PPM * POLICY.outcome_weight_ppm
    )
    return Ranked(candidate, (text_ppm, price_ppm, latency_ppm, _MIDDLE_PPM), weighted // PPM)


def _share_ppm(best: int | None, own: int) -> int:
    """The best figure over the own one: the best has a million, who is alone the middle."""
    if best is None:
        return _MIDDLE_PPM
    return PPM if own == 0 else best * PPM // own


def _place(ranked: Ranked) -> tuple[int, int, int, str]:
    candidate = ranked.candidate
    return (
        -ranked.score_ppm,
        candidate.total_units or 0,
        candidate.latency_ms_p95,
        candidate.listing_id,
    )
