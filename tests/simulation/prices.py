"""What usage costs by a rate card's document, worked out with fractions.

Boundary: imports nothing from farthing. It is what the engine's own arithmetic is held against.
"""

from collections.abc import Mapping
from fractions import Fraction
from math import ceil, floor
from typing import Any, Final

__all__ = ["SCALES", "price", "share", "units_of"]

SCALES: Final[dict[str, int]] = {"EUR": 9, "JPY": 6, "USD": 9, "XTS": 9}


def units_of(amount: str, asset: str) -> Fraction:
    """A decimal amount of an asset in its units."""
    return Fraction(amount) * Fraction(10 ** SCALES[asset])


def price(card: dict[str, Any], position: Mapping[str, int], usage: Mapping[str, int]) -> int:
    """The price of usage from a position on, each dimension rounded by itself."""
    dimensions = {each["meter"]: each for each in card["dimensions"]}
    total = 0
    for meter, quantity in usage.items():
        tiers, start = dimensions[meter]["tiers"], position.get(meter, 0)
        after, before = (
            _rounded(_cumulative(tiers, card["asset"], to), card["rounding"])
            for to in (start + quantity, start)
        )
        total += after - before
    return total


def share(units: int, ppm: int) -> int:
    """A share in millionths, half to even."""
    return round(Fraction(units * ppm, 1_000_000))


def _cumulative(tiers: list[dict[str, str]], asset: str, quantity: int) -> Fraction:
    total, begin = Fraction(0), 0
    for tier in tiers:
        end = min(int(tier.get("up_to", quantity)), quantity)
        if end > begin:
            each = units_of(tier["amount"], asset) / int(tier["per_quantity"])
            total += each * (end - begin)
            begin = end
    return total


def _rounded(exact: Fraction, rule: str) -> int:
    match rule:
        case "half_even":
            return round(exact)
        case "half_up":
            return floor(exact + Fraction(1, 2))
        case "floor":
            return floor(exact)
        case _:
            return ceil(exact)
