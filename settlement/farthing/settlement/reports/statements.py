"""A statement: opening balances, lines, closing balances, a page at a time.

Boundary: reads a view; knows nothing of the wire. A page names the moment that the first one was
read at, so that all pages are of the same statement. Source: spec/statements.md.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from msgspec import structs

from farthing.protocol.canonical import INTEGER_MAX
from farthing.protocol.ledger import Account
from farthing.settlement.reports.lines import Line, moved_by
from farthing.settlement.reports.reads import Kept, View

__all__ = ["Order", "Page", "Period", "Place", "balances_at", "page_of", "records_of"]

Order = Literal["recorded", "effective"]

# Before every line, whatever it is ordered by.
_FIRST: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """Which lines: those of some accounts, from a time and before another, by one of two times.

    `reference`, unless empty: those alone that are booked under it outside.
    """

    order: Order = "recorded"
    since_us: int = 0
    until_us: int = INTEGER_MAX
    reference: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a page ends: the moment its statement is of, and the key of its last line."""

    as_of_seq: int
    key: tuple[int, int, int] = (_FIRST, _FIRST, _FIRST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of a statement.

    Args:
        opening, closing: each account's counters at both ends of the whole period.
        lines: the page's lines; `after` is where the account stood in the order asked for.
        as_of_seq: the last record that the statement knows of.
        more: where the next page begins, if there is one.
    """

    opening: Mapping[str, Account]
    closing: Mapping[str, Account]
    lines: Sequence[Line]
    as_of_seq: int
    more: Place | None = None


async def page_of(
    view: View, accounts: Sequence[Kept], period: Period, place: Place, limit: int
) -> Page:
    """A page of the statement of some accounts.

    Args:
        view: what is read; it reaches to `place.as_of_seq` at least.
        accounts: whose lines.
        period: which lines.
        place: where the page begins.
        limit: the most lines of the page.
    """
    seq_max = place.as_of_seq
    if period.order == "recorded":
        since_seq = min(await view.seq_at(period.since_us - 1), seq_max)
        until_seq = min(await view.seq_at(period.until_us - 1), seq_max)
        opening = {each.name: await view.at_seq(each, since_seq) for each in accounts}
        closing = {each.name: await view.at_seq(each, until_seq) for each in accounts}
        after = max((since_seq, INTEGER_MAX), place.key[1:])
        found = [
            await view.recorded(each, after, until_seq, limit + 1, period.reference)
            for each in accounts
        ]
        lines = sorted((line for some in found for line in some), key=lambda line: line.key)
    else:
        opening = await _effective_before(view, accounts, period.since_us, seq_max)
        closing = await _effective_before(view, accounts, period.until_us, seq_max)
        key = max((period.since_us, _FIRST, _FIRST), place.key)
        found = [
            await view.effective(
                each, key, period.until_us, seq_max, limit + 1, reference=period.reference
            )
            for each in accounts
        ]
        lines = sorted(
            (line for some in found for line in some), key=lambda line: line.effective_key
        )
    more = len(lines) > limit
    lines = lines[:limit]
    if period.order == "effective":
        lines = [line async for line in _in_effect(view, accounts, lines, seq_max)]
    return Page(
        opening=opening,
        closing=closing,
        lines=lines,
        as_of_seq=seq_max,
        more=replace(place, key=lines[-1].effective_key) if more else None,
    )


async def balances_at(
    view: View, accounts: Sequence[Kept], *, seq: int, effective_at_us: int | None = None
) -> dict[str, Account]:
    """Accounts as they stood after a record, of that alone which had taken effect by a time."""
    if effective_at_us is None:
        return {each.name: await view.at_seq(each, seq) for each in accounts}
    return await _effective_before(view, accounts, effective_at_us + 1, seq)


async def records_of(
    view: View, accounts: Sequence[Kept], after_seq: int, limit: int
) -> tuple[list[list[Line]], int]:
    """The lines after a record, record by record and each record whole, about `limit` of them.

    Returns:
        The lines of each record, and the record up to which these are all.
    """
    found = [
        await view.recorded(each, (after_seq, INTEGER_MAX), view.as_of_seq, limit)
        for each in accounts
    ]
    # Where an account's lines were cut off, its last record may be cut in two: another reading's.
    ends = [some[-1].seq for some in found if len(some) == limit]
    until_seq = min(ends) - 1 if ends else max(after_seq, view.as_of_seq)
    records: dict[int, list[Line]] = {}
    for line in sorted((line for some in found for line in some), key=lambda line: line.key):
        if line.seq <= until_seq:
            records.setdefault(line.seq, []).append(line)
    assert records or not ends, "one record has more lines than are read at once"
    return list(records.values()), until_seq


async def _effective_before(
    view: View, accounts: Sequence[Kept], before_us: int, seq_max: int
) -> dict[str, Account]:
    key = (before_us, _FIRST, _FIRST)
    return {each.name: await view.effective_before(each, key, seq_max) for each in accounts}


async def _in_effect(
    view: View, accounts: Sequence[Kept], lines: Sequence[Line], seq_max: int
) -> AsyncIterator[Line]:
    """Lines with each account as it stood in the order of taking effect."""
    kept = {each.name: each for each in accounts}
    standing: dict[str, Account] = {}
    for line in lines:
        before = standing.get(line.account)
        if before is None:
            account = kept[line.account]
            before = await view.effective_before(account, line.effective_key, seq_max)
        after = standing[line.account] = moved_by(before, (line,))
        yield structs.replace(line, after=after)
