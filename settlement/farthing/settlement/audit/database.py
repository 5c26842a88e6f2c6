"""Audit a raw copy of the database: the journal, and everything that stands beside it.

Boundary: reads; a scratch database is made in a temporary folder, so that tables can be compared
with what the journal gives. Source: spec/audit.md.
"""

import sqlite3
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from sqlalchemy import Table

from farthing.protocol.audit import AuditFindings, verify_journal
from farthing.protocol.canonical import sha256_hex
from farthing.protocol.errors import Unverified
from farthing.protocol.faults import Fault, FaultKind
from farthing.protocol.keys import PublicKey
from farthing.protocol.records import Record, entries_in, head_of
from farthing.protocol.replay.rulebook import Rulebook
from farthing.settlement.audit.log import hidden_in_log
from farthing.settlement.audit.read_model import cursor_of, followed_to, make_anew, opened_beside
from farthing.settlement.audit.tables import (
    RawBatch,
    epoch_rows,
    integrity_of,
    opened,
    raw_batches,
    rows_of,
    schema_of,
    text_indexes,
    versions,
    words_of,
)
from farthing.settlement.journal.snapshots import OtherVersion, read_snapshot
from farthing.settlement.journal.sqlite import SCHEMA_VERSION, SqliteStore
from farthing.settlement.journal.stepper import RowsOf
from farthing.settlement.journal.store import Unreadable
from farthing.settlement.journal.upserts import Upserts
from farthing.settlement.reports.tables import METADATA
from farthing.settlement.tables import KEPT_BODY, PERSONAL

__all__ = ["DatabaseFindings", "audit_database"]

_FAULTS_MAX: Final = 20
_COLUMNS: Final = ("first_seq", "last_seq", "epoch", "records", "head", "root", "note")
_TYPES: Final = (int, int, int, bytes, str, str, str)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseFindings:
    """What was verified of a database.

    Args:
        journal: the audit of its records; None where they cannot be read at all.
        batches: how many rows of the journal were read.
        tables: how many tables beside the journal were compared with what it gives.
        faults: everything that is wrong, the first bad record first; at most 20.
    """

    journal: AuditFindings | None
    batches: int
    tables: int
    faults: tuple[Fault, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults and self.journal is not None and self.journal.ok


@dataclass(slots=True)
class _Pass:
    """One pass over the rows of the journal: records for the audit, and all that is beside them."""

    database: sqlite3.Connection
    upserts: Upserts
    scratch: sqlite3.Connection
    rows: RowsOf
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    commitments: set[str] = field(default_factory=set)
    answers: dict[str, tuple[str, int]] = field(default_factory=dict)
    heads: dict[int, tuple[str, str]] = field(default_factory=dict)
    batches: int = 0
    last_seq: int = 0
    last_epoch: int = 0

    def records(self) -> Iterator[bytes]:
        """The records of each row, once the row's own columns have been judged."""
        for row in raw_batches(self.database):
            self.batches += 1
            where = row[0] if isinstance(row[0], int) else self.last_seq + 1
            wrong = [
                name
                for name, kind, value in zip(_COLUMNS, _TYPES, row, strict=True)
                if type(value) is not kind
            ]
            if wrong:
                self._fault(where, f"column {wrong[0]} is of another type")
                return
            records = entries_in(bytes(row[3]))
            self._judge(row, records)
            self.notes.append(row[6])
            self.last_seq, self.last_epoch = row[0] + len(records) - 1, row[2]
            self.heads[self.last_seq] = (row[4], row[5])
            yield from records

    def learn(self, record: Record) -> None:
        """Make the rows of a record in the scratch database."""
        for sql, rows in self.upserts.statements(self.rows(record)):
            self.scratch.executemany(sql, rows)
        name = record.asked.get("name_sha256")
        if isinstance(name, str):
            self.commitments.add(name)
        if record.operation == "submit_evidence" and record.refused is None:
            answered = next(each for each in record.changed if each.noun == "dispute")
            case = (record.decided or {})["case"]
            self.answers[answered.id] = (case["evidence"]["body_sha256"], record.at_us)

    def _judge(self, row: RawBatch, records: list[bytes]) -> None:
        first_seq, last_seq, epoch, _, head, root, note = row
        if first_seq != self.last_seq + 1:
            self._fault(first_seq, f"column first_seq: the batch before ends at {self.last_seq}")
        if last_seq != first_seq + len(records) - 1:
            self._fault(first_seq, f"column last_seq: {len(records)} records do not end there")
        if epoch < max(self.last_epoch, 1):
            self._fault(first_seq, "column epoch: it is below the one before")
        if head != head_of(records[-1]):
            self._fault(first_seq, "column head is not the hash of the last record")
        said = _said_by(note)
        if said != (last_seq, root):
            self._fault(first_seq, "column root is not that of the signed head, or of another size")

    def _fault(self, seq: int, why: str) -> None:
        why = f"table journal_batch, the row of record {seq}, {why}"
        self.faults.append(Fault(kind=FaultKind.BATCH, seq=seq, why=why))


def audit_database(
    path: Path,
    *,
    origin: str,
    keys: Sequence[PublicKey],
    quote_keys: Sequence[PublicKey],
    tables: Sequence[Table],
    rows: RowsOf,
    reports: Path | None = None,
) -> DatabaseFindings:
    """Audit a database, which nobody needs to have open and nobody needs to close.

    Args:
        path: the file.
        origin: the log that the heads must name.
        keys: the platform's journal keys, old ones included.
        quote_keys: the keys it signs quotes with; empty: quotes' signatures are not judged.
        tables: the projection tables that are kept beside the journal.
        rows: the rows that a record makes in them.
        reports: where its read model would be.

    Raises:
        Unreadable: it is no database of this schema, or cannot be read.
    """
    with (
        TemporaryDirectory(prefix="farthing-audit-") as folder,
        # Before the journal, so that it goes no further.
        opened_beside(reports) as followed,
        opened(path) as database,
    ):
        damage = integrity_of(database)
        if damage:
            fault = Fault(kind=FaultKind.TABLE, seq=0, why=f"the file is damaged: {damage}")
            return DatabaseFindings(journal=None, batches=0, tables=0, faults=(fault,))
        made = Path(folder) / "scratch.sqlite"
        store = SqliteStore(made, tables=tables)
        store.acquire()
        store.close()
        with closing(sqlite3.connect(made)) as connection:
            one = _Pass(database, Upserts(), connection, rows)
            journal = _journal(one, origin, keys, quote_keys)
            connection.commit()
        with opened(made) as scratch:
            faults = [*one.faults, *_beside(database, scratch, one), *_snapshot(path, keys, one)]
            faults += _log(path)
            # What the journal does not give cannot be compared where the journal is broken.
            compared = tables if journal.fault is None else ()
            for table in compared:
                faults += _compared(database, scratch, table)
            if journal.fault is None:
                faults += _words(database, scratch)
                if followed is not None:
                    scratch_reports = Path(folder) / "reports.sqlite"
                    faults += _read_model(database, followed, scratch_reports, one.last_seq)
    faults.sort(key=lambda fault: (fault.seq == 0, fault.seq))
    if journal.fault is not None:
        faults.insert(0, journal.fault)
    return DatabaseFindings(
        journal=journal,
        batches=one.batches,
        tables=len(compared),
        faults=tuple(islice(faults, _FAULTS_MAX)),
    )


def _journal(
    one: _Pass, origin: str, keys: Sequence[PublicKey], quote_keys: Sequence[PublicKey]
) -> AuditFindings:
    rulebook = Rulebook(quote_keys)
    records = one.records()

    def follow(record: Record) -> None:
        rulebook.follow(record)
        one.learn(record)

    def notes() -> Iterator[str]:
        # All heads, also those after a fault: what they cover tells which record it lies in.
        for _ in records:
            pass
        yield from one.notes

    return verify_journal(records, notes=notes(), origin=origin, keys=keys, follow=follow)


def _beside(
    database: sqlite3.Connection, scratch: sqlite3.Connection, one: _Pass
) -> Iterator[Fault]:
    """Schema, version, tenure and what opens commitments."""
    yield from _declared(database, scratch)
    if versions(database) != [(1, SCHEMA_VERSION)]:
        yield _table(f"table schema_version: it does not say {SCHEMA_VERSION}")
    tenures = epoch_rows(database)
    number, restored_at_us = tenures[0][1:] if len(tenures) == 1 else (None, None)
    if not isinstance(number, int) or not isinstance(restored_at_us, int):
        yield _table("table epoch: there is not one row of integers")
    elif number < one.last_epoch or restored_at_us < 0 or tenures[0][0] != 1:
        yield _table("table epoch: it is below that of the last batch")
    for commitment, salt, value in rows_of(database, PERSONAL):
        opened = f"{salt}{value}".encode("utf-8", "surrogateescape")
        if sha256_hex(opened) != commitment:
            yield _table(f"table personal, row {commitment!r}: it does not open its commitment")
        elif commitment not in one.commitments:
            yield _table(f"table personal, row {commitment!r}: no record holds this commitment")
    for body_id, expires_at_us, body in rows_of(database, KEPT_BODY):
        body_sha256, at_us = one.answers.get(body_id, ("", 0))
        if not isinstance(body, bytes) or sha256_hex(body) != body_sha256:
            yield _table(f"table kept_body, row {body_id!r}: not the body that was answered with")
        elif not isinstance(expires_at_us, int) or expires_at_us <= at_us:
            yield _table(f"table kept_body, row {body_id!r}: it expires before it was given")


def _declared(database: sqlite3.Connection, scratch: sqlite3.Connection) -> Iterator[Fault]:
    expected, found = schema_of(scratch), schema_of(database)
    for kind, name in sorted(expected.keys() | found.keys()):
        if (kind, name) not in found:
            yield _table(f"the {kind} {name} is missing")
        elif (kind, name) not in expected:
            yield _table(f"the {kind} {name} is of no schema that is known here")
        elif found[kind, name] != expected[kind, name]:
            yield _table(f"the {kind} {name} is declared otherwise")


def _read_model(
    database: sqlite3.Connection, followed: sqlite3.Connection, made: Path, last_seq: int
) -> Iterator[Fault]:
    """The read model, as far as it goes; what a server makes anew before it reads it is passed by.

    That is one of another version or journal, which its cursor tells. One that goes further than
    the journal tells that the journal was cut.
    """
    try:
        damage = integrity_of(followed)
        if damage:
            yield _table(f"the read model is damaged: {damage}")
            return
        cursor, goes_to = cursor_of(followed), followed_to(followed)
        if goes_to > last_seq:
            why = f"the read model beside the database has followed it to record {goes_to}"
            yield Fault(kind=FaultKind.MISSING, seq=last_seq + 1, why=why)
            return
        records = (each for row in raw_batches(database) for each in entries_in(bytes(row[3])))
        make_anew(made, islice(records, max(goes_to, 0)))
        with opened(made) as scratch:
            if cursor == cursor_of(scratch):
                yield from _declared(followed, scratch)
                for table in METADATA.sorted_tables:
                    yield from _compared(followed, scratch, table)
    except Unreadable as error:
        yield _table(f"the read model: {error}")


def _snapshot(path: Path, keys: Sequence[PublicKey], one: _Pass) -> Iterator[Fault]:
    """The snapshot beside the database, where there is one: signed, and of this very journal."""
    data = SqliteStore(path).snapshot()
    if data is None:
        return
    try:
        # Its root follows from the roots of its tiles; no leaf is asked for.
        snapshot = read_snapshot(data, keys, lambda _: [])
    except OtherVersion:
        return
    except Unverified as error:
        yield _table(f"the snapshot beside the database: {error}")
        return
    head = (snapshot.chain.head, snapshot.chain.tree.root().hex())
    if one.heads.get(snapshot.seq) != head:
        yield _table("the snapshot beside the database is of another journal")


def _log(path: Path) -> Iterator[Fault]:
    hidden = hidden_in_log(path)
    if hidden:
        yield _table(f"the log beside the file is damaged: it hides {hidden} transactions")


def _compared(
    database: sqlite3.Connection, scratch: sqlite3.Connection, table: Table
) -> Iterator[Fault]:
    """The first row of a table that is not what the journal gives."""
    pairs = zip_longest(rows_of(database, table), rows_of(scratch, table))
    for found, expected in pairs:
        if found != expected:
            yield _table(f"table {table.name}, {_difference(table, found, expected)}")
            return


def _difference(
    table: Table, found: tuple[Any, ...] | None, expected: tuple[Any, ...] | None
) -> str:
    names = [column.name for column in table.columns]
    keys = [names.index(column.name) for column in table.primary_key.columns]
    row = ", ".join(f"{(found or expected or ())[at]!r}" for at in keys)
    if found is None:
        return f"row {row}: it is missing"
    if expected is None or [found[at] for at in keys] != [expected[at] for at in keys]:
        return f"row {row}: the journal gives another row here, or none"
    at = next(at for at, value in enumerate(found) if value != expected[at])
    return f"row {row}, column {names[at]}: the journal gives another value"


def _words(database: sqlite3.Connection, scratch: sqlite3.Connection) -> Iterator[Fault]:
    for name in text_indexes(scratch):
        try:
            same = all(
                one == other
                for one, other in zip_longest(words_of(database, name), words_of(scratch, name))
            )
        except Unreadable as error:
            yield _table(f"text index {name}: {error}")
        else:
            if not same:
                yield _table(f"text index {name}: it finds other words than were published")


def _said_by(note: str) -> tuple[int, str] | None:
    """The size and root that a head says, unverified: whether it is signed is judged elsewhere."""
    lines = note.split("\n")
    try:
        return int(lines[1]), b64decode(lines[2], validate=True).hex()
    except (IndexError, ValueError):
        return None


def _table(why: str) -> Fault:
    return Fault(kind=FaultKind.TABLE, seq=0, why=why)
