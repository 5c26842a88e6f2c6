"""The read model's one writer: records in, rows and cursor out, in one transaction a batch.

Boundary: blocking, called from a thread of the follower's. It holds nothing in memory between two
batches, so that its memory does not grow with the market.
Source: spec/statements.md, spec/metering.md.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Final

import sqlalchemy
from msgspec import structs
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    StaticPool,
    Table,
    create_engine,
    delete,
    func,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from farthing.protocol.canonical import canonical_bytes
from farthing.protocol.errors import FarthingError
from farthing.protocol.ledger import Account, split_account
from farthing.protocol.records import Record, head_of
from farthing.settlement.engine.commands import Committed
from farthing.settlement.journal.store import Row, Unreadable, Value
from farthing.settlement.journal.upserts import Upserts
from farthing.settlement.reports.lines import Entry, Line, fold_lines, needs_of
from farthing.settlement.reports.listed import fold_listed
from farthing.settlement.reports.tables import (
    ACCOUNT,
    BEGUN,
    CORRECTED,
    COUNTED,
    CURSOR,
    ENTRY,
    LATE,
    LINE,
    LISTED,
    METADATA,
    PRAGMAS,
    REFERENCE,
    REJECTED,
    REPORT,
    VERSION,
)
from farthing.settlement.reports.usage import (
    CountKey,
    Rejection,
    fold_counts,
    fold_usage,
)

__all__ = [
    "BATCH_MAX",
    "DamagedRow",
    "FileId",
    "Followed",
    "account_of",
    "file_at",
    "is_damage",
    "remove",
]

# Records of one transaction: enough to share its cost, few enough that the thread that folds them
# gives the interpreter back soon (measured: 500 kept others waiting for 50 ms, 100 for 10).
BATCH_MAX: Final = 100

FileId = tuple[int, int]
"""Which file it is, whatever its name: no other is it as long as somebody has it open."""


_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class DamagedRow(FarthingError):
    """A row holds what no journal gives."""


class Followed:
    """The read model in one SQLite file.

    Args:
        path: the file; made when it is opened. It can be deleted at any time.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine: Engine | None = None
        self._file: FileId | None = None
        self._upserts = Upserts()
        # A follower that is stopped closes the file while its thread may still be writing.
        self._lock = Lock()
        self._closed = False

    def open(self) -> tuple[int, str]:
        """Create what is missing, and give the last record that was followed, with its hash.

        Rows that another version of this program made are dropped.

        Raises:
            Unreadable: the file cannot be opened; where it is damaged, it is gone now.
        """
        with self._lock:
            assert self._engine is None, "a read model is opened once"
            if self._closed:
                raise Unreadable(f"{self.path} was closed before it was opened")
            if file_at(self.path) is None:
                # The log of a file that is gone would be taken for that of the new one.
                remove(self.path)
            # One connection that stays, used by one thread at a time: SQLite folds its log, with
            # an fsync, whenever the last one closes.
            self._engine = create_engine(
                URL.create("sqlite", database=str(self.path)),
                poolclass=StaticPool,
                connect_args={"check_same_thread": False},
            )
            try:
                found = _opened(self._engine)
                self._file = file_at(self.path)
                return found
            except SQLAlchemyError as error:
                raise self._unreadable(error) from error

    def clear(self) -> None:
        """Forget everything: the journal is not the one that was followed."""
        with self._writing() as connection:
            _clear(connection)

    def check(self) -> None:
        """See that what is written is what others read.

        Raises:
            Unreadable: the file that was opened is there no more: somebody found it damaged.
        """
        if file_at(self.path) != self._file:
            raise Unreadable(f"{self.path} is gone, and is made anew")

    def extend(self, committed: Sequence[Committed]) -> None:
        """Take in the next records, with the cursor, whole or not at all.

        Raises:
            Unreadable: they do not follow what is there, because somebody else writes it too, or
                the file cannot be written; where it is damaged, it is gone now.
        """
        self.check()
        records = [each.record for each in committed]
        try:
            with self._writing() as connection:
                # First of all, so that two followers of one file cannot both go on from here.
                moved = connection.execute(
                    update(CURSOR)
                    .where(CURSOR.c.seq == records[0].seq - 1)
                    .values(seq=records[-1].seq, record_sha256=head_of(committed[-1].data))
                )
                if moved.rowcount != 1:
                    raise Unreadable(f"{self.path} does not end before record {records[0].seq}")
                needs = needs_of(records)
                numbers, accounts, lags = _accounts(connection, sorted(needs.accounts))
                times_us = _times(connection, sorted(needs.seqs))
                found = fold_lines(records, accounts, times_us)
                if found:
                    self._put(connection, _line_rows(connection, found, numbers, accounts, lags))
                self._put(connection, _usage_rows(connection, records))
                listed = fold_listed(records)
                self._put(connection, [(LISTED, structs.asdict(each)) for each in listed])
        except (SQLAlchemyError, DamagedRow) as error:
            raise self._unreadable(error) from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._closed = True
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None

    def _unreadable(self, error: SQLAlchemyError | DamagedRow) -> Unreadable:
        """What is to be raised; a damaged file is removed, for it can be made anew."""
        if is_damage(error):
            remove(self.path)
            return Unreadable(f"{self.path} was damaged, and is made anew")
        return Unreadable(f"{self.path}: {error}")

    def _put(self, connection: Connection, rows: Iterable[Row]) -> None:
        for sql, some in self._upserts.statements(rows):
            connection.exec_driver_sql(sql, some)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._lock:
            if self._engine is None:
                raise Unreadable(f"{self.path} is not open")
            with self._engine.begin() as connection:
                yield connection


def is_damage(error: SQLAlchemyError | DamagedRow) -> bool:
    """Whether a file of SQLite's is damaged, or is none."""
    if isinstance(error, DamagedRow):
        return True
    found = getattr(error, "orig", None)
    # Without a code of SQLite's: a text that is no UTF-8.
    code = getattr(found, "sqlite_errorcode", None)
    if code is None:
        return isinstance(found, sqlite3.OperationalError)
    return code == sqlite3.SQLITE_IOERR_SHORT_READ or code & 0xFF in _DAMAGE


def file_at(path: Path) -> FileId | None:
    """Which file a name leads to now; None where to none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def remove(path: Path) -> None:
    """Delete a read model that nobody has open; the next server makes it anew."""
    for ending in ("", "-wal", "-shm"):
        path.with_name(f"{path.name}{ending}").unlink(missing_ok=True)


def account_of(row: sqlalchemy.Row[Any]) -> Account:
    """The counters that stand in a row. Raises `DamagedRow`."""
    try:
        return Account(
            debits_pending=int(row.debits_pending),
            debits_posted=int(row.debits_posted),
            credits_pending=int(row.credits_pending),
            credits_posted=int(row.credits_posted),
        )
    except ValueError as error:
        raise DamagedRow(str(error)) from error


def _opened(engine: Engine) -> tuple[int, str]:
    with engine.connect() as connection:
        for pragma in PRAGMAS:
            connection.exec_driver_sql(pragma)
    with engine.begin() as connection:
        if METADATA.tables.keys() <= set(inspect(connection).get_table_names()):
            row = connection.execute(select(CURSOR)).one_or_none()
            if row is not None and row.version == VERSION:
                return row.seq, row.record_sha256
        METADATA.drop_all(connection)
        METADATA.create_all(connection)
        _clear(connection)
        return 0, ""


def _clear(connection: Connection) -> None:
    for table in METADATA.sorted_tables:
        connection.execute(delete(table))
    connection.execute(insert(CURSOR).values(one=1, version=VERSION, seq=0, record_sha256=""))


def _accounts(
    connection: Connection, names: Sequence[str]
) -> tuple[dict[str, int], dict[str, Account], dict[str, int]]:
    """Numbers, counters and lags of the accounts that are known, by name."""
    rows = connection.execute(select(ACCOUNT).where(ACCOUNT.c.name.in_(names))).all()
    return (
        {row.name: row.number for row in rows},
        {row.name: account_of(row) for row in rows},
        {row.name: row.lag_us_max for row in rows},
    )


def _times(connection: Connection, seqs: Sequence[int]) -> dict[int, int]:
    columns = select(ENTRY.c.seq, ENTRY.c.at_us).where(ENTRY.c.seq.in_(seqs))
    return {row.seq: row.at_us for row in connection.execute(columns)}


def _count_rows(connection: Connection, rejections: Sequence[Rejection]) -> Iterator[Row]:
    counts = fold_counts(rejections)
    events = _counted(connection, sorted({key for _, key in counts}))
    for (seq, key), added in counts.items():
        events[key] += added
        row: dict[str, Value] = {"seq": seq, "events": events[key]}
        yield COUNTED, row | key._asdict()


def _counted(connection: Connection, keys: Sequence[CountKey]) -> dict[CountKey, int]:
    """How many were rejected of each key so far."""
    asked = func.json_each(canonical_bytes([list(key) for key in keys]).decode())
    wanted = asked.table_valued("key", "value")
    columns = (COUNTED.c.party, COUNTED.c.under, COUNTED.c.reason)
    parts = [func.json_extract(wanted.c.value, f"$[{place}]") for place in range(len(columns))]
    last = (
        select(COUNTED.c.events)
        .where(*(column == part for column, part in zip(columns, parts, strict=True)))
        .order_by(COUNTED.c.seq.desc())
        .limit(1)
    )
    rows = connection.execute(select(wanted.c.key, last.scalar_subquery().label("events")))
    return {keys[row.key]: row.events or 0 for row in rows}


def _usage_rows(connection: Connection, records: Sequence[Record]) -> list[Row]:
    usage = fold_usage(records)
    rows: list[Row] = [(BEGUN, structs.asdict(each)) for each in usage.begun]
    rows += [(CORRECTED, structs.asdict(each)) for each in usage.corrected]
    rows += [(REPORT, structs.asdict(each)) for each in usage.reports]
    for each in usage.rejections:
        row = structs.asdict(each)
        row |= row.pop("party")._asdict()
        rows.append((REJECTED, row))
    if usage.rejections:
        rows += _count_rows(connection, usage.rejections)
    return rows


def _line_rows(
    connection: Connection,
    found: Sequence[tuple[Entry, list[Line]]],
    numbers: dict[str, int],
    accounts: Mapping[str, Account],
    lags: dict[str, int],
) -> list[Row]:
    last = connection.execute(select(func.max(ACCOUNT.c.number))).scalar() or 0
    rows: list[Row] = [(ENTRY, _entry_row(entry)) for entry, _ in found]
    looked_for: list[Row] = []
    for entry, lines in found:
        lag_us = 0 if entry.lateness else entry.lag_us
        for line in lines:
            name = line.account
            if name not in numbers:
                last = numbers[name] = last + 1
            lags[name] = max(lags.get(name, 0), lag_us)
            row = _line_row(line, numbers[name])
            rows.append((LINE, row))
            if entry.lateness:
                looked_for.append((LATE, _some(row, LATE) | {"lateness": entry.lateness}))
            if entry.reference:
                looked_for.append(
                    (REFERENCE, _some(row, REFERENCE) | {"reference": entry.reference})
                )
    for name, number in numbers.items():
        account: dict[str, Value] = {
            "number": number,
            "name": name,
            "owner": split_account(name)[0],
            "lag_us_max": lags[name],
        }
        rows.append((ACCOUNT, account | accounts[name].counters()))
    return rows + looked_for


def _some(row: Mapping[str, Value], table: Table) -> dict[str, Value]:
    """What a line's row has of the columns of another table."""
    return {column.name: row[column.name] for column in table.c if column.name in row}


def _entry_row(entry: Entry) -> dict[str, Value]:
    return {
        "seq": entry.seq,
        "at_us": entry.at_us,
        "effective_at_us": entry.effective_at_us,
        "operation": entry.operation,
        "ids": canonical_bytes(dict(entry.ids)).decode(),
        "buyer_id": entry.buyer_id,
        "reference": entry.reference,
    }


def _line_row(line: Line, number: int) -> dict[str, Value]:
    return {
        "account": number,
        "seq": line.seq,
        "line": line.line,
        "at_us": line.entry.at_us,
        "effective_at_us": line.entry.effective_at_us,
        "side": line.side,
        "movement": line.movement.value,
        "units": line.units,
        "counterpart": line.counterpart,
        **line.after.counters(),
    }
