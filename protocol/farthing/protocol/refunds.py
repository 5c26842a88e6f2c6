"""How giving back part of a charge divides between vendor, platform's fee and partner.

Boundary: arithmetic. Used by refunds and rulings, and by whoever proves them again.
Source: spec/ledger.md.
"""

from typing import NamedTuple

__all__ = ["Split", "split_refund"]


class Split(NamedTuple):
    """What giving back part of a charge takes from the vendor, the fee and the partner."""

    net_units: int
    fee_units: int
    partner_units: int = 0


def split_refund(
    *,
    amount_units: int,
    fee_units: int,
    refunded_units: int,
    fee_returned_units: int,
    back_units: int,
    partner_units: int = 0,
    partner_returned_units: int = 0,
) -> Split:
    """Divide what is given back, so that each share kept is that of what is left, rounded down.

    The fee on the remainder is computed anew and the difference goes back; then the partner's
    share likewise, at most what the fee leaves of the part. So no share ever takes more than the
    part, and a charge given back whole gives all of them back, whatever the rounding on the way.

    Args:
        amount_units: the charge as it was captured, more than 0.
        fee_units: the platform's fee on it.
        refunded_units: what was given back before.
        fee_returned_units: the part of that which came out of the fee.
        back_units: what is given back now, at most what is left.
        partner_units: the partner's share of the charge; with the fee at most all of it.
        partner_returned_units: what of it was given back before.
    """
    left_units = amount_units - refunded_units - back_units
    assert 0 <= left_units <= amount_units, "no more is given back than is left"
    kept_units = fee_units * left_units // amount_units
    returned_units = fee_units - fee_returned_units - kept_units
    if not partner_units:
        return Split(back_units - returned_units, returned_units)
    partners_units = partner_units - partner_returned_units
    partners_units -= partner_units * left_units // amount_units
    partners_units = min(partners_units, back_units - returned_units)
    return Split(back_units - returned_units - partners_units, returned_units, partners_units)
