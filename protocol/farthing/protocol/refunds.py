"""How giving back part of a charge divides between the vendor and the platform's fee.

Boundary: arithmetic. Used by refunds and rulings, and by whoever proves them again.
Source: spec/ledger.md.
"""

from typing import NamedTuple

__all__ = ["Split", "split_refund"]


class Split(NamedTuple):
    """What giving back part of a charge takes from the vendor and from the platform's fee."""

    net_units: int
    fee_units: int


def split_refund(
    *,
    amount_units: int,
    fee_units: int,
    refunded_units: int,
    fee_returned_units: int,
    back_units: int,
) -> Split:
    """Divide what is given back, so that the fee kept is that of what is left, rounded down.

    The fee on the remainder is computed anew and the difference goes back: a charge given back
    whole gives the whole fee back, whatever the rounding on the way.

    Args:
        amount_units: the charge as it was captured, more than 0.
        fee_units: the platform's fee on it.
        refunded_units: what was given back before.
        fee_returned_units: the part of that which came out of the fee.
        back_units: what is given back now, at most what is left.
    """
    left_units = amount_units - refunded_units - back_units
    assert 0 <= left_units <= amount_units, "no more is given back than is left"
    kept_units = fee_units * left_units // amount_units
    returned_units = fee_units - fee_returned_units - kept_units
    return Split(back_units - returned_units, returned_units)
