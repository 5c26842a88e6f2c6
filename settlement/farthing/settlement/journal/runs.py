"""Runs of keys in the index's database, and whether they are what was written.

Boundary: the tables of the runs; when one is written or merged is the index's affair.

A run is compared with its digests a 256th at a time, before anything is answered from that part:
so a start does not wait for all of it.
"""

import os
import sqlite3
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

__all__ = ["CheckedRuns", "Damaged", "Run", "check_room", "connect", "digests_of"]

_PARTS: Final = 256
_DIGEST_BYTES: Final = 32
_ROOM_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a level of merging; no key in it is of a record after `last_seq`."""

    level: int
    last_seq: int


class Damaged(ValueError):
    """A run is not what was written."""


class CheckedRuns:
    """The parts of runs that were not compared with their digests yet; used by two threads."""

    def __init__(self) -> None:
        self._digests: dict[int, bytes] = {}
        self._left: dict[int, set[int]] = {}
        self._damaged: Damaged | None = None

    def expect(self, number: int, digests: bytes) -> None:
        """A run is there, and should have these digests."""
        self._digests[number] = digests
        self._left[number] = set(range(_PARTS))

    def drop(self, number: int) -> None:
        """A run is there no more."""
        self._left.pop(number, None)
        self._digests.pop(number, None)

    def next(self) -> tuple[int, int] | None:
        """A part that is still to be compared."""
        return next(((run, min(left)) for run, left in self._left.items() if left), None)

    def check(self, connection: sqlite3.Connection, number: int, part: int) -> None:
        """Compare a part, unless it was compared before.

        Raises:
            Damaged: it is not what was written.
        """
        left = self._left.get(number)
        if not left or part not in left:
            return
        first = part * _DIGEST_BYTES
        expected = self._digests[number][first : first + _DIGEST_BYTES]
        if _digest_of(connection, number, part) != expected:
            self._damaged = Damaged(f"run {number} was damaged")
        self.raise_damaged()
        left.discard(part)

    def raise_damaged(self) -> None:
        """Raise what either thread has found before."""
        if self._damaged is not None:
            raise self._damaged

    def check_all(self, connection: sqlite3.Connection, number: int) -> None:
        """Compare what is left of a run; raises as `check`."""
        for part in tuple(self._left.get(number, ())):
            self.check(connection, number, part)


def connect(folder: Path) -> sqlite3.Connection:
    """A connection to the runs of a folder; for one thread at a time."""
    connection = sqlite3.connect(
        folder / "runs.sqlite", check_same_thread=False, isolation_level=None
    )
    with ExitStack() as undo:
        undo.callback(connection.close)
        connection.execute("PRAGMA journal_mode=WAL")
        # A commit that power failure takes back is found in the journal again.
        connection.execute("PRAGMA synchronous=NORMAL")
        undo.pop_all()
    return connection


def digests_of(connection: sqlite3.Connection, number: int) -> bytes:
    """The digests of a run's parts, one after the other."""
    return b"".join([_digest_of(connection, number, part) for part in range(_PARTS)])


def _digest_of(connection: sqlite3.Connection, number: int, part: int) -> bytes:
    low, high = bytes((part,)), bytes((part,)) + b"\xff" * 16
    (rows,) = connection.execute(
        "SELECT CAST(group_concat(key || seq, '') AS BLOB) FROM"  # noqa: S608  # a number
        f" (SELECT key, seq FROM run_{number:d} WHERE key BETWEEN ? AND ? ORDER BY key)",
        (low, high),
    ).fetchone()
    return sha256(rows or b"").digest()


def check_room(folder: Path) -> None:
    """Raise what the disk does where it takes nothing more."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(_ROOM_BYTES))
        file.flush()
        os.fsync(file.fileno())
