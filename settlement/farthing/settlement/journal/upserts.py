"""Upserts for the raw driver, compiled once from the declared tables.

Boundary: SQL text in, rows out in the order they were given. Nothing is executed here.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Final

from sqlalchemy import Table, bindparam
from sqlalchemy.dialects import sqlite

from farthing.settlement.journal.store import Row, Value

__all__ = ["Upserts"]

# Named parameters, so that a row's mapping goes to the driver as it is.
_DIALECT: Final = sqlite.dialect(paramstyle="named")


class Upserts:
    """The upsert of each (table, columns) that has been asked for so far."""

    def __init__(self) -> None:
        self._compiled: dict[tuple[str, tuple[str, ...]], str] = {}

    def statements(self, rows: Iterable[Row]) -> Iterator[tuple[str, list[Mapping[str, Value]]]]:
        """Statements with their rows; neighbours that share a statement go together."""
        for sql, group in groupby(
            ((self._sql(table, tuple(row)), row) for table, row in rows), key=lambda pair: pair[0]
        ):
            yield sql, [row for _, row in group]

    def _sql(self, table: Table, columns: tuple[str, ...]) -> str:
        known = self._compiled.get((table.name, columns))
        if known is None:
            known = self._compiled[table.name, columns] = _compile(table, columns)
        return known


def _compile(table: Table, columns: tuple[str, ...]) -> str:
    insert = sqlite.insert(table).values({name: bindparam(name) for name in columns})
    keys = [column.name for column in table.primary_key]
    others = {name: insert.excluded[name] for name in columns if name not in keys}
    upsert = (
        insert.on_conflict_do_update(index_elements=keys, set_=others)
        if others
        else insert.on_conflict_do_nothing(index_elements=keys)
    )
    return str(upsert.compile(dialect=_DIALECT))
