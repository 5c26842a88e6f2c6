"""Why a purchase is not allowed, said a second time for the auditor of a life.

Boundary: imports nothing from farthing.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from tests.simulation.auditor import Auditor, Json, day

__all__ = ["SECOND_US", "counted", "counts", "forbids"]

SECOND_US: Final = 1_000_000


def forbids(
    books: Auditor, record: Json, agreement: Json, units: int, per_call_units: int | None = None
) -> Iterator[str]:
    """Why a purchase is not allowed, first in precedence first.

    Args:
        books: everything before the record.
        record: who asks, and when.
        agreement: what is bought under.
        units: what is to be set aside.
        per_call_units: the most that one call may cost, where it is for many.
    """
    per_call_units = units if per_call_units is None else per_call_units
    buyer_id, asset, vendor_id = agreement["buyer_id"], agreement["asset"], agreement["vendor_id"]
    frozen = {buyer_id, books.things["principal"][buyer_id]["organisation_id"], vendor_id}
    if any(books.things["principal"][each].get("frozen_by") for each in frozen):
        yield "frozen"
    grant = _grant(books, buyer_id, asset)
    if grant is None or grant.get("revoked"):
        yield "authority_missing"
    else:
        if 0 < grant.get("expires_at_us", 0) <= record["at_us"]:
            yield "authority_expired"
        allow, deny = grant.get("vendors_allow", ()), grant.get("vendors_deny", ())
        if vendor_id in deny or (allow and vendor_id not in allow):
            yield "vendor_not_allowed"
        allow, deny = grant.get("capabilities_allow", ()), grant.get("capabilities_deny", ())
        primary, tags = agreement["tags"][0], agreement["tags"]
        if any(_under(tag, deny) for tag in tags) or (allow and not _under(primary, allow)):
            yield "capability_not_allowed"
        if per_call_units > int(grant["per_call_units_max"]):
            yield "per_call_limit_exceeded"
        spent = books.spent.get((grant["grant_id"], day(record["at_us"])), 0)
        if units > max(int(grant["per_day_units_max"]) - spent, 0):
            yield "budget_exceeded"
    if units > _to_spend(books, agreement["operator_id"], asset, record["at_us"]):
        yield "insufficient_funds"


def _to_spend(books: Auditor, operator: str, asset: str, at_us: int) -> int:
    """Money and credit at hand."""
    units = books.available(f"{operator}:prepaid:{asset}")
    units += books.posted(f"{operator}:receivable:{asset}")
    grace = books.things["grace"].get(f"{operator}:prepaid:{asset}", {})
    units += min(int(grace.get("granted_units", 0)), int(grace.get("chosen_units", 0)))
    units = max(units, 0)
    for lot in books.things["lot"].values():
        if (lot["operator_id"], lot["asset"]) == (operator, asset):
            in_time = lot.get("expires_at_us", 0) == 0 or lot["expires_at_us"] > at_us
            units += int(lot["free_units"]) if in_time else 0
    return units


def _grant(books: Auditor, agent_id: str, asset: str) -> Json | None:
    for grant in books.things["grant"].values():
        if (grant["agent_id"], grant["asset"]) == (agent_id, asset):
            return grant
    return None


def counted(record: Json) -> int:
    """What a record adds to budgets, less what it gives back."""
    return sum(int(each["units"]) for each in record.get("counted", ()))


def counts(quantities: Json) -> dict[str, int]:
    """Quantities by meter, as numbers."""
    return {meter: int(quantity) for meter, quantity in quantities.items()}


def _under(tag: str, capabilities: Iterable[str]) -> bool:
    return any(tag == above or tag.startswith(f"{above}.") for above in capabilities)
