"""The whole trial balance, whatever number of pages it takes, added up again.

Boundary: asks and adds up. Source: spec/ledger.md#trial-balance.
"""

from dataclasses import replace
from operator import attrgetter
from typing import Final

from farthing.clients.pages import Pages
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
        Unverified: its rows do not add up to its totals, or these are not as balanced as it says;
            or its pages do not end.
        Refused: as `get_trial_balance`.
    """
    ask = GetTrialBalance(at_seq=at_seq)
    rows: list[TrialRow] = []
    pages = Pages()
    while True:
        page = await connection.call(GET_TRIAL_BALANCE, ask)
        rows += page.rows
        if not page.cursor:
            break
        ask = replace(ask, cursor=pages.next(page.cursor, len(page.rows)))
    whole = replace(page, rows=tuple(rows))
    _check(whole)
    return whole


def _check(trial: TrialBalance) -> None:
    of_record = f"of record {trial.as_of_seq}"
    sums: dict[str, list[int]] = {}
    try:
        totals = {each.asset: _units(each) for each in trial.totals}
        for row in trial.rows:
            before = sums.get(row.asset, [0, 0, 0, 0])
            sums[row.asset] = [a + b for a, b in zip(before, _units(row), strict=True)]
    except (KeyError, ValueError):
        raise Unverified(f"the counters {of_record} are not all amounts of an asset") from None
    if sums != totals:
        raise Unverified(f"the accounts do not add up to the totals {of_record}")
    if trial.balanced != all(each[0::2] == each[1::2] for each in totals.values()):
        raise Unverified(f"the totals {of_record} are not as balanced as is said")


def _units(counted: TrialRow | TrialTotal) -> list[int]:
    """The four counters; of a lifetime, they go beyond what one amount may be."""
    scale = ASSETS[counted.asset].scale
    parts = (each.partition(".") for each in _COUNTERS(counted))
    return [int(whole + fraction.ljust(scale, "0")) for whole, _, fraction in parts]
