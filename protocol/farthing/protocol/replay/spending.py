"""Holds and charges of a whole journal: every hold is allowed and ends once, every charge adds up.

Boundary: who may spend is `budgets`, the charges of sessions begin in `sessions`.
Source: spec/holds.md, spec/audit.md.
"""

from dataclasses import dataclass

from farthing.protocol.faults import FaultKind, RuleBroken
from farthing.protocol.ids import derive_id
from farthing.protocol.ledger import Movement, Transfer
from farthing.protocol.records import Record
from farthing.protocol.replay.budgets import Allowed, Budgets
from farthing.protocol.replay.reading import JsonObject, integer, member, units
from farthing.protocol.replay.sessions import SESSION_OPERATIONS

__all__ = ["Spending"]

_PLACES = {"place_hold", "call_service"}
_ENDS = {
    "abandon_hold": "released",
    "accept_answer": "captured",
    "capture_hold": "captured",
    "expire_hold": "expired",
    "release_hold": "released",
}


# What the platform does to the holds of calls that it makes, and to no others.
_OF_CALLS = {"abandon_hold", "accept_answer"}
_CAPTURES = {"capture_hold", "accept_answer"}


@dataclass(frozen=True, slots=True)
class _Open:
    """A hold that has not ended."""

    amount_units: int
    allowed: Allowed
    expires_at_us: int
    aside: tuple[Transfer, ...]
    placed_by: str


@dataclass(frozen=True, slots=True)
class _Charged:
    """What was charged, and how much of it has been given back."""

    amount_units: int
    fee_units: int
    refunded_units: int
    fee_returned_units: int


class Spending:
    """Open holds and charges, as the records so far leave them.

    Args:
        budgets: Who may spend what; holds count against it.
    """

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets
        self._holds: dict[str, _Open] = {}
        self._charges: dict[str, _Charged] = {}

    def follow(self, record: Record) -> None:
        """Judge the next record, and learn from it. Raises `RuleBroken`."""
        if record.operation in _PLACES:
            self._place(record)
        elif record.operation in _ENDS and not _came_too_late(record):
            self._end(record)
        else:
            for change in record.changed:
                _hold(change.noun != "hold", f"{record.operation} changes a hold")
            if record.operation not in SESSION_OPERATIONS:
                self._budgets.count(record)
        for change in record.changed:
            if change.noun == "charge":
                self._charge(record, change.id, change.after)

    def _place(self, record: Record) -> None:
        buyer_id = record.by.principal_id
        hold_id, hold = _the(record, "hold")
        key = record.request.key if record.request else ""
        _hold(hold_id == derive_id("hld", buyer_id, record.operation, key), "it has another id")
        _hold(hold_id not in self._holds, "it was placed before")
        is_called = record.operation == "call_service"
        _hold(hold.get("on_answer", False) is is_called, "it is captured otherwise than it says")
        amount_units = units(hold, "amount_units")
        agreement = self._budgets.agreement_of(
            buyer_id,
            member(hold, "agreement_id"),
            asset=member(hold, "asset"),
            kind=FaultKind.HOLD,
        )
        allowed = self._budgets.allow(record, agreement, amount_units)
        self._budgets.count(record, (allowed, amount_units))
        _hold(all(each.movement is Movement.PENDING for each in record.moved), "it posts")
        _hold(
            sum(each.units for each in record.moved) == amount_units, "it sets another amount aside"
        )
        self._holds[hold_id] = _Open(
            amount_units,
            allowed,
            integer(hold, "expires_at_us"),
            record.moved,
            record.operation,
        )

    def _end(self, record: Record) -> None:
        """A hold is voided whole, once, and no more than it is posted."""
        hold_id, hold = _the(record, "hold")
        opened = self._holds.pop(hold_id, None)
        if opened is None:
            raise RuleBroken(FaultKind.HOLD, "it ended before, or was never placed")
        _hold(hold["status"] == _ENDS[record.operation], "its end has another name")
        is_called = opened.placed_by == "call_service"
        if record.operation in _OF_CALLS:
            _hold(is_called, "the platform ends it for no call of its own")
        _hold(
            record.operation != "capture_hold" or not is_called,
            "it is captured before its answer is accepted",
        )
        overdue = record.at_us >= opened.expires_at_us
        _hold(overdue == (record.operation == "expire_hold"), "it ends at the wrong time")
        voided = tuple(each for each in record.moved if each.movement is Movement.VOID)
        aside = tuple(_voided(each) for each in opened.aside)
        _hold(sorted(map(repr, voided)) == sorted(map(repr, aside)), "it is not voided whole")
        payers = {each.debit for each in opened.aside}
        posted_units = sum(
            each.units
            for each in record.moved
            if each.movement is Movement.POST and each.debit in payers and each.credit not in payers
        )
        charged_units = 0
        if record.operation in _CAPTURES:
            charge_id, charge = _the(record, "charge")
            charged_units = units(charge, "amount_units")
            _hold(charge_id == derive_id("chg", hold_id), "the charge has another id")
            _hold(hold["charge_id"] == charge_id, "the hold names another charge")
        _hold(posted_units <= opened.amount_units, "more is posted than was held")
        _hold(posted_units == charged_units, "another amount is posted than was charged")
        self._budgets.count(record, (opened.allowed, charged_units - opened.amount_units))

    def _charge(self, record: Record, charge_id: str, after: JsonObject) -> None:
        """What is charged never changes; what is given back only grows, and never above it."""
        charged = _Charged(
            units(after, "amount_units"),
            units(after, "fee_units"),
            int(str(after.get("refunded_units", 0))),
            int(str(after.get("fee_returned_units", 0))),
        )
        before = self._charges.get(charge_id)
        if (before is None) != (record.operation in {*_CAPTURES, "report_usage"}):
            raise RuleBroken(FaultKind.CHARGE, "a charge begins otherwise than by a delivery")
        if before is not None:
            same = (before.amount_units, before.fee_units)
            if same != (charged.amount_units, charged.fee_units):
                raise RuleBroken(FaultKind.CHARGE, "what was charged changes afterwards")
            if before.refunded_units > charged.refunded_units:
                raise RuleBroken(FaultKind.CHARGE, "what was given back is taken again")
        if charged.refunded_units > charged.amount_units:
            raise RuleBroken(FaultKind.CHARGE, "more is given back than was charged")
        if not 0 <= charged.fee_returned_units <= charged.fee_units <= charged.amount_units:
            raise RuleBroken(FaultKind.CHARGE, "the fee is more than the charge")
        self._charges[charge_id] = charged


def _came_too_late(record: Record) -> bool:
    """Whether the platform ends a hold that had ended: such a record does nothing at all."""
    does = record.moved or record.counted or record.changed
    return record.operation in _OF_CALLS and not does


def _the(record: Record, noun: str) -> tuple[str, JsonObject]:
    """The one thing of a noun that the record changes."""
    found = [change for change in record.changed if change.noun == noun]
    if len(found) != 1:
        raise RuleBroken(FaultKind.HOLD, f"changes {len(found)} of the noun {noun}, not one")
    return found[0].id, found[0].after


def _voided(transfer: Transfer) -> Transfer:
    return Transfer(
        movement=Movement.VOID,
        debit=transfer.debit,
        credit=transfer.credit,
        asset=transfer.asset,
        units=transfer.units,
    )


def _hold(holds: bool, why: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        raise RuleBroken(FaultKind.HOLD, f"the hold: {why}")
