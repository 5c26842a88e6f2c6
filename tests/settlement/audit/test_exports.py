"""The exported books are read by the programs that they are for, and say what the journal says."""

import csv
import io
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from farthing.protocol.canonical import sha256_hex
from farthing.protocol.errors import Broken, Unverified
from farthing.protocol.faults import FaultKind
from farthing.protocol.ledger import AccountKind, fold
from farthing.protocol.money import ASSETS
from farthing.protocol.records import Record, entries_in, line_of, parse_record
from farthing.settlement.audit import exports
from farthing.settlement.audit.exports import ExportUnavailable, Form, export
from farthing.settlement.audit.plain_text import leaves
from farthing.settlement.audit.postings import COLUMNS, Entry, amount_of, entries
from farthing.settlement.journal.memory import MemoryStore
from farthing.settlement.journal.sqlite import SqliteStore
from farthing.settlement.reports.lines import fold_lines
from tests.patience import PATIENCE_S
from tests.protocol.bundling import traded, treasured
from tests.protocol.evidence_market import ORIGIN
from tests.settlement.audit.market import written
from tests.spec.manifest import REPOSITORY

BEAN_CHECK = Path(sys.executable).with_name("bean-check")

needs_hledger = pytest.mark.skipif(
    shutil.which("hledger") is None, reason="hledger is not installed: apt-get install hledger"
)
needs_beancount = pytest.mark.skipif(
    not BEAN_CHECK.exists(), reason="beancount is not installed: pip install 'farthing[dev]'"
)


def market() -> list[bytes]:
    """A trade in one asset, and money in two others."""
    told = traded()
    told.trade.room.fund(told.trade.operator, 1_234_567, "JPY")
    told.trade.room.fund(told.trade.operator, 1, "EUR")
    return told.trade.room.journal


RECORDS = market()
MOVED = [each for data in RECORDS for each in parse_record(data)[0].moved]
ACCOUNTS = fold(MOVED)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("market") / "journal.sqlite", RECORDS)


def exported(database: Path, form: Form) -> bytes:
    out = io.BytesIO()
    books = export(entries(SqliteStore(database)), form, ORIGIN, out)
    assert books.accounts == ACCOUNTS
    assert books.seq == len(RECORDS)
    return out.getvalue()


def ran(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=PATIENCE_S)


def test_json_lines_are_the_records_as_they_were_written(database: Path) -> None:
    entries = entries_in(exported(database, Form.JSONL).removesuffix(b"\n"))

    assert entries == RECORDS
    numbers = [json.loads(line_of(entry))["seq"] for entry in entries]
    assert numbers == list(range(1, len(RECORDS) + 1))


@pytest.mark.parametrize("first_seq", ["min(first_seq)", "max(first_seq)"])
def test_books_of_a_journal_that_was_changed_are_not_written(
    tmp_path: Path, first_seq: str
) -> None:
    path = written(tmp_path / "journal.sqlite", RECORDS)
    chosen = f"SELECT {first_seq}, records FROM journal_batch"  # noqa: S608
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER journal_batch_stays")
        seq, records = connection.execute(chosen).fetchone()
        changed = records.replace(b'"at_us":1', b'"at_us":2')
        connection.execute(
            "UPDATE journal_batch SET records = ? WHERE first_seq = ?", (changed, seq)
        )
        connection.commit()

    assert changed != records
    with pytest.raises(Unverified):
        exported(path, Form.CSV)


def test_csv_has_a_row_for_each_posting(database: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(exported(database, Form.CSV).decode(), newline="")))

    assert [(row["movement"], row["debit"], row["credit"], row["units"]) for row in rows] == [
        (each.movement.value, each.debit, each.credit, str(each.units)) for each in MOVED
    ]
    assert tuple(rows[0]) == COLUMNS
    for row in rows:
        scale = ASSETS[row["asset"]].scale
        assert Decimal(row["amount"]) == Decimal(int(row["units"])).scaleb(-scale)
        assert len(row["amount"].partition(".")[2]) == scale


def test_a_row_names_its_statement_lines_and_what_is_behind_them(database: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(exported(database, Form.CSV).decode(), newline="")))
    lines = [
        (
            str(line.seq),
            line.line // 2,
            " ".join(f"{noun}:{id_}" for noun, id_ in entry.ids.items()),
        )
        for entry, of_record in fold_lines(map(read, RECORDS), {}, {})
        for line in of_record
        if line.side == "debit"
    ]

    assert [(row["seq"], int(row["transfer"]), row["ids"]) for row in rows] == lines
    assert any(row["ids"].startswith("funding:fnd_") for row in rows)


def read(data: bytes) -> Record:
    return parse_record(data)[0]


def test_parquet_has_the_same_rows_exactly(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    monkeypatch.setattr(exports, "ROWS_AT_ONCE", 3)
    data = exported(database, Form.PARQUET)

    table = parquet.read_table(io.BytesIO(data))
    rows = list(csv.DictReader(io.StringIO(exported(database, Form.CSV).decode(), newline="")))

    assert table.schema.metadata == {b"origin": ORIGIN.encode()}
    assert parquet.ParquetFile(io.BytesIO(data)).num_row_groups == -(-len(MOVED) // 3)
    assert [row["units"] for row in table.to_pylist()] == [each.units for each in MOVED]
    assert [row["amount"] for row in table.to_pylist()] == [Decimal(row["amount"]) for row in rows]
    assert {str(table.schema.field(name).type) for name in ("seq", "units")} == {"int64"}
    assert str(table.schema.field("at").type) == "timestamp[us, tz=UTC]"


def test_without_pyarrow_it_is_said_what_to_install(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(ExportUnavailable, match=r"pip install 'farthing\[export\]'"):
        exported(database, Form.PARQUET)


def balances(text: str) -> dict[str, dict[str, Decimal]]:
    """An hledger balance report as amounts by account and asset."""
    found: dict[str, dict[str, Decimal]] = {}
    for row in csv.DictReader(io.StringIO(text)):
        amounts = (each.split() for each in row["balance"].split(", ") if each != "0")
        found[row["account"]] = {asset: Decimal(number) for number, asset in amounts}
    return found


@needs_hledger
def test_hledger_comes_to_our_trial_balance(database: Path, tmp_path: Path) -> None:
    journal = tmp_path / "books.journal"
    journal.write_bytes(exported(database, Form.HLEDGER))
    report = ("balance", "--flat", "--no-total", "--output-format", "csv")

    checked = ran("hledger", "--file", journal, "--strict", *report)

    assert checked.returncode == 0, checked.stderr
    found = balances(checked.stdout)
    expected: dict[str, dict[str, Decimal]] = {}
    for leaf in leaves(ACCOUNTS):
        owner, kind, _ = leaf.account.split(":")
        side, _, end = leaf.counter.partition("_")
        for name in found:
            if name.endswith(f":{kind}:{owner}:{side}") and name.startswith("pending") == (
                end == "pending"
            ):
                amount = Decimal(amount_of(leaf.units, leaf.asset))
                expected.setdefault(name, {}).update({leaf.asset: amount} if amount else {})
    assert {name: amounts for name, amounts in expected.items() if amounts} == found
    # Every counter that is not nothing was found under a name.
    assert sum(map(len, found.values())) == sum(1 for leaf in leaves(ACCOUNTS) if leaf.units)


@needs_hledger
def test_hledger_shows_money_alone_when_asked(database: Path, tmp_path: Path) -> None:
    journal = tmp_path / "books.journal"
    journal.write_bytes(exported(database, Form.HLEDGER))
    report = ("balance", "--real", "--depth", "2", "--no-total", "--output-format", "csv")

    found = balances(ran("hledger", "--file", journal, *report).stdout)

    posted: dict[str, dict[str, Decimal]] = {}
    for name, account in ACCOUNTS.items():
        _, kind, asset = name.split(":")
        is_asset = AccountKind(kind).may_go_negative
        above = "assets" if is_asset else "liabilities"
        sums = posted.setdefault(f"{above}:{kind}", {})
        debit = Decimal(amount_of(-account.posted_units, asset))
        sums[asset] = sums.get(asset, Decimal(0)) + debit
    nonzero = {name: {a: n for a, n in sums.items() if n} for name, sums in posted.items()}
    assert found == {name: sums for name, sums in nonzero.items() if sums}


def spoilt(text: str) -> Iterator[str]:
    """The books with one amount changed, in several places."""
    lines = text.split("\n")
    amounts = [at for at, line in enumerate(lines) if line.endswith("USD") and " 0.0" in line]
    for at in amounts[:: max(len(amounts) // 4, 1)]:
        changed = lines[at].replace(" 0.0", " 0.1", 1)
        yield "\n".join([*lines[:at], changed, *lines[at + 1 :]])


@needs_hledger
def test_hledger_refuses_books_that_were_changed(database: Path, tmp_path: Path) -> None:
    journal = tmp_path / "books.journal"
    for text in spoilt(exported(database, Form.HLEDGER).decode()):
        journal.write_text(text)
        assert ran("hledger", "--file", journal, "check").returncode != 0


@needs_beancount
def test_beancount_accepts_the_books_with_every_counter_asserted(
    database: Path, tmp_path: Path
) -> None:
    books = tmp_path / "books.beancount"
    books.write_bytes(exported(database, Form.BEANCOUNT))

    checked = ran(BEAN_CHECK, books)

    assert (checked.returncode, checked.stderr) == (0, "")
    asserted = [line for line in books.read_text().split("\n") if " balance " in line]
    counters = [leaf for leaf in leaves(ACCOUNTS) if leaf.units]
    assert len(asserted) >= len(counters)
    for leaf in counters:
        counter = f"{amount_of(leaf.units, leaf.asset)} ~ 0 {leaf.asset}"
        assert any(line.endswith(counter) for line in asserted)


@needs_beancount
def test_beancount_refuses_books_that_were_changed(database: Path, tmp_path: Path) -> None:
    books = tmp_path / "books.beancount"
    text = exported(database, Form.BEANCOUNT).decode()
    # One unit, in the least place: no tolerance hides it.
    for old, new in (
        ("0.026000000 USD", "0.026000001 USD"),
        ("1.234567 ~ 0 JPY", "1.234568 ~ 0 JPY"),
    ):
        assert old in text
        books.write_text(text.replace(old, new, 1))
        assert ran(BEAN_CHECK, books).returncode != 0


@needs_hledger
@needs_beancount
def test_books_with_lots_partners_and_grace_are_accepted_with_every_counter(
    tmp_path: Path,
) -> None:
    stream = [Entry(parse_record(data)[0], data, sha256_hex(data)) for data in treasured()]
    for form in (Form.HLEDGER, Form.BEANCOUNT):
        with (tmp_path / form).open("wb") as out:
            export(stream, form, ORIGIN, out)

    hledger = ran("hledger", "--file", tmp_path / Form.HLEDGER, "--strict", "check")
    beancount = ran(BEAN_CHECK, tmp_path / Form.BEANCOUNT)

    assert (hledger.returncode, hledger.stderr) == (0, "")
    assert (beancount.returncode, beancount.stderr) == (0, "")


@pytest.mark.parametrize("form", [form for form in Form if form is not Form.PARQUET])
def test_books_are_written_as_they_are_read(form: Form) -> None:
    out = io.BytesIO()
    written: list[int] = []

    def stream() -> Iterator[Entry]:
        for data in RECORDS:
            written.append(out.tell())
            yield Entry(parse_record(data)[0], data, sha256_hex(data))

    export(stream(), form, ORIGIN, out)

    # By the last record all but the last entry's worth of bytes has left.
    assert written[-1] > out.tell() // 3


@pytest.mark.parametrize("form", Form)
def test_an_empty_journal_can_be_exported(form: Form) -> None:
    out = io.BytesIO()

    books = export(entries(MemoryStore()), form, ORIGIN, out)

    assert (books.seq, books.accounts) == (0, {})


@pytest.mark.parametrize("form", Form)
def test_books_that_break_the_ledger_are_not_written_to_their_end(form: Form) -> None:
    captures = [data for data in RECORDS if b'"operation":"capture_hold"' in data]
    stream = (Entry(parse_record(data)[0], data, sha256_hex(data)) for data in captures)

    with pytest.raises(Broken):
        export(stream, form, ORIGIN, io.BytesIO())


@pytest.mark.parametrize(
    ("units", "asset", "text"),
    [
        (0, "USD", "0.000000000"),
        (1, "USD", "0.000000001"),
        (-1, "JPY", "-0.000001"),
        (-1_234_567_890, "USD", "-1.234567890"),
        (2**127, "USD", "170141183460469231731687303715.884105728"),
    ],
)
def test_an_amount_has_all_places_of_its_asset(units: int, asset: str, text: str) -> None:
    assert amount_of(units, asset) == text


def test_the_chapter_names_every_format_column_and_kind_of_fault() -> None:
    chapter = (REPOSITORY / "spec" / "audit.md").read_text(encoding="utf-8")

    words = [*Form, *COLUMNS, *FaultKind]
    assert [word for word in words if f"`{word}`" not in chapter] == []
