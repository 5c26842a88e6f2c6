"""A search ask made exact: tags resolved, regions spelled out, amounts in units.

Boundary: pure. Nothing is read out of the prose of an ask; what was applied is said in the answer.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from farthing.catalog.text import match_query
from farthing.catalog.vocabulary import Via, Vocabulary
from farthing.protocol.errors import Code, Refusal, refuse
from farthing.protocol.messages.catalog import Applied, SearchCatalog
from farthing.protocol.money import ASSETS, InvalidAmount
from farthing.protocol.rating.card import QUANTITY_MAX

__all__ = ["EUROPEAN_UNION", "Need", "need_of"]

EUROPEAN_UNION: Final = frozenset({
    "at", "be", "bg", "cy", "cz", "de", "dk", "ee", "es", "fi", "fr", "gr", "hr", "hu", "ie", "it",
    "lt", "lu", "lv", "mt", "nl", "pl", "pt", "ro", "se", "si", "sk",
})  # fmt: skip
"""What `eu` stands for as a region."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What is looked for. An empty or None limit is no limit."""

    query: str
    workload: Mapping[str, int]
    tags: tuple[str, ...]
    asset: str
    max_total_units: int | None
    latency_ms_p95_max: int | None
    availability_ppm_min: int | None
    regions: frozenset[str]
    terms_sha256: tuple[str, ...]
    vendors: tuple[str, ...]
    limit: int
    applied: tuple[Applied, ...]

    @property
    def limited(self) -> bool:
        """Whether anything but the words narrows the search inside the query."""
        return bool(
            self.tags or self.asset or self.regions or self.terms_sha256 or self.vendors
        ) or not (self.latency_ms_p95_max is None and self.availability_ppm_min is None)


def need_of(ask: SearchCatalog, vocabulary: Vocabulary) -> Need | Refusal:
    """Make an ask exact, or say which argument cannot be."""
    workload: dict[str, int] = {}
    for index, usage in enumerate(ask.workload):
        quantity = int(usage.quantity)
        if usage.meter in workload or quantity > QUANTITY_MAX:
            return refuse(Code.INVALID_ARGUMENT, path=f"workload.{index}")
        workload[usage.meter] = quantity
    tags: list[str] = []
    for index, tag in enumerate(ask.tags):
        resolution = vocabulary.resolve(tag)
        if resolution.via is Via.UNKNOWN:
            says = f"{tag!r} is not in vocabulary {vocabulary.version}."
            return refuse(Code.INVALID_ARGUMENT, path=f"tags.{index}", message=says)
        tags.extend(resolution.paths)
    limit = _total_limit(ask, workload)
    if isinstance(limit, Refusal):
        return limit
    asset, max_total_units = limit
    regions = frozenset(ask.regions)
    return Need(
        query=match_query(ask.query),
        workload=workload,
        tags=tuple(dict.fromkeys(tags)),
        asset=asset,
        max_total_units=max_total_units,
        latency_ms_p95_max=ask.latency_ms_p95_max,
        availability_ppm_min=ask.availability_ppm_min,
        regions=regions | EUROPEAN_UNION if "eu" in regions else regions,
        terms_sha256=ask.terms_sha256,
        vendors=ask.vendors,
        limit=ask.limit,
        applied=tuple(_applied(ask, tags, asset)),
    )


def _total_limit(
    ask: SearchCatalog, workload: Mapping[str, int]
) -> tuple[str, int | None] | Refusal:
    asset = ask.asset or (ask.max_total.asset if ask.max_total else "")
    if asset and asset not in ASSETS:
        return refuse(Code.INVALID_ARGUMENT, path="asset" if ask.asset else "max_total.asset")
    if ask.max_total is None:
        return asset, None
    if ask.max_total.asset != asset:
        return refuse(Code.INVALID_ARGUMENT, path="max_total.asset", required=asset)
    if not workload:
        says = "A limit on the total needs the workload that it is the total of."
        return refuse(Code.INVALID_ARGUMENT, path="workload", message=says)
    try:
        return asset, ask.max_total.units
    except InvalidAmount:
        return refuse(Code.INVALID_AMOUNT, path="max_total.amount", asset=asset)


def _applied(ask: SearchCatalog, tags: list[str], asset: str) -> Iterator[Applied]:
    pairs: tuple[tuple[str, str], ...] = (
        ("tags", " ".join(dict.fromkeys(tags))),
        ("max_total", f"{ask.max_total.amount} {ask.max_total.asset}" if ask.max_total else ""),
        ("asset", asset),
        ("latency_ms_p95_max", _number(ask.latency_ms_p95_max)),
        ("availability_ppm_min", _number(ask.availability_ppm_min)),
        ("regions", " ".join(ask.regions)),
        ("terms_sha256", " ".join(ask.terms_sha256)),
        ("vendors", " ".join(ask.vendors)),
    )
    for constraint, value in pairs:
        if value:
            yield Applied(constraint=constraint, value=value)


def _number(value: int | None) -> str:
    return "" if value is None else str(value)
