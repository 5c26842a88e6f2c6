"""Instants as integer microseconds since 1970 UTC, and their one text form.

Pure arithmetic: the clock lives in the server, and what needs an instant is given it.
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

__all__ = ["DAY_US", "SECOND_US", "format_time", "parse_time", "utc_day"]

SECOND_US: Final = 1_000_000
DAY_US: Final = 86_400 * SECOND_US

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_WIRE: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z", re.ASCII
)


def format_time(us: int) -> str:
    """Write an instant as RFC 3339 UTC text with exactly six fractional digits and `Z`.

    Raises:
        ValueError: The instant lies outside the years 1 to 9999.
    """
    return _at(us).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def parse_time(text: str) -> int:
    """Read the one wire form of an instant; anything else, a leap second too, is refused.

    Returns:
        Microseconds since 1970-01-01T00:00:00Z, negative before it.

    Raises:
        ValueError: The text is not of that form or names no instant.
    """
    if _WIRE.fullmatch(text) is None:
        raise ValueError("not an RFC 3339 UTC time with six fractional digits")
    return (datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND


def utc_day(us: int) -> str:
    """Name the UTC day of an instant, as in 2026-08-31.

    Raises:
        ValueError: The instant lies outside the years 1 to 9999.
    """
    return _day(us // DAY_US)


@lru_cache(maxsize=16)
def _day(number: int) -> str:
    return _at(number * DAY_US).date().isoformat()


def _at(us: int) -> datetime:
    try:
        return _EPOCH + timedelta(microseconds=us)
    except OverflowError:
        raise ValueError("the instant lies outside the years 1 to 9999") from None
