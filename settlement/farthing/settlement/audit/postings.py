"""The journal as a stream of postings, for programs that read tables.

Boundary: reads batches one after another and keeps none, whatever the journal's length.
Source: spec/audit.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from farthing.protocol.audit import take
from farthing.protocol.chain import BadRecord, Chain
from farthing.protocol.ledger import Account
from farthing.protocol.money import ASSETS
from farthing.protocol.records import Record
from farthing.protocol.times import format_time
from farthing.protocol.views import ids_of
from farthing.settlement.journal.store import Store

__all__ = ["COLUMNS", "Books", "Entry", "Posting", "amount_of", "entries", "postings"]


class Posting(NamedTuple):
    """One transfer of one record, as a row.

    `transfer` is its place in the record: lines 2n and 2n + 1 of a statement are of transfer n.
    `amount` is exact, with all places of its asset. `ids` names the things behind it, as a
    statement does, each as `noun:id`.
    """

    seq: int
    transfer: int
    at: str
    operation: str
    principal_id: str
    organisation_id: str
    movement: str
    debit: str
    credit: str
    asset: str
    units: int
    amount: str
    ids: str
    record_sha256: str


COLUMNS: Final = Posting._fields


@dataclass(frozen=True, slots=True)
class Entry:
    """A record as the journal has it, and the hash of its bytes."""

    record: Record
    data: bytes
    sha256: str


class Books:
    """What a stream of entries comes to so far: the trial balance, without the stream."""

    def __init__(self) -> None:
        self.seq = 0
        self.at_us = 0
        self.accounts: dict[str, Account] = {}
        self._grace: dict[str, int] = {}

    def take(self, entry: Entry) -> None:
        """Take the next entry. Raises `Broken` where it breaks the ledger."""
        self.seq, self.at_us = entry.record.seq, entry.record.at_us
        take(entry.record, self.accounts, self._grace)


def entries(store: Store) -> Iterator[Entry]:
    """Every record of a journal, in order; books of a journal that was changed are no books.

    Raises:
        Unreadable: storage cannot be read.
        Unverified: a record is none, does not follow the one before, or has not the root that was
            written with it.
    """
    chain = Chain()
    for batch in store.batches():
        for data in batch.records:
            yield Entry(record=chain.read(data), data=data, sha256=chain.head)
        if chain.tree.root().hex() != batch.root_sha256:
            raise BadRecord(batch.first_seq, "the batch that begins with it has another root")


def postings(entry: Entry) -> Iterator[Posting]:
    """The rows of an entry, one for each of its transfers."""
    record = entry.record
    ids = " ".join(f"{noun}:{thing}" for noun, thing in ids_of(record).items())
    for place, transfer in enumerate(record.moved):
        yield Posting(
            seq=record.seq,
            transfer=place,
            at=format_time(record.at_us),
            operation=record.operation,
            principal_id=record.by.principal_id,
            organisation_id=record.by.organisation_id,
            movement=transfer.movement.value,
            debit=transfer.debit,
            credit=transfer.credit,
            asset=transfer.asset,
            units=transfer.units,
            amount=amount_of(transfer.units, transfer.asset),
            ids=ids,
            record_sha256=entry.sha256,
        )


def amount_of(units: int, asset: str) -> str:
    """Units as a decimal with all places of the asset: every amount of one asset lines up."""
    scale = ASSETS[asset].scale
    whole, part = divmod(abs(units), 10**scale)
    return f"{'-' if units < 0 else ''}{whole}.{part:0{scale}}"
