"""Exact money: assets, canonical decimal text, integer division with a named rounding rule.

Everything here is integers and text. What an amount is for is decided elsewhere (spec/money.md).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

__all__ = [
    "ASSETS",
    "INT64_MAX",
    "PPM",
    "AmountFault",
    "Asset",
    "InvalidAmount",
    "Rounding",
    "divide",
    "format_units",
    "parse_units",
    "share_ppm",
]

INT64_MAX: Final = 2**63 - 1
PPM: Final = 1_000_000

# A number that starts with no sign and no needless zero, and a fraction that ends in no zero:
# one value, one text. The bound on digits keeps int() away from hostile lengths.
_CANONICAL: Final = re.compile(r"(0|[1-9][0-9]{0,18})(?:\.([0-9]{0,17}[1-9]))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """A kind of money; one unit is 10**-scale of it, for ever."""

    code: str
    scale: int


# CRD counts credits that the platform sells or gives: a credit is bought in lots and spent by the
# call, and a millionth of one is finer than any price; an amount can still be nine million million
# credits.
# XTS is the code ISO 4217 reserves for testing: the sandbox's money can never be taken for real.
ASSETS: Final[Mapping[str, Asset]] = MappingProxyType(
    {
        code: Asset(code=code, scale=scale)
        for code, scale in (("USD", 9), ("EUR", 9), ("JPY", 6), ("XTS", 9), ("CRD", 6))
    }
)


class AmountFault(StrEnum):
    """Why a text is not an amount."""

    UNKNOWN_ASSET = "unknown_asset"
    NOT_CANONICAL = "not_canonical"
    TOO_FINE = "too_fine"
    TOO_LARGE = "too_large"


class InvalidAmount(ValueError):
    """The text or asset does not name an exact amount; says in a sentence what would."""

    def __init__(self, reason: AmountFault, asset: str) -> None:
        super().__init__(_sentence(reason, asset))
        self.reason = reason


class Rounding(StrEnum):
    """What becomes of a remainder; a rate card names one."""

    HALF_EVEN = "half_even"
    HALF_UP = "half_up"
    FLOOR = "floor"
    CEILING = "ceiling"


def parse_units(amount: str, asset: str) -> int:
    """Read a canonical decimal amount as units of its asset.

    Args:
        amount: Decimal text such as "0.0004": no sign, no exponent, no needless zero.
        asset: A code of `ASSETS`.

    Returns:
        Units, 0 to `INT64_MAX`.

    Raises:
        InvalidAmount: With the reason (spec/money.md).
    """
    scale = _scale(asset)
    match = _CANONICAL.fullmatch(amount)
    if match is None:
        raise InvalidAmount(AmountFault.NOT_CANONICAL, asset)
    whole, fraction = match[1], match[2] or ""
    if len(fraction) > scale:
        raise InvalidAmount(AmountFault.TOO_FINE, asset)
    units = int(whole + fraction.ljust(scale, "0"))
    if units > INT64_MAX:
        raise InvalidAmount(AmountFault.TOO_LARGE, asset)
    return units


def format_units(units: int, asset: str) -> str:
    """Write units as the canonical decimal text of their asset; a debt carries a minus sign.

    Raises:
        InvalidAmount: The asset is unknown.
    """
    scale = _scale(asset)
    whole, fraction = divmod(abs(units), 10**scale)
    tail = f"{fraction:0{scale}d}".rstrip("0")
    text = f"{whole}.{tail}" if tail else str(whole)
    return f"-{text}" if units < 0 else text


def divide(numerator: int, denominator: int, rule: Rounding) -> int:
    """Divide integers and round by the rule.

    Half-even and half-up treat a negative number as the mirror of the positive one, so that a
    credit undoes its charge to the unit. Floor goes down and ceiling goes up, whatever the sign.

    Args:
        numerator: Any integer.
        denominator: Above zero.
        rule: What becomes of the remainder.

    Raises:
        ValueError: The denominator is not positive.
    """
    if denominator <= 0:
        raise ValueError("the denominator must be positive")
    if rule is Rounding.FLOOR:
        return numerator // denominator
    if rule is Rounding.CEILING:
        return -(-numerator // denominator)
    quotient, remainder = divmod(abs(numerator), denominator)
    twice = 2 * remainder
    if twice > denominator or (
        twice == denominator and (rule is Rounding.HALF_UP or quotient % 2 == 1)
    ):
        quotient += 1
    return -quotient if numerator < 0 else quotient


def share_ppm(units: int, ppm: int) -> int:
    """Take `ppm` millionths of an amount, rounded half-even."""
    return divide(units * ppm, PPM, Rounding.HALF_EVEN)


def _scale(asset: str) -> int:
    known = ASSETS.get(asset)
    if known is None:
        raise InvalidAmount(AmountFault.UNKNOWN_ASSET, asset)
    return known.scale


def _sentence(fault: AmountFault, asset: str) -> str:
    match fault:
        case AmountFault.UNKNOWN_ASSET:
            return f"An asset is one of {', '.join(ASSETS)}."
        case AmountFault.NOT_CANONICAL:
            return "An amount is written as 12.5: no sign, no exponent, no needless zeros."
        case AmountFault.TOO_FINE:
            return f"The smallest amount is {format_units(1, asset)} {asset}."
        case AmountFault.TOO_LARGE:
            return f"The largest amount is {format_units(INT64_MAX, asset)} {asset}."
