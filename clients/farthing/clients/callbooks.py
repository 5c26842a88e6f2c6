"""What a buyer must not forget of a session: which numbers it gave out, what it has acknowledged.

Boundary: one SQLite file of one session, open in one process at a time. Many calls share one
commit: whoever waits is told when what it noted is on disk. What a number means is the law's
`SpendBook`. Source: spec/sessions.md.
"""

import asyncio
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, cast

from farthing.clients.files import FILE_MODE, make_directory
from farthing.protocol.canonical import Json, canonical_bytes, parse_json

__all__ = ["CallBook", "Called", "Keeper", "SessionInUse", "Stage", "read_book"]

_VERSION: Final = 1
_COLUMNS: Final = (
    *("seq", "args_sha256", "stage", "place", "usage"),
    *("units", "said_units", "result_sha256", "fault"),
)
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS call (
    seq INTEGER PRIMARY KEY, args_sha256 TEXT NOT NULL, stage TEXT NOT NULL,
    place INTEGER NOT NULL, usage BLOB NOT NULL, units INTEGER NOT NULL,
    said_units INTEGER NOT NULL, result_sha256 TEXT NOT NULL, fault TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS by_stage ON call (stage);
CREATE TABLE IF NOT EXISTS book (id INTEGER PRIMARY KEY, document BLOB NOT NULL) STRICT;
"""


class SessionInUse(RuntimeError):
    """Another process calls through this session: two would give out the same numbers."""


class Stage(StrEnum):
    """How far a call has come, as the buyer knows it."""

    ASKED = "asked"
    """A voucher for it may be in the vendor's hands; what became of it is not known."""
    ANSWERED = "answered"
    """Its answer came and is acknowledged."""
    FAILED = "failed"
    """The vendor said that it did not deliver; nothing may be billed."""
    DISPUTED = "disputed"
    """Something came that the buyer does not acknowledge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """One call of a session.

    Args:
        seq: Its number.
        args_sha256: The digest of its arguments.
        stage: How far it has come.
        place: Its place among the acknowledged answers, from 1; 0 where it is not among them.
        usage: What the vendor says it used.
        units: What that costs, computed here.
        said_units: What it costs in the vendor's words.
        result_sha256: The digest of what came.
        fault: What is wrong with the answer; empty where nothing is.
    """

    seq: int
    args_sha256: str
    stage: Stage
    place: int = 0
    usage: Mapping[str, int] = field(default_factory=dict)
    units: int = 0
    said_units: int = 0
    result_sha256: str = ""
    fault: str = ""


class CallBook:
    """The file. Every method blocks until what it says is on disk; call it from a thread.

    Args:
        path: The file, made if it is not there.

    Raises:
        SessionInUse: Another process has it open.
    """

    def __init__(self, path: Path) -> None:
        make_directory(path.parent)
        self._guard = threading.Lock()
        self._lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, FILE_MODE)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise SessionInUse(f"{path.stem} is in use by another process") from None
        path.touch(mode=FILE_MODE)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version not in {0, _VERSION}:
            raise ValueError(f"{path} is of another version of this program: {version}")
        self._db.executescript(_TABLES)
        self._db.execute(f"PRAGMA user_version = {_VERSION}")

    def document(self) -> dict[str, Json] | None:
        """The book as it was last kept, None in a new file."""
        with self._guard:
            return _document(self._db)

    def write(self, calls: list[Called], document: Mapping[str, Json]) -> None:
        """Keep calls and the book that they lead to, all or nothing."""
        with self._guard, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "INSERT OR REPLACE INTO call VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", map(_row, calls)
            )
            self._db.execute(
                "INSERT OR REPLACE INTO book VALUES (1, ?)", (canonical_bytes(document),)
            )

    def find(self, seq: int) -> Called | None:
        """A call by its number."""
        with self._guard:
            row = self._db.execute("SELECT * FROM call WHERE seq = ?", (seq,)).fetchone()
        return _called(row) if row else None

    def calls(self, *stages: Stage) -> tuple[Called, ...]:
        """The calls of some stages, by number."""
        with self._guard:
            return _calls(self._db, stages)

    def close(self) -> None:
        """Close the file and let another process have it."""
        with self._guard:
            self._db.close()
            os.close(self._lock)


class Keeper:
    """Writes what is noted, many calls in one commit: one commit is the next one's waiting room.

    Args:
        book: The file.
        document: Gives the book as it stands, with all that is noted.
    """

    def __init__(self, book: CallBook, document: Callable[[], Mapping[str, Json]]) -> None:
        self._book = book
        self._document = document
        self._noted: dict[int, Called] = {}
        self._writing: asyncio.Task[None] | None = None
        self._waiting: asyncio.Task[None] | None = None

    def note(self, *calls: Called) -> None:
        """Have calls written with the next commit."""
        self._noted.update((each.seq, each) for each in calls)

    async def kept(self) -> None:
        """Wait until everything noted so far is on disk.

        Raises:
            OSError, sqlite3.Error: It is not; it stays noted.
        """
        if self._waiting is None:
            self._waiting = asyncio.create_task(self._write(self._writing))
        # A caller that goes away must not take the others' commit with it.
        await asyncio.shield(self._waiting)

    async def _write(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        self._writing, self._waiting = self._waiting, None
        noted, self._noted = self._noted, {}
        try:
            await asyncio.to_thread(self._book.write, list(noted.values()), self._document())
        except BaseException:
            self._noted = noted | self._noted
            raise


def read_book(path: Path) -> tuple[dict[str, Json], tuple[Called, ...]]:
    """What a session's file holds, whoever has it open: the book as last kept, and its calls.

    Raises:
        FileNotFoundError: There is no such file.
    """
    path.stat()
    db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        return _document(db) or {}, _calls(db, tuple(Stage))
    finally:
        db.close()


def _document(db: sqlite3.Connection) -> dict[str, Json] | None:
    row = db.execute("SELECT document FROM book WHERE id = 1").fetchone()
    return cast("dict[str, Json]", parse_json(row[0])) if row else None


def _calls(db: sqlite3.Connection, stages: tuple[Stage, ...]) -> tuple[Called, ...]:
    marks = ", ".join("?" * len(stages))
    rows = db.execute(f"SELECT * FROM call WHERE stage IN ({marks}) ORDER BY seq", stages)  # noqa: S608 - marks alone
    return tuple(_called(row) for row in rows)


def _row(called: Called) -> tuple[object, ...]:
    usage = canonical_bytes({meter: str(each) for meter, each in called.usage.items()})
    members = {**asdict(called), "stage": called.stage.value, "usage": usage}
    return tuple(members[name] for name in _COLUMNS)


def _called(row: tuple[Any, ...]) -> Called:
    members = dict(zip(_COLUMNS, row, strict=True))
    usage = cast("dict[str, str]", parse_json(members["usage"]))
    members["usage"] = {meter: int(quantity) for meter, quantity in usage.items()}
    members["stage"] = Stage(members["stage"])
    return Called(**members)
