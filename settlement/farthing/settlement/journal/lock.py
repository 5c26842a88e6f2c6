"""One engine per file: an operating-system lock beside the database.

Boundary: POSIX `flock`, which ends with the process however it ends. The epoch in the database
guards against everything that does not see the lock.
"""

import fcntl
import os
from pathlib import Path

from farthing.settlement.journal.store import DatabaseInUse, Unreadable

__all__ = ["FileLock"]


class FileLock:
    """The lock of a database file, in `<file>.lock`; the lock file stays where it is."""

    def __init__(self, database: Path) -> None:
        # A link to a database is no second one.
        self._database = database.resolve()
        self._path = self._database.with_name(f"{self._database.name}.lock")
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock at once.

        Raises:
            DatabaseInUse: somebody has it.
            Unreadable: the lock file cannot be opened.
        """
        assert self._descriptor is None, "a lock is taken once"
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise Unreadable(f"{self._path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 32).decode("ascii", "replace")
            os.close(descriptor)
            raise DatabaseInUse(f"{self._database} (process {holder or 'unknown'})") from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock free; nothing happens where it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
