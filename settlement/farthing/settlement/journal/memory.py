"""A store that keeps the journal in memory, for tests and for trying things out.

Boundary: the same batches and the same refusals as on disk, without the disk.
"""

from collections.abc import Iterator, Mapping

from farthing.settlement.journal.store import Batch, CommitRefused, DatabaseInUse, Value

__all__ = ["MemoryStore"]


class MemoryStore:
    """Batches in a list. It outlives `close`, as a file does: acquire it again to restart.

    Attributes:
        tables: the rows written so far: table name, primary key values, row.
    """

    def __init__(self) -> None:
        self.tables: dict[str, dict[tuple[Value, ...], Mapping[str, Value]]] = {}
        self._batches: list[Batch] = []
        self._epoch = 0
        self._snapshot: bytes | None = None
        self._held = False

    def acquire(self) -> int:
        if self._held:
            raise DatabaseInUse("memory")
        self._held = True
        self._epoch += 1
        return self._epoch

    def commit(self, batch: Batch) -> None:
        if not self._held or batch.epoch != self._epoch:
            raise DatabaseInUse("memory")
        last_seq = self._batches[-1].last_seq if self._batches else 0
        if batch.first_seq != last_seq + 1:
            raise CommitRefused(f"batch {batch.first_seq} does not follow {last_seq}")
        self._batches.append(
            Batch(
                epoch=batch.epoch,
                first_seq=batch.first_seq,
                records=batch.records,
                head_sha256=batch.head_sha256,
                root_sha256=batch.root_sha256,
                note=batch.note,
            )
        )
        for table, row in batch.rows:
            key = tuple(row[column.name] for column in table.primary_key)
            known = self.tables.setdefault(table.name, {})
            known[key] = {**known.get(key, {}), **row}

    def batches(self, after_seq: int = 0) -> Iterator[Batch]:
        return (batch for batch in tuple(self._batches) if batch.last_seq > after_seq)

    def record(self, seq: int) -> bytes | None:
        for batch in self.batches(seq - 1):
            if seq >= batch.first_seq:
                return batch.records[seq - batch.first_seq]
        return None

    def snapshot(self) -> bytes | None:
        return self._snapshot

    def keep_snapshot(self, data: bytes) -> None:
        self._snapshot = data

    def reopen(self) -> None:
        """Nothing to do: memory is what it is."""

    def restored_at_us(self) -> int:
        return 0

    def close(self) -> None:
        self._held = False
