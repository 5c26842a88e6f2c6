"""Which record a key last stood in, for ever, at a flat cost and in bounded memory.

Boundary: a side folder that the journal can always fill again; nothing waits for it to be durable.
Keys are cut from SHA-256, so they are evenly spread. Source: spec/journal.md.

The newest keys are in memory. A thread writes them as sorted runs, merges runs by levels, and adds
each key once to a filter that tells an unknown key in two microseconds. All of that are single SQL
statements, which leave the interpreter to the engine while they run.

A wrong "unknown" would let a command run twice. So a start compares the filters and the list of
runs with their digests, two bytes a key, and nothing is answered from a part of a run, nor merged
into another, before that was compared too; the thread compares what nobody asks for.
"""

import logging
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from threading import Condition, Thread
from typing import Final

from farthing.settlement.journal.filters import FILTERS, Filter, FilterFile, passing
from farthing.settlement.journal.runs import (
    CheckedRuns,
    Damaged,
    Run,
    check_room,
    connect,
    digests_of,
)
from farthing.settlement.journal.store import Unreadable

__all__ = ["Index"]

logger = logging.getLogger(__name__)

_VERSION: Final = 6
_RECENT_MAX: Final = 65_536
# Runs of a level that become one of the next.
_FAN_OUT: Final = 8
# Lots of recent keys that may wait to be written; then whoever adds waits too.
_WAITING_MAX: Final = 16
_RETRY_S: Final = 1
_NEVER: Final = 2**63
# Errors of a disk that is full or busy.
_PASS: Final = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR}
)

_SCHEMA: Final = (
    """CREATE TABLE about (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        version INTEGER NOT NULL,
        identity TEXT NOT NULL,
        through_seq INTEGER NOT NULL,
        head TEXT NOT NULL,
        sha256 TEXT NOT NULL
    )""",
    # `sha256` is of the digests of its parts; no key in it is of a record after `last_seq`.
    """CREATE TABLE run (
        number INTEGER PRIMARY KEY,
        level INTEGER NOT NULL,
        last_seq INTEGER NOT NULL,
        sha256 TEXT NOT NULL,
        digests BLOB NOT NULL
    )""",
    # Every filter but the last is complete; the last is only good if it was closed in order. The
    # digest is of all filters of its file up to this one.
    """CREATE TABLE filter (
        number INTEGER PRIMARY KEY,
        after_seq INTEGER NOT NULL,
        keys INTEGER NOT NULL,
        sha256 TEXT NOT NULL
    )""",
)
_COUNT_TABLES: Final = "SELECT count(*) FROM sqlite_master"
_ABOUT: Final = "SELECT version, identity, through_seq, head FROM about"
_PUT_THROUGH: Final = "UPDATE about SET through_seq = ?, head = ?"
_SEALED: Final = "SELECT sha256 FROM about"
_SEAL: Final = "UPDATE about SET sha256 = ?"
_RUNS: Final = "SELECT number, level, last_seq, sha256 FROM run ORDER BY number"
_DIGESTS: Final = "SELECT digests FROM run WHERE number = ?"
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

    def open(self, identity: str, head_at: Callable[[int], str] = lambda _: "") -> int:
        """Take what the folder holds of the journal `identity`.

        A folder of another journal, of another version, or one that cannot be read is emptied; so
        is one whose last record has another head in this journal, which `head_at` tells.

        Returns:
            The record up to which the index is complete.

        Raises:
            Unreadable: no folder can be made there, or the disk takes nothing: then it is no fault
                of the folder's, which stays.
        """
        if self._path is None:
            return 0
        try:
            keeper = _Keeper(self._published, self._path, identity, head_at)
        except (sqlite3.Error, OSError, ValueError) as error:
            self._forget()
            try:
                check_room(self._path.parent)
                logger.warning("the index is made anew: %s", error)
                shutil.rmtree(self._path, ignore_errors=True)
                keeper = _Keeper(self._published, self._path, identity, head_at)
            except (sqlite3.Error, OSError) as fatal:
                raise Unreadable(f"{self._path}: {fatal}") from fatal
        self._keeper = keeper
        self._reading = connect(self._path)
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
        for keys, *_ in reversed(published.waiting):
            seq = keys.get(key)
            if seq is not None:
                return seq
        if published.filters and (filters := passing(published.filters, key)):
            return self._stored(key, filters)
        return None

    def add(
        self, entries: Iterable[tuple[bytes, int]], through_seq: int, head_sha256: str = ""
    ) -> None:
        """Take in what records up to `through_seq`, durable now, have settled; the newest wins.

        Waits where the thread that writes has fallen far behind.

        Raises:
            Unreadable: the index can no longer be written.
        """
        self._recent.update(entries)
        keeper = self._keeper
        if keeper is not None and len(self._recent) >= self._recent_max:
            keeper.take(self._recent, through_seq, head_sha256)
            self._recent = {}

    def close(self) -> None:
        """Finish what is being written. What is only in memory is found in the journal again."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.close()
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.close()
        self._forget()
        self._recent = {}

    def _forget(self) -> None:
        for each in self._published.filters:
            each.close()
        self._published = _Published()

    def _stored(self, key: bytes, filters: list[int]) -> int | None:
        """Look into the runs of the records that these filters are for."""
        assert self._reading is not None
        begins = self._published.begins
        spans = [(begins[each], begins[each + 1]) for each in filters]
        for _ in range(_FAN_OUT):
            try:
                for number, after_seq, last_seq in reversed(self._published.runs):
                    if not any(after_seq < end and begin < last_seq for begin, end in spans):
                        continue
                    self._published.checked.check(self._reading, number, key[0])
                    select = f"SELECT seq FROM run_{number:d} WHERE key = ?"  # noqa: S608
                    found = self._reading.execute(select, (key,)).fetchone()
                    if found is not None:
                        return int.from_bytes(found[0])
            except sqlite3.OperationalError:
                # The run has just been merged into another, which stands in the list by now.
                continue
            except (sqlite3.Error, Damaged) as error:
                assert self._keeper is not None
                self._keeper.wake()
                raise Unreadable(f"{self._path}: {error}") from error
            return None
        raise Unreadable(f"{self._path}: runs are missing")


@dataclass(slots=True)
class _Published:
    """What the keeper has ready for whoever looks up; each value is replaced, never changed.

    Args:
        waiting: lots of keys, oldest first; a lot leaves once its run and its filter are there.
        runs: of the runs on disk, oldest first, the numbers, and which records they are of: those
            after one, and up to another.
        filters: all keys of all runs.
        begins: after which record each filter begins, and, as the last, the end of all.
        checked: which parts of the runs were compared with their digests.
    """

    waiting: tuple[tuple[dict[bytes, int], int, str], ...] = ()
    runs: tuple[tuple[int, int, int], ...] = ()
    begins: tuple[int, ...] = (0, _NEVER)
    filters: tuple[FilterFile, ...] = ()
    checked: CheckedRuns = field(default_factory=CheckedRuns)


class _Keeper:
    """The thread that writes lots as runs, merges runs and fills filters."""

    def __init__(
        self, published: _Published, path: Path, identity: str, head_at: Callable[[int], str]
    ) -> None:
        self._published = published
        self._path = path
        self._wake = Condition()
        self._closing = False
        self._failed: Exception | None = None
        self._runs: dict[int, Run] = {}
        self._filter = Filter(0, 0)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._connection = connect(path)
        with ExitStack() as undo:
            undo.callback(self._connection.close)
            self.through_seq = self._load(identity, head_at)
            undo.pop_all()
        self._thread = Thread(target=self._run, name="farthing-index", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def take(self, keys: dict[bytes, int], through_seq: int, head_sha256: str) -> None:
        """Have a lot written, waiting while too many wait before it."""
        with self._wake:
            while len(self._published.waiting) >= _WAITING_MAX and self._failed is None:
                self._wake.wait()
            if self._failed is not None:
                raise Unreadable(f"{self._path}: {self._failed}")
            lot = (keys, through_seq, head_sha256)
            self._published.waiting = (*self._published.waiting, lot)
            self._wake.notify_all()

    def wake(self) -> None:
        """Have the thread look again."""
        with self._wake:
            self._wake.notify_all()

    def close(self) -> None:
        """Let the thread finish the lot it is at, and mark the last filter good."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._thread.join()
        try:
            if self._failed is None:
                self._note(good=True)
        except sqlite3.Error:
            logger.warning("the index is not marked good", exc_info=True)
        finally:
            self._connection.close()

    def _load(self, identity: str, head_at: Callable[[int], str]) -> int:
        connection = self._connection
        if not connection.execute(_COUNT_TABLES).fetchone()[0]:
            with self._transaction():
                for statement in _SCHEMA:
                    connection.execute(statement)
                new = (1, _VERSION, identity, 0, "", "")
                connection.execute("INSERT INTO about VALUES (?, ?, ?, ?, ?, ?)", new)
        version, known, through_seq, head = connection.execute(_ABOUT).fetchone()
        if (version, known) != (_VERSION, identity):
            raise ValueError("it is of another journal, or of another version")
        if connection.execute(_SEALED).fetchone()[0] != self._seal():
            raise ValueError("its list of runs was damaged")
        if through_seq and head_at(through_seq) != head:
            raise ValueError(f"it is not of this journal's record {through_seq}")
        for number, level, last_seq, digest in connection.execute(_RUNS).fetchall():
            (digests,) = connection.execute(_DIGESTS, (number,)).fetchone()
            if sha256(digests).hexdigest() != digest:
                raise ValueError(f"the digests of run {number} were damaged")
            self._runs[number] = Run(level, last_seq)
            self._published.checked.expect(number, digests)
        self._load_filters()
        self._publish()
        # From now on only a close in order makes the last filter good again.
        self._note(good=False)
        return int(through_seq)

    def _load_filters(self) -> None:
        filters = self._connection.execute(_FILTERS).fetchall() or [(0, 0, 0, "")]
        digests = [digest for *_, digest in filters]
        self._published.begins = (*(each[1] for each in filters), _NEVER)
        number, after_seq, keys, _ = filters[-1]
        self._filter = Filter(number, after_seq, keys)
        for first in range(0, len(filters), FILTERS):
            file = FilterFile(self._path, first // FILTERS)
            self._published.filters = (*self._published.filters, file)
            good = [digest for digest in digests[first : first + FILTERS] if digest]
            if good and file.sha256(len(good)) != good[-1]:
                raise ValueError(f"the filters from {first} were damaged")
        # What was begun after them, and is in no list, may have left bits.
        file.keep(self._filter.place + bool(digests[-1]))
        if not digests[-1]:
            self._filter.keys = 0
            self._refill(file)

    def _refill(self, file: FilterFile) -> None:
        """Add to the last filter the keys of the records that it is for."""
        after_seq = self._filter.after_seq
        for number, run in self._runs.items():
            if run.last_seq > after_seq:
                self._published.checked.check_all(self._connection, number)
                select = f"SELECT key FROM run_{number:d} WHERE seq > ?"  # noqa: S608
                found = self._connection.execute(select, (after_seq.to_bytes(8),))
                self._filter.keys += file.add(self._filter.place, (key for (key,) in found))

    def _begin_filter(self) -> None:
        """Add to the next filter from now on. Where that fails, to the last one as before."""
        begun = Filter(self._filter.number + 1, self._through())
        files = self._published.filters
        if not begun.place:
            files = (*files, FilterFile(self._path, len(files)))
        self._put(begun, "")
        self._published.begins = (*self._published.begins[:-1], begun.after_seq, _NEVER)
        self._published.filters = files
        self._filter = begun

    def _note(self, *, good: bool) -> None:
        """Write down the filter that keys are added to now."""
        file, each = self._published.filters[-1], self._filter
        self._put(each, file.sha256(each.place + 1) if good else "")

    def _put(self, each: Filter, digest: str) -> None:
        with self._transaction():
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
        except (sqlite3.Error, Damaged, ValueError, MemoryError) as error:
            logger.critical("the index can no longer be kept", exc_info=True)
            self._disown()
            with self._wake:
                self._failed = error
                self._wake.notify_all()

    def _work(self) -> bool:
        with self._wake:
            checked, part = self._published.checked, None
            while not (self._published.waiting or self._closing):
                checked.raise_damaged()
                if (part := checked.next()) is not None:
                    break
                self._wake.wait()
            if self._closing:
                return False
        if self._published.waiting:
            self._write(*self._published.waiting[0])
            self._merge()
        elif part is not None:
            checked.check(self._connection, *part)
        return True

    def _disown(self) -> None:
        """Nothing of it is to be believed at the next start."""
        try:
            with self._transaction():
                self._connection.execute("UPDATE about SET version = 0")
        except sqlite3.Error:
            logger.exception("the index could not be disowned; its folder is to be deleted")

    def _write(self, keys: dict[bytes, int], through_seq: int, head: str) -> None:
        if self._filter.keys >= self._published.filters[-1].keys_max:
            self._note(good=True)
            self._begin_filter()
        file = self._published.filters[-1]
        packed = b"".join([key + seq.to_bytes(8) for key, seq in keys.items()])
        number, run = max(self._runs, default=0) + 1, Run(0, through_seq)
        with self._transaction():
            self._create(number)
            self._connection.execute(_WRITE.format(number=number), (packed, len(packed)))
            self._name(number, run)
            self._connection.execute(_PUT_THROUGH, (through_seq, head))
        self._runs[number] = run
        self._filter.keys += file.add(self._filter.place, keys)
        self._publish()
        with self._wake:
            self._published.waiting = self._published.waiting[1:]
            self._wake.notify_all()

    def _publish(self) -> None:
        ends = [run.last_seq for run in self._runs.values()]
        self._published.runs = tuple(zip(self._runs, [0, *ends], ends, strict=False))

    def _merge(self) -> None:
        """Make one run of the next level of every eight; the newest record of a key stays.

        It is made at once when a level is full, so all that is of lower levels is in it, and by
        its number, the highest, it is the newest.
        """
        level = 0
        while len(old := [n for n, run in self._runs.items() if run.level == level]) >= _FAN_OUT:
            number = max(self._runs) + 1
            rows = " UNION ALL ".join(f"SELECT key, seq FROM run_{run:d}" for run in old)  # noqa: S608
            for run in old:
                self._published.checked.check_all(self._connection, run)
            last_seq = max(self._runs[run].last_seq for run in old)
            made = Run(level + 1, last_seq)
            with self._transaction():
                self._create(number)
                self._connection.execute(
                    f"INSERT OR REPLACE INTO run_{number:d} {rows} ORDER BY key, seq"
                )
                for run in old:
                    self._connection.execute("DELETE FROM run WHERE number = ?", (run,))
                self._name(number, made)
            for run in old:
                del self._runs[run]
            self._runs[number] = made
            self._publish()
            with self._transaction():
                for run in old:
                    self._published.checked.drop(run)
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

    def _name(self, number: int, run: Run) -> None:
        digests = digests_of(self._connection, number)
        facts = (number, run.level, run.last_seq, sha256(digests).hexdigest(), digests)
        self._connection.execute("INSERT INTO run VALUES (?, ?, ?, ?, ?)", facts)

    def _through(self) -> int:
        return int(self._connection.execute(_ABOUT).fetchone()[2])
