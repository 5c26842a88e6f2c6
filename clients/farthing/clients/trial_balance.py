"""The whole trial balance, whatever number of pages it takes, added up again.

Boundary: asks and adds up. Source: spec/ledger.md#trial-balance.
"""

from dataclasses import replace
from operator import attrgetter
from typing import Final

from farthing.clients.transport import Connection
from farthing.protocol.errors import Unverified
from farthing.protocol.messages.accounts import (
    GET_TRIAL_BALANCE,
    GetTrialBalance,
    TrialBalance,
    TrialRow,
    TrialTotal,
)
from farthing.protocol.money import ASSETS

__all__ = ["whole_trial_balance"]

_COUNTERS: Final = attrgetter(
    "debits_posted", "credits_posted", "debits_pending", "credits_pending"
)


async def whole_trial_balance(connection: Connection, at_seq: int = 0) -> TrialBalance:
    """All pages of a trial balance as one, of the record that the first page is of.

    Args:
        connection: the treasurer's or an admin's.
        at_seq: after this record of the journal; now without it.

    Raises:
        Unverified: its rows do not add up to its totals.
        Refused: as `get_trial_balance`.
    """
    ask = GetTrialBalance(at_seq=at_seq)
    rows: list[TrialRow] = []
    sums: dict[str, list[int]] = {}
    while True:
        page = await connection.call(GET_TRIAL_BALANCE, ask)
        rows += page.rows
        for row in page.rows:
            before = sums.get(row.asset, [0, 0, 0, 0])
            sums[row.asset] = [a + b for a, b in zip(before, _units(row), strict=True)]
        if not page.cursor:
            break
        ask = replace(ask, cursor=page.cursor)
    if sums != {each.asset: _units(each) for each in page.totals}:
        raise Unverified(f"the accounts do not add up to the totals of record {page.as_of_seq}")
    return replace(page, rows=tuple(rows))


def _units(counted: TrialRow | TrialTotal) -> list[int]:
    """The four counters; of a lifetime, they go beyond what one amount may be."""
    scale = ASSETS[counted.asset].scale
    parts = (each.partition(".") for each in _COUNTERS(counted))
    return [int(whole + fraction.ljust(scale, "0")) for whole, _, fraction in parts]
