"""What usage costs, written a second time with fractions and nothing of the code under test."""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

SCALES = {"USD": 9, "EUR": 9, "JPY": 6, "XTS": 9}


def exact_price(card: Mapping[str, Any], meter: str, quantity: int) -> Fraction:
    """The unrounded price, in units, of the first `quantity` of a meter."""
    (dimension,) = [each for each in card["dimensions"] if each["meter"] == meter]
    total, start = Fraction(0), 0
    for tier in dimension["tiers"]:
        end = min(quantity, int(tier["up_to"])) if "up_to" in tier else quantity
        if end > start:
            each_unit = Fraction(tier["amount"]) / int(tier["per_quantity"])
            total += (end - start) * each_unit * 10 ** SCALES[card["asset"]]
            start = end
    return total


def rounded(exact: Fraction, rule: str) -> int:
    match rule:
        case "half_even":
            return round(exact)
        case "half_up":
            return math.floor(exact + Fraction(1, 2))
        case "floor":
            return math.floor(exact)
        case "ceiling":
            return math.ceil(exact)
        case _:
            raise AssertionError(rule)


def line_units(card: Mapping[str, Any], meter: str, start: int, end: int) -> int:
    """What a line from one cumulative quantity to another costs."""
    before = rounded(exact_price(card, meter, start), card["rounding"])
    return rounded(exact_price(card, meter, end), card["rounding"]) - before


def total_units(
    card: Mapping[str, Any], position: Mapping[str, int], usage: Mapping[str, int]
) -> int:
    return sum(
        line_units(card, meter, position.get(meter, 0), position.get(meter, 0) + quantity)
        for meter, quantity in usage.items()
    )
