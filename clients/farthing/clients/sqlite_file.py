"""A small SQLite file that one process has open, its commits on disk when they return.

Boundary: opening, locking, writing; what stands in it is its owner's. Every method blocks: call it
from a thread.
"""

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final

from farthing.clients.files import FILE_MODE, make_directory
from farthing.protocol.errors import Unverified

__all__ = ["SqliteFile", "Value", "looked_into"]

Value = str | int | bytes

_FIRST: Final = 1


class SqliteFile:
    """The file, made if it is not there.

    Args:
        path: Where it lies.
        in_use: Raised where another process has it open.
        version: That of its tables; who makes them takes over those of an earlier one.

    Raises:
        ValueError: It is of a later version of this program.
    """

    def __init__(self, path: Path, *, in_use: Exception, version: int = _FIRST) -> None:
        make_directory(path.parent)
        self._guard = threading.Lock()
        self._lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, FILE_MODE)
        with ExitStack() as undo:
            undo.callback(os.close, self._lock)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise in_use from None
            path.touch(mode=FILE_MODE)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            undo.callback(self._db.close)
            self._db.row_factory = sqlite3.Row
            ((found,),) = self.do("PRAGMA user_version")
            if found > version:
                raise ValueError(f"{path} is of a later version of this program: {found}")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute(f"PRAGMA user_version = {version}")
            undo.pop_all()

    def make(self, tables: str) -> None:
        """Execute the statements that make tables, where they are missing."""
        with self._guard:
            self._db.executescript(tables)

    def do(self, statement: str, *values: Value) -> list[sqlite3.Row]:
        """Execute one statement; a change is on disk when this returns."""
        with self._guard:
            return self._db.execute(statement, values).fetchall()

    def write(self, steps: Iterable[tuple[str, Sequence[Sequence[Value]]]]) -> None:
        """Execute statements, each with many rows of values, all or nothing."""
        with self._guard, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for statement, rows in steps:
                if rows:
                    self._db.executemany(statement, rows)

    def close(self) -> None:
        """Close the file and let another process have it."""
        with self._guard:
            self._db.close()
            os.close(self._lock)


@contextmanager
def looked_into(path: Path, version: int = _FIRST) -> Iterator[sqlite3.Connection]:
    """A file to read from, whoever has it open.

    Raises:
        FileNotFoundError: There is none.
        Unverified: It is of another version or kind, or damaged.
    """
    path.stat()
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            (found,) = db.execute("PRAGMA user_version").fetchone()
            if found not in {0, version}:
                raise Unverified(f"{path} is of {_age(found, version)}")
            yield db
    except sqlite3.DatabaseError as error:
        raise Unverified(f"{path} cannot be read: {error}") from None


def _age(found: int, version: int) -> str:
    if found > version:
        return "a later version of this program"
    return "an earlier version: whoever's it is takes it over at the next start"
