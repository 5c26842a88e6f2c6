"""Closed accounts of a whole journal: nothing new begins on one, but money for what is owed.

Boundary: that it was empty when it was closed `audit.take` knows. Source: spec/ledger.md.
"""

from collections import Counter
from typing import Final

from farthing.protocol.faults import FaultKind, RuleBroken
from farthing.protocol.ledger import AccountKind, Movement, account_name, split_account
from farthing.protocol.records import Record
from farthing.protocol.replay.reading import member

__all__ = ["Closures"]

_BEGINNINGS: Final = frozenset({
    "call_service", "create_top_up", "fund_account", "grant_credit", "open_session", "place_hold",
    "set_grace", "top_up_session",
})  # fmt: skip
# What still comes to a closed account whose owner owes.
_PAYS: Final = frozenset({"create_top_up", "fund_account"})
_OWED: Final = f":{AccountKind.RECEIVABLE}:"
# Which account is closed where nothing lies on one of these any more.
_WITH: Final = {
    AccountKind.DEFERRED_REVENUE: AccountKind.PREPAID,
    AccountKind.PROMOTIONAL_CREDIT: AccountKind.PREPAID,
    AccountKind.VENDOR_PENDING: AccountKind.VENDOR_PAYABLE,
}


class Closures:
    """Which accounts are closed, as the records so far leave it."""

    def __init__(self) -> None:
        self._closed: set[str] = set()
        self._owed = Counter[str]()

    def follow(self, record: Record) -> None:
        """Judge the next record, and learn from it. Raises `RuleBroken`."""
        if self._closed and record.operation in _BEGINNINGS:
            named = {change.id for change in record.changed if change.noun == "grace"}
            for moved in record.moved:
                if moved.movement is not Movement.VOID:
                    named |= {_account_of(moved.debit), _account_of(moved.credit)}
            if record.operation in _PAYS:
                named = {name for name in named if not self._owed[name]}
            if found := named & self._closed:
                why = f"{record.operation} begins something on {min(found)}, which is closed"
                raise RuleBroken(FaultKind.LEDGER, why)
        for moved in record.moved:
            if moved.movement is Movement.POST:
                self._owe(moved.debit, moved.units)
                self._owe(moved.credit, -moved.units)
        for change in record.changed:
            if change.noun == "closure":
                asked = [
                    member(record.asked, each) for each in ("organisation_id", "account", "asset")
                ]
                name = ":".join(asked)
                if (change.id, change.after) != (name, {"account": name, "seq": record.seq}):
                    raise RuleBroken(
                        FaultKind.LEDGER, "another account is closed than was asked for"
                    )
                self._closed.add(name)

    def _owe(self, name: str, amount_units: int) -> None:
        if _OWED in name:
            owner, _, asset = split_account(name)
            self._owed[account_name(owner, AccountKind.PREPAID, asset)] += amount_units


def _account_of(name: str) -> str:
    owner, kind, asset = split_account(name)
    return account_name(owner, _WITH.get(kind, kind), asset)
