"""The journal in one SQLite file: WAL, `synchronous=FULL`, one row per batch.

Boundary: the only connection that writes. The journal row, projection rows and kept rows of a batch
are one transaction. Readers hold connections that cannot write. Source: spec/journal.md.
"""

import os
import sqlite3
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from threading import Lock
from typing import Final

from sqlalchemy import URL, NullPool, Table, create_engine
from sqlalchemy.exc import DBAPIError

from farthing.protocol.records import entries_in
from farthing.settlement.journal.folding import LogFolder
from farthing.settlement.journal.lock import FileLock
from farthing.settlement.journal.store import (
    Batch,
    CommitRefused,
    CommitUnknown,
    DatabaseInUse,
    Unreadable,
)
from farthing.settlement.journal.upserts import Upserts
from farthing.settlement.tables import KEPT_BODY, KEPT_TABLES

__all__ = [
    "BUSY_TIMEOUT_S",
    "SCHEMA_VERSION",
    "SqliteStore",
    "connect_reading",
    "copy_database",
    "epoch_of",
    "fold_log",
    "mark_restored",
]

SCHEMA_VERSION: Final = 1
BUSY_TIMEOUT_S: Final = 5
_EXPIRED_BODIES_MAX: Final = 100
_CHUNK_BYTES: Final = 1024 * 1024
# Batches that a record was read of. Charges of a dispute window settle in the order in which they
# were made, so the next one is in the same batch; reading 2,000 records for each takes 13 ms.
_LATEST_MAX: Final = 16
_LATEST_BYTES_MAX: Final = 64 * 1024 * 1024

# Errors after which SQLite promises that the transaction left nothing behind, and which pass.
_REFUSALS: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})

# Records are lines of canonical JSON: canonical JSON holds no raw line feed. The triggers are for
# hands that slip; against hands that mean it there are the chain and the signed heads.
_SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS schema_version (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        version INTEGER NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS epoch (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        number INTEGER NOT NULL,
        restored_at_us INTEGER NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS journal_batch (
        first_seq INTEGER PRIMARY KEY,
        last_seq INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        records BLOB NOT NULL,
        head TEXT NOT NULL,
        root TEXT NOT NULL,
        note TEXT NOT NULL
    )""",
    """CREATE TRIGGER IF NOT EXISTS journal_batch_follows BEFORE INSERT ON journal_batch
        WHEN NEW.last_seq < NEW.first_seq OR NEW.first_seq <> 1 + coalesce(
            (SELECT last_seq FROM journal_batch ORDER BY first_seq DESC LIMIT 1), 0)
        BEGIN SELECT RAISE(ABORT, 'a batch follows the last one'); END""",
    """CREATE TRIGGER IF NOT EXISTS journal_batch_stays BEFORE UPDATE ON journal_batch
        BEGIN SELECT RAISE(ABORT, 'the journal is only appended to'); END""",
    """CREATE TRIGGER IF NOT EXISTS journal_batch_remains BEFORE DELETE ON journal_batch
        BEGIN SELECT RAISE(ABORT, 'the journal is only appended to'); END""",
    "INSERT OR IGNORE INTO epoch (one, number, restored_at_us) VALUES (1, 0, 0)",
)
_SELECT_EPOCH: Final = "SELECT number, restored_at_us FROM epoch"
_INSERT_VERSION: Final = "INSERT OR IGNORE INTO schema_version (one, version) VALUES (1, ?)"
_INSERT: Final = (
    "INSERT INTO journal_batch (first_seq, last_seq, epoch, records, head, root, note)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)
# By primary key: the batch that holds the next record, or the one before it.
_SELECT: Final = (
    "SELECT first_seq, epoch, records, head, root, note FROM journal_batch WHERE first_seq >="
    " coalesce((SELECT max(first_seq) FROM journal_batch WHERE first_seq <= ?), 0)"
    " ORDER BY first_seq"
)
_SELECT_LAST: Final = (
    "SELECT first_seq, epoch, records, head, root, note FROM journal_batch"
    " ORDER BY first_seq DESC LIMIT 1"
)
_SELECT_ONE: Final = (
    "SELECT first_seq, records FROM journal_batch WHERE first_seq <= ? AND last_seq >= ?"
    " ORDER BY first_seq DESC LIMIT 1"
)
_DELETE_EXPIRED: Final = (
    "DELETE FROM kept_body WHERE id IN"
    " (SELECT id FROM kept_body WHERE expires_at_us < ? ORDER BY expires_at_us LIMIT ?)"
)


class SqliteStore:
    """One file and, beside it, `-wal`, `-shm` and `.lock`.

    Args:
        path: the file, or a link to it; made at the first `acquire`, its folder must exist.
        tables: the projection tables that the batches' rows go to; created where they are missing.
        pages_max: the largest the file may grow, in pages; 0 for as large as the disk.
        busy_timeout_s: how long to wait for others who hold the database.
    """

    def __init__(
        self,
        path: Path,
        *,
        tables: Sequence[Table] = (),
        pages_max: int = 0,
        busy_timeout_s: int = BUSY_TIMEOUT_S,
    ) -> None:
        # Where its log lies, which SQLite keeps beside the file and not beside a link.
        self.path = path.resolve()
        self._busy_timeout_s = busy_timeout_s
        self._tables = (*KEPT_TABLES.values(), *tables)
        self._pages_max = pages_max
        self._upserts = Upserts()
        self._lock = FileLock(path)
        self._writing: sqlite3.Connection | None = None
        self._folder: LogFolder | None = None
        # Opening a connection takes longer than the one read that it is opened for.
        self._reading: sqlite3.Connection | None = None
        self._reading_lock = Lock()
        self._latest: deque[tuple[int, list[bytes], int]] = deque()

    def acquire(self) -> int:
        self._lock.acquire()
        with ExitStack() as undo:
            undo.callback(self.close)
            try:
                _write_log_again(self.path)
                self._writing = self._connect()
                epoch = self._prepare(self._writing)
                self._folder = LogFolder(lambda: _connect(self.path))
                self._create_tables()
            except (sqlite3.Error, DBAPIError, OSError) as error:
                raise Unreadable(f"{self.path}: {error}") from error
            undo.pop_all()
        return epoch

    def commit(self, batch: Batch) -> None:
        connection = self._writing
        assert connection is not None, "a store is acquired before it is written"
        try:
            connection.execute("BEGIN IMMEDIATE")
            self._write(connection, batch)
            connection.execute("COMMIT")
            assert self._folder is not None
            self._folder.committed(sum(map(len, batch.records)), connection)
        # An integer beyond int64 in a row is a defect of a projection, and not a `sqlite3.Error`.
        except (sqlite3.Error, OverflowError) as error:
            raise _failure(connection, error) from error

    def batches(self, after_seq: int = 0) -> Iterator[Batch]:
        try:
            with closing(connect_reading(self.path)) as connection:
                for row in connection.execute(_SELECT, (after_seq + 1,)):
                    batch = _batch(row)
                    if batch.last_seq > after_seq:
                        yield batch
        except (sqlite3.Error, TypeError, AttributeError) as error:
            raise Unreadable(f"{self.path}: {error}") from error

    def record(self, seq: int) -> bytes | None:
        try:
            with self._reading_lock:
                for first_seq, entries, _ in self._latest:
                    if first_seq <= seq < first_seq + len(entries):
                        return entries[seq - first_seq]
                row: tuple[int, bytes] | None
                with self._reader() as connection:
                    row = connection.execute(_SELECT_ONE, (seq, seq)).fetchone()
                if row is None:
                    return None
                first_seq, entries = int(row[0]), entries_in(bytes(row[1]))
                if self._writing is not None:
                    self._keep_latest(first_seq, entries)
                return entries[seq - first_seq]
        except (sqlite3.Error, LookupError, TypeError) as error:
            raise Unreadable(f"{self.path}: {error}") from error

    def last(self) -> Batch | None:
        """The last batch, if there is one."""
        try:
            with closing(connect_reading(self.path)) as connection:
                row = connection.execute(_SELECT_LAST).fetchone()
                return None if row is None else _batch(row)
        except (sqlite3.Error, TypeError, AttributeError) as error:
            raise Unreadable(f"{self.path}: {error}") from error

    def snapshot(self) -> bytes | None:
        try:
            return _snapshot_path(self.path).read_bytes()
        except OSError:
            return None

    def keep_snapshot(self, data: bytes) -> None:
        kept = _snapshot_path(self.path)
        part = kept.with_name(f"{kept.name}.part")
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(kept)
        except OSError as error:
            raise CommitRefused(f"{kept}: {error}") from error

    def reopen(self) -> None:
        try:
            self._disconnect()
            _write_log_again(self.path)
            self._writing = self._connect()
            # Readers may see to it that the log is believed up to the batch that failed and no
            # further; were the rest left there, the next start would believe it after all.
            busy, found, moved = self._writing.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            # The log is cut to nothing, but not yet on the disk: the old one, with a hole where the
            # sync failed, could come back with the power and take back what was just written on.
            with _log_path(self.path).open("rb+") as log:
                os.fsync(log.fileno())
        except (sqlite3.Error, OSError) as error:
            raise Unreadable(f"{self.path}: {error}") from error
        if busy or found != moved:
            raise Unreadable(f"{self.path}: readers keep the log from being written through")
        self._folder = LogFolder(lambda: _connect(self.path))

    def restored_at_us(self) -> int:
        return _tenure(self.path)[1]

    def close(self) -> None:
        self._disconnect()
        self._lock.release()

    def _connect(self) -> sqlite3.Connection:
        connection = _connect(self.path, self._busy_timeout_s)
        with ExitStack() as undo:
            undo.callback(connection.close)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA wal_autocheckpoint=0")
            if self._pages_max:
                connection.execute(f"PRAGMA max_page_count={self._pages_max:d}")
            undo.pop_all()
        return connection

    def _disconnect(self) -> None:
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.close()
        writing, self._writing = self._writing, None
        with self._reading_lock:
            self._latest.clear()
            reading, self._reading = self._reading, None
            if reading is not None:
                reading.close()
        # Whichever is last writes the log through and leaves one file, where it is one that can.
        if writing is not None:
            writing.close()

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        """A connection that cannot write; while the store is acquired, always the same."""
        if self._writing is None:
            with closing(connect_reading(self.path)) as connection:
                yield connection
            return
        if self._reading is None:
            self._reading = connect_reading(self.path)
        yield self._reading

    def _keep_latest(self, first_seq: int, entries: list[bytes]) -> None:
        size_bytes = sum(map(len, entries))
        while self._latest and (
            len(self._latest) == _LATEST_MAX
            or size_bytes + sum(kept for *_, kept in self._latest) > _LATEST_BYTES_MAX
        ):
            self._latest.popleft()
        self._latest.append((first_seq, entries, size_bytes))

    def _prepare(self, connection: sqlite3.Connection) -> int:
        """Create what is missing, check the schema's version, and begin a tenure."""
        connection.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute(_INSERT_VERSION, (SCHEMA_VERSION,))
        (version,) = connection.execute("SELECT version FROM schema_version").fetchone()
        if version != SCHEMA_VERSION:
            raise Unreadable(f"{self.path}: schema version {version} is not known")
        connection.execute("UPDATE epoch SET number = number + 1")
        (epoch,) = connection.execute("SELECT number FROM epoch").fetchone()
        connection.execute("COMMIT")
        return int(epoch)

    def _create_tables(self) -> None:
        # Through SQLAlchemy, so that what a room hangs on its tables (indexes, text search,
        # triggers) is created with them.
        engine = create_engine(URL.create("sqlite", database=str(self.path)), poolclass=NullPool)
        metadatas = {id(table.metadata): table.metadata for table in self._tables}
        with engine.begin() as connection:
            for metadata in metadatas.values():
                tables = [table for table in self._tables if table.metadata is metadata]
                metadata.create_all(connection, tables=tables)
        engine.dispose()

    def _write(self, connection: sqlite3.Connection, batch: Batch) -> None:
        (epoch,) = connection.execute("SELECT number FROM epoch").fetchone()
        if epoch != batch.epoch:
            connection.execute("ROLLBACK")
            raise DatabaseInUse(f"{self.path} (taken over in epoch {epoch})")
        connection.execute(
            _INSERT,
            (
                batch.first_seq,
                batch.last_seq,
                batch.epoch,
                b"\n".join(batch.records),
                batch.head_sha256,
                batch.root_sha256,
                batch.note,
            ),
        )
        for sql, rows in self._upserts.statements(batch.rows):
            connection.executemany(sql, rows)
        if any(table is KEPT_BODY for table, _ in batch.rows):
            # Whoever adds a body takes some expired ones away, so that nobody else has to.
            connection.execute(_DELETE_EXPIRED, (batch.at_us, _EXPIRED_BODIES_MAX))


def _snapshot_path(path: Path) -> Path:
    return path.with_name(f"{path.name}-snapshot")


def _write_log_again(path: Path) -> None:
    """Make sure that the disk holds the log that is found, before anybody believes it.

    Where a sync has failed, in this process or in one that was killed, the log may be in no more
    than the page cache, marked as written: every later sync of it succeeds and writes nothing
    (PostgreSQL's "fsyncgate", 2018). What is then acknowledged on top of it, or written on into
    the database file, would lose its footing with the power. The same bytes written once more are
    the system's to write again. Only whoever has the lock writes here; who reads finds no change.
    """
    try:
        descriptor = os.open(_log_path(path), os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        at = 0
        while data := os.pread(descriptor, _CHUNK_BYTES, at):
            at += os.pwrite(descriptor, data, at)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _log_path(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def connect_reading(path: Path) -> sqlite3.Connection:
    """A connection that cannot write. It may be used from any one thread at a time."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(
        uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )


def copy_database(path: Path, target: Path) -> None:
    """Copy a database that may be in use, as of one moment, into one new file.

    Raises:
        Unreadable: one cannot be read or the other not be written.
    """
    try:
        with closing(connect_reading(path)) as source, closing(_connect(target)) as copy:
            source.backup(copy)
            # One file, with no log beside it, that can be read where nothing can be written.
            copy.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        raise Unreadable(f"{path} to {target}: {error}") from error


def fold_log(path: Path) -> None:
    """Write the log of a database that nobody has open into its file.

    Raises:
        Unreadable: it cannot be done.
    """
    try:
        with closing(_connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise Unreadable(f"{path}: {error}") from error


def epoch_of(path: Path) -> int:
    """The epoch that a database stands at.

    Raises:
        Unreadable: it cannot be read.
    """
    return _tenure(path)[0]


def mark_restored(path: Path, *, epoch: int, now_us: int) -> None:
    """Let a copy begin at an epoch of its own, and say when it was put back.

    Raises:
        Unreadable: it cannot be written.
    """
    try:
        with closing(_connect(path)) as connection:
            connection.execute("UPDATE epoch SET number = ?, restored_at_us = ?", (epoch, now_us))
    except sqlite3.Error as error:
        raise Unreadable(f"{path}: {error}") from error


def _tenure(path: Path) -> tuple[int, int]:
    try:
        with closing(connect_reading(path)) as connection:
            number, restored_at_us = connection.execute(_SELECT_EPOCH).fetchone()
            return int(number), int(restored_at_us)
    except (sqlite3.Error, TypeError) as error:
        raise Unreadable(f"{path}: {error}") from error


def _connect(path: Path, busy_timeout_s: int = BUSY_TIMEOUT_S) -> sqlite3.Connection:
    # Opened in the thread that starts the writer, used in the writer's own, never in two at once.
    return sqlite3.connect(
        path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False
    )


def _batch(row: tuple[int, int, bytes, str, str, str]) -> Batch:
    first_seq, epoch, records, head, root, note = row
    return Batch(
        epoch=epoch,
        first_seq=first_seq,
        records=tuple(entries_in(bytes(records))),
        head_sha256=head,
        root_sha256=root,
        note=note,
    )


def _failure(
    connection: sqlite3.Connection, error: sqlite3.Error | OverflowError
) -> CommitRefused | CommitUnknown:
    """What a failed transaction came to."""
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error:
        return CommitUnknown(f"{error}; it could not be undone")
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return CommitRefused(str(error)) if code in _REFUSALS else CommitUnknown(str(error))
