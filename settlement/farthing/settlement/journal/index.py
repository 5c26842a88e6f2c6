"""Which record a key last stood in, for ever, at a flat cost and in bounded memory.

Boundary: a side folder that the journal can always fill again; nothing waits for it to be durable.
Keys are cut from SHA-256, so they are evenly spread. Source: spec/journal.md.

The newest keys are in memory. A thread writes them as sorted runs, merges runs by levels, and adds
each key once to a filter that tells an unknown key in two microseconds. All of that are single SQL
statements, which leave the interpreter to the engine while they run.

A wrong "unknown" would let a command run twice. So a start answers nothing before it has compared
every run, every filter and the list of them with their digests: half a second a million keys.
"""

import logging
import mmap
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from struct import Struct
from threading import Condition, Thread
from typing import Final

from farthing.settlement.journal.store import Unreadable

__all__ = ["Index"]

logger = logging.getLogger(__name__)

_VERSION: Final = 3
_RECENT_MAX: Final = 65_536
# Runs of a level that become one of the next.
_FAN_OUT: Final = 8
# Lots of recent keys that may wait to be written; then whoever adds waits too.
_WAITING_MAX: Final = 16
# A filter of 16 bits a key with four probes lets one unknown key in 400 through to the runs.
_FILTER_KEYS: Final = 2**21
_FILTER_BITS: Final = 16 * _FILTER_KEYS
_FILTER_MASK: Final = _FILTER_BITS - 1
_PROBES: Final = Struct("<4I")
_RETRY_S: Final = 1
# Errors of a disk that is full or busy.
_PASS: Final = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR}
)
_CHECKED_AT_ONCE: Final = 256

_SCHEMA: Final = (
    """CREATE TABLE about (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        version INTEGER NOT NULL,
        identity TEXT NOT NULL,
        through_seq INTEGER NOT NULL,
        sha256 TEXT NOT NULL
    )""",
    """CREATE TABLE run (
        number INTEGER PRIMARY KEY,
        level INTEGER NOT NULL,
        sha256 TEXT NOT NULL
    )""",
    # Every filter but the last is complete; the last is only good if it was closed in order.
    """CREATE TABLE filter (
        number INTEGER PRIMARY KEY,
        after_seq INTEGER NOT NULL,
        keys INTEGER NOT NULL,
        sha256 TEXT NOT NULL
    )""",
)
_COUNT_TABLES: Final = "SELECT count(*) FROM sqlite_master"
_ABOUT: Final = "SELECT version, identity, through_seq FROM about"
_SEALED: Final = "SELECT sha256 FROM about"
_SEAL: Final = "UPDATE about SET sha256 = ?"
_RUNS: Final = "SELECT number, level, sha256 FROM run ORDER BY number"
_FILTERS: Final = "SELECT number, after_seq, keys, sha256 FROM filter ORDER BY number"
_PUT_FILTER: Final = "INSERT OR REPLACE INTO filter VALUES (?, ?, ?, ?)"
# Entries of 24 bytes, key and seq, become rows in the order of their keys.
_WRITE: Final = """
    WITH RECURSIVE entry (at) AS (SELECT 0 UNION ALL SELECT at + 24 FROM entry WHERE at + 24 < ?2)
    INSERT INTO run_{number} SELECT substr(?1, at + 1, 16), substr(?1, at + 17, 8) FROM entry
    ORDER BY 1
"""


class Index:
    """Keys of 16 bytes, each with the newest record it stood in.

    Args:
        path: the side folder; None keeps everything in memory.
        recent_max: keys that are kept in memory before they are written.
    """

    def __init__(self, path: Path | None, *, recent_max: int = _RECENT_MAX) -> None:
        self._path = path
        self._recent_max = recent_max
        self._recent: dict[bytes, int] = {}
        self._published = _Published()
        self._reading: sqlite3.Connection | None = None
        self._keeper: _Keeper | None = None

    def open(self, identity: str) -> int:
        """Take what the folder holds of the journal `identity`.

        A folder of another journal, of another version, or one that cannot be read is emptied.

        Returns:
            The record up to which the index is complete.

        Raises:
            Unreadable: no folder can be made there.
        """
        if self._path is None:
            return 0
        try:
            keeper = _Keeper(self._published, self._path, identity)
        except (sqlite3.Error, OSError, ValueError) as error:
            logger.warning("the index is made anew: %s", error)
            try:
                shutil.rmtree(self._path, ignore_errors=True)
                keeper = _Keeper(self._published, self._path, identity)
            except (sqlite3.Error, OSError) as fatal:
                raise Unreadable(f"{self._path}: {fatal}") from fatal
        self._keeper = keeper
        self._reading = _connect(self._path)
        keeper.start()
        return keeper.through_seq

    def get(self, key: bytes) -> int | None:
        """The newest record of a key; None if it never stood in one.

        Raises:
            Unreadable: what is on disk cannot be read.
        """
        seq = self._recent.get(key)
        if seq is not None:
            return seq
        published = self._published
        for keys, _ in reversed(published.waiting):
            seq = keys.get(key)
            if seq is not None:
                return seq
        if published.filters and _passes(published.filters, key):
            return self._stored(key)
        return None

    def add(self, entries: Iterable[tuple[bytes, int]], through_seq: int) -> None:
        """Take in what records up to `through_seq`, durable now, have settled; the newest wins.

        Waits where the thread that writes has fallen far behind.

        Raises:
            Unreadable: the index can no longer be written.
        """
        self._recent.update(entries)
        keeper = self._keeper
        if keeper is not None and len(self._recent) >= self._recent_max:
            keeper.take(self._recent, through_seq)
            self._recent = {}

    def close(self) -> None:
        """Finish what is being written. What is only in memory is found in the journal again."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.close()
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.close()
        for each in self._published.filters:
            each.close()
        self._published, self._recent = _Published(), {}

    def _stored(self, key: bytes) -> int | None:
        assert self._reading is not None
        for _ in range(_FAN_OUT):
            try:
                for number in reversed(self._published.runs):
                    select = f"SELECT seq FROM run_{number:d} WHERE key = ?"  # noqa: S608
                    found = self._reading.execute(select, (key,)).fetchone()
                    if found is not None:
                        return int.from_bytes(found[0])
            except sqlite3.OperationalError:
                # The run has just been merged into another, which stands in the list by now.
                continue
            except sqlite3.Error as error:
                raise Unreadable(f"{self._path}: {error}") from error
            return None
        raise Unreadable(f"{self._path}: runs are missing")


@dataclass(slots=True)
class _Published:
    """What the keeper has ready for whoever looks up; each value is replaced, never changed.

    Args:
        waiting: lots of keys, oldest first; a lot leaves once its run and its filter are there.
        runs: numbers of the runs on disk, oldest first.
        filters: all keys of all runs.
    """

    waiting: tuple[tuple[dict[bytes, int], int], ...] = ()
    runs: tuple[int, ...] = ()
    filters: "tuple[_Filter, ...]" = ()


class _Filter:
    """Bits in a file: a key that is not in it has never been added."""

    def __init__(self, path: Path, number: int, after_seq: int) -> None:
        self.path, self.number, self.after_seq = path, number, after_seq
        self.keys = 0
        size = _FILTER_BITS // 8
        if not path.exists() or path.stat().st_size != size:
            # Whole, for a hole that a full disk cannot fill would end the process.
            path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self.bits = mmap.mmap(file.fileno(), 0)

    def add(self, keys: Iterable[bytes]) -> None:
        bits = self.bits
        for key in keys:
            for probe in _PROBES.unpack(key):
                at = probe & _FILTER_MASK
                bits[at >> 3] |= 1 << (at & 7)
            self.keys += 1

    def sha256(self) -> str:
        self.bits.flush()
        return sha256(self.bits).hexdigest()

    def close(self) -> None:
        self.bits.close()


class _Keeper:
    """The thread that writes lots as runs, merges runs and fills filters."""

    def __init__(self, published: _Published, path: Path, identity: str) -> None:
        self._published = published
        self._path = path
        self._wake = Condition()
        self._closing = False
        self._failed: Exception | None = None
        self._levels: dict[int, int] = {}
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._connection = _connect(path)
        with ExitStack() as undo:
            undo.callback(self._connection.close)
            self.through_seq = self._load(identity)
            undo.pop_all()
        self._thread = Thread(target=self._run, name="farthing-index", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def take(self, keys: dict[bytes, int], through_seq: int) -> None:
        """Have a lot written, waiting while too many wait before it."""
        with self._wake:
            while len(self._published.waiting) >= _WAITING_MAX and self._failed is None:
                self._wake.wait()
            if self._failed is not None:
                raise Unreadable(f"{self._path}: {self._failed}")
            self._published.waiting = (*self._published.waiting, (keys, through_seq))
            self._wake.notify_all()

    def close(self) -> None:
        """Let the thread finish the lot it is at, and mark the last filter good."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._thread.join()
        try:
            if self._failed is None:
                self._note(self._published.filters[-1], good=True)
        except sqlite3.Error:
            logger.warning("the index is not marked good", exc_info=True)
        finally:
            self._connection.close()

    def _load(self, identity: str) -> int:
        connection = self._connection
        if not connection.execute(_COUNT_TABLES).fetchone()[0]:
            with self._transaction():
                for statement in _SCHEMA:
                    connection.execute(statement)
                new = (1, _VERSION, identity, 0, "")
                connection.execute("INSERT INTO about VALUES (?, ?, ?, ?, ?)", new)
        version, known, through_seq = connection.execute(_ABOUT).fetchone()
        if (version, known) != (_VERSION, identity):
            raise ValueError("it is of another journal, or of another version")
        if connection.execute(_SEALED).fetchone()[0] != self._seal():
            raise ValueError("its list of runs was damaged")
        runs = connection.execute(_RUNS).fetchall()
        self._levels = {number: level for number, level, _ in runs}
        for number, _, digest in runs:
            if self._sha256(number) != digest:
                raise ValueError(f"run {number} was damaged")
        filters = connection.execute(_FILTERS).fetchall() or [(0, 0, 0, "")]
        loaded = [self._filter(*each) for each in filters]
        self._published.filters = tuple(loaded)
        self._published.runs = tuple(self._levels)
        # From now on only a close in order makes the last filter good again.
        self._note(loaded[-1], good=False)
        return int(through_seq)

    def _filter(self, number: int, after_seq: int, keys: int, digest: str) -> _Filter:
        path = self._path / f"filter-{number}"
        found = _Filter(path, number, after_seq)
        if digest and found.sha256() == digest:
            found.keys = keys
            return found
        found.close()
        if digest:
            raise ValueError(f"filter {number} was damaged")
        path.unlink()
        made = _Filter(path, number, after_seq)
        for run in self._levels:
            select = f"SELECT key FROM run_{run:d} WHERE seq > ?"  # noqa: S608
            made.add(key for (key,) in self._connection.execute(select, (after_seq.to_bytes(8),)))
        return made

    def _note(self, each: _Filter, *, good: bool) -> None:
        with self._transaction():
            digest = each.sha256() if good else ""
            facts = (each.number, each.after_seq, each.keys, digest)
            self._connection.execute(_PUT_FILTER, facts)

    def _run(self) -> None:
        try:
            while True:
                try:
                    if not self._work():
                        return
                except (sqlite3.OperationalError, OSError) as error:
                    if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_FULL) & 0xFF not in _PASS:
                        raise
                    # Until then the keys are in memory.
                    logger.warning("the index waits", exc_info=True)
                    with self._wake:
                        self._wake.wait_for(lambda: self._closing, timeout=_RETRY_S)
        except (sqlite3.Error, ValueError, MemoryError) as error:
            logger.critical("the index can no longer be kept", exc_info=True)
            self._disown()
            with self._wake:
                self._failed = error
                self._wake.notify_all()

    def _work(self) -> bool:
        with self._wake:
            while not (self._published.waiting or self._closing):
                self._wake.wait()
            if self._closing:
                return False
        self._write(*self._published.waiting[0])
        self._merge()
        return True

    def _disown(self) -> None:
        """Nothing of it is to be believed at the next start."""
        try:
            with self._transaction():
                self._connection.execute("UPDATE about SET version = 0")
        except sqlite3.Error:
            logger.exception("the index could not be disowned; its folder is to be deleted")

    def _write(self, keys: dict[bytes, int], through_seq: int) -> None:
        last = self._published.filters[-1]
        if last.keys >= _FILTER_KEYS:
            self._note(last, good=True)
            number = last.number + 1
            last = _Filter(self._path / f"filter-{number}", number, self._through())
            self._note(last, good=False)
            self._published.filters = (*self._published.filters, last)
        packed = b"".join([key + seq.to_bytes(8) for key, seq in keys.items()])
        number = max(self._levels, default=0) + 1
        with self._transaction():
            self._create(number)
            self._connection.execute(_WRITE.format(number=number), (packed, len(packed)))
            self._name(number, level=0)
            self._connection.execute("UPDATE about SET through_seq = ?", (through_seq,))
        self._levels[number] = 0
        last.add(keys)
        self._published.runs = tuple(self._levels)
        with self._wake:
            self._published.waiting = self._published.waiting[1:]
            self._wake.notify_all()

    def _merge(self) -> None:
        """Make one run of the next level of every eight; the newest record of a key stays.

        It is made at once when a level is full, so all that is of lower levels is in it, and by
        its number, the highest, it is the newest.
        """
        level = 0
        while len(old := [run for run, each in self._levels.items() if each == level]) >= _FAN_OUT:
            number = max(self._levels) + 1
            rows = " UNION ALL ".join(f"SELECT key, seq FROM run_{run:d}" for run in old)  # noqa: S608
            with self._transaction():
                self._create(number)
                self._connection.execute(
                    f"INSERT OR REPLACE INTO run_{number:d} {rows} ORDER BY key, seq"
                )
                for run in old:
                    self._connection.execute("DELETE FROM run WHERE number = ?", (run,))
                self._name(number, level=level + 1)
            kept = {run: each for run, each in self._levels.items() if run not in old}
            self._levels = {**kept, number: level + 1}
            self._published.runs = tuple(self._levels)
            with self._transaction():
                for run in old:
                    self._connection.execute(f"DROP TABLE run_{run:d}")
            level += 1

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute(_SEAL, (self._seal(),))
            self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _seal(self) -> str:
        """The digest of what is known about runs and filters."""
        facts = [self._connection.execute(each).fetchall() for each in (_ABOUT, _RUNS, _FILTERS)]
        return sha256(repr(facts).encode()).hexdigest()

    def _create(self, number: int) -> None:
        # One that a merge left behind when it was cut short is in no list.
        self._connection.execute(f"DROP TABLE IF EXISTS run_{number:d}")
        self._connection.execute(
            f"CREATE TABLE run_{number:d} (key BLOB PRIMARY KEY, seq BLOB NOT NULL) WITHOUT ROWID"
        )

    def _name(self, number: int, *, level: int) -> None:
        facts = (number, level, self._sha256(number))
        self._connection.execute("INSERT INTO run VALUES (?, ?, ?)", facts)

    def _through(self) -> int:
        return int(self._connection.execute(_ABOUT).fetchone()[2])

    def _sha256(self, number: int) -> str:
        """The digest of a run's rows, a 256th of them at a time."""
        digest = sha256()
        for first in range(_CHECKED_AT_ONCE):
            low, high = bytes((first,)), bytes((first,)) + b"\xff" * 16
            (rows,) = self._connection.execute(
                "SELECT CAST(group_concat(key || seq, '') AS BLOB) FROM"  # noqa: S608  # a number
                f" (SELECT key, seq FROM run_{number:d} WHERE key BETWEEN ? AND ? ORDER BY key)",
                (low, high),
            ).fetchone()
            digest.update(rows or b"")
        return digest.hexdigest()


def _connect(path: Path) -> sqlite3.Connection:
    # Opened by whoever opens the index, then used by one thread each.
    connection = sqlite3.connect(
        path / "runs.sqlite", check_same_thread=False, isolation_level=None
    )
    connection.execute("PRAGMA journal_mode=WAL")
    # A commit that power failure takes back is found in the journal again.
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def _passes(filters: tuple[_Filter, ...], key: bytes) -> bool:
    """Whether a key may have been added to one of the filters."""
    a, b, c, d = _PROBES.unpack(key)
    a, b, c, d = a & _FILTER_MASK, b & _FILTER_MASK, c & _FILTER_MASK, d & _FILTER_MASK
    ma, mb, mc, md = 1 << (a & 7), 1 << (b & 7), 1 << (c & 7), 1 << (d & 7)
    a, b, c, d = a >> 3, b >> 3, c >> 3, d >> 3
    for each in filters:
        bits = each.bits
        if bits[a] & ma and bits[b] & mb and bits[c] & mc and bits[d] & md:
            return True
    return False
