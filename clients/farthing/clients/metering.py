"""What a call used: meters read from a tool's arguments, from its result, or fixed.

Boundary: how a vendor says it, checked when the tool is declared. What usage costs is rating.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from farthing.protocol.rating import RateCard

__all__ = ["Meter", "Meters", "least_units"]

Meter: TypeAlias = int | Callable[..., int]
"""A fixed quantity, or a function of the tool's arguments by name and of `result`."""

_RESULT: Final = "result"


@dataclass(frozen=True, slots=True)
class _Reading:
    count: Callable[..., int]
    names: tuple[str, ...]

    def quantity(self, meter: str, values: Mapping[str, object]) -> int:
        quantity = self.count(**{name: values[name] for name in self.names})
        if type(quantity) is not int or quantity < 0:
            raise ValueError(f"meter {meter!r} gave {quantity!r}: a quantity is an integer from 0")
        return quantity


class Meters:
    """The meters of one tool.

    Args:
        meters: By name, as the rate card has them.
        signature: The tool's own.
        card: The rate card; each of its meters must be read, and no other.

    Raises:
        ValueError: A meter is missing, unknown, or asks for something the tool does not have.
    """

    def __init__(
        self, meters: Mapping[str, Meter], signature: inspect.Signature, card: RateCard
    ) -> None:
        priced = {dimension.meter for dimension in card.dimensions}
        if unknown := sorted(set(meters) - priced):
            raise ValueError(f"the rate card {card.card_id} has no price for {', '.join(unknown)}")
        if missing := sorted(priced - set(meters)):
            raise ValueError(f"the rate card {card.card_id} also has {', '.join(missing)}")
        self._readings = {name: _reading(name, meter, signature) for name, meter in meters.items()}
        names = {name for reading in self._readings.values() for name in reading.names}
        self.need_result = _RESULT in names
        # To look at what was sent may be work: a file to be counted.
        self.need_arguments = bool(names - {_RESULT})

    def before(self, arguments: Mapping[str, object]) -> dict[str, int] | None:
        """What the call will use, None where a meter needs the result.

        Args:
            arguments: The tool's arguments as Python values, by name.
        """
        return None if self.need_result else self._read(arguments)

    def after(self, arguments: Mapping[str, object], result: object) -> dict[str, int]:
        """What the call used.

        Args:
            arguments: As `before`.
            result: What the tool returned.
        """
        return self._read({**arguments, _RESULT: result})

    def fixed(self) -> dict[str, int] | None:
        """What every call uses, None where it depends on the call."""
        return None if any(each.names for each in self._readings.values()) else self._read({})

    def smallest(self) -> dict[str, int]:
        """The smallest use there is: one of each meter."""
        return dict.fromkeys(self._readings, 1)

    def _read(self, values: Mapping[str, object]) -> dict[str, int]:
        return {name: reading.quantity(name, values) for name, reading in self._readings.items()}


def least_units(card: RateCard, usage: Mapping[str, int]) -> int:
    """The least that usage can cost under a card, from whatever position.

    Every unit at its cheapest tier, less one for the rounding of each line.
    """
    least = 0
    for dimension in card.dimensions:
        quantity = usage.get(dimension.meter, 0)
        cheapest = min(
            quantity * tier.amount_units // tier.per_quantity for tier in dimension.tiers
        )
        least += max(cheapest - 1, 0)
    return least


def _reading(name: str, meter: Meter, signature: inspect.Signature) -> _Reading:
    if isinstance(meter, int):
        quantity = meter
        return _Reading(lambda: quantity, ())
    wanted = tuple(inspect.signature(meter).parameters)
    if _RESULT in signature.parameters and _RESULT in wanted:
        raise ValueError(f"meter {name!r}: the tool has an argument that is called result")
    if unknown := [each for each in wanted if each != _RESULT and each not in signature.parameters]:
        raise ValueError(f"meter {name!r}: the tool has no argument {', '.join(unknown)}")
    return _Reading(meter, wanted)
