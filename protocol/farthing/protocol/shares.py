"""Who gives what to whom where several give and several take: exact, in one fixed order.

Boundary: arithmetic on pairs of account and units. The engine posts captures, refunds and rulings
by it, and whoever proves them again uses the very same. Source: spec/ledger.md.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from farthing.protocol.ledger import Movement, Transfer
from farthing.protocol.money import share_ppm

__all__ = ["Part", "back_of", "first_of", "merged", "partner_share", "spread"]


class Part(NamedTuple):
    """An account's part of an amount."""

    account: str
    units: int


def partner_share(units: int, fee_units: int, ppm: int) -> int:
    """The partner's share of a charge: half-even as the fee is, and never into the fee."""
    return min(share_ppm(units, ppm), units - fee_units)


def first_of(parts: Iterable[Part], units: int) -> list[Part]:
    """The first `units` of parts in their order: what is consumed of what was set aside."""
    taken: list[Part] = []
    for part in parts:
        amount_units = min(part.units, units)
        units -= amount_units
        taken.append(Part(part.account, amount_units))
    assert units == 0, "no more is taken than there is"
    return taken


def back_of(parts: Sequence[Part], before_units: int, units: int) -> list[Part]:
    """The parts of what is given back: the last consumed comes first.

    Args:
        parts: what was consumed, in the order of consumption.
        before_units: what of it has been given back before, from the end.
        units: what is given back now.
    """
    given: list[Part] = []
    for part in reversed(parts):
        skipped_units = min(part.units, before_units)
        before_units -= skipped_units
        amount_units = min(part.units - skipped_units, units)
        units -= amount_units
        given.append(Part(part.account, amount_units))
    assert units == 0, "no more is given back than was consumed"
    return given


def merged(parts: Iterable[Part]) -> list[Part]:
    """One part for each account, in the order of their first."""
    sums: dict[str, int] = {}
    for part in parts:
        sums[part.account] = sums.get(part.account, 0) + part.units
    return [Part(account, units) for account, units in sums.items()]


def spread(
    givers: Iterable[Part],
    takers: Iterable[Part],
    asset: str,
    movement: Movement = Movement.POST,
) -> list[Transfer]:
    """The transfers that take every giver's part to the takers, both in their order.

    Each giver gives to the first taker that still lacks something: no unit is divided, so nothing
    is rounded, and there are fewer transfers than givers and takers.
    """
    transfers: list[Transfer] = []
    lacking = merged(takers)
    place = 0
    for giver, units in merged(givers):
        left_units = units
        while left_units:
            assert place < len(lacking), "as much is taken as is given"
            account, wanted_units = lacking[place]
            amount_units = min(left_units, wanted_units)
            if amount_units:
                transfers.append(
                    Transfer(
                        movement=movement,
                        debit=giver,
                        credit=account,
                        asset=asset,
                        units=amount_units,
                    )
                )
            left_units -= amount_units
            lacking[place] = Part(account, wanted_units - amount_units)
            if amount_units == wanted_units:
                place += 1
    assert all(not units for _, units in lacking[place:]), "as much is given as is taken"
    return transfers
