"""Statement lines as arithmetic: what each transfer of a record did to each of its two accounts.

Boundary: pure. The follower writes these lines into tables, and a read makes those that the tables
do not hold yet, with this one fold. Source: spec/statements.md.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from farthing.protocol.canonical import INTEGER_MAX
from farthing.protocol.ledger import Account, Movement, Transfer, apply, split_account
from farthing.protocol.records import Record
from farthing.protocol.times import SECOND_US
from farthing.protocol.views import effective_at_us, held_seq, ids_of, reference_of

__all__ = [
    "LATENESS_MAX",
    "Entry",
    "Line",
    "Needs",
    "Side",
    "fold_lines",
    "lateness_below_us",
    "moved_by",
    "needs_of",
]

Side = Literal["debit", "credit"]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What the lines of one record share.

    Args:
        seq: the record's place in the journal.
        at_us: when it was recorded.
        effective_at_us: when it took effect; never later than it was recorded.
        operation: what was asked for.
        ids: the things behind it, by noun.
        buyer_id: the agent whose trade it is, where it is one's.
        reference: what it is booked under outside, where it is.
    """

    seq: int
    at_us: int
    effective_at_us: int
    operation: str
    ids: Mapping[str, str]
    buyer_id: str = ""
    reference: str = ""

    @property
    def lag_us(self) -> int:
        """How long after it took effect it was recorded."""
        return self.at_us - self.effective_at_us

    @property
    def lateness(self) -> int:
        """Below which time of `lateness_below_us` the lag is; 0 is not late."""
        return _lateness(self.lag_us)


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One side of one transfer, and the account as it stood after it.

    Args:
        entry: what it shares with the record's other lines.
        line: its place among them, from 0; `(seq, line)` names it in the whole journal.
        account: whose line it is, `owner:kind:asset`.
        side: whether the account was debited or credited.
        movement: pending, void or post.
        units: how much, in units of the account's asset.
        counterpart: the kind of the other account.
        after: the account's four counters after it.
    """

    entry: Entry
    line: int
    account: str
    side: Side
    movement: Movement
    units: int
    counterpart: str
    after: Account

    @property
    def seq(self) -> int:
        """The record's place in the journal."""
        return self.entry.seq

    @property
    def key(self) -> tuple[int, int]:
        """Where the line stands in the order of recording."""
        return self.entry.seq, self.line

    @property
    def effective_key(self) -> tuple[int, int, int]:
        """Where the line stands in the order of taking effect."""
        return self.entry.effective_at_us, self.entry.seq, self.line


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What must be known from before some records to fold them: accounts, and times of records."""

    accounts: frozenset[str]
    seqs: frozenset[int]


def needs_of(records: Iterable[Record]) -> Needs:
    """What folding these records, all of one stretch, takes from before them."""
    accounts: set[str] = set()
    seqs: set[int] = set()
    for record in records:
        for transfer in record.moved:
            accounts |= {transfer.debit, transfer.credit}
        if record.moved and (seq := held_seq(record)):
            seqs.add(seq)
    return Needs(accounts=frozenset(accounts), seqs=frozenset(seqs))


def fold_lines(
    records: Iterable[Record], accounts: dict[str, Account], times_us: Mapping[int, int]
) -> list[tuple[Entry, list[Line]]]:
    """The lines of a stretch of records; those that move nothing have none.

    Args:
        records: in order.
        accounts: every account that they move, as it stood before; moved on to where it stands
            after. One that is missing is empty.
        times_us: when the records of `Needs.seqs` were recorded, where they are before these.
    """
    known = dict(times_us)
    found: list[tuple[Entry, list[Line]]] = []
    for record in records:
        if not record.moved:
            continue
        known[record.seq] = record.at_us
        entry = Entry(
            seq=record.seq,
            at_us=record.at_us,
            effective_at_us=effective_at_us(record, known.get(held_seq(record), record.at_us)),
            operation=record.operation,
            ids=ids_of(record),
            buyer_id=_buyer_of(record),
            reference=reference_of(record),
        )
        lines: list[Line] = []
        for number, transfer in enumerate(record.moved):
            apply(accounts, transfer, None)
            lines += _both_sides(entry, number, transfer, accounts)
        found.append((entry, lines))
    return found


def lateness_below_us(lateness: int) -> int:
    """The time that a lag of a lateness is below: a second for 0, each next four times as long."""
    return SECOND_US << 2 * lateness


def _lateness(lag_us: int) -> int:
    return ((lag_us // SECOND_US).bit_length() + 1) // 2


LATENESS_MAX: Final = _lateness(INTEGER_MAX)
"""The lateness of the longest time there is."""


def moved_by(account: Account, lines: Sequence[Line]) -> Account:
    """An account after lines of it, in whichever order they are taken."""
    after = _copy(account)
    for line in lines:
        units = -line.units if line.movement is Movement.VOID else line.units
        match line.side, line.movement:
            case "debit", Movement.POST:
                after.debits_posted += units
            case "credit", Movement.POST:
                after.credits_posted += units
            case "debit", _:
                after.debits_pending += units
            case _:
                after.credits_pending += units
    return after


def _copy(account: Account) -> Account:
    return Account(
        account.debits_pending,
        account.debits_posted,
        account.credits_pending,
        account.credits_posted,
    )


def _buyer_of(record: Record) -> str:
    for change in record.changed:
        if buyer_id := change.after.get("buyer_id"):
            return str(buyer_id)
    return ""


def _both_sides(
    entry: Entry, number: int, transfer: Transfer, accounts: Mapping[str, Account]
) -> list[Line]:
    sides: tuple[tuple[Side, str, str], ...] = (
        ("debit", transfer.debit, transfer.credit),
        ("credit", transfer.credit, transfer.debit),
    )
    return [
        Line(
            entry=entry,
            line=2 * number + place,
            account=account,
            side=side,
            movement=transfer.movement,
            units=transfer.units,
            counterpart=split_account(other)[1].value,
            after=_copy(accounts[account]),
        )
        for place, (side, account, other) in enumerate(sides)
    ]
