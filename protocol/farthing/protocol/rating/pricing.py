"""What usage costs, for whoever asks for the sum alone.

Boundary: no arithmetic of its own. Source: spec/rating.md.
"""

from collections.abc import Mapping

from farthing.protocol.rating.card import CompiledCard, RateCard
from farthing.protocol.rating.rate import Position, rate

__all__ = ["price_of"]


def price_of(card: RateCard | CompiledCard, position: Position, usage: Mapping[str, int]) -> int:
    """What `usage` costs from `position`, in units of the card's asset.

    Raises:
        RatingError: As `rate`.
    """
    return rate(card, position, usage).total_units
