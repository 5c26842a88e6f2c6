"""Allowances of a whole journal: made by two sides, used no further than they go, counted anew.

Boundary: what was used is read from the position that a record moves; that the position is right is
for `sessions` and the evidence to check. Source: spec/metering.md#allowances, spec/audit.md.
"""

from collections.abc import Mapping

from farthing.protocol.allowances import Enforcement, Guard, without
from farthing.protocol.canonical import Json
from farthing.protocol.corrections import CORRECT_USAGE
from farthing.protocol.faults import FaultKind, RuleBroken, rule
from farthing.protocol.records import Change, Record
from farthing.protocol.replay.blocks import ends_us
from farthing.protocol.replay.budgets import Budgets
from farthing.protocol.replay.reading import JsonObject, integer, member, quantities
from farthing.protocol.times import utc_day

__all__ = ["Allowances"]

_CAPTURES = frozenset({"accept_answer", "capture_hold"})
_PARTIES = ("buyer_id", "operator_id", "vendor_id")
_OF = "the allowance"
_allowance = rule(FaultKind.AUTHORITY, _OF)


class Allowances:
    """Allowances, positions and open holds, as the records so far leave them.

    Args:
        budgets: Which agreements there are.
    """

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets
        self._allowances: dict[str, JsonObject] = {}
        self._positions: dict[str, dict[str, int]] = {}
        self._holds: dict[str, tuple[str, dict[str, int]]] = {}

    def guard(self, agreement_id: str, now_us: int) -> Guard | None:
        """What use is judged by at this moment; None where nothing limits it."""
        allowance = self._allowances.get(agreement_id)
        limits = allowance.get("limits") if allowance else None
        if allowance is None or not isinstance(limits, dict):
            return None
        return Guard(
            per_day=quantities(limits["per_day"]),
            in_all=quantities(limits["in_all"]),
            refuses=limits["enforcement"] == Enforcement.REFUSE,
            expires_at_us=integer(limits, "expires_at_us"),
            used_today=_used_today(allowance, now_us),
            used=self.position(agreement_id),
            held=quantities(allowance["held"]),
        )

    def position(self, agreement_id: str) -> dict[str, int]:
        """What was used under an agreement so far."""
        return self._positions.get(agreement_id, {})

    def follow(self, record: Record) -> None:
        """Judge the next record, and learn from it. Raises `RuleBroken`."""
        expected: dict[str, JsonObject] = {}
        match record.operation:
            case "propose_allowance":
                expected = self._proposed(record)
            case "approve_allowance":
                expected = self._approved(record)
            case _:
                expected = self._used(record)
        found = {each.id: each.after for each in record.changed if each.noun == "allowance"}
        _allowance(found == expected, "its allowance does not follow")
        self._allowances |= found

    def _proposed(self, record: Record) -> dict[str, JsonObject]:
        agreement = self._agreement(record)
        asked = record.asked
        proposed: JsonObject = {
            "allowance_id": record.new_id("alw"),
            **{name: _limits(asked.get(name)) for name in ("per_day", "in_all")},
            "enforcement": asked.get("enforcement", Enforcement.REFUSE.value),
            "expires_at_us": ends_us(asked),
            "proposed_by": record.by.principal_id,
            "proposed_at_us": record.at_us,
            "approved_by": "",
            "approved_at_us": 0,
        }
        agreement_id = member(agreement, "agreement_id")
        first: JsonObject = {
            "agreement_id": agreement_id,
            **{name: agreement[name] for name in _PARTIES},
            "day": "",
            "used_today": {},
            "held": {},
        }
        before = self._allowances.get(agreement_id, first)
        return {agreement_id: {**before, "proposed": proposed}}

    def _approved(self, record: Record) -> dict[str, JsonObject]:
        agreement = self._agreement(record)
        agreement_id = member(agreement, "agreement_id")
        before = dict(self._allowances.get(agreement_id, {}))
        proposed = before.pop("proposed", None)
        if not isinstance(proposed, dict):
            raise RuleBroken(FaultKind.AUTHORITY, f"{_OF}: nothing was proposed")
        _allowance(
            proposed["allowance_id"] == record.asked["allowance_id"],
            "another is approved than was proposed",
        )
        by_vendor = proposed["proposed_by"] == agreement["vendor_id"]
        approver = agreement["operator_id" if by_vendor else "vendor_id"]
        _allowance(record.by.principal_id == approver, "one side makes an allowance alone")
        in_force: JsonObject = {
            "approved_by": record.by.principal_id,
            "approved_at_us": record.at_us,
        }
        if "limits" not in before:
            before["held"] = _texts(self._held(agreement_id))
        return {agreement_id: {**before, "limits": {**proposed, **in_force}}}

    def _used(self, record: Record) -> dict[str, JsonObject]:
        """What holds and use make of allowances in force."""
        expected: dict[str, JsonObject] = {}
        advances = any(change.noun == "position" for change in record.changed)
        charges = record.operation in _CAPTURES and record.changed
        _allowance(advances or not charges, "the position does not advance")
        for change in record.changed:
            match change.noun:
                case "hold":
                    self._hold(record, change, expected)
                case "position":
                    self._position(record, change, expected)
                case _:
                    pass
        return expected

    def _hold(self, record: Record, change: Change, expected: dict[str, JsonObject]) -> None:
        agreement_id = member(change.after, "agreement_id")
        if change.after["status"] == "open":
            workload = quantities(change.after["workload"])
            here = quantities(change.after["position"]) == self.position(agreement_id)
            _allowance(here, "a hold is rated from elsewhere than the position")
            guard = self.guard(agreement_id, record.at_us)
            within = guard is None or not guard.forbids(workload, record.at_us)
            _allowance(within, "a hold is beyond it")
            self._holds[change.id] = (agreement_id, workload)
            sign = 1
        else:
            agreement_id, workload = self._holds.pop(change.id)
            sign = -1
        if (allowance := self._in_force(agreement_id, expected)) is not None:
            held = _sum(quantities(allowance["held"]), workload, sign)
            expected[agreement_id] = {**allowance, "held": _texts(held)}

    def _position(self, record: Record, change: Change, expected: dict[str, JsonObject]) -> None:
        before = self._positions.get(change.id, {})
        after = quantities(change.after)
        if record.operation in _CAPTURES:
            charge = next(each.after for each in record.changed if each.noun == "charge")
            found = charge["agreement_id"], _sum(after, {})
            used = _sum(before, quantities(charge["usage"]))
            _allowance(found == (change.id, used), "the position does not follow from the use")
        self._positions[change.id] = after
        if (allowance := self._in_force(change.id, expected)) is not None:
            day, used_today = utc_day(record.at_us), _used_today(allowance, record.at_us)
            if record.operation != CORRECT_USAGE:
                used_today = _sum(used_today, _sum(after, before, -1))
            elif _counted_on(record, allowance) == day:
                used_today = without(used_today, _sum(before, after, -1))
            expected[change.id] = {**allowance, "day": day, "used_today": _texts(used_today)}

    def _in_force(self, agreement_id: str, expected: Mapping[str, JsonObject]) -> JsonObject | None:
        allowance = expected.get(agreement_id) or self._allowances.get(agreement_id)
        return allowance if allowance is not None and "limits" in allowance else None

    def _held(self, agreement_id: str) -> dict[str, int]:
        held: dict[str, int] = {}
        for under, workload in self._holds.values():
            if under == agreement_id:
                held = _sum(held, workload)
        return held

    def _agreement(self, record: Record) -> JsonObject:
        agreement = self._budgets.agreements.get(member(record.asked, "agreement_id"))
        if agreement is None or record.by.principal_id not in [agreement[n] for n in _PARTIES]:
            raise RuleBroken(FaultKind.AUTHORITY, f"{_OF}: it is of no agreement of who asked")
        _allowance(agreement["status"] == "in_force", "the agreement has ended")
        return agreement


def _counted_on(record: Record, allowance: JsonObject) -> str:
    """The day on which the use counted that a correction takes back; empty where it may not have.

    What was billed before the limits were in force is free of them.
    """
    charges = [each.after for each in record.changed if each.noun == "charge"]
    charged_at_us, limits = integer(charges[0], "captured_at_us"), allowance["limits"]
    assert isinstance(limits, dict), "in force"
    return utc_day(charged_at_us) if charged_at_us > integer(limits, "approved_at_us") else ""


def _used_today(allowance: Mapping[str, Json], now_us: int) -> dict[str, int]:
    return quantities(allowance["used_today"]) if allowance["day"] == utc_day(now_us) else {}


def _limits(asked: object) -> JsonObject:
    listed = asked if isinstance(asked, list) else []
    return {each["meter"]: each["quantity"] for each in listed}


def _sum(totals: Mapping[str, int], more: Mapping[str, int], sign: int = 1) -> dict[str, int]:
    sums = dict(totals)
    for meter, quantity in more.items():
        sums[meter] = sums.get(meter, 0) + sign * quantity
        _allowance(sums[meter] >= 0, "more is given back than was set aside")
    return {meter: quantity for meter, quantity in sums.items() if quantity}


def _texts(sums: Mapping[str, int]) -> JsonObject:
    return {meter: str(quantity) for meter, quantity in sums.items()}
