"""What a session's calls cost by the buyer's own count, beside what the vendor says.

Boundary: pure. Answers come back in another order than the vendor worked them off, so under a card
with tiers or fractions one call's amount may differ while calls are out; their sum may not.
Source: spec/sessions.md.
"""

from collections.abc import Mapping

from farthing.protocol.rating import Position, RateCard, compile_card
from farthing.protocol.rating.running import Running

__all__ = ["Recount"]


class Recount:
    """The buyer's count of one session.

    Args:
        card: The agreement's rate card.
        position: Where the session's first call is rated from, or the next one after a restart.
        drift_units: By how much the vendor is above this count, from before a restart.
    """

    def __init__(self, card: RateCard, position: Position, drift_units: int = 0) -> None:
        self._running = Running(card, position)
        self._drift_units = drift_units
        # Then the order of calls changes no amount.
        self._is_flat = compile_card(card).is_flat

    @property
    def position(self) -> Position:
        """What has been counted, with what was there before."""
        return self._running.position

    @property
    def drift_units(self) -> int:
        """By how much the vendor's amounts are above this count, as long as that is in order."""
        return self._drift_units

    def count(self, usage: Mapping[str, int], said_units: int, *, alone: bool) -> tuple[int, bool]:
        """Count one answered call.

        Args:
            usage: What it used.
            said_units: What it costs in the vendor's words.
            alone: Whether every other call of the session is accounted for.

        Returns:
            What the card gives, and whether the vendor's amount can be right.

        Raises:
            RatingError: The card cannot rate this usage; nothing is counted.
        """
        units = self._running.price(usage)
        self._running.take()
        if self._is_flat:
            return units, units == said_units
        self._drift_units += said_units - units
        is_right = not alone or not self._drift_units
        if alone:
            self._drift_units = 0
        return units, is_right
