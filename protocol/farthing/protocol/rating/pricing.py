"""Questions about prices, answered by rating: what usage costs, what to hold, is a line right.

Boundary: no arithmetic of its own, so that a quote, a hold, a capture and a dispute cannot differ.
Source: spec/rating.md.
"""

from collections.abc import Mapping

from farthing.protocol.rating.card import CompiledCard, RateCard
from farthing.protocol.rating.rate import Line, Position, rate

__all__ = ["hold_units_for", "price_of", "rerate"]


def price_of(card: RateCard | CompiledCard, position: Position, usage: Mapping[str, int]) -> int:
    """What `usage` costs from `position`, in units of the card's asset.

    Raises:
        RatingError: As `rate`.
    """
    return rate(card, position, usage).total_units


def hold_units_for(
    card: RateCard | CompiledCard, position: Position, usage_max: Mapping[str, int]
) -> int:
    """What to hold when the work may use up to `usage_max` and is captured from `position`.

    Prices never fall as usage grows, so no capture within `usage_max` from the same position costs
    more than this.

    Raises:
        RatingError: As `rate`.
    """
    return price_of(card, position, usage_max)


def rerate(card: RateCard | CompiledCard, line: Line) -> Line:
    """The line as the card has it; equal to `line` if, and only if, `line` was computed rightly.

    Raises:
        RatingError: As `rate`; `unknown_meter` too when the card has no such meter.
    """
    rating = rate(card, {line.meter: line.from_quantity}, {line.meter: line.quantity})
    return rating.lines[0]
