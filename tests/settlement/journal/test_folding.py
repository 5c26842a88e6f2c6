import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from threading import Event, Thread, active_count
from time import monotonic

import pytest

from farthing.settlement.journal import folding
from farthing.settlement.journal.folding import LogFolder
from tests.patience import PATIENCE_S

ROW = b"x" * 16_384
LOG_BYTES_MAX = 256 * 1024


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(folding, "_FOLD_BYTES", 64 * 1024)
    monkeypatch.setattr(folding, "_LOG_BYTES_MAX", LOG_BYTES_MAX)
    monkeypatch.setattr(folding, "_PATIENCE_MS", 200)
    return tmp_path / "some.db"


def connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1)


@contextmanager
def writing(path: Path) -> Iterator[Callable[[], None]]:
    """Commits a row a call, as the store does."""
    with ExitStack() as undo:
        connection = undo.enter_context(closing(connect(path)))
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("CREATE TABLE IF NOT EXISTS some (one BLOB)")
        folder = LogFolder(lambda: connect(path))
        undo.callback(folder.close)

        def commit() -> None:
            connection.execute("INSERT INTO some VALUES (?)", (ROW,))
            folder.committed(len(ROW), connection)

        yield commit
        assert connection.execute("PRAGMA busy_timeout").fetchone() == (1_000,)


def beginnings(path: Path) -> int:
    """How often the log was begun, as its header counts it (SQLite's file format, section 4.1)."""
    with path.with_name(f"{path.name}-wal").open("rb") as log:
        return int.from_bytes(log.read(16)[12:])


def until_begun_again(commit: Callable[[], None], path: Path) -> int:
    """Commits until one is written at the log's start. How many that took."""
    before = beginnings(path)
    deadline = monotonic() + PATIENCE_S
    commits = 0
    while beginnings(path) == before:
        assert monotonic() < deadline, f"the log only grew, in {commits} commits"
        commit()
        commits += 1
    return commits


def test_the_log_is_begun_again_and_again_while_others_read_on_end(path: Path) -> None:
    ended = Event()

    def read() -> None:
        with closing(connect(path)) as connection:
            while not ended.is_set():
                connection.execute("SELECT sum(length(one)) FROM some").fetchone()

    readers = [Thread(target=read) for _ in range(2)]
    with writing(path) as commit:
        for reader in readers:
            reader.start()
        try:
            commit()
            committed = 1 + sum(until_begun_again(commit, path) for _ in range(3))
        finally:
            ended.set()
            for reader in readers:
                reader.join()
    with closing(connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM some").fetchone() == (committed,)


def test_a_log_that_a_read_held_is_begun_again_after_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding, "_PATIENCE_MS", 1)
    with writing(path) as commit, closing(connect(path)) as reader:
        commit()
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM some").fetchone() == (1,)
        for _ in range(2 * LOG_BYTES_MAX // len(ROW)):
            commit()
        assert reader.execute("SELECT count(*) FROM some").fetchone() == (1,)
        reader.execute("COMMIT")
        until_begun_again(commit, path)


def test_no_thread_is_left(path: Path) -> None:
    before = active_count()
    with writing(path) as commit:
        commit()
    assert active_count() == before


def test_a_close_that_meets_a_fold_ends(path: Path) -> None:
    with closing(connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        for _ in range(200):
            folder = LogFolder(lambda: connect(path))
            folder.committed(folding._FOLD_BYTES, connection)  # noqa: SLF001  # have it fold
            closer = Thread(target=folder.close, daemon=True)
            closer.start()
            closer.join(PATIENCE_S)
            assert not closer.is_alive()
