"""The authority decision: default deny, forbid wins, every reason returned.

Boundary: pure; nothing is consumed by asking. Source: spec/authority.md.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import msgspec

from farthing.protocol.authority.grant import Grant
from farthing.protocol.errors import Code, NextAction, Refusal, refuse
from farthing.protocol.money import format_units

__all__ = ["Purchase", "decide", "first_of"]


class Purchase(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wants to buy: from whom, of which kind, for how much.

    Nothing can be bought from a vendor that is frozen. `per_call_units` is what one call may cost
    where many are paid for at once; otherwise a call costs it all.
    """

    vendor_id: str
    tags: tuple[str, ...]
    asset: str
    units: int
    vendor_frozen: bool = False
    per_call_units: int | None = None


def decide(
    grant: Grant | None, purchase: Purchase, *, frozen: bool, spent_units: int, now_us: int
) -> tuple[Refusal, ...]:
    """Every reason why a purchase is not allowed, in order of precedence; empty means allowed.

    Args:
        grant: the agent's grant for the purchase's asset, if there is one.
        purchase: what is to be bought.
        frozen: whether the agent or its organisation is frozen.
        spent_units: what the grant's counter of the current UTC day holds.
        now_us: the time of the decision.
    """
    reasons: list[Refusal] = []
    if frozen:
        reasons.append(refuse(Code.FROZEN))
    elif purchase.vendor_frozen:
        reasons.append(
            refuse(
                Code.FROZEN,
                path="vendor_id",
                message="The vendor is frozen: nothing can be bought from it.",
                next_action=NextAction.USE_OTHER_VENDOR,
            )
        )
    if grant is None or grant.revoked:
        reasons.append(refuse(Code.AUTHORITY_MISSING, path="asset", asset=purchase.asset))
        return tuple(reasons)
    if grant.expires_at_us and now_us >= grant.expires_at_us:
        reasons.append(refuse(Code.AUTHORITY_EXPIRED))
    if not _vendor_allowed(grant, purchase.vendor_id):
        reasons.append(refuse(Code.VENDOR_NOT_ALLOWED, path="vendor_id"))
    if not _capabilities_allowed(grant, purchase.tags):
        reasons.append(refuse(Code.CAPABILITY_NOT_ALLOWED, path="primary_tag"))
    per_call_units = purchase.units if purchase.per_call_units is None else purchase.per_call_units
    if per_call_units > grant.per_call_units_max:
        reasons.append(
            refuse(
                Code.PER_CALL_LIMIT_EXCEEDED,
                path="per_call",
                required=format_units(per_call_units, purchase.asset),
                remaining=format_units(grant.per_call_units_max, grant.asset),
                asset=grant.asset,
            )
        )
    # A limit set below what is spent leaves nothing, not less: what costs nothing is still free.
    remaining_units = max(grant.per_day_units_max - spent_units, 0)
    if purchase.units > remaining_units:
        reasons.append(
            refuse(
                Code.BUDGET_EXCEEDED,
                path="amount",
                required=format_units(purchase.units, purchase.asset),
                remaining=format_units(remaining_units, grant.asset),
                asset=grant.asset,
            )
        )
    return tuple(reasons)


def first_of(reasons: Iterable[Refusal], arguments: Mapping[str, str] | None = None) -> Refusal:
    """The one answer for several reasons: the first in precedence, naming all the others.

    Args:
        reasons: at least one; `path` is what of the purchase each is about.
        arguments: which argument of a call says that: it is then the answer's `path`.
    """
    ordered = sorted(reasons, key=lambda refusal: refusal.code.precedence)
    first = replace(ordered[0], reasons=tuple(refusal.code for refusal in ordered))
    return replace(first, path=arguments.get(first.path, first.path)) if arguments else first


def _vendor_allowed(grant: Grant, vendor_id: str) -> bool:
    if vendor_id in grant.vendors_deny:
        return False
    return not grant.vendors_allow or vendor_id in grant.vendors_allow


def _capabilities_allowed(grant: Grant, tags: tuple[str, ...]) -> bool:
    if any(_covered(tag, grant.capabilities_deny) for tag in tags):
        return False
    allow = grant.capabilities_allow
    # The primary tag comes first; what a listing is, is what the agent must be allowed to buy.
    return not allow or (bool(tags) and _covered(tags[0], allow))


def _covered(tag: str, capabilities: tuple[str, ...]) -> bool:
    return any(tag == above or tag.startswith(above + ".") for above in capabilities)
