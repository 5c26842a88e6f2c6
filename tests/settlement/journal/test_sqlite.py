import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text

from farthing.protocol.errors import Code, Refused
from farthing.protocol.records import Record
from farthing.settlement.engine.commands import Kept
from farthing.settlement.journal import sqlite as sqlite_module
from farthing.settlement.journal.sqlite import SqliteStore
from farthing.settlement.journal.stepper import Stepper
from farthing.settlement.journal.store import (
    CommitRefused,
    CommitUnknown,
    DatabaseInUse,
    Row,
    Unreadable,
)
from tests.settlement.journal import bank
from tests.settlement.journal.bank import START_US, Ask, Bank, command, fund, hold

HOLDS = Table(
    "hold_row",
    MetaData(),
    Column("id", Text, primary_key=True),
    Column("units", Text, nullable=False),
    Column("seq", Integer, nullable=False),
)


def hold_rows(record: Record) -> Iterable[Row]:
    for change in record.changed:
        yield (
            HOLDS,
            {"id": change.id, "units": str(change.after["units"]), "seq": record.seq},
        )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def opened(path: Path, *, pages_max: int = 0) -> Stepper[Bank]:
    store = SqliteStore(path, tables=[HOLDS], pages_max=pages_max)
    stepper = bank.stepper(store, rows=hold_rows)
    stepper.open()
    return stepper


def select(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def test_a_person_can_read_the_journal(path: Path) -> None:
    stepper = opened(path)
    stepper.step([fund(10), hold(4, "a")])

    ((first_seq, last_seq, epoch, records),) = select(
        path, "SELECT first_seq, last_seq, epoch, records FROM journal_batch"
    )

    assert (first_seq, last_seq, epoch) == (1, 2, 1)
    assert isinstance(records, bytes)
    lines = [json.loads(line) for line in records.splitlines()]
    assert [line["operation"] for line in lines] == ["fund_account", "place_hold"]


def test_it_is_durable_as_sqlite_understands_it(path: Path) -> None:
    opened(path).step([fund(10)])

    assert select(path, "PRAGMA journal_mode") == [("wal",)]


def test_every_commit_waits_for_the_disk(path: Path) -> None:
    store = SqliteStore(path)
    store.acquire()

    # A setting of the connection and not of the file: nobody can see it from beside. 2 is FULL.
    assert store._writing is not None  # noqa: SLF001
    assert store._writing.execute("PRAGMA synchronous").fetchone() == (2,)  # noqa: SLF001
    store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE journal_batch SET note = ''",
        "DELETE FROM journal_batch",
        "INSERT INTO journal_batch SELECT 3, 3, 1, records, head, root, note FROM journal_batch",
        "REPLACE INTO journal_batch SELECT 1, 1, 9, records, head, root, note FROM journal_batch",
    ],
    ids=["update", "delete", "gap", "replace"],
)
def test_a_slip_of_the_hand_cannot_change_the_journal(path: Path, statement: str) -> None:
    opened(path).step([fund(10)])
    before = select(path, "SELECT * FROM journal_batch")

    with pytest.raises(sqlite3.IntegrityError):
        execute(path, statement)

    assert select(path, "SELECT * FROM journal_batch") == before


def test_rows_are_written_with_their_record(path: Path) -> None:
    stepper = opened(path)
    kept = Kept(table="personal", row={"commitment": "c0ffee", "salt": "s", "value": "Ada"})

    stepper.step([fund(10), command("place_hold", "a", Ask(units=4), kept=(kept,))])

    assert select(path, "SELECT * FROM hold_row") == [("a", "4", 2)]
    assert select(path, "SELECT * FROM personal") == [("c0ffee", "s", "Ada")]


def test_a_row_follows_its_things_newest_record(path: Path) -> None:
    stepper = opened(path)
    stepper.step([fund(10), hold(4, "a", expires_at_us=START_US + 1)])
    stepper.step([])

    assert select(path, "SELECT * FROM hold_row") == [("a", "4", 3)]


def test_expired_bodies_give_way_to_new_ones(path: Path) -> None:
    stepper = opened(path)

    def keep(key: str, expires_at_us: int) -> None:
        row: dict[str, str | int | bytes] = {"id": key, "expires_at_us": expires_at_us, "body": b""}
        kept = (Kept(table="kept_body", row=row),)
        stepper.step([command("fund_account", key, Ask(units=1), kept=kept)])

    keep("short", START_US + 3_000)
    keep("long", START_US + 10_000_000)
    for number in range(9):
        stepper.step([fund(1, f"key{number}")])
    keep("new", START_US + 10_000_000)

    assert select(path, "SELECT id FROM kept_body ORDER BY id") == [("long",), ("new",)]


def test_a_batch_and_its_rows_are_written_whole_or_not_at_all(path: Path) -> None:
    stepper = opened(path)
    stepper.step([fund(10)])
    execute(path, "DROP TABLE hold_row")

    (refused,) = stepper.step([hold(4, "a")])

    assert isinstance(refused, Refused)
    assert refused.code is Code.UNAVAILABLE
    assert select(path, "SELECT count(*) FROM journal_batch") == [(1,)]
    while isinstance(reply := stepper.step([fund(1, "more")])[0], Refused):
        assert reply.code is Code.UNAVAILABLE
    assert reply.seq == 2


def test_a_full_disk_answers_unavailable_and_resumes_when_there_is_room(path: Path) -> None:
    opened(path).close()
    execute(
        path,
        "CREATE TABLE ballast (bytes BLOB)",
        "INSERT INTO ballast VALUES (zeroblob(1000000))",
    )
    ((pages,),) = select(path, "PRAGMA page_count")
    assert isinstance(pages, int)
    stepper = opened(path, pages_max=pages + 4)
    acknowledged = 0
    for number in range(1_000):
        (reply,) = stepper.step([fund(1, f"key{number}")])
        if isinstance(reply, Refused):
            break
        acknowledged += 1

    assert isinstance(reply, Refused)
    assert reply.code is Code.UNAVAILABLE
    assert select(path, "SELECT max(last_seq) FROM journal_batch") == [(acknowledged,)]
    assert acknowledged > 0

    execute(path, "DROP TABLE ballast")
    while isinstance(reply := stepper.step([fund(1, "after")])[0], Refused):
        assert reply.code is Code.UNAVAILABLE
    assert reply.seq == acknowledged + 1


def test_what_the_disk_refuses_and_what_it_garbles_are_told_apart(path: Path) -> None:
    stepper = opened(path)
    stepper.step([fund(10)])
    (batch,) = SqliteStore(path).batches()
    stepper.close()
    full = SqliteStore(path, pages_max=1)
    epoch = full.acquire()

    following = replace(batch, epoch=epoch, first_seq=2)

    with pytest.raises(CommitUnknown):
        full.commit(replace(following, rows=((HOLDS, {"id": "a", "units": "1", "seq": 2**63}),)))
    with pytest.raises(CommitRefused):
        full.commit(replace(following, records=(b"x" * 100_000,)))
    with pytest.raises(DatabaseInUse):
        full.commit(replace(following, epoch=epoch - 1))
    full.close()


@pytest.mark.parametrize("name", ["journal.db", "link.db"])
def test_another_process_cannot_take_the_file(path: Path, name: str) -> None:
    opened(path)
    path.with_name("link.db").symlink_to(path)
    program = (
        "import sys; from pathlib import Path;"
        "from farthing.settlement.journal.sqlite import SqliteStore;"
        "SqliteStore(Path(sys.argv[1])).acquire()"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, str(path.with_name(name))],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert "database_in_use" in done.stderr


def test_each_tenure_has_an_epoch_of_its_own(path: Path) -> None:
    epochs = []
    for _ in range(3):
        store = SqliteStore(path)
        epochs.append(store.acquire())
        store.close()

    assert epochs == [1, 2, 3]


def test_a_writer_that_was_taken_over_cannot_write(path: Path) -> None:
    stepper = opened(path)
    stepper.step([fund(10)])
    execute(path, "UPDATE epoch SET number = number + 1")

    with pytest.raises(DatabaseInUse):
        stepper.step([hold(1, "a")])

    assert select(path, "SELECT count(*) FROM journal_batch") == [(1,)]


def test_a_schema_from_the_future_is_refused(path: Path) -> None:
    opened(path).close()
    execute(path, "UPDATE schema_version SET version = 999")

    with pytest.raises(Unreadable):
        opened(path)
    execute(path, "UPDATE schema_version SET version = 1")
    opened(path).close()


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"not a database, but long enough to look like one" * 99)

    with pytest.raises(Unreadable):
        opened(path)
    with pytest.raises(Unreadable):
        list(SqliteStore(path).batches())


def test_a_missing_folder_or_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unreadable):
        SqliteStore(tmp_path / "missing" / "journal.db").acquire()
    for read in (
        SqliteStore.restored_at_us,
        lambda store: store.record(1),
        lambda store: list(store.batches()),
    ):
        with pytest.raises(Unreadable):
            read(SqliteStore(tmp_path / "journal.db"))


def test_records_are_found_across_batches(path: Path) -> None:
    stepper = opened(path)
    for size in (1, 3, 2):
        stepper.step([fund(1, f"key{size}{number}") for number in range(size)])
    store = SqliteStore(path)
    everything = [data for batch in store.batches() for data in batch.records]

    assert [store.record(seq) for seq in range(1, 7)] == everything
    assert store.record(0) is None
    assert store.record(7) is None
    for after_seq in range(8):
        later = [
            data
            for batch in store.batches(after_seq)
            for seq, data in enumerate(batch.records, batch.first_seq)
            if seq > after_seq
        ]
        assert later == everything[after_seq:]


def test_the_records_of_a_batch_are_read_from_disk_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepper = opened(path)
    stepper.step([fund(10), hold(1, "a"), hold(1, "b")])
    stepper.step([hold(1, "c")])
    stepper.close()
    store = SqliteStore(path)
    everything = [data for batch in store.batches() for data in batch.records]
    store.acquire()
    reads: list[None] = []
    reader = store._reader  # noqa: SLF001

    def counted() -> AbstractContextManager[sqlite3.Connection]:
        reads.append(None)
        return reader()

    monkeypatch.setattr(store, "_reader", counted)

    # A batch after the other, and both in turn.
    assert [store.record(seq) for seq in (1, 2, 3, 4, 1, 4)] == [
        everything[seq - 1] for seq in (1, 2, 3, 4, 1, 4)
    ]
    assert len(reads) == 2

    store.reopen()
    assert store.record(1) == everything[0]
    assert len(reads) == 3

    monkeypatch.setattr(sqlite_module, "_LATEST_BYTES_MAX", 1)
    assert [store.record(seq) for seq in (4, 4, 1)] == [everything[seq - 1] for seq in (4, 4, 1)]
    assert len(reads) == 5
    store.close()


def test_a_store_that_is_closed_leaves_the_whole_journal_in_one_file(path: Path) -> None:
    stepper = opened(path)
    stepper.step([fund(10), hold(1, "a")])
    stepper.close()
    store = SqliteStore(path)
    store.acquire()
    everything = [store.record(seq) for seq in (1, 2)]
    log = path.with_name(f"{path.name}-wal")
    assert log.exists()

    store.close()

    assert not log.exists()
    copy = path.with_name("copy.sqlite")
    copy.write_bytes(path.read_bytes())
    assert [SqliteStore(copy).record(seq) for seq in (1, 2)] == everything


def test_a_journal_behind_a_link_has_its_log_beside_the_file(path: Path, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    path.symlink_to(tmp_path / "volume" / "journal.db")
    stepper = opened(path)
    stepper.step([fund(10)])

    SqliteStore(path).reopen()

    assert (tmp_path / "volume" / "journal.db-wal").stat().st_size == 0
    assert [each.name for each in tmp_path.iterdir() if each != path] == ["volume"]


def test_reopening_writes_the_log_through_or_says_that_it_could_not(path: Path) -> None:
    stepper = opened(path)
    stepper.step([fund(10)])
    store = SqliteStore(path, busy_timeout_s=0)

    with closing(sqlite3.connect(path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM journal_batch").fetchone()
        stepper.step([hold(1, "a")])
        with pytest.raises(Unreadable):
            store.reopen()

    store.reopen()
    assert path.with_name("journal.db-wal").stat().st_size == 0
