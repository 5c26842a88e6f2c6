"""What the writer asks of storage, and the ways in which storage can fail.

Boundary: blocking on purpose, called from the writer's thread. Reading (`batches`, `record`) may be
done from any thread, beside the writer and without `acquire`. Source: spec/journal.md.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from sqlalchemy import Table

from farthing.protocol.errors import FarthingError

__all__ = [
    "Batch",
    "CommitRefused",
    "CommitUnknown",
    "DatabaseInUse",
    "Row",
    "Store",
    "Unreadable",
    "Value",
]

# Raw drivers pass SQLAlchemy's type processors by, so columns are text, int64 and bytes only.
Value = str | int | bytes | None
Row = tuple[Table, Mapping[str, Value]]


class DatabaseInUse(FarthingError):
    """Another engine has this storage, or has taken it over."""

    def __init__(self, where: str) -> None:
        super().__init__(f"database_in_use: {where}")
        self.where = where


class CommitRefused(FarthingError):
    """Storage did not take the batch (full, busy); nothing of it was written."""


class CommitUnknown(FarthingError):
    """Whether the batch was written is not known; only reading storage anew can tell."""


class Unreadable(FarthingError):
    """Storage cannot be read, or was written by a version that is not known here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Records that are committed together, sealed.

    Args:
        epoch: the tenure of the writer that made it.
        first_seq: position of the first record.
        records: canonical bytes of each record; never empty.
        head_sha256: hash of the last record.
        root_sha256: root of the tree up to and including the last record.
        note: signed head over that root.
        at_us: time of the last record; 0 when read back.
        rows: projection rows and kept rows to write in the same transaction; empty when read back.
    """

    epoch: int
    first_seq: int
    records: tuple[bytes, ...] = field(repr=False)
    head_sha256: str
    root_sha256: str
    note: str = field(repr=False)
    at_us: int = 0
    rows: tuple[Row, ...] = field(default=(), repr=False)

    @property
    def last_seq(self) -> int:
        """Position of the last record."""
        return self.first_seq + len(self.records) - 1


class Store(Protocol):
    """Where the journal lies. All stores given the same batches hold the same bytes."""

    def acquire(self) -> int:
        """Take the storage for this process alone and give the new epoch, above all before.

        Raises:
            DatabaseInUse: another engine has it.
            Unreadable: it cannot be opened, or its schema is not known.
        """

    def commit(self, batch: Batch) -> None:
        """Write a batch and its rows, whole and durably, or nothing.

        Raises:
            CommitRefused: nothing was written.
            CommitUnknown: it may have been written.
            DatabaseInUse: the batch's epoch is not the storage's.
        """

    def batches(self, after_seq: int = 0) -> Iterator[Batch]:
        """The batches that hold records after `after_seq`; the first may begin before.

        Raises:
            Unreadable: they cannot be read.
        """

    def record(self, seq: int) -> bytes | None:
        """The bytes of one record.

        Raises:
            Unreadable: it cannot be read.
        """

    def snapshot(self) -> bytes | None:
        """The last snapshot that was kept; None where there is none, or it cannot be read."""

    def keep_snapshot(self, data: bytes) -> None:
        """Keep a snapshot in place of the last one, whole or not at all.

        Raises:
            CommitRefused: it was not kept.
        """

    def reopen(self) -> None:
        """After `CommitUnknown`: read storage anew, and make durable whatever is found there.

        Raises:
            Unreadable: it cannot be read or made durable.
        """

    def restored_at_us(self) -> int:
        """When this storage was last restored from a backup; 0 if never."""

    def close(self) -> None:
        """Give the storage free."""
