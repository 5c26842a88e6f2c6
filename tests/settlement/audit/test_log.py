"""What a changed byte of SQLite's log hides is told from what a power cut or a fault left."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from farthing.settlement.audit import log
from farthing.settlement.audit.log import hidden_in_log

PAGE_BYTES = 4096
FRAME_BYTES = 24 + PAGE_BYTES
HEADER_BYTES = 32


def log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


@contextmanager
def unfolded(path: Path) -> Iterator[sqlite3.Connection]:
    """A database whose files stay as they are at the end of a block: a close folds its log."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA wal_autocheckpoint = 0")
        yield db
        files = {each: each.read_bytes() for each in (path, log_of(path))}
    for each, data in files.items():
        each.write_bytes(data)


def committed(path: Path, rows: int, *, to: Path) -> Path:
    """One more transaction of so many pages, in a copy of a database that is not closed."""
    for each, copy in ((path, to), (log_of(path), log_of(to))):
        copy.write_bytes(each.read_bytes())
    with unfolded(to) as db:
        db.execute("BEGIN IMMEDIATE")
        for _ in range(rows):
            db.execute("INSERT INTO row VALUES (zeroblob(?))", (PAGE_BYTES,))
        db.execute("COMMIT")
    return to


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database in whose log three transactions stand, of some pages each."""
    path = tmp_path / "some.sqlite"
    with unfolded(path) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE row (data BLOB NOT NULL)")
    for number in range(3):
        path = committed(path, 3, to=tmp_path / f"{number}.sqlite")
    return path


def test_the_log_of_a_database_that_a_link_leads_to_is_beside_the_file_itself(
    database: Path, tmp_path: Path
) -> None:
    link = tmp_path / "elsewhere" / "some.sqlite"
    link.parent.mkdir()
    link.symlink_to(database)
    log = log_of(database)
    damaged = bytearray(log.read_bytes())
    damaged[HEADER_BYTES + FRAME_BYTES // 2] ^= 1
    log.write_bytes(damaged)

    assert hidden_in_log(link) == hidden_in_log(database) > 0


def test_a_byte_anywhere_before_the_last_two_transactions_hides_them(database: Path) -> None:
    log = log_of(database)
    whole = log.read_bytes()
    frames = (len(whole) - HEADER_BYTES) // FRAME_BYTES
    last_two = [
        place
        for place in range(frames)
        if whole[HEADER_BYTES + place * FRAME_BYTES + 4 : HEADER_BYTES + place * FRAME_BYTES + 8]
        != bytes(4)
    ][-3]
    found = []
    for place in range(last_two + 1):
        for at in (1, 5, 9, 17, 24, 4000):
            data = bytearray(whole)
            data[HEADER_BYTES + place * FRAME_BYTES + at] ^= 1
            log.write_bytes(data)
            found.append(hidden_in_log(database) >= 2)

    log.write_bytes(whole)
    assert all(found)
    assert hidden_in_log(database) == 0


def test_a_transaction_that_a_power_cut_tore_hides_nothing(database: Path) -> None:
    log = log_of(database)
    data = bytearray(log.read_bytes())
    data[-1] ^= 1

    for torn in (data, data[:-FRAME_BYTES], data[:-100]):
        log.write_bytes(torn)
        assert hidden_in_log(database) == 0


def test_what_commits_that_failed_one_after_the_other_left_hides_nothing(
    database: Path, tmp_path: Path
) -> None:
    logs = [
        log_of(committed(database, pages, to=tmp_path / f"{pages}.sqlite")).read_bytes()
        for pages in (1, 4, 9)
    ]
    lengths = [len(each) for each in logs]
    assert lengths == sorted(set(lengths))

    left = logs[0] + logs[1][lengths[0] :] + logs[2][lengths[1] :]
    log_of(database).write_bytes(left)

    assert hidden_in_log(database) == 0


def test_a_log_that_is_begun_again_while_it_is_read_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, frames = tmp_path / "live.sqlite", log._frames  # noqa: SLF001
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("CREATE TABLE row (data BLOB NOT NULL)")

        def begin_again(rows: int) -> None:
            db.execute("PRAGMA wal_checkpoint(RESTART)")
            for _ in range(rows):
                db.execute("INSERT INTO row VALUES (zeroblob(?))", (PAGE_BYTES,))

        def overtaken(file: BinaryIO, page_bytes: int) -> Iterator[tuple[bytes, bytes]]:
            found = frames(file, page_bytes)
            yield next(found)
            begin_again(5)
            yield from found
            begin_again(20)

        begin_again(20)
        monkeypatch.setattr(log, "_frames", overtaken)

        assert hidden_in_log(path) == 0
