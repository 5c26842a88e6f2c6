"""Whatever is flipped in a database, in any table that carries meaning, an audit finds it."""

import random
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farthing.catalog.tables import TABLES
from farthing.protocol.faults import FaultKind
from farthing.protocol.records import Record, parse_record
from farthing.server.engine import projected
from farthing.settlement.audit.database import DatabaseFindings, audit_database
from farthing.settlement.audit.read_model import make_anew
from farthing.settlement.audit.tables import opened as reading
from farthing.settlement.audit.tables import words_of
from farthing.settlement.journal import snapshots
from farthing.settlement.journal.sqlite import SqliteStore
from farthing.settlement.journal.stepper import Limits, Stepper
from farthing.settlement.journal.store import Row, Unreadable
from farthing.settlement.machine import MACHINE
from tests.construction import Trade
from tests.papers import signing_key
from tests.protocol.bundling import traded
from tests.protocol.evidence_market import JOURNAL_KEY, ORIGIN
from tests.protocol.replay.metered import Metered, events
from tests.settlement.audit.market import audited, sealed, written

TOLD = traded()
RECORDS = TOLD.trade.room.journal
# Its rows are in no hash and have no meaning but for the machine: the pages of the text index are
# read as the words that they hold, and where rows are numbered by SQLite itself.
INNER = ("listing_text_data", "listing_text_idx")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("market") / "journal.sqlite", RECORDS)


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The database in the hands of somebody who means it: no trigger and no check stops them."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints=ON")
        made = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
        triggers = made.fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        yield connection
        for _, sql in triggers:
            connection.execute(sql)


def tables_in(connection: sqlite3.Connection) -> list[str]:
    found = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE '%VIRTUAL%'"
    )
    return [name for (name,) in found if name not in INNER]


def cells(connection: sqlite3.Connection) -> Iterator[tuple[str, str, int, Any]]:
    """Every value of every row of every table: table, column, place of the row, value."""
    for table in tables_in(connection):
        cursor = connection.execute(f"SELECT * FROM {table}")  # noqa: S608
        columns = [column[0] for column in cursor.description]
        for place, row in enumerate(cursor.fetchall()):
            for column, value in zip(columns, row, strict=True):
                yield table, column, place, value


def flipped(value: Any, at: int, flip: int) -> Any:
    if isinstance(value, int):
        return value ^ (1 << (at % 8))
    if not value:
        return "x"
    data = bytearray(value if isinstance(value, bytes) else value.encode())
    data[at % len(data)] ^= flip
    return bytes(data) if isinstance(value, bytes) else data.decode("latin-1")


@contextmanager
def changed(path: Path, table: str, column: str, place: int, new: Any) -> Iterator[bool]:
    """The database with one value changed; False where SQLite itself cannot hold it."""
    where = f"UPDATE {table} SET {column} = ? WHERE {column} IS ? AND "  # noqa: S608
    with opened(path) as connection:
        row = connection.execute(f"SELECT * FROM {table} LIMIT 1 OFFSET {place}")  # noqa: S608
        names = [each[0] for each in row.description]
        old = dict(zip(names, row.fetchone(), strict=True))
        others = {name: value for name, value in old.items() if name != column}
        where += " AND ".join(["1", *(f"{name} IS ?" for name in others)])
        try:
            connection.execute(where, (new, old[column], *others.values()))
        except sqlite3.IntegrityError:
            new = old[column]
    yield new != old[column]
    with opened(path) as connection:
        connection.execute(where, (old[column], new, *others.values()))


def found_in(path: Path) -> DatabaseFindings | Unreadable:
    try:
        return audited(path)
    except Unreadable as error:
        return error


def names_it(findings: DatabaseFindings | Unreadable, table: str) -> bool:
    """Whether the first finding says where: a record by its seq, anything else by its table."""
    if isinstance(findings, Unreadable):
        return True
    if findings.ok:
        return False
    fault = findings.faults[0]
    if table == "journal_batch":
        return fault.seq > 0
    index = "text index listing_text"
    return (f"table {table}" in fault.why or index in fault.why) and fault.kind is FaultKind.TABLE


def test_the_database_of_a_market_in_order_is_ok(database: Path) -> None:
    findings = audited(database)

    assert findings.ok
    assert findings.journal is not None
    assert findings.journal.records == findings.journal.proven_records == len(RECORDS)
    assert findings.tables == len(TABLES)


def test_a_database_with_sessions_in_order_is_ok(tmp_path: Path) -> None:
    session = Metered.opened(Trade.opened())
    room = session.trade.room
    session.report(events(1, 3, 40, 2, at_us=room.now_us))
    session.report(events(1, 3, 4, at_us=room.now_us))
    session.close(session.trade.agent)
    room.advance(10**5)

    findings = audited(written(tmp_path / "journal.sqlite", room.journal))

    assert findings.ok, findings.faults
    assert findings.journal is not None
    assert findings.journal.records == len(room.journal)


def test_every_value_of_every_table_counts(database: Path) -> None:
    seeded = random.Random(1)
    with opened(database) as connection:
        everything = list(cells(connection))
    unseen = []
    for table, column, place, value in everything:
        new = flipped(value, seeded.randrange(2**16), 1 << seeded.randrange(8))
        with changed(database, table, column, place, new) as is_changed:
            if is_changed and not names_it(found_in(database), table):
                unseen.append((table, column, place))

    assert {table for table, *_ in everything} >= {
        "journal_batch", "epoch", "schema_version", "personal", "listing", "listing_head",
        "listing_tag", "listing_region", "rate_card",
    }  # fmt: skip
    assert set(unseen) <= UNPROVABLE
    assert audited(database).ok


# A tenure's number and the time of a restore are in no hash: that they do not fall is all that can
# be shown (spec/audit.md).
UNPROVABLE = {
    ("epoch", "number", 0),
    ("epoch", "restored_at_us", 0),
    *(("journal_batch", "epoch", place) for place in range(10)),
}


@pytest.mark.parametrize(
    ("table", "column", "place", "new"),
    [
        ("epoch", "number", 0, 1),
        ("epoch", "number", 0, "x"),
        ("epoch", "restored_at_us", 0, -1),
        ("journal_batch", "epoch", 0, 0),
        ("journal_batch", "epoch", 0, 2**40),
        ("journal_batch", "epoch", 5, 1),
        ("journal_batch", "epoch", 5, 2**40),
    ],
)
def test_a_tenure_that_goes_back_or_ahead_is_found(
    database: Path, table: str, column: str, place: int, new: Any
) -> None:
    with changed(database, table, column, place, new):
        findings = audited(database)

    assert not findings.ok
    assert "epoch" in findings.faults[0].why


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.integers(0, 5), st.integers(0, 2**20), st.integers(1, 255))
def test_any_byte_of_any_record_counts(database: Path, place: int, at: int, flip: int) -> None:
    with opened(database) as connection:
        rows = connection.execute("SELECT first_seq, records FROM journal_batch").fetchall()
    first_seq, records = rows[place]
    at %= len(records)
    seq = first_seq + records[:at].count(b"\n")

    with changed(database, "journal_batch", "records", place, flipped(records, at, flip)):
        findings = audited(database)

    assert not findings.ok
    # Where a line feed comes or goes, the record after it may be the one that is named.
    assert findings.faults[0].seq in {seq, seq + 1}


def test_no_table_is_said_to_agree_where_a_broken_journal_kept_it_from_being_compared(
    database: Path,
) -> None:
    with opened(database) as connection:
        (records,) = connection.execute("SELECT records FROM journal_batch").fetchone()

    with changed(database, "journal_batch", "records", 0, flipped(records, 9, 1)):
        findings = audited(database)

    assert not findings.ok
    assert findings.tables == 0


@pytest.mark.parametrize("seed", range(16))
def test_a_byte_of_the_file_is_found_or_changes_nothing(
    database: Path, tmp_path: Path, seed: int
) -> None:
    data = bytearray(database.read_bytes())
    seeded = random.Random(seed)
    data[seeded.randrange(len(data))] ^= 1 << seeded.randrange(8)
    copy = tmp_path / "copy.sqlite"
    copy.write_bytes(data)

    findings = found_in(copy)

    if isinstance(findings, DatabaseFindings) and findings.ok:
        assert told(copy) == told(database)


def told(path: Path) -> list[tuple[str, str, int, Any]]:
    with closing(sqlite3.connect(path)) as connection:
        return [each for each in cells(connection) if each[:2] != ("epoch", "number")]


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("DROP TRIGGER journal_batch_stays", "trigger journal_batch_stays is missing"),
        ("DROP INDEX listing_head_row", "index listing_head_row is missing"),
        ("CREATE TABLE more (x)", "table more is of no schema"),
        ("DELETE FROM listing_tag WHERE path = 'documents'", "table listing_tag"),
        ("INSERT INTO listing_region VALUES (1, 'eu')", "table listing_region"),
        ("INSERT INTO personal VALUES ('c', 's', 'v')", "table personal"),
        ("INSERT INTO kept_body VALUES ('d', 1, x'00')", "table kept_body"),
        ("INSERT INTO listing_text(listing_text) VALUES('delete-all')", "text index listing_text"),
    ],
)
def test_what_is_missing_or_too_much_is_named(
    database: Path, tmp_path: Path, statement: str, says: str
) -> None:
    copy = tmp_path / "copy.sqlite"
    copy.write_bytes(database.read_bytes())
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        assert connection.execute(statement).rowcount != 0

    findings = audited(copy)

    assert not findings.ok
    assert says in findings.faults[0].why


def test_a_database_that_is_written_meanwhile_is_audited_as_of_one_moment(tmp_path: Path) -> None:
    told = traded()
    before = len(told.trade.room.journal)
    told.trade.room.publish(told.trade.vendor, name="Another listing")
    path = tmp_path / "journal.sqlite"
    store = SqliteStore(path, tables=TABLES)
    assert store.acquire() == 1
    *earlier, last = sealed(told.trade.room.journal)
    for batch in earlier:
        store.commit(batch)
    assert last.last_seq == before + 1
    later = [last]

    def rows(record: Record) -> Iterable[Row]:
        while later:
            store.commit(later.pop())
        yield from projected(record)

    meanwhile = audited(path, rows)
    afterwards = audited(path)
    store.close()

    assert meanwhile.ok, meanwhile.faults
    assert meanwhile.journal is not None
    assert meanwhile.journal.records == last.first_seq - 1
    assert afterwards.ok
    assert afterwards.batches == meanwhile.batches + 1


def test_an_erased_name_is_no_fault(database: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.sqlite"
    copy.write_bytes(database.read_bytes())
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        connection.execute("DELETE FROM personal")

    assert audited(copy).ok


def test_no_other_key_is_trusted(database: Path) -> None:
    findings = audit_database(
        database,
        origin=ORIGIN,
        keys=[signing_key("other").public],
        quote_keys=[],
        tables=TABLES,
        rows=lambda _: (),
    )

    assert findings.faults[0].kind is FaultKind.HEAD


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\x00"])
def test_what_is_no_database_is_called_that(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)

    assert isinstance(found_in(path), Unreadable)


@pytest.fixture
def snapshot(database: Path, tmp_path: Path) -> Path:
    """A copy of the database with a snapshot beside it, as an engine leaves both."""
    copy = tmp_path / "copy.sqlite"
    copy.write_bytes(database.read_bytes())
    stepper = Stepper(
        SqliteStore(copy, tables=TABLES),
        MACHINE,
        signer=JOURNAL_KEY,
        origin=ORIGIN,
        now_us=lambda: parse_record(RECORDS[-1])[0].at_us,
        rows=projected,
        earlier_keys=(),
        limits=Limits(),
    )
    stepper.open()
    stepper.keep_snapshot()
    stepper.close()
    assert audited(copy).ok
    return copy.with_name("copy.sqlite-snapshot")


@pytest.mark.parametrize("part", range(8))
def test_a_snapshot_beside_the_database_counts(snapshot: Path, part: int) -> None:
    data = bytearray(snapshot.read_bytes())
    data[part * (len(data) - 1) // 7] ^= 1
    snapshot.write_bytes(data)

    findings = audited(snapshot.with_name("copy.sqlite"))

    assert [fault.kind for fault in findings.faults] == [FaultKind.TABLE]
    assert "snapshot" in findings.faults[0].why


def test_a_snapshot_of_another_journal_is_found(snapshot: Path, tmp_path: Path) -> None:
    shorter = written(tmp_path / "shorter.sqlite", RECORDS[:-2])
    snapshot.rename(tmp_path / "shorter.sqlite-snapshot")

    findings = audited(shorter)

    assert "another journal" in findings.faults[0].why


def test_a_snapshot_that_no_server_starts_from_is_passed_by(
    snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "SNAPSHOT_VERSION", snapshots.SNAPSHOT_VERSION + 1)

    assert audited(snapshot.with_name("copy.sqlite")).ok


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The read model of the database, as far as a follower has come that is behind."""
    path = tmp_path_factory.mktemp("market") / "reports.sqlite"
    make_anew(path, RECORDS[:-2])
    return path


def test_every_column_that_statements_are_read_from_counts(database: Path, reports: Path) -> None:
    assert audited(database, reports=reports).ok
    seeded = random.Random(1)
    with closing(sqlite3.connect(reports)) as connection:
        columns = {
            (table, column): (place, value)
            for table, column, place, value in cells(connection)
            # With another cursor it is of another journal, which is judged below.
            if table != "statement_cursor"
        }
    unseen = []
    for (table, column), (place, value) in sorted(columns.items()):
        new = flipped(value, seeded.randrange(2**16), 1 << seeded.randrange(7))
        with changed(reports, table, column, place, new) as is_held:
            findings = audited(database, reports=reports)
            if is_held and not names_it(findings, table):
                unseen.append((table, column))

    assert {table for table, _ in columns} >= {"statement_line", "statement_account", "listed"}
    assert not unseen


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The log of a raw copy of a database in use; most batches are still in it."""
    copy = tmp_path / "copy.sqlite"
    first, *others = sealed(RECORDS)
    store = SqliteStore(tmp_path / "journal.sqlite", tables=TABLES)
    store.acquire()
    store.commit(first)
    store.close()
    store = SqliteStore(tmp_path / "journal.sqlite", tables=TABLES)
    epoch = store.acquire()
    for batch in others:
        store.commit(replace(batch, epoch=epoch))
    for ending in ("", "-wal"):
        data = (tmp_path / f"journal.sqlite{ending}").read_bytes()
        copy.with_name(f"{copy.name}{ending}").write_bytes(data)
    store.close()
    return copy.with_name(f"{copy.name}-wal")


@pytest.mark.parametrize("at", [0, 10, 20, 30, 40, 50, 60, 1000, 20_000])
def test_a_byte_of_the_log_that_hides_later_batches_is_found(log: Path, at: int) -> None:
    data = bytearray(log.read_bytes())
    data[at] ^= 1
    log.write_bytes(data)

    findings = audited(log.with_name("copy.sqlite"))

    assert not findings.ok
    assert any("the log beside the file is damaged" in each.why for each in findings.faults)


def test_a_log_that_a_power_cut_tore_at_its_end_is_no_fault(log: Path) -> None:
    assert audited(log.with_name("copy.sqlite")).batches == len(list(sealed(RECORDS)))
    log.with_name("copy.sqlite-shm").unlink(missing_ok=True)
    log.write_bytes(log.read_bytes()[:-1])

    findings = audited(log.with_name("copy.sqlite"))

    assert findings.ok
    assert findings.batches == len(list(sealed(RECORDS))) - 1


def test_a_text_index_of_many_pages_that_misses_a_word_is_found(tmp_path: Path) -> None:
    path = tmp_path / "texts.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE VIRTUAL TABLE texts USING fts5(words)")
        texts = ((" ".join(f"w{each:05d}" for each in range(at, at + 50)),) for at in range(2000))
        connection.executemany("INSERT INTO texts VALUES (?)", texts)
        connection.execute("INSERT INTO texts(texts) VALUES ('optimize')")
        with reading(path) as database:
            whole = list(words_of(database, "texts"))
        last = "(SELECT max(pgno) FROM texts_idx)"
        moved = f"UPDATE texts_idx SET pgno = pgno - 2 WHERE pgno = {last}"  # noqa: S608
        assert connection.execute(moved).rowcount == 1

    with reading(path) as database:
        assert list(words_of(database, "texts")) != whole
