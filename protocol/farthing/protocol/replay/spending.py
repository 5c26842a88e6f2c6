"""Authority and holds of a whole journal: every limit held at every moment, every hold ends once.

Boundary: judges with the very function that decides (`authority.decide`), on counters that are
counted anew from the records. Source: spec/authority.md, spec/holds.md, spec/audit.md.
"""

from collections import defaultdict
from dataclasses import dataclass

from farthing.protocol.authority.decide import Purchase, decide
from farthing.protocol.authority.grant import Grant
from farthing.protocol.faults import FaultKind, RuleBroken
from farthing.protocol.ids import derive_id
from farthing.protocol.ledger import Movement, Transfer
from farthing.protocol.records import Record
from farthing.protocol.replay.reading import JsonObject, integer, member, units
from farthing.protocol.times import utc_day

__all__ = ["Spending"]

_PLACES = {"place_hold", "call_service"}
_ENDS = {
    "abandon_hold": "released",
    "capture_hold": "captured",
    "expire_hold": "expired",
    "release_hold": "released",
}


@dataclass(frozen=True, slots=True)
class _Open:
    """A hold that has not ended."""

    amount_units: int
    grant_id: str
    day: str
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
    """Grants, counters, open holds and charges, as the records so far leave them."""

    def __init__(self) -> None:
        """Before the first record nobody may spend."""
        self._grants: dict[tuple[str, str], Grant] = {}
        self._counters: dict[tuple[str, str], int] = defaultdict(int)
        self._houses: dict[str, str] = {}
        self._frozen: set[str] = set()
        self._agreements: dict[str, JsonObject] = {}
        self._holds: dict[str, _Open] = {}
        self._charges: dict[str, _Charged] = {}

    def follow(self, record: Record) -> None:
        """Judge the next record, and learn from it. Raises `RuleBroken`."""
        if record.operation in _PLACES:
            self._place(record)
        elif record.operation in _ENDS and not _came_too_late(record):
            self._end(record)
        else:
            self._leave(record)
        self._learn(record)

    def _place(self, record: Record) -> None:
        buyer_id = record.by.principal_id
        hold_id, hold = _the(record, "hold")
        key = record.request.key if record.request else ""
        _hold(hold_id == derive_id("hld", buyer_id, record.operation, key), "it has another id")
        _hold(hold_id not in self._holds, "it was placed before")
        agreement = self._agreements.get(member(hold, "agreement_id"))
        if agreement is None or agreement["buyer_id"] != buyer_id:
            raise RuleBroken(FaultKind.HOLD, "it is placed under no agreement of the buyer")
        _hold(agreement["status"] == "in_force", "the agreement has ended")
        asset, amount_units = member(hold, "asset"), units(hold, "amount_units")
        _hold(asset == agreement["asset"], "it is of another asset than the agreement")
        day = utc_day(record.at_us)
        grant = self._grants.get((buyer_id, asset))
        reasons = decide(
            grant,
            Purchase(
                vendor_id=member(agreement, "vendor_id"),
                tags=_texts(agreement, "tags"),
                asset=asset,
                units=amount_units,
                vendor_frozen=self._is_frozen(member(agreement, "vendor_id")),
            ),
            frozen=self._is_frozen(buyer_id),
            spent_units=self._counters[grant.grant_id, day] if grant else 0,
            now_us=record.at_us,
        )
        if reasons or grant is None:
            codes = ", ".join(reason.code.value for reason in reasons)
            raise RuleBroken(FaultKind.AUTHORITY, f"the hold was not allowed: {codes}")
        self._count(record, grant.grant_id, day, amount_units)
        _hold(all(each.movement is Movement.PENDING for each in record.moved), "it posts")
        _hold(
            sum(each.units for each in record.moved) == amount_units, "it sets another amount aside"
        )
        self._holds[hold_id] = _Open(
            amount_units,
            grant.grant_id,
            day,
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
        if record.operation == "abandon_hold":
            _hold(opened.placed_by == "call_service", "it is given back for no call of its own")
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
        if record.operation == "capture_hold":
            charge_id, charge = _the(record, "charge")
            charged_units = units(charge, "amount_units")
            _hold(charge_id == derive_id("chg", hold_id), "the charge has another id")
            _hold(hold["charge_id"] == charge_id, "the hold names another charge")
        _hold(posted_units <= opened.amount_units, "more is posted than was held")
        _hold(posted_units == charged_units, "another amount is posted than was charged")
        self._count(record, opened.grant_id, opened.day, charged_units - opened.amount_units)

    def _leave(self, record: Record) -> None:
        """Nothing else counts against a grant, or begins or ends a hold."""
        if record.counted:
            raise RuleBroken(FaultKind.AUTHORITY, "it counts against a grant")
        for change in record.changed:
            _hold(change.noun != "hold", f"{record.operation} changes a hold")

    def _count(self, record: Record, grant_id: str, day: str, amount_units: int) -> None:
        found = [(count.grant_id, count.day, count.units) for count in record.counted]
        if found != ([(grant_id, day, amount_units)] if amount_units else []):
            raise RuleBroken(FaultKind.AUTHORITY, "the grant is charged otherwise")
        self._counters[grant_id, day] += amount_units
        if self._counters[grant_id, day] < 0:
            raise RuleBroken(FaultKind.AUTHORITY, "the grant's counter falls below zero")

    def _learn(self, record: Record) -> None:
        for change in record.changed:
            after = change.after
            match change.noun:
                case "principal":
                    self._houses[change.id] = member(after, "organisation_id")
                    if after.get("frozen_by"):
                        self._frozen.add(change.id)
                    else:
                        self._frozen.discard(change.id)
                case "agreement":
                    self._agreements[change.id] = after
                case "grant":
                    self._learn_grant(record, Grant.from_document(after))
                case "charge":
                    self._charge(record, change.id, after)
                case _:
                    pass

    def _learn_grant(self, record: Record, grant: Grant) -> None:
        house = self._houses.get(grant.agent_id)
        if not grant.operator_id == house == record.by.organisation_id:
            raise RuleBroken(FaultKind.AUTHORITY, "a grant is set by another than its operator")
        if grant.grant_id != derive_id("gnt", grant.agent_id, grant.asset):
            raise RuleBroken(FaultKind.AUTHORITY, "the grant has another id")
        self._grants[grant.agent_id, grant.asset] = grant

    def _charge(self, record: Record, charge_id: str, after: JsonObject) -> None:
        """What is charged never changes; what is given back only grows, and never above it."""
        charged = _Charged(
            units(after, "amount_units"),
            units(after, "fee_units"),
            int(str(after.get("refunded_units", 0))),
            int(str(after.get("fee_returned_units", 0))),
        )
        before = self._charges.get(charge_id)
        if (before is None) != (record.operation == "capture_hold"):
            raise RuleBroken(FaultKind.CHARGE, "a charge begins otherwise than by a capture")
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

    def _is_frozen(self, principal_id: str) -> bool:
        return not self._frozen.isdisjoint({principal_id, self._houses.get(principal_id, "")})


def _came_too_late(record: Record) -> bool:
    """Whether the platform gave a hold back that had ended: such a record does nothing at all."""
    does = record.moved or record.counted or record.changed
    return record.operation == "abandon_hold" and not does


def _the(record: Record, noun: str) -> tuple[str, JsonObject]:
    """The one thing of a noun that the record changes."""
    found = [change for change in record.changed if change.noun == noun]
    if len(found) != 1:
        raise RuleBroken(FaultKind.HOLD, f"changes {len(found)} of the noun {noun}, not one")
    return found[0].id, found[0].after


def _texts(document: JsonObject, name: str) -> tuple[str, ...]:
    value = document[name]
    if not isinstance(value, list):
        raise TypeError(f"{name} is not a list")
    return tuple(str(each) for each in value)


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
