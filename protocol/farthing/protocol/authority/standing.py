"""What a buyer may spend now: the value in which settlement and catalog meet.

Boundary: a snapshot of balance, grant and counters, and the question it answers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from farthing.protocol.authority.decide import Purchase, decide
from farthing.protocol.authority.grant import Grant
from farthing.protocol.errors import Code, Refusal, refuse
from farthing.protocol.money import format_units

__all__ = ["NOBODY", "Standing", "decide_purchase"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A principal's money and authority, per asset, as of journal position `as_of_seq`.

    `positions` holds, per listing, the rating position of the principal's newest agreement in
    force: meter to cumulative quantity.
    """

    principal_id: str
    frozen: bool = False
    available_units: Mapping[str, int] = field(default_factory=dict)
    pending_units: Mapping[str, int] = field(default_factory=dict)
    grants: Mapping[str, Grant] = field(default_factory=dict)
    spent_units: Mapping[str, int] = field(default_factory=dict)
    positions: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    as_of_seq: int = 0


NOBODY = Standing(principal_id="")


def decide_purchase(standing: Standing, purchase: Purchase, now_us: int) -> tuple[Refusal, ...]:
    """Every reason why this principal could not make the purchase now; empty means it could."""
    asset = purchase.asset
    reasons = decide(
        standing.grants.get(asset),
        purchase,
        frozen=standing.frozen,
        spent_units=standing.spent_units.get(asset, 0),
        now_us=now_us,
    )
    available_units = standing.available_units.get(asset, 0)
    if purchase.units > available_units:
        short = refuse(
            Code.INSUFFICIENT_FUNDS,
            path="amount",
            required=format_units(purchase.units, asset),
            remaining=format_units(max(available_units, 0), asset),
            asset=asset,
        )
        return (*reasons, short)
    return reasons
