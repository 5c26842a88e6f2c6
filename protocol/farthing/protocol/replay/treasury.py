"""Money in and out of a whole journal: what each record moves is what it says that it did.

Boundary: funding, top-ups, payouts, credit lots. That money came or left is the treasurer's word;
that no other record moves any, is here. Source: spec/ledger.md, spec/audit.md.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from farthing.protocol.faults import FaultKind, RuleBroken
from farthing.protocol.ledger import AccountKind, Movement, Transfer, account_name
from farthing.protocol.records import Change, Record
from farthing.protocol.replay.blocks import amount_of, asset_of
from farthing.protocol.replay.keys import PLATFORM
from farthing.protocol.replay.reading import member, transfer, units
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
_ANNOUNCES: Final = frozenset({"create_top_up", "request_payout"})
_DONE: Final = {"top_up": "posted", "payout": "paid"}


class _Payment(NamedTuple):
    """Whose money a top-up or payout is, on which account, how much, to where, how it stands."""

    what: tuple[str, AccountKind, str, int, str]
    waits: bool
    is_done: bool


class Treasury:
    """Top-ups, payouts and credit lots, as the records so far leave them."""

    def __init__(self) -> None:
        self._payments: dict[str, _Payment] = {}
        self._expired: dict[str, int] = {}

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
            asset, amount_units = (
                asset_of(record.asked, "amount"),
                amount_of(record.asked, "amount"),
            )
            expected = _between(Movement.POST, _CLEARING, account, asset, amount_units)
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
        payment, noun = change.after, change.noun
        status, owner = member(payment, "status"), member(payment, "organisation_id")
        kind = AccountKind(str(payment.get("kind", AccountKind.PREPAID)))
        asset, amount_units = member(payment, "asset"), units(payment, "amount_units")
        where = str(payment.get("destination", ""))
        what = (owner, kind, asset, amount_units, where)
        before = self._payments.get(change.id)
        if before is None and record.operation in _ANNOUNCES:
            found = record.by.organisation_id, *_asked(record), record.asked.get("destination", "")
            same = found == (owner, asset, amount_units, where)
            _moved(same, "another payment than was asked for")
        _moved(before is None or before.what == what, "the payment is another than it was")
        after = _Payment(what, status in _WAITS[noun], status == _DONE[noun])
        self._payments[change.id] = after
        waited, was_done = (before.waits, before.is_done) if before else (False, False)
        steps = [Movement.PENDING] * (after.waits and not waited)
        steps += [Movement.VOID] * (waited and not after.waits)
        steps += [Movement.POST] * (after.is_done and not was_done)
        debit, credit = _CLEARING, (owner, kind)
        if noun == "payout":
            debit, credit = credit, debit
        for movement in steps:
            yield from _between(movement, debit, credit, asset, amount_units)

    def _lot(self, record: Record, change: Change) -> Iterable[Transfer]:
        """A lot is given whole; what is over of it at its end is breakage."""
        lot = change.after
        kind = AccountKind(member(lot, "kind"))
        account, asset = (member(lot, "operator_id"), kind), member(lot, "asset")
        expired_units = int(str(lot.get("expired_units", 0)))
        more_units = expired_units - self._expired.get(change.id, 0)
        self._expired[change.id] = expired_units
        if record.operation == "grant_credit":
            found = member(record.asked, "organisation_id"), *_asked(record)
            same = found == (account[0], asset, units(lot, "amount_units"))
            _moved(same, "another lot than was asked for")
            origin = (PLATFORM, _ORIGINS[kind])
            yield from _between(Movement.POST, origin, account, asset, units(lot, "amount_units"))
        yield from _between(
            Movement.POST, account, (PLATFORM, AccountKind.BREAKAGE), asset, more_units
        )


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


def _asked(record: Record) -> tuple[str, int]:
    return asset_of(record.asked, "amount"), amount_of(record.asked, "amount")


def _moved(holds: bool, why: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        raise RuleBroken(FaultKind.LEDGER, why)


def _sorted(transfers: Iterable[Transfer]) -> list[str]:
    return sorted(map(repr, transfers))
