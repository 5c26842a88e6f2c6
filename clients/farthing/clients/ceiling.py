"""A ceiling on what leaves this machine: per purchase and per day, kept in a file.

Boundary: local and durable, a second belt beside the operator's grant. What may have been spent
counts as spent until it is known better. Amounts are units of an asset; days are UTC.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, cast

from farthing.clients.files import FILE_MODE, make_directory, write_whole
from farthing.protocol.canonical import InvalidJson, Json, canonical_bytes, parse_json
from farthing.protocol.errors import Code, Refused, Unverified, refuse
from farthing.protocol.money import InvalidAmount, format_units, parse_units
from farthing.protocol.times import utc_day
from farthing.protocol.wire import Money, money

__all__ = ["DEFAULT_LIMITS", "Ceiling", "Left", "Limit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What may be spent of one asset, as canonical amounts."""

    per_purchase: str
    per_day: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What one asset's ceiling still allows today."""

    per_purchase: Money
    per_day: Money
    today: Money


DEFAULT_LIMITS: Final[Mapping[str, Limit]] = MappingProxyType({
    "USD": Limit(per_purchase="1", per_day="10"),
    "EUR": Limit(per_purchase="1", per_day="10"),
    "JPY": Limit(per_purchase="150", per_day="1500"),
    # Sandbox money.
    "XTS": Limit(per_purchase="1000", per_day="10000"),
    "CRD": Limit(per_purchase="100", per_day="1000"),
})  # fmt: skip

# Days with counts that are kept beside today's: a clock that was wrong for a while forgets nothing.
_DAYS_KEPT: Final = 7

JsonObject = dict[str, Json]


class Ceiling:
    """The file. It holds the limits, which a person may edit, and today's reservations.

    Args:
        path: The file; made with `DEFAULT_LIMITS` if it is not there.

    Raises:
        Unverified: The file is damaged. Nothing is spent until somebody looks at it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._opened() as document:
            _limits(document)

    def reserve(self, key: str, amount: Money, now_us: int) -> Money:
        """Count a purchase before it is made. Under the same key it is counted once, at its most.

        Returns:
            What was counted under the key before: what is to be settled where nothing comes of it.

        Raises:
            Refused: `local_limit_exceeded`, with what remains; nothing is counted.
            Unverified: As the constructor.
        """
        units, asset = amount.units, amount.asset
        with self._opened() as document:
            limit = _limits(document).get(asset)
            if limit is None:
                raise _refused(units, 0, asset, f"no ceiling is set for {asset} in {self._path}")
            today = _today(document, now_us)
            kept = _kept(today, asset)
            spent_units = sum(kept.values()) - kept.get(key, 0)
            per_purchase = parse_units(limit.per_purchase, asset)
            left_units = max(parse_units(limit.per_day, asset) - spent_units, 0)
            if units > per_purchase:
                raise _refused(units, per_purchase, asset, "more than one purchase may cost")
            if units > left_units:
                raise _refused(units, left_units, asset, "more than is left for today")
            before_units = kept.get(key, 0)
            _keep(today, asset, {**kept, key: max(units, before_units)})
            self._write(document)
            return money(before_units, asset)

    def settle(self, key: str, amount: Money, now_us: int) -> None:
        """Count what a purchase came to: nothing, where it was not made."""
        with self._opened() as document:
            today = _today(document, now_us)
            kept = {name: each for name, each in _kept(today, amount.asset).items() if name != key}
            if units := amount.units:
                kept[key] = units
            _keep(today, amount.asset, kept)
            self._write(document)

    def left(self, now_us: int) -> tuple[Left, ...]:
        """What each asset's ceiling still allows."""
        with self._opened() as document:
            today = _today(document, now_us)
            left: list[Left] = []
            for asset, limit in _limits(document).items():
                spent_units = sum(_kept(today, asset).values())
                units = max(parse_units(limit.per_day, asset) - spent_units, 0)
                left.append(
                    Left(
                        per_purchase=Money(amount=limit.per_purchase, asset=asset),
                        per_day=Money(amount=limit.per_day, asset=asset),
                        today=Money(amount=format_units(units, asset), asset=asset),
                    )
                )
            return tuple(left)

    @contextmanager
    def _opened(self) -> Iterator[JsonObject]:
        """The file's document, with every other process of this machine kept out."""
        make_directory(self._path.parent)
        lock = os.open(
            self._path.with_name(f"{self._path.name}.lock"), os.O_RDWR | os.O_CREAT, FILE_MODE
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self._read()
        finally:
            os.close(lock)

    def _read(self) -> JsonObject:
        try:
            document = parse_json(self._path.read_bytes())
        except FileNotFoundError:
            document = {
                "limits": {
                    asset: {"per_purchase": limit.per_purchase, "per_day": limit.per_day}
                    for asset, limit in DEFAULT_LIMITS.items()
                }
            }
            self._write(document)
        except InvalidJson as error:
            raise Unverified(f"{self._path} is damaged: {error}") from None
        if not isinstance(document, dict):
            raise Unverified(f"{self._path} is damaged: not an object")
        return document

    def _write(self, document: JsonObject) -> None:
        write_whole(self._path, canonical_bytes(document) + b"\n")


def _limits(document: JsonObject) -> dict[str, Limit]:
    limits: dict[str, Limit] = {}
    given = document.get("limits")
    for asset, each in (given if isinstance(given, dict) else {}).items():
        amounts = each if isinstance(each, dict) else {}
        limit = Limit(
            per_purchase=str(amounts.get("per_purchase")), per_day=str(amounts.get("per_day"))
        )
        try:
            parse_units(limit.per_purchase, asset)
            parse_units(limit.per_day, asset)
        except InvalidAmount as error:
            raise Unverified(f"the ceiling for {asset} is no amount: {error}") from None
        limits[asset] = limit
    return limits


def _today(document: JsonObject, now_us: int) -> JsonObject:
    """Today's reservations by asset and key; those of days long past are forgotten."""
    day = utc_day(now_us)
    spent = document.get("spent")
    days = spent if isinstance(spent, dict) else {}
    today = days.get(day)
    kept: JsonObject = today if isinstance(today, dict) else {}
    others = sorted(days.keys() - {day})[-_DAYS_KEPT:]
    document["spent"] = {**{each: days[each] for each in others}, day: kept}
    return kept


def _kept(today: JsonObject, asset: str) -> dict[str, int]:
    kept = today.get(asset)
    if kept is None:
        return {}
    try:
        return {key: int(str(units)) for key, units in cast("JsonObject", kept).items()}
    except (AttributeError, ValueError):
        raise Unverified(f"what was spent of {asset} today is damaged") from None


def _keep(today: JsonObject, asset: str, kept: Mapping[str, int]) -> None:
    today[asset] = {key: str(units) for key, units in kept.items()}


def _refused(units: int, left_units: int, asset: str, why: str) -> Refused:
    return Refused(
        refuse(
            Code.LOCAL_LIMIT_EXCEEDED,
            path="amount",
            required=format_units(units, asset),
            remaining=format_units(left_units, asset),
            asset=asset,
            message=f"{Code.LOCAL_LIMIT_EXCEEDED.says} ({why})",
        )
    )
