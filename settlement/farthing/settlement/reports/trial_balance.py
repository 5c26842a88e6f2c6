"""The trial balance of a record: accounts by name, a page at a time, and the totals of all.

Boundary: reads a view; knows nothing of the wire. Source: spec/ledger.md#trial-balance.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Row,
    Select,
    Table,
    cast,
    func,
    literal,
    select,
    tuple_,
)

from farthing.protocol.ledger import Account, split_account
from farthing.settlement.reports.lines import moved_by
from farthing.settlement.reports.projection import account_of
from farthing.settlement.reports.reads import View
from farthing.settlement.reports.tables import ACCOUNT, LINE

__all__ = ["Totals", "accounts_at", "totals_at"]

# How many records' totals are kept, those asked for last: whoever reads pages asks again.
_KEPT_MAX: Final = 16
# A counter, 39 digits at most, is added up in four parts: SQLite's integers have 64 bits.
_PARTS: Final = 4
_PART_DIGITS: Final = 10
_COUNTERS: Final = ("debits_pending", "debits_posted", "credits_pending", "credits_posted")
_CAPITALS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Totals:
    """The totals of one journal's records. They cost a look at every account, and never change.

    `turn` is held by who reads a trial balance, so that one at a time is added up.
    """

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self._known: dict[int, Mapping[str, Account]] = {}

    async def at(self, view: View, seq: int) -> Mapping[str, Account]:
        """As `totals_at`."""
        found = self._known.pop(seq, None)
        if found is None:
            found = await totals_at(view, seq)
        self._known[seq] = found
        if len(self._known) > _KEPT_MAX:
            del self._known[next(iter(self._known))]
        return found


async def accounts_at(
    view: View, seq: int, after: str, limit: int
) -> tuple[dict[str, Account], str]:
    """Of the next accounts by name, those that had begun by a record, as they stood after it.

    Args:
        view: what is read; it reaches to the record.
        seq: the record.
        after: the name that they come after.
        limit: how many are looked at.

    Returns:
        Them by name, and the name that the next ones come after; empty where there are no more.
    """
    named = (
        select(ACCOUNT.c.number, ACCOUNT.c.name.label("owned"))
        .where(ACCOUNT.c.name > after)
        .order_by(ACCOUNT.c.name)
        .limit(limit + 1)
        .subquery()
    )
    counters = (LINE.c[each] for each in _COUNTERS)
    stored = select(named.c.owned, LINE.c.seq, *counters).outerjoin_from(
        named, LINE, (LINE.c.account == named.c.number) & _is_last(named.c.number, seq)
    )
    found = {
        row.owned: None if row.seq is None else account_of(row) for row in await view.rows(stored)
    }
    late = [line for line in view.tail if line.account > after]
    found |= {line.account: found.get(line.account) for line in late}
    found |= {line.account: line.after for line in late if line.seq <= seq}
    names = sorted(found)
    shown = {name: found[name] for name in names[:limit]}
    more = names[limit - 1] if len(names) > limit else ""
    return {name: each for name, each in shown.items() if each is not None}, more


async def totals_at(view: View, seq: int) -> dict[str, Account]:
    """What all accounts of each asset added up to after a record; SQLite adds, none is fetched."""
    if seq < view.stored_seq:
        counted = (
            _sums(LINE)
            .select_from(ACCOUNT)
            .join(LINE, (LINE.c.account == ACCOUNT.c.number) & _is_last(ACCOUNT.c.number, seq))
        )
    else:
        counted = _sums(ACCOUNT)
    totals = {row.asset: _total(row) for row in await view.rows(counted)}
    for line in view.tail:
        if line.seq <= seq:
            asset = split_account(line.account)[2]
            totals[asset] = moved_by(totals.get(asset, Account()), (line,))
    return dict(sorted(totals.items()))


def _is_last(number: ColumnElement[int], seq: int) -> ColumnElement[bool]:
    """Whether a line is the last of an account up to a record: one seek in the index."""
    other = LINE.alias()
    last = (
        select(other.c.seq, other.c.line)
        .where(other.c.account == number, other.c.seq <= seq)
        .order_by(other.c.seq.desc(), other.c.line.desc())
        .limit(1)
    )
    return tuple_(LINE.c.seq, LINE.c.line) == last.scalar_subquery()


def _sums(table: Table) -> Select[Any]:
    """By asset, the parts of the sums of a table's counters."""
    name = ACCOUNT.c.name
    asset = func.replace(name, func.rtrim(name, _CAPITALS), "").label("asset")
    digits = _PARTS * _PART_DIGITS
    parts = []
    for counter in _COUNTERS:
        padded = func.substr(literal("0" * digits).concat(table.c[counter]), -digits)
        for place in range(_PARTS):
            part = func.substr(padded, 1 + place * _PART_DIGITS, _PART_DIGITS)
            parts.append(func.sum(cast(part, BigInteger)).label(f"{counter}_{place}"))
    return select(asset, *parts).group_by(asset)


def _total(row: Row[Any]) -> Account:
    sums = row._asdict()
    total = Account()
    for counter in _COUNTERS:
        units = 0
        for place in range(_PARTS):
            units = units * 10**_PART_DIGITS + sums[f"{counter}_{place}"]
        setattr(total, counter, units)
    return total
