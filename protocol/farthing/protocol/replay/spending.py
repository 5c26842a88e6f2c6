"""Holds of a whole journal: every hold is allowed, is set aside by whom it is of, and ends once.

Boundary: who may spend is `budgets`, what becomes of a charge `charges`.
Source: spec/holds.md, spec/audit.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from farthing.protocol.canonical import Json
from farthing.protocol.faults import FaultKind, RuleBroken, rule
from farthing.protocol.ids import derive_id
from farthing.protocol.ledger import Movement, Transfer
from farthing.protocol.rating import CompiledCard, line_document, rate
from farthing.protocol.records import Record
from farthing.protocol.replay.blocks import captured, placed, reserved, workload_of
from farthing.protocol.replay.budgets import Allowed, Budgets
from farthing.protocol.replay.reading import (
    JsonObject,
    half_digest,
    integer,
    member,
    quantities,
    units,
)
from farthing.protocol.replay.sessions import SESSION_OPERATIONS
from farthing.protocol.replay.shares import payers

__all__ = ["HOLD_OPERATIONS", "Spending"]

_PLACES = {"place_hold", "call_service"}
_ENDS = {
    "abandon_hold": "released",
    "accept_answer": "captured",
    "capture_hold": "captured",
    "expire_hold": "expired",
    "release_hold": "released",
}
HOLD_OPERATIONS: Final = frozenset(_PLACES | _ENDS.keys())
# What the platform does to the holds of calls that it makes, and to no others.
_OF_CALLS = {"abandon_hold", "accept_answer"}
_CAPTURES = {"capture_hold", "accept_answer"}
_OF_PAYEES = {"capture_hold", "release_hold"}
_hold = rule(FaultKind.HOLD, "the hold")


@dataclass(frozen=True, slots=True)
class _Open:
    """A hold that has not ended."""

    amount_units: int
    allowed: Allowed
    expires_at_us: int
    aside: tuple[Transfer, ...]
    placed_by: str
    agreement_id: str
    fixed: bytes


class Spending:
    """Open holds, as the records so far leave them.

    Args:
        budgets: Who may spend what; holds count against it.
        cards: The rate cards published so far.
    """

    def __init__(self, budgets: Budgets, cards: Mapping[str, CompiledCard]) -> None:
        self._budgets = budgets
        self._cards = cards
        self._holds: dict[str, _Open] = {}

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

    def _place(self, record: Record) -> None:
        buyer_id = record.by.principal_id
        hold_id, hold = _the(record, "hold")
        _hold(hold_id == record.new_id("hld"), "it has another id")
        _hold(hold_id not in self._holds, "it was placed before")
        amount_units = units(hold, "amount_units")
        agreement = self._budgets.agreement_of(
            buyer_id,
            member(hold, "agreement_id"),
            asset=member(hold, "asset"),
            kind=FaultKind.HOLD,
        )
        allowed = self._budgets.allow(record, agreement, amount_units)
        self._budgets.count(record, (allowed, amount_units))
        workload = workload_of(record.asked)
        priced_units = self._priced(record, agreement, hold["position"], workload)
        expected: JsonObject = {
            **placed(record, agreement, workload, priced_units),
            **{name: hold[name] for name in ("drawn", "position") if name in hold},
        }
        for name in sorted(hold.keys() | expected.keys()):
            _hold(hold.get(name) == expected.get(name), f"its {name} does not follow")
        aside = reserved(hold, payers(hold), Movement.PENDING)
        _hold(record.moved == tuple(aside), "it sets other money aside")
        self._holds[hold_id] = _Open(
            amount_units,
            allowed,
            integer(hold, "expires_at_us"),
            record.moved,
            record.operation,
            member(agreement, "agreement_id"),
            _fixed(hold),
        )

    def _priced(
        self, record: Record, agreement: JsonObject, position: Json, usage: Mapping[str, int]
    ) -> int:
        """What the card of an agreement gives, which the record must say line by line."""
        card = self._cards[member(agreement, "rate_card_sha256")]
        rating = rate(card, quantities(position), usage)
        lines: list[Json] = [line_document(line) for line in rating.lines]
        _hold(record.decided == {"lines": lines}, "the card gives other lines")
        return rating.total_units

    def _end(self, record: Record) -> None:
        """A hold is voided whole, once, and no more than it is posted."""
        hold_id, hold = _the(record, "hold")
        _hold(record.asked.get("hold_id") == hold_id, "another ends than was asked for")
        opened = self._holds.pop(hold_id, None)
        if opened is None:
            raise RuleBroken(FaultKind.HOLD, "it ended before, or was never placed")
        _hold(hold["status"] == _ENDS[record.operation], "its end has another name")
        _hold(_fixed(hold) == opened.fixed, "it is another than was placed")
        by_payee = record.by.principal_id == hold["vendor_id"]
        _hold(by_payee or record.operation not in _OF_PAYEES, "another than its payee ends it")
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
        posts = len(record.moved) - len(voided)
        aside_anew = any(each.movement is Movement.PENDING for each in record.moved)
        _hold(not aside_anew, "its end sets something aside")
        charged_units = 0
        if record.operation in _CAPTURES:
            charge_id, charge = _the(record, "charge")
            charged_units = units(charge, "amount_units")
            _hold(charge_id == derive_id("chg", hold_id), "the charge has another id")
            _hold(hold["charge_id"] == charge_id, "the hold names another charge")
            same = charge["agreement_id"] == opened.agreement_id
            _hold(same, "it is charged under another agreement")
            _hold(charged_units <= opened.amount_units, "more is charged than was held")
            self._check_charge(record, hold, charge)
        else:
            _hold(hold["charge_id"] == "", "it names a charge that it has not")
        _hold(posts == 0 or charged_units > 0, "something is posted for nothing")
        self._budgets.count(record, (opened.allowed, charged_units - opened.amount_units))

    def _check_charge(self, record: Record, hold: JsonObject, charge: JsonObject) -> None:
        """What its vendor signed is priced from the hold's position, and shared as agreed."""
        agreement = self._budgets.agreements[member(hold, "agreement_id")]
        used, held = quantities(charge["usage"]), quantities(hold["workload"])
        within = all(quantity <= held.get(meter, 0) for meter, quantity in used.items())
        _hold(within, "more is charged than was held")
        priced_units = self._priced(record, agreement, hold["position"], used)
        expected = captured(
            record,
            hold,
            agreement,
            amount_units=priced_units,
            usage=used,
            result_sha256=member(charge, "result_sha256"),
        )
        for name in sorted(charge.keys() | expected.keys()):
            follows = charge.get(name) == expected.get(name)
            _hold(follows, f"the charge's {name} does not follow")


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


def _fixed(hold: JsonObject) -> bytes:
    """Half a digest of what of a hold stays as it began."""
    kept = {name: each for name, each in hold.items() if name not in {"charge_id", "status"}}
    return half_digest(kept)


def _voided(transfer: Transfer) -> Transfer:
    return Transfer(
        movement=Movement.VOID,
        debit=transfer.debit,
        credit=transfer.credit,
        asset=transfer.asset,
        units=transfer.units,
    )
