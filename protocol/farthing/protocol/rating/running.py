"""Rating one call after the other from a position that moves: sums only, at machine rate.

Boundary: the arithmetic is `rate`'s, carried along; what it gives for any split and merge of the
usage is what `rate` gives. For the lines behind a sum ask `rate`. Source: spec/rating.md.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

from farthing.protocol.money import INT64_MAX
from farthing.protocol.rating.card import CompiledCard, CompiledDimension, RateCard, compile_card
from farthing.protocol.rating.rate import (
    Position,
    RatingCode,
    RatingError,
    price_at,
    quantity_after,
)

__all__ = ["Running"]


class _Meter:
    """Where one meter stands: its quantity, the tier that lies in, the rounded price so far."""

    __slots__ = ("dimension", "end", "quantity", "rate", "tier", "units")

    def __init__(self, dimension: CompiledDimension, quantity: int) -> None:
        self.dimension = dimension
        self.move(quantity, price_at(dimension, bisect_left(dimension.ends, quantity), quantity))

    def move(self, quantity: int, units: int) -> None:
        dimension = self.dimension
        self.quantity = quantity
        self.units = units
        self.tier = tier = bisect_left(dimension.ends, quantity)
        # Within the tier a whole price adds up; 0 stands for a price that has to be rounded.
        self.end = dimension.ends[tier] if dimension.denominator == 1 else 0
        self.rate = dimension.rates[tier]

    def units_at(self, quantity: int) -> int:
        if quantity <= self.end:
            return self.units + (quantity - self.quantity) * self.rate
        tier = bisect_left(self.dimension.ends, quantity, self.tier)
        return price_at(self.dimension, tier, quantity)

    def each_at(self, quantities: Sequence[int], last: int) -> list[int]:
        """What each of some quantities adds, one after the other up to `last`."""
        if last <= self.end:
            return [quantity * self.rate for quantity in quantities]
        sums = [self.units_at(each) for each in accumulate(quantities, initial=self.quantity)]
        return [after - before for before, after in pairwise(sums)]


class Running:
    """A rating that goes on.

    Args:
        card: The card of the agreement.
        position: Cumulative quantities before the first call.
    """

    def __init__(self, card: RateCard | CompiledCard, position: Position) -> None:
        compiled = card if isinstance(card, CompiledCard) else compile_card(card)
        self._by_meter = compiled.by_meter
        self._position = dict(position)
        self._meters: dict[str, _Meter] = {}
        self._priced: list[tuple[str, _Meter, int, int]] = []

    @property
    def position(self) -> dict[str, int]:
        """Cumulative quantities with all that was taken."""
        return dict(self._position)

    def lacks(self, usage: Mapping[str, int]) -> bool:
        """Whether the card has no price for a meter of `usage`."""
        return not usage.keys() <= self._by_meter.keys()

    def price(self, usage: Mapping[str, int]) -> int:
        """What `usage` adds to what was taken so far, in units of the card's asset.

        Raises:
            RatingError: As `rate`; what was priced before is forgotten.
        """
        self._priced = []
        priced: list[tuple[str, _Meter, int, int]] = []
        total_units = 0
        for name in usage if len(usage) == 1 else sorted(usage):
            meter = self._meters.get(name) or self._meter(name)
            quantity = quantity_after(meter.quantity, usage[name], name)
            units = meter.units_at(quantity)
            if units > INT64_MAX:
                raise RatingError(RatingCode.AMOUNT_OVERFLOW, name)
            priced.append((name, meter, quantity, units))
            total_units += units - meter.units
        if total_units > INT64_MAX:
            raise RatingError(RatingCode.AMOUNT_OVERFLOW)
        self._priced = priced
        return total_units

    def take(self) -> None:
        """Keep what was priced last."""
        for name, meter, quantity, units in self._priced:
            self._position[name] = quantity
            if quantity <= meter.end:
                meter.quantity, meter.units = quantity, units
            else:
                meter.move(quantity, units)
        self._priced = []

    def take_all(self, usage: Mapping[str, Sequence[int]]) -> list[int]:
        """Price and keep many calls at once, in order.

        Args:
            usage: By meter what each call used, 0 where nothing; every meter has as many places.

        Returns:
            What each call adds, in units.

        Raises:
            RatingError: As `price`, for any of them; then nothing is kept.
        """
        self._priced = []
        priced: list[tuple[str, _Meter, int, int]] = []
        columns: list[list[int]] = []
        for name, quantities in usage.items():
            meter = self._meters.get(name) or self._meter(name)
            quantity = quantity_after(meter.quantity, sum(quantities), name)
            units = meter.units_at(quantity)
            if units > INT64_MAX:
                raise RatingError(RatingCode.AMOUNT_OVERFLOW, name)
            priced.append((name, meter, quantity, units))
            columns.append(meter.each_at(quantities, quantity))
        totals = columns[0] if len(columns) == 1 else list(map(sum, zip(*columns, strict=True)))
        if totals and max(totals) > INT64_MAX:
            raise RatingError(RatingCode.AMOUNT_OVERFLOW)
        self._priced = priced
        self.take()
        return totals

    def _meter(self, name: str) -> _Meter:
        dimension = self._by_meter.get(name)
        if dimension is None:
            raise RatingError(RatingCode.UNKNOWN_METER, name)
        start = quantity_after(self._position.get(name, 0), 0, name)
        meter = self._meters[name] = _Meter(dimension, start)
        return meter
