"""How an auditor reads a database: the journal's rows raw, the schema, a text index word by word.

Boundary: connections that cannot write, and rows as they are stored; nothing is judged here.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
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
_IN_MEMORY: Final = "PRAGMA temp_store=MEMORY"
_INDEXES: Final = (
    "SELECT name FROM sqlite_master WHERE sql LIKE 'CREATE VIRTUAL TABLE%fts5%' ORDER BY name"
)
# Every word of a text index with its place: what a search finds, whatever the index's inner form.
_WORDS_TABLE: Final = "CREATE VIRTUAL TABLE temp.words USING fts5vocab(main, '{}', 'instance')"
_WORDS: Final = 'SELECT term, doc, col, "offset" FROM temp.words ORDER BY term, doc, col, "offset"'
# What it ranks by: the lengths of the texts, their sums (row 1), its settings.
_LENGTHS: Final = "SELECT id, sz FROM {}_docsize ORDER BY id"
_SUMS: Final = "SELECT block FROM {}_data WHERE id = 1"
_SETTINGS: Final = "SELECT k, v FROM {}_config ORDER BY k"


def raw_batches(path: Path) -> Iterator[RawBatch]:
    """The rows of the journal in order, as they are stored."""
    return _read(path, _BATCHES)


def epoch_rows(path: Path) -> list[tuple[Any, ...]]:
    """The rows of the table of the writers' tenures; there must be one."""
    return list(_read(path, _EPOCH))


def versions(path: Path) -> list[tuple[Any, ...]]:
    """The rows of the table of the schema's version; there must be one."""
    return list(_read(path, _VERSION))


def schema_of(path: Path) -> dict[tuple[str, str], str]:
    """Every table, index, trigger and view with the statement that made it, blanks aside."""
    return {(kind, name): " ".join((sql or "").split()) for kind, name, sql in _read(path, _SCHEMA)}


def integrity_of(path: Path) -> str:
    """What SQLite itself finds wrong with the file; "" where nothing."""
    ((found,),) = _read(path, _INTEGRITY)
    return "" if found == "ok" else str(found)


def rows_of(path: Path, table: Table) -> Iterator[tuple[Any, ...]]:
    """The rows of a declared table in the order of its key."""
    asked = select(*table.columns).order_by(*table.primary_key.columns)
    return _read(path, str(asked.compile(dialect=sqlite.dialect())))


def text_indexes(path: Path) -> list[str]:
    """The names of the full-text indexes."""
    return [name for (name,) in _read(path, _INDEXES)]


def words_of(path: Path, name: str) -> Iterator[tuple[Any, ...]]:
    """All that a full-text index finds and ranks by: word, row, column, place; lengths."""
    yield from _read(path, _WORDS, before=(_IN_MEMORY, _WORDS_TABLE.format(name)))
    for sql in (_LENGTHS, _SUMS, _SETTINGS):
        yield from _read(path, sql.format(name))


def _read(path: Path, sql: str, *, before: Sequence[str] = ()) -> Iterator[Any]:
    try:
        with closing(connect_reading(path)) as connection:
            # A text that is no UTF-8 any more is a finding, and must not stop the reading.
            connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
            for statement in before:
                connection.execute(statement)
            yield from connection.execute(sql)
    except sqlite3.Error as error:
        raise Unreadable(f"{path}: {error}") from error
