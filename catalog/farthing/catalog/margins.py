"""Each limit of a need beside what a listing offers: how much is left, or how much is missing.

Boundary: the same limits as in the query, judged for one listing, so that an answer can say why.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from farthing.catalog.needs import Need
from farthing.catalog.vocabulary import ancestors
from farthing.protocol.messages.catalog import Margin
from farthing.protocol.money import format_units

__all__ = ["Judged", "Offered", "covered", "judge"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """A listing's own figures, one by one against the limits."""

    vendor_id: str
    tags: tuple[str, ...]
    asset: str
    meters: tuple[str, ...]
    latency_ms_p95: int
    availability_ppm: int
    regions: tuple[str, ...]
    terms_sha256: str
    total_units: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One limit, and whether the listing keeps it."""

    margin: Margin
    holds: bool


def judge(need: Need, offered: Offered) -> Iterator[Judged]:
    """Every limit of the need against one listing."""
    if need.workload and offered.total_units is None:
        # A price with no meter missing is one that no amount can hold.
        missing = sorted(set(offered.meters) - need.workload.keys()) or ["amount_overflow"]
        yield _words("workload", " ".join(sorted(need.workload)), " ".join(missing), holds=False)
    if need.max_total_units is not None and offered.total_units is not None:
        left_units = need.max_total_units - offered.total_units
        margin = Margin(
            constraint="max_total",
            limit=format_units(need.max_total_units, need.asset),
            actual=format_units(offered.total_units, need.asset),
            margin=format_units(left_units, need.asset),
            unit=need.asset,
        )
        yield Judged(margin=margin, holds=left_units >= 0)
    if need.latency_ms_p95_max is not None:
        left = need.latency_ms_p95_max - offered.latency_ms_p95
        yield _number(
            "latency_ms_p95_max", need.latency_ms_p95_max, offered.latency_ms_p95, left, "ms"
        )
    if need.availability_ppm_min is not None:
        left = offered.availability_ppm - need.availability_ppm_min
        yield _number(
            "availability_ppm_min", need.availability_ppm_min, offered.availability_ppm, left, "ppm"
        )
    yield from _memberships(need, offered)


def covered(tag: str, paths: Collection[str]) -> bool:
    """Whether a tag is one of some paths, or lies below one."""
    return any(above in paths for above in ancestors(tag))


def _memberships(need: Need, offered: Offered) -> Iterator[Judged]:
    if need.tags:
        meant = any(covered(tag, need.tags) for tag in offered.tags)
        yield _words("tags", " ".join(need.tags), " ".join(offered.tags), holds=meant)
    if need.asset:
        yield _words("asset", need.asset, offered.asset, holds=offered.asset == need.asset)
    if need.regions:
        within = need.regions.issuperset(offered.regions)
        limit = " ".join(sorted(need.regions))
        yield _words("regions", limit, " ".join(offered.regions), holds=within)
    if need.terms_sha256:
        accepted = offered.terms_sha256 in need.terms_sha256
        limit = " ".join(need.terms_sha256)
        yield _words("terms_sha256", limit, offered.terms_sha256, holds=accepted)
    if need.vendors:
        allowed = offered.vendor_id in need.vendors
        yield _words("vendors", " ".join(need.vendors), offered.vendor_id, holds=allowed)


def _number(constraint: str, limit: int, actual: int, left: int, unit: str) -> Judged:
    margin = Margin(
        constraint=constraint, limit=str(limit), actual=str(actual), margin=str(left), unit=unit
    )
    return Judged(margin=margin, holds=left >= 0)


def _words(constraint: str, limit: str, actual: str, *, holds: bool) -> Judged:
    return Judged(margin=Margin(constraint=constraint, limit=limit, actual=actual), holds=holds)
