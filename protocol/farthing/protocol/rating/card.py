"""The rate card: one immutable, content-hashed price document, read strictly and compiled once.

Boundary: reads and writes the document and prepares its arithmetic; nothing here rates usage.
Publication, signatures and schedules belong to the catalog. Source: spec/rating.md.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final, TypeVar

from farthing.protocol.canonical import Json, document_sha256
from farthing.protocol.documents import SLUG
from farthing.protocol.money import ASSETS, InvalidAmount, Rounding, format_units, parse_units

__all__ = [
    "CARD_SCHEMA",
    "DIMENSIONS_MAX",
    "QUANTITY_MAX",
    "TIERS_MAX",
    "CardError",
    "CardFault",
    "CompiledCard",
    "CompiledDimension",
    "Dimension",
    "Model",
    "Period",
    "RateCard",
    "Tier",
    "card_document",
    "card_sha256",
    "compile_card",
    "parse_card",
]

CARD_SCHEMA: Final = "farthing-rate-card/1"
QUANTITY_MAX: Final = 10**15
"""The largest quantity, alone or accumulated; a petabyte counted in bytes still fits."""
DIMENSIONS_MAX: Final = 64
TIERS_MAX: Final = 64
_VERSION_MAX: Final = 2**53 - 1
_TEXT_LENGTH_MAX: Final = 64
_INTEGER: Final = re.compile(r"0|[1-9][0-9]{0,15}")
_Word = TypeVar("_Word", bound=StrEnum)


class CardFault(StrEnum):
    """What can be wrong at one place of a rate card."""

    WRONG_TYPE = "wrong_type"
    MISSING = "missing"
    UNKNOWN_FIELD = "unknown_field"
    UNKNOWN_VALUE = "unknown_value"
    INVALID_SLUG = "invalid_slug"
    INVALID_TEXT = "invalid_text"
    INVALID_VERSION = "invalid_version"
    INVALID_QUANTITY = "invalid_quantity"
    INVALID_AMOUNT = "invalid_amount"
    WRONG_COUNT = "wrong_count"
    DUPLICATE = "duplicate"
    NOT_INCREASING = "not_increasing"
    LAST_TIER_CLOSED = "last_tier_closed"


class CardError(ValueError):
    """A document that is not a rate card.

    Attributes:
        path: The offending field in dotted form, `""` for the document itself.
        reason: The fault, a `CardFault`.
    """

    def __init__(self, path: str, reason: CardFault) -> None:
        super().__init__(f"{path or 'document'}: {reason}")
        self.path = path
        self.reason = reason


class Model(StrEnum):
    """How a dimension's tiers are applied."""

    PER_UNIT = "per_unit"
    """One price for every unit."""
    GRADUATED = "graduated"
    """Each unit at the price of the tier it falls in."""


class Period(StrEnum):
    """Over what usage accumulates."""

    AGREEMENT = "agreement"
    """From the acceptance of the agreement to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """`amount_units` for every `per_quantity` of the units above the tier before, up to `up_to`.

    The pair is an exact ratio and is never divided beforehand. `up_to` is None for the open last
    tier.
    """

    up_to: int | None
    amount_units: int
    per_quantity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """The price of one meter. `unit` is the word a person reads ("page")."""

    rule_id: str
    meter: str
    unit: str
    model: Model
    tiers: tuple[Tier, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RateCard:
    """One version of a rate card, as `parse_card` read it. Equal content, equal `card_sha256`."""

    card_id: str
    version: int
    asset: str
    rounding: Rounding
    period: Period
    dimensions: tuple[Dimension, ...]
    card_sha256: str

    def __hash__(self) -> int:
        # Cards are cache keys on the paid path; the generated hash would walk every tier.
        return hash(self.card_sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledDimension:
    """A dimension over one common denominator, with prefix sums.

    The exact price of the first `q` units, `q` in tier `i`, is the ratio
    `(before[i] + (q - starts[i]) * rates[i]) / denominator`.
    """

    rule_id: str
    meter: str
    rounding: Rounding
    tiers: tuple[Tier, ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    before: tuple[int, ...]
    rates: tuple[int, ...]
    denominator: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledCard:
    """A card ready to rate: keep it beside the card, or let `compile_card` remember it."""

    card: RateCard
    by_meter: Mapping[str, CompiledDimension]

    @property
    def is_flat(self) -> bool:
        """Whether every unit has one whole price, wherever it comes."""
        return all(
            len(each.tiers) == 1 and each.denominator == 1 for each in self.by_meter.values()
        )


def parse_card(document: Json) -> RateCard:
    """Read a rate card strictly: `card_document` gives back exactly what was read.

    Raises:
        CardError: The first fault in document order, with its path.
    """
    fields = _fields(
        document,
        "",
        ("schema", "card_id", "version", "asset", "rounding", "period", "dimensions"),
    )
    if _text(fields["schema"], "schema") != CARD_SCHEMA:
        raise CardError("schema", CardFault.UNKNOWN_VALUE)
    card_id = _slug(fields["card_id"], "card_id")
    version = _version(fields["version"])
    asset = _text(fields["asset"], "asset")
    if asset not in ASSETS:
        raise CardError("asset", CardFault.UNKNOWN_VALUE)
    return RateCard(
        card_id=card_id,
        version=version,
        asset=asset,
        rounding=_member(Rounding, fields["rounding"], "rounding"),
        period=_member(Period, fields["period"], "period"),
        dimensions=_dimensions(fields["dimensions"], asset),
        card_sha256=card_sha256(document),
    )


def card_document(card: RateCard) -> dict[str, Json]:
    """The signed document of a card."""
    return {
        "schema": CARD_SCHEMA,
        "card_id": card.card_id,
        "version": card.version,
        "asset": card.asset,
        "rounding": card.rounding.value,
        "period": card.period.value,
        "dimensions": [_dimension_document(each, card.asset) for each in card.dimensions],
    }


def card_sha256(document: Json) -> str:
    """The content hash that listings, quotes and lines name: SHA-256 of the canonical bytes."""
    return document_sha256(document)


@lru_cache(maxsize=1024)
def compile_card(card: RateCard) -> CompiledCard:
    """Prepare a card for rating; remembers the last thousand cards by content hash."""
    assert card.card_sha256 == card_sha256(card_document(card)), "a card altered after reading"
    return CompiledCard(
        card=card,
        by_meter={each.meter: _compile(each, card.rounding) for each in card.dimensions},
    )


def _compile(dimension: Dimension, rounding: Rounding) -> CompiledDimension:
    tiers = dimension.tiers
    common = math.lcm(*(tier.per_quantity for tier in tiers))
    ends = tuple(QUANTITY_MAX if tier.up_to is None else tier.up_to for tier in tiers)
    starts = (0, *ends[:-1])
    rates = [tier.amount_units * (common // tier.per_quantity) for tier in tiers]
    # In lowest terms nearly every real price has denominator 1 (a scale of 9 leaves room for many
    # places), and what has no remainder needs no rounding.
    shared = math.gcd(common, *rates)
    rates = [rate // shared for rate in rates]
    before = [0]
    for start, end, rate in zip(starts[:-1], ends[:-1], rates[:-1], strict=True):
        before.append(before[-1] + (end - start) * rate)
    assert len(starts) == len(ends) == len(rates) == len(before) == len(tiers)
    return CompiledDimension(
        rule_id=dimension.rule_id,
        meter=dimension.meter,
        rounding=rounding,
        tiers=tiers,
        starts=starts,
        ends=ends,
        before=tuple(before),
        rates=tuple(rates),
        denominator=common // shared,
    )


def _dimension_document(dimension: Dimension, asset: str) -> dict[str, Json]:
    return {
        "rule_id": dimension.rule_id,
        "meter": dimension.meter,
        "unit": dimension.unit,
        "model": dimension.model.value,
        "tiers": [_tier_document(tier, asset) for tier in dimension.tiers],
    }


def _tier_document(tier: Tier, asset: str) -> dict[str, Json]:
    document: dict[str, Json] = {
        "amount": format_units(tier.amount_units, asset),
        "per_quantity": str(tier.per_quantity),
    }
    if tier.up_to is not None:
        document["up_to"] = str(tier.up_to)
    return document


def _dimensions(value: Json, asset: str) -> tuple[Dimension, ...]:
    dimensions = tuple(
        _dimension(each, path, asset) for path, each in _items(value, "dimensions", DIMENSIONS_MAX)
    )
    rules: set[str] = set()
    meters: set[str] = set()
    for index, dimension in enumerate(dimensions):
        for name, word, seen in (
            ("rule_id", dimension.rule_id, rules),
            ("meter", dimension.meter, meters),
        ):
            if word in seen:
                raise CardError(f"dimensions.{index}.{name}", CardFault.DUPLICATE)
            seen.add(word)
    return dimensions


def _dimension(value: Json, path: str, asset: str) -> Dimension:
    fields = _fields(value, path, ("rule_id", "meter", "unit", "model", "tiers"))
    rule_id = _slug(fields["rule_id"], f"{path}.rule_id")
    meter = _slug(fields["meter"], f"{path}.meter")
    unit = _label(fields["unit"], f"{path}.unit")
    model = _member(Model, fields["model"], f"{path}.model")
    tiers_max = 1 if model is Model.PER_UNIT else TIERS_MAX
    tiers = tuple(
        _tier(each, each_path, asset)
        for each_path, each in _items(fields["tiers"], f"{path}.tiers", tiers_max)
    )
    _check_ends(tiers, f"{path}.tiers")
    return Dimension(rule_id=rule_id, meter=meter, unit=unit, model=model, tiers=tiers)


def _check_ends(tiers: tuple[Tier, ...], path: str) -> None:
    start = 0
    for index, tier in enumerate(tiers[:-1]):
        if tier.up_to is None:
            raise CardError(f"{path}.{index}.up_to", CardFault.MISSING)
        if tier.up_to <= start:
            raise CardError(f"{path}.{index}.up_to", CardFault.NOT_INCREASING)
        start = tier.up_to
    if tiers[-1].up_to is not None:
        raise CardError(f"{path}.{len(tiers) - 1}.up_to", CardFault.LAST_TIER_CLOSED)


def _tier(value: Json, path: str, asset: str) -> Tier:
    fields = _fields(value, path, ("amount", "per_quantity"), optional=("up_to",))
    try:
        amount_units = parse_units(_text(fields["amount"], f"{path}.amount"), asset)
    except InvalidAmount:
        raise CardError(f"{path}.amount", CardFault.INVALID_AMOUNT) from None
    return Tier(
        up_to=_quantity(fields["up_to"], f"{path}.up_to") if "up_to" in fields else None,
        amount_units=amount_units,
        per_quantity=_quantity(fields["per_quantity"], f"{path}.per_quantity"),
    )


def _fields(
    value: Json, path: str, required: tuple[str, ...], *, optional: tuple[str, ...] = ()
) -> Mapping[str, Json]:
    if not isinstance(value, dict):
        raise CardError(path, CardFault.WRONG_TYPE)
    for name in required:
        if name not in value:
            raise CardError(_join(path, name), CardFault.MISSING)
    for name in sorted(value):
        if name not in required and name not in optional:
            raise CardError(_join(path, name), CardFault.UNKNOWN_FIELD)
    return value


def _items(value: Json, path: str, count_max: int) -> Iterator[tuple[str, Json]]:
    if not isinstance(value, list):
        raise CardError(path, CardFault.WRONG_TYPE)
    if not 1 <= len(value) <= count_max:
        raise CardError(path, CardFault.WRONG_COUNT)
    for index, each in enumerate(value):
        yield f"{path}.{index}", each


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _text(value: Json, path: str) -> str:
    if not isinstance(value, str):
        raise CardError(path, CardFault.WRONG_TYPE)
    return value


def _slug(value: Json, path: str) -> str:
    text = _text(value, path)
    if len(text) > _TEXT_LENGTH_MAX or not SLUG.fullmatch(text):
        raise CardError(path, CardFault.INVALID_SLUG)
    return text


def _label(value: Json, path: str) -> str:
    # `isprintable` also keeps out control and bidirectional characters: a label is shown to people.
    text = _text(value, path)
    if not 1 <= len(text) <= _TEXT_LENGTH_MAX or not text.isprintable() or text != text.strip():
        raise CardError(path, CardFault.INVALID_TEXT)
    return text


def _version(value: Json) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise CardError("version", CardFault.WRONG_TYPE)
    if not 1 <= value <= _VERSION_MAX:
        raise CardError("version", CardFault.INVALID_VERSION)
    return value


def _quantity(value: Json, path: str) -> int:
    text = _text(value, path)
    if not _INTEGER.fullmatch(text) or not 1 <= int(text) <= QUANTITY_MAX:
        raise CardError(path, CardFault.INVALID_QUANTITY)
    return int(text)


def _member(kind: type[_Word], value: Json, path: str) -> _Word:
    text = _text(value, path)
    try:
        return kind(text)
    except ValueError:
        raise CardError(path, CardFault.UNKNOWN_VALUE) from None
