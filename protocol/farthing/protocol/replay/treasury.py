"""Money in and out of a whole journal: what each record moves is what it says that it did.

Boundary: funding, top-ups, payouts, credit lots. That money came, left or went back is the word of
treasurer and processor; that no other record moves any, is here. Source: spec/ledger.md,
spec/audit.md.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from farthing.protocol.faults import FaultKind, RuleBroken, rule
from farthing.protocol.ids import derive_id
from farthing.protocol.ledger import AccountKind, Movement, Transfer, account_name
from farthing.protocol.records import Change, Record
from farthing.protocol.replay.blocks import amount_of, asset_of
from farthing.protocol.replay.budgets import Budgets
from farthing.protocol.replay.keys import PLATFORM
from farthing.protocol.replay.reading import JsonObject, integer, member, transfer, units
from farthing.protocol.replay.sessions import SESSION_OPERATIONS
from farthing.protocol.replay.spending import HOLD_OPERATIONS

__all__ = ["Treasury"]

_ELSEWHERE: Final = HOLD_OPERATIONS | SESSION_OPERATIONS
_ORIGINS: Final = {
    AccountKind.DEFERRED_REVENUE: AccountKind.EXTERNAL_CLEARING,
    AccountKind.PROMOTIONAL_CREDIT: AccountKind.PROMOTION,
}
# By noun, the state in which what is told is on its way, and the one in which it has moved.
_WAITS: Final = {"top_up": {"pending"}, "payout": {"requested", "sent"}}
_ANNOUNCES: Final = {"create_top_up": "top", "request_payout": "pay"}
_DONE: Final = {"top_up": "posted", "payout": "paid"}
_STATES: Final = {
    "top_up": {"expired", "failed", "pending", "posted"},
    "payout": {"cancelled", "failed", "paid", "requested", "sent"},
}
_LOST: Final = {("expired", "posted"), ("failed", "posted")}
_SENT: Final = {("requested", "paid"), ("sent", "paid")}
_LEFT: Final = {("cancelled", "paid"), ("failed", "paid")}
_RETURNED: Final = {("requested", "failed"), ("sent", "failed")}
_REVERSED: Final = {"reverse_payout": ("paid", "paid"), "reverse_top_up": ("posted", "posted")}
# By operation, from where to where it takes a payment that was announced.
_STEPS: Final = {
    "cancel_payout": {("requested", "cancelled")},
    "confirm_payout": _SENT | _LEFT,
    "confirm_top_up": {("pending", "posted"), *_LOST},
    "expire_top_up": {("pending", "expired")},
    "fail_payout": _RETURNED,
    "fail_top_up": {("pending", "failed")},
    "process_event": {
        ("pending", "posted"), ("pending", "failed"), *_LOST, *_SENT, *_LEFT, *_RETURNED,
        *_REVERSED.values(),
    },
    "send_payout": {("requested", "sent")},
    **{operation: {step} for operation, step in _REVERSED.items()},
}  # fmt: skip
_moved = rule(FaultKind.LEDGER)
# What changes of a payment once it was announced.
_TOLD: Final = frozenset({"event_id", "reference", "reversed_units", "sent_at_us", "status"})


class _Payment(NamedTuple):
    """What of a top-up or payout stays as it was announced, how it stands, and what went back.

    `named` is the processor's own id of it, and of the event that said so; `was` is how it stood
    before it stood so.
    """

    what: JsonObject
    status: str
    reversed_units: int
    named: tuple[str, str]
    was: str


class Treasury:
    """Top-ups, payouts and credit lots, as the records so far leave them.

    Args:
        budgets: Who is frozen, and so is paid nothing out.
    """

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets
        self._payments: dict[str, _Payment] = {}
        # What of each lot has ended, and what was taken back.
        self._gone: dict[tuple[str, str], int] = {}

    def follow(self, record: Record, *, charges: bool) -> None:
        """Judge the next record, and learn from it.

        Args:
            record: The record.
            charges: Whether it changes a charge, which says what it moves.

        Raises:
            RuleBroken: It moves what nothing in it explains.
        """
        expected: list[Transfer] = []
        if record.operation == "fund_account":
            account = (member(record.asked, "organisation_id"), AccountKind.PREPAID)
            asset, amount_units = _asked(record)
            expected = _between(Movement.POST, _CLEARING, account, asset, amount_units)
            expected += _repaid(record, account[0], asset)
        elif record.operation == "withdraw_funds":
            account = (member(record.asked, "organisation_id"), AccountKind.PREPAID)
            asset, amount_units = _asked(record)
            expected += _back(record, "top_up", account, asset, amount_units)
            expected += _repaid(record, account[0], asset)
        for change in record.changed:
            if change.noun in _WAITS:
                expected += self._payment(record, change)
            elif change.noun == "lot":
                expected += self._lot(record, change)
        if charges or record.operation in _ELSEWHERE:
            return
        same = _sorted(record.moved) == _sorted(expected)
        _moved(same, f"{record.operation} moves other than it says")

    def _payment(self, record: Record, change: Change) -> Iterable[Transfer]:
        """Money that was announced is pending, and voided when it has moved or never will."""
        before = self._payments.get(change.id)
        after = self._judged(record, change, before)
        self._payments[change.id] = after
        return _moves(record, change, before, after)

    def _judged(self, record: Record, change: Change, before: _Payment | None) -> _Payment:
        """A payment after a record, which must say of it what it did."""
        payment, noun = change.after, change.noun
        asset, amount_units = member(payment, "asset"), units(payment, "amount_units")
        after = _Payment(
            {name: each for name, each in payment.items() if name not in _TOLD},
            member(payment, "status"),
            units({"reversed_units": "0", **payment}, "reversed_units"),
            (member(payment, "reference"), member(payment, "event_id")),
            before.status if before else "",
        )
        is_back, back_units = _goes_back(before, after)
        _moved(is_back is (back_units > 0), "money goes back that was not said to")
        _moved(after.reversed_units <= amount_units, "more goes back than came")
        _moved(after.status in _STATES[noun], f"{after.status} is no state of a {noun}")
        named = record.asked.get(f"{noun}_id", record.asked.get("payment_id"))
        gives_way = before is not None and named != change.id
        if before is None:
            self._announced(record, change)
        else:
            step = (before.status, after.status)
            way = record.operation in _LEAVES and step == _GIVEN_UP
            given = way and self._gives_way(record, change, str(named))
            _moved(named == change.id or given, "another payment than was asked for")
            _moved(before.what == after.what, "the payment is another than it was")
            becomes = f"{step[0]} becomes {step[1]} by it"
            _moved(given or step in _STEPS.get(record.operation, ()), becomes)
            overdue = integer({"expires_at_us": 0, **payment}, "expires_at_us") <= record.at_us
            _moved(record.operation != "expire_top_up" or overdue, "it expires before its time")
        if record.operation == "process_event" and not gives_way:
            outcome = "failed" if after.status == "failed" else "paid"
            said = ("reversed", after.reversed_units) if is_back else (outcome, amount_units)
            _said(record, payment, *said)
        elif is_back:
            total = asset_of(record.asked, "total"), amount_of(record.asked, "total")
            same = total == (asset, after.reversed_units)
            _moved(same, "another amount has gone back than was said")
        was = before.named if before else ("", "")
        expected = was if is_back or gives_way else _named(record, was)
        _moved(after.named == expected, "it has another id than was told")
        owner = member(payment, "organisation_id")
        own = record.operation != "cancel_payout" or record.by.organisation_id == owner
        _moved(own, "another's payout is cancelled")
        if record.operation in _FROZEN and self._budgets.is_frozen(owner):
            raise RuleBroken(FaultKind.AUTHORITY, "something is paid out to who is frozen")
        return after

    def _announced(self, record: Record, change: Change) -> None:
        """A payment begins by its house's asking, or where money came again for a top-up."""
        payment, asked = change.after, record.asked
        if record.operation == "process_event" and change.noun == "top_up":
            first = self._payments[member(asked, "payment_id")]
            again_id = derive_id(
                "top", member(asked, "payment_id"), record.operation, member(asked, "reference")
            )
            same = all(payment[name] == first.what[name] for name in _SAME_AGAIN)
            again = (change.id, first.status, payment["status"]) == (again_id, "posted", "pending")
            _moved(same and again, "another payment than came before")
            return
        prefix = _ANNOUNCES.get(record.operation, "")
        own_id = record.new_id(prefix) if prefix else ""
        begins = payment["status"] in {"pending", "requested"} and change.id == own_id
        _moved(begins, "a payment begins otherwise than by its asking")
        found = record.by.organisation_id, *_asked(record), asked.get("destination", "")
        _moved(
            found
            == (
                payment["organisation_id"],
                payment["asset"],
                units(payment, "amount_units"),
                payment.get("destination", ""),
            ),
            "another payment than was asked for",
        )
        if change.noun == "payout":
            account = asked.get("account", AccountKind.VENDOR_PAYABLE)
            _moved(payment["kind"] == account, "it is of another account than was asked for")

    def _gives_way(self, record: Record, change: Change, named: str) -> bool:
        """Whether the record books another payout of its account, which had been given up."""
        known = self._payments.get(named)
        left = [each.after for each in record.changed if each.id == named]
        return (
            known is not None
            and known.was in _LOST_PAYOUTS
            and any(
                each["status"] == "paid" and all(each[n] == change.after[n] for n in _SAME_ACCOUNT)
                for each in left
            )
        )

    def _lot(self, record: Record, change: Change) -> Iterable[Transfer]:
        """A lot is given whole; what is over of it at its end is breakage, or is taken back."""
        lot = change.after
        kind = AccountKind(member(lot, "kind"))
        account, asset = (member(lot, "operator_id"), kind), member(lot, "asset")
        origin = (PLATFORM, _ORIGINS[kind])
        if record.operation == "grant_credit":
            found = member(record.asked, "organisation_id"), *_asked(record)
            same = found == (account[0], asset, units(lot, "amount_units"))
            _moved(same, "another lot than was asked for")
            yield from _between(Movement.POST, origin, account, asset, units(lot, "amount_units"))
        for gone, to in (("expired_units", _BREAKAGE), ("withdrawn_units", origin)):
            known = self._gone.get((change.id, gone), 0)
            self._gone[change.id, gone] = units({gone: "0", **lot}, gone)
            more_units = self._gone[change.id, gone] - known
            yield from _between(Movement.POST, account, to, asset, more_units)


# By these a payout leaves that was given up before.
_LEAVES: Final = frozenset({"confirm_payout", "process_event"})
_LOST_PAYOUTS: Final = {status for status, _ in _LEFT}
_GIVEN_UP: Final = ("requested", "failed")
_SAME_ACCOUNT: Final = ("asset", "kind", "organisation_id")
_SAME_AGAIN: Final = ("amount_units", "asset", "organisation_id")
_FROZEN: Final = frozenset({"request_payout", "send_payout"})
_BREAKAGE: Final = (PLATFORM, AccountKind.BREAKAGE)
_CLEARING: Final = (PLATFORM, AccountKind.EXTERNAL_CLEARING)


def _between(
    movement: Movement,
    debit: tuple[str, AccountKind],
    credit: tuple[str, AccountKind],
    asset: str,
    amount_units: int,
) -> list[Transfer]:
    return transfer(
        movement, account_name(*debit, asset), account_name(*credit, asset), asset, amount_units
    )


def _goes_back(before: _Payment | None, after: _Payment) -> tuple[bool, int]:
    """Whether what had moved stays so, and how much more of it has gone back."""
    back_units = after.reversed_units - (before.reversed_units if before else 0)
    is_back = before is not None and (before.status, after.status) in _REVERSED.values()
    return is_back, back_units


def _moves(
    record: Record, change: Change, before: _Payment | None, after: _Payment
) -> Iterable[Transfer]:
    """What a payment moves from where it stood to where it stands."""
    payment, noun = change.after, change.noun
    owner, asset = member(payment, "organisation_id"), member(payment, "asset")
    account = owner, AccountKind(str(payment.get("kind", AccountKind.PREPAID)))
    is_back, back_units = _goes_back(before, after)
    waits = after.status in _WAITS[noun]
    waited = before is not None and before.status in _WAITS[noun]
    steps = [Movement.PENDING] * (waits and not waited)
    steps += [Movement.VOID] * (waited and not waits)
    steps += [Movement.POST] * (after.status == _DONE[noun] and not is_back)
    debit, credit = (_CLEARING, account) if noun == "top_up" else (account, _CLEARING)
    for movement in steps:
        yield from _between(movement, debit, credit, asset, units(payment, "amount_units"))
    if is_back:
        yield from _back(record, noun, account, asset, back_units)
    if noun == "top_up" and after.status == _DONE[noun]:
        yield from _repaid(record, owner, asset)


def _back(
    record: Record, noun: str, account: tuple[str, AccountKind], asset: str, back_units: int
) -> Iterable[Transfer]:
    """Out of what an operator has, the rest is owed: how much it has `audit.take` knows."""
    if noun == "payout":
        return _between(Movement.POST, _CLEARING, account, asset, back_units)
    owed = account[0], AccountKind.RECEIVABLE
    owed_units = min(_posted(record, owed, _CLEARING, asset), back_units)
    may_owe = record.operation == "process_event" or record.asked.get("may_owe") is True
    _moved(may_owe or not owed_units, "it is owed though it was not to be")
    return [
        *_between(Movement.POST, account, _CLEARING, asset, back_units - owed_units),
        *_between(Movement.POST, owed, _CLEARING, asset, owed_units),
    ]


def _repaid(record: Record, owner: str, asset: str) -> list[Transfer]:
    """What is paid of what is owed, as money comes: how much it must be `audit.take` knows."""
    sides = (owner, AccountKind.PREPAID), (owner, AccountKind.RECEIVABLE)
    return _between(Movement.POST, *sides, asset, _posted(record, *sides, asset))


def _posted(
    record: Record, debit: tuple[str, AccountKind], credit: tuple[str, AccountKind], asset: str
) -> int:
    sides = account_name(*debit, asset), account_name(*credit, asset)
    return sum(
        each.units
        for each in record.moved
        if (each.movement, each.debit, each.credit) == (Movement.POST, *sides)
    )


def _said(record: Record, payment: JsonObject, outcome: str, amount_units: int) -> None:
    """What a processor says is done: of the very amount, and nothing else."""
    said = [record.asked[name] for name in ("outcome", "asset", "units")]
    same = said == [outcome, payment["asset"], str(amount_units)]
    _moved(same, "the processor said something else")


def _named(record: Record, was: tuple[str, str]) -> tuple[str, str]:
    """The processor's ids of a payment after a record of it, by which what goes back is found."""
    told = str(record.asked.get("reference", ""))
    match record.operation:
        case "process_event":
            return told, member(record.asked, "event_id")
        case "confirm_payout" | "confirm_top_up":
            return told, ""
        case "fail_payout" | "fail_top_up":
            return told, was[1]
        case _:
            return was


def _asked(record: Record) -> tuple[str, int]:
    return asset_of(record.asked, "amount"), amount_of(record.asked, "amount")


def _sorted(transfers: Iterable[Transfer]) -> list[str]:
    return sorted(map(repr, transfers))
