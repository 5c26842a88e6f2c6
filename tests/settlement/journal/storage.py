"""Where the tests' journals lie, and the ways in which they make storage fail."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Protocol

from sqlalchemy import Table

from farthing.settlement.journal.memory import MemoryStore
from farthing.settlement.journal.sqlite import SqliteStore
from farthing.settlement.journal.store import Batch, Store
from tests.patience import PATIENCE_S


class Storage(Protocol):
    """One journal's place: open it as often as you like, and spoil it."""

    def open(self, tables: Sequence[Table] = ()) -> Store: ...

    def spoil(self, spoil: Callable[[Batch], Batch]) -> None: ...


class Memory:
    def __init__(self) -> None:
        self.store = MemoryStore()

    def open(self, tables: Sequence[Table] = ()) -> Store:
        del tables
        return self.store

    def spoil(self, spoil: Callable[[Batch], Batch]) -> None:
        spoilt = MemoryStore()
        for batch in self.store.batches():
            changed = spoil(batch)
            spoilt.close()
            while (epoch := spoilt.acquire()) < batch.epoch:
                spoilt.close()
            spoilt.commit(replace(changed, epoch=epoch))
        spoilt.close()
        self.store = spoilt


class Disk:
    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, tables: Sequence[Table] = ()) -> Store:
        return SqliteStore(self.path, tables=tables)

    def spoil(self, spoil: Callable[[Batch], Batch]) -> None:
        changed = [spoil(batch) for batch in SqliteStore(self.path).batches()]
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute("DROP TRIGGER journal_batch_stays")
            for batch in changed:
                connection.execute(
                    "UPDATE journal_batch SET records = ?, head = ?, root = ?, note = ?"
                    " WHERE first_seq = ?",
                    (
                        b"\n".join(batch.records),
                        batch.head_sha256,
                        batch.root_sha256,
                        batch.note,
                        batch.first_seq,
                    ),
                )


def spoil_record(batch: Batch, seq: int) -> Batch:
    """The batch with other units in one of its records."""
    records = [
        data.replace(b'"units":"', b'"units":"9', 1) if each == seq else data
        for each, data in enumerate(batch.records, batch.first_seq)
    ]
    return replace(batch, records=tuple(records))


class Faulty:
    """A store whose next commits fail as they are told to.

    Each fault is an error, raised before or after the batch was written.
    """

    def __init__(self, store: Store) -> None:
        self.faults: list[tuple[str, Exception] | None] = []
        self.unreadable: Exception | None = None
        self._store = store

    def acquire(self) -> int:
        return self._store.acquire()

    def commit(self, batch: Batch) -> None:
        fault = self.faults.pop(0) if self.faults else None
        if fault is None or fault[0] == "after":
            self._store.commit(batch)
        if fault is not None:
            raise fault[1]

    def batches(self, after_seq: int = 0) -> Iterator[Batch]:
        return self._store.batches(after_seq)

    def record(self, seq: int) -> bytes | None:
        return self._store.record(seq)

    def snapshot(self) -> bytes | None:
        return self._store.snapshot()

    def keep_snapshot(self, data: bytes) -> None:
        self._store.keep_snapshot(data)

    def reopen(self) -> None:
        if self.unreadable is not None:
            raise self.unreadable
        self._store.reopen()

    def restored_at_us(self) -> int:
        return self._store.restored_at_us()

    def close(self) -> None:
        self._store.close()


class Gated(Faulty):
    """A store whose commits wait until they are let through."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.entered = Event()
        self.gate = Event()

    def commit(self, batch: Batch) -> None:
        self.entered.set()
        assert self.gate.wait(timeout=PATIENCE_S), "nobody opened the gate"
        super().commit(batch)
