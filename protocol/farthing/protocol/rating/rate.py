"""Rating: what usage from a position costs under a card, exactly, with a trace of every line.

Boundary: integers in, integers out. Which card and which position apply is the caller's knowledge.
Source: spec/rating.md.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from farthing.protocol.canonical import Json
from farthing.protocol.money import INT64_MAX, Rounding, divide
from farthing.protocol.rating.card import (
    QUANTITY_MAX,
    CompiledCard,
    CompiledDimension,
    RateCard,
    compile_card,
)

__all__ = [
    "START",
    "InvalidLine",
    "Line",
    "Portion",
    "Position",
    "Rating",
    "RatingCode",
    "RatingError",
    "first_fault",
    "line_document",
    "parse_line",
    "price_at",
    "quantity_after",
    "rate",
]

Position = Mapping[str, int]
"""Cumulative quantity by meter; a meter not named stands at 0."""
START: Final[Position] = {}
"""Where every agreement begins."""


class RatingCode(StrEnum):
    """Why usage cannot be rated, in order of precedence."""

    UNKNOWN_METER = "unknown_meter"
    INVALID_QUANTITY = "invalid_quantity"
    AMOUNT_OVERFLOW = "amount_overflow"


class RatingError(ValueError):
    """Usage that this card cannot rate.

    Attributes:
        code: The reason, a `RatingCode`.
        meter: The offending meter, `""` where the sum over all meters is at fault.
    """

    def __init__(self, code: RatingCode, meter: str = "") -> None:
        text = f"{code}: {meter}" if meter else code.value
        if code is RatingCode.UNKNOWN_METER:
            text = f"The rate card has no price for the meter {meter}."
        elif code is RatingCode.INVALID_QUANTITY:
            text = f"The meter {meter} counts from 0 to {QUANTITY_MAX} under an agreement."
        super().__init__(text)
        self.code = code
        self.meter = meter


class InvalidLine(ValueError):
    """A document that is not a line, or a line that contradicts itself."""


# Lines, portions and ratings are named tuples, not frozen dataclasses: those take 1.7 us to build
# where these take 0.4, and the paid path builds one of each per call.
class Portion(NamedTuple):
    """The part of a line that lies in one tier, with that tier's price."""

    from_quantity: int
    to_quantity: int
    amount_units: int
    """The tier's price for every `per_quantity`; not the portion's own amount."""
    per_quantity: int

    @property
    def numerator(self) -> int:
        """The exact amount of the portion is `numerator / per_quantity` units."""
        return (self.to_quantity - self.from_quantity) * self.amount_units


class Line(NamedTuple):
    """One meter's usage between two cumulative quantities, rated and explained.

    `amount_units` is `round(price of to_quantity) - round(price of from_quantity)`, so it may
    differ by one unit from the rounded price of the portions alone; over a period the differences
    cancel.
    """

    card_sha256: str
    rule_id: str
    meter: str
    from_quantity: int
    to_quantity: int
    portions: tuple[Portion, ...]
    rounding: Rounding
    amount_units: int

    @property
    def quantity(self) -> int:
        """What was used."""
        return self.to_quantity - self.from_quantity

    @property
    def exact(self) -> tuple[int, int]:
        """The unrounded price of the portions, as numerator and denominator in lowest terms."""
        denominator = math.lcm(*(portion.per_quantity for portion in self.portions))
        numerator = sum(
            portion.numerator * (denominator // portion.per_quantity) for portion in self.portions
        )
        shared = math.gcd(numerator, denominator)
        return numerator // shared, denominator // shared


class Rating(NamedTuple):
    """The lines by name of meter, their total, and where the next rating starts."""

    lines: tuple[Line, ...]
    total_units: int
    position_after: dict[str, int]


def rate(card: RateCard | CompiledCard, position: Position, usage: Mapping[str, int]) -> Rating:
    """Rate `usage` on top of `position`.

    However usage is split or merged, the totals agree. A meter overflows when the price of all its
    usage in the period does, so splitting is no way around that either.

    Args:
        card: The card, best compiled by the caller once.
        position: Cumulative quantities before this usage; meters the card lacks pass through.
        usage: Quantities by meter, each 0 to `QUANTITY_MAX`.

    Raises:
        RatingError: For the first meter by name that fails, the first `RatingCode` that applies.
    """
    compiled = card if isinstance(card, CompiledCard) else compile_card(card)
    lines: list[Line] = []
    total_units = 0
    position_after = dict(position)
    for meter in usage if len(usage) == 1 else sorted(usage):
        dimension = compiled.by_meter.get(meter)
        if dimension is None:
            raise RatingError(RatingCode.UNKNOWN_METER, meter)
        start = position.get(meter, 0)
        end = quantity_after(start, usage[meter], meter)
        line = _line(compiled.card.card_sha256, dimension, start, end)
        lines.append(line)
        total_units += line.amount_units
        position_after[meter] = end
    if total_units > INT64_MAX:
        raise RatingError(RatingCode.AMOUNT_OVERFLOW)
    return Rating(tuple(lines), total_units, position_after)


def first_fault(
    card: RateCard | CompiledCard, position: Position, usage: Mapping[str, int]
) -> RatingError | None:
    """The first fault in precedence that any meter has; None where each can be rated by itself."""
    faults: list[RatingError] = []
    for meter in sorted(usage):
        try:
            rate(card, position, {meter: usage[meter]})
        except RatingError as error:
            faults.append(error)
    order = list(RatingCode)
    return min(faults, key=lambda fault: order.index(fault.code), default=None)


def line_document(line: Line) -> dict[str, Json]:
    """The line as journal records and receipts carry it: every number an integer string."""
    return {
        "card_sha256": line.card_sha256,
        "rule_id": line.rule_id,
        "meter": line.meter,
        "quantity": str(line.quantity),
        "from": str(line.from_quantity),
        "to": str(line.to_quantity),
        "tiers": [_portion_document(portion) for portion in line.portions],
        "rounding": line.rounding.value,
        "units": str(line.amount_units),
    }


def parse_line(document: Json) -> Line:
    """Read what `line_document` wrote, and check that the line adds up in itself.

    Whether the card really says so is another question: rate its quantity from its start again.

    Raises:
        InvalidLine: The document is not exactly a line's, or its figures contradict each other.
    """
    try:
        line = _read_line(document)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidLine(f"not a line: {error!r}") from None
    # Comparing with what we would write refuses unknown members and every second spelling at once.
    if line_document(line) != document:
        raise InvalidLine("not in canonical form")
    if not _adds_up(line):
        raise InvalidLine("the figures contradict each other")
    return line


def quantity_after(start: int, quantity: int, meter: str) -> int:
    """Where a meter stands after a quantity; `invalid_quantity` where that is nowhere."""
    # `type is int`, because True is an int to isinstance and no quantity.
    if type(start) is int and type(quantity) is int and start >= 0 and quantity >= 0:
        end = start + quantity
        if end <= QUANTITY_MAX:
            return end
    raise RatingError(RatingCode.INVALID_QUANTITY, meter)


def _line(sha256: str, dimension: CompiledDimension, start: int, end: int) -> Line:
    last = bisect_left(dimension.ends, end)
    first = min(bisect_right(dimension.ends, start), last)
    after_units = price_at(dimension, last, end)
    if after_units > INT64_MAX:
        raise RatingError(RatingCode.AMOUNT_OVERFLOW, dimension.meter)
    before_units = price_at(dimension, first, start) if start else 0
    assert 0 <= before_units <= after_units, "prices never fall as usage grows"
    return Line(
        sha256,
        dimension.rule_id,
        dimension.meter,
        start,
        end,
        _portions(dimension, first, last, start, end),
        dimension.rounding,
        after_units - before_units,
    )


def price_at(dimension: CompiledDimension, tier: int, quantity: int) -> int:
    """The rounded price in units of the first `quantity`, the last of it lying in `tier`."""
    exact = dimension.before[tier] + (quantity - dimension.starts[tier]) * dimension.rates[tier]
    if dimension.denominator == 1:
        return exact
    return divide(exact, dimension.denominator, dimension.rounding)


def _portions(
    dimension: CompiledDimension, first: int, last: int, start: int, end: int
) -> tuple[Portion, ...]:
    if first == last and start < end:
        tier = dimension.tiers[first]
        return (Portion(start, end, tier.amount_units, tier.per_quantity),)
    starts, ends = dimension.starts, dimension.ends
    return tuple(
        Portion(max(start, starts[i]), min(end, ends[i]), tier.amount_units, tier.per_quantity)
        for i, tier in enumerate(dimension.tiers[first : last + 1], first)
        if start < end
    )


def _portion_document(portion: Portion) -> dict[str, Json]:
    return {
        "from": str(portion.from_quantity),
        "to": str(portion.to_quantity),
        "units": str(portion.amount_units),
        "per_quantity": str(portion.per_quantity),
        "numerator": str(portion.numerator),
        "denominator": str(portion.per_quantity),
    }


def _read_line(document: Json) -> Line:
    if not isinstance(document, dict) or not isinstance(document["tiers"], list):
        raise TypeError("not an object with a list of tiers")
    return Line(
        card_sha256=_read_text(document["card_sha256"]),
        rule_id=_read_text(document["rule_id"]),
        meter=_read_text(document["meter"]),
        from_quantity=_read_integer(document["from"]),
        to_quantity=_read_integer(document["to"]),
        portions=tuple(_read_portion(each) for each in document["tiers"]),
        rounding=Rounding(_read_text(document["rounding"])),
        amount_units=_read_integer(document["units"]),
    )


def _read_portion(document: Json) -> Portion:
    if not isinstance(document, dict):
        raise TypeError("a tier is not an object")
    return Portion(
        from_quantity=_read_integer(document["from"]),
        to_quantity=_read_integer(document["to"]),
        amount_units=_read_integer(document["units"]),
        per_quantity=_read_integer(document["per_quantity"]),
    )


def _read_text(value: Json) -> str:
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value


def _read_integer(value: Json) -> int:
    text = _read_text(value)
    if len(text) > len(str(INT64_MAX)):
        raise ValueError("an integer out of range")
    return int(text)


def _adds_up(line: Line) -> bool:
    if not 0 <= line.from_quantity <= line.to_quantity <= QUANTITY_MAX:
        return False
    reached = line.from_quantity
    for portion in line.portions:
        if portion.from_quantity != reached or portion.to_quantity <= reached:
            return False
        if portion.amount_units < 0 or portion.per_quantity < 1:
            return False
        reached = portion.to_quantity
    if reached != line.to_quantity:
        return False
    # Two rounded prices lie within one unit of the exact difference, whatever the rule.
    numerator, denominator = line.exact
    gap = abs(line.amount_units * denominator - numerator)
    return 0 <= line.amount_units <= INT64_MAX and gap <= denominator
