"""Folding the write-ahead log into the database beside the writer, so that commits do not wait.

Boundary: one thread with a connection of its own; what it does is safe to leave undone. SQLite's
own checkpoints would run inside whichever commit filled the log. Source: spec/journal.md.
"""

import logging
import sqlite3
from collections.abc import Callable
from threading import Event, Thread
from typing import Final

__all__ = ["LogFolder"]

logger = logging.getLogger(__name__)

# Bytes committed until the log is folded: often enough that it stays small and is soon written
# over again, which takes a sync half of the time that it takes where the file grows.
_FOLD_BYTES: Final = 2 * 1024 * 1024
_FOLD: Final = "PRAGMA wal_checkpoint(PASSIVE)"
# A log that reads on end have kept from being begun again; then the writer waits for them a little.
_LOG_BYTES_MAX: Final = 64 * 1024 * 1024
_PATIENCE_MS: Final = 100
_BEGIN_AGAIN: Final = "PRAGMA wal_checkpoint(RESTART)"


class LogFolder:
    """Folds the log of a database whenever enough was committed.

    Args:
        connect: opens a connection for the thread.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._bytes = 0
        self._wanted = Event()
        self._folded = Event()
        self._closing = False
        self._thread = Thread(target=self._run, name="farthing-log", daemon=True)
        self._thread.start()

    def committed(self, size_bytes: int, writing: sqlite3.Connection) -> None:
        """Take note of a commit, after it, on the thread of the connection that writes."""
        self._bytes += size_bytes
        if self._folded.is_set():
            # The thread has folded all but what was committed meanwhile. With that too the log is
            # begun again from its start by the next commit, unless somebody is reading it.
            self._folded.clear()
            if self._fold(writing) > _LOG_BYTES_MAX:
                self._begin_again(writing)
        elif self._bytes >= _FOLD_BYTES and not self._wanted.is_set():
            self._bytes = 0
            self._wanted.set()

    def close(self) -> None:
        """Fold no more."""
        self._closing = True
        self._wanted.set()
        self._thread.join()

    def _run(self) -> None:
        connection = self._connect()
        try:
            while True:
                self._wanted.wait()
                # Taken back before the look at `_closing`, so that a close meanwhile is not missed.
                self._wanted.clear()
                if self._closing:
                    return
                self._fold(connection)
                self._folded.set()
        finally:
            connection.close()

    def _fold(self, connection: sqlite3.Connection, how: str = _FOLD) -> int:
        """The size of the log in bytes."""
        try:
            (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
            _, pages, _ = connection.execute(how).fetchone()
        except sqlite3.Error:
            # What was committed is in the log. A full or failing disk is told to whoever commits.
            logger.warning("the log could not be folded", exc_info=True)
            return 0
        return int(pages * page_bytes)

    def _begin_again(self, writing: sqlite3.Connection) -> None:
        (patience_ms,) = writing.execute("PRAGMA busy_timeout").fetchone()
        writing.execute(f"PRAGMA busy_timeout={_PATIENCE_MS:d}")
        try:
            self._fold(writing, _BEGIN_AGAIN)
        finally:
            writing.execute(f"PRAGMA busy_timeout={patience_ms:d}")
