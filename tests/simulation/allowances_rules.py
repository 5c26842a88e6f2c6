"""What may be used under an agreement, said a second time for the auditor of a life.

Boundary: imports nothing from farthing.
"""

from collections.abc import Callable, Mapping
from typing import Final

from tests.simulation.auditor import Auditor, Json, need, one_of

__all__ = ["RULES", "forbidden"]


def forbidden(
    books: Auditor,
    agreement_id: str,
    usage: Mapping[str, int],
    at_us: int,
    *,
    day: str,
    before: Mapping[str, int] | None = None,
) -> bool:
    """Whether an agreement's allowance refuses this use.

    Args:
        books: everything before the record.
        agreement_id: the agreement.
        usage: by meter.
        at_us: when it is used.
        day: the UTC day that it counts for.
        before: what the same record used before it.
    """
    limits = books.things["allowance"].get(agreement_id, {}).get("limits")
    if not limits or limits["enforcement"] != "refuse":
        return False
    if 0 < limits["expires_at_us"] <= at_us:
        return True
    position = books.things["position"].get(agreement_id, {})
    for meter, quantity in usage.items():
        also = quantity + (before or {}).get(meter, 0) + _held(books, agreement_id, meter)
        used = {
            "per_day": books.used[agreement_id, day].get(meter, 0),
            "in_all": int(position.get(meter, 0)),
        }
        for name, so_far in used.items():
            if meter in limits[name] and so_far + also > int(limits[name][meter]):
                return True
    return False


def _held(books: Auditor, agreement_id: str, meter: str) -> int:
    holds = books.waiting["hold"].values()
    mine = (hold for hold in holds if hold["agreement_id"] == agreement_id)
    return sum(int(hold["workload"].get(meter, 0)) for hold in mine)


def _propose(books: Auditor, record: Json) -> None:
    if "refused" in record:
        return
    asked, by = record["asked"], record["by"]["principal_id"]
    agreement = books.things["agreement"][asked["agreement_id"]]
    parties = [agreement[name] for name in ("buyer_id", "operator_id", "vendor_id")]
    need(by in parties, "a stranger proposes")
    need(agreement["status"] == "in_force", "proposed for an agreement that has ended")
    before = books.things["allowance"].get(asked["agreement_id"], {})
    after = one_of(record, "allowance")
    need(after.get("limits") == before.get("limits"), "a proposal is in force at once")
    proposed = after["proposed"]
    need(proposed["proposed_by"] == by and not proposed["approved_by"], "another proposal")
    for name in ("per_day", "in_all"):
        wanted = {each["meter"]: each["quantity"] for each in asked.get(name, ())}
        need(proposed[name] == wanted, "other limits are proposed")


def _approve(books: Auditor, record: Json) -> None:
    if "refused" in record:
        return
    asked, by = record["asked"], record["by"]["principal_id"]
    before = books.things["allowance"][asked["agreement_id"]]
    proposed, after = before["proposed"], one_of(record, "allowance")
    need(proposed["allowance_id"] == asked["allowance_id"], "another proposal is approved")
    sides = ({before["buyer_id"], before["operator_id"]}, {before["vendor_id"]})
    own = next(side for side in sides if proposed["proposed_by"] in side)
    need(by in {before["operator_id"], before["vendor_id"]} - own, "a side approves its own")
    need("proposed" not in after, "what is approved is still proposed")
    same = {**proposed, "approved_by": by, "approved_at_us": record["at_us"]}
    need(after["limits"] == same, "what is in force is not what was proposed")


RULES: Final[dict[str, Callable[[Auditor, Json], None]]] = {
    "approve_allowance": _approve,
    "propose_allowance": _propose,
}
