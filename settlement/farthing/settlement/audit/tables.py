"""How an auditor reads a database: the journal's rows raw, the schema, a text index word by word.

Boundary: connections that cannot write, and rows as they are stored; nothing is judged here.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Table, select
from sqlalchemy.dialects import sqlite

from farthing.settlement.journal.sqlite import connect_reading
from farthing.settlement.journal.store import Unreadable

__all__ = [
    "RawBatch",
    "epoch_rows",
    "integrity_of",
    "opened",
    "raw_batches",
    "rows_of",
    "schema_of",
    "text_indexes",
    "versions",
    "words_of",
]

RawBatch = tuple[Any, Any, Any, Any, Any, Any, Any]
"""first_seq, last_seq, epoch, records, head, root, note: of whatever type they are."""

_BATCHES: Final = (
    "SELECT first_seq, last_seq, epoch, records, head, root, note FROM journal_batch"
    " ORDER BY first_seq"
)
_EPOCH: Final = "SELECT one, number, restored_at_us FROM epoch"
_VERSION: Final = "SELECT one, version FROM schema_version"
_SCHEMA: Final = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
_INTEGRITY: Final = "PRAGMA integrity_check(1)"
# One transaction, so that a database in use is read as of one moment; word tables are temporary.
_PREPARE: Final = ("PRAGMA temp_store=MEMORY", "BEGIN")
_INDEXES: Final = (
    "SELECT name FROM sqlite_master WHERE sql LIKE 'CREATE VIRTUAL TABLE%fts5%' ORDER BY name"
)
# Every word of a text index with its place: what a search finds, whatever the index's inner form.
_WORDS_TABLE: Final = "CREATE VIRTUAL TABLE temp.{0}_words USING fts5vocab(main, '{0}', 'instance')"
_WORDS: Final = (
    'SELECT term, doc, col, "offset" FROM temp.{}_words ORDER BY term, doc, col, "offset"'
)
# Each word looked up as a search does, by way of the index's own index: a scan goes without it.
_FOUND: Final = (
    "SELECT term, (SELECT count(*) FROM temp.{0}_words AS found WHERE found.term = word.term)"
    " FROM (SELECT DISTINCT term FROM temp.{0}_words) AS word ORDER BY term"
)
# What it ranks by: the lengths of the texts, their sums (row 1), its settings.
_LENGTHS: Final = "SELECT id, sz FROM {}_docsize ORDER BY id"
_SUMS: Final = "SELECT block FROM {}_data WHERE id = 1"
_SETTINGS: Final = "SELECT k, v FROM {}_config ORDER BY k"


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A database as of one moment, in use or not; nothing in it can be written.

    Raises:
        Unreadable: it cannot be opened.
    """
    try:
        connection = connect_reading(path)
    except sqlite3.Error as error:
        raise Unreadable(f"{path}: {error}") from error
    with closing(connection):
        # A text that is no UTF-8 any more is a finding, and must not stop the reading.
        connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        for statement in _PREPARE:
            connection.execute(statement)
        yield connection


def raw_batches(database: sqlite3.Connection) -> Iterator[RawBatch]:
    """The rows of the journal in order, as they are stored."""
    return _read(database, _BATCHES)


def epoch_rows(database: sqlite3.Connection) -> list[tuple[Any, ...]]:
    """The rows of the table of the writers' tenures; there must be one."""
    return list(_read(database, _EPOCH))


def versions(database: sqlite3.Connection) -> list[tuple[Any, ...]]:
    """The rows of the table of the schema's version; there must be one."""
    return list(_read(database, _VERSION))


def schema_of(database: sqlite3.Connection) -> dict[tuple[str, str], str]:
    """Every table, index, trigger and view with the statement that made it, blanks aside."""
    found = _read(database, _SCHEMA)
    return {(kind, name): " ".join((sql or "").split()) for kind, name, sql in found}


def integrity_of(database: sqlite3.Connection) -> str:
    """What SQLite itself finds wrong with the file; "" where nothing."""
    ((found,),) = _read(database, _INTEGRITY)
    return "" if found == "ok" else str(found)


def rows_of(database: sqlite3.Connection, table: Table) -> Iterator[tuple[Any, ...]]:
    """The rows of a declared table in the order of its key."""
    asked = select(*table.columns).order_by(*table.primary_key.columns)
    return _read(database, str(asked.compile(dialect=sqlite.dialect())))


def text_indexes(database: sqlite3.Connection) -> list[str]:
    """The names of the full-text indexes."""
    return [name for (name,) in _read(database, _INDEXES)]


def words_of(database: sqlite3.Connection, name: str) -> Iterator[tuple[Any, ...]]:
    """All that a full-text index finds and ranks by: word, row, column, place; lengths."""
    yield from _read(database, _WORDS_TABLE.format(name))
    for sql in (_WORDS, _FOUND, _LENGTHS, _SUMS, _SETTINGS):
        yield from _read(database, sql.format(name))


def _read(database: sqlite3.Connection, sql: str) -> Iterator[Any]:
    try:
        yield from database.execute(sql)
    except sqlite3.Error as error:
        raise Unreadable(f"the database: {error}") from error
