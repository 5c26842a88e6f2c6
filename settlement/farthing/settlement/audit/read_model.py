"""The read model beside a database, as it is and as the journal gives it: statements come of it.

Boundary: what is there is read, what it should be is written to a scratch file; nothing is judged
here. Source: spec/audit.md.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path

from farthing.settlement.audit.tables import opened, rows_of
from farthing.settlement.engine.commands import Committed
from farthing.settlement.journal.store import Unreadable
from farthing.settlement.reports.projection import BATCH_MAX, Followed
from farthing.settlement.reports.tables import CURSOR

__all__ = ["cursor_of", "make_anew", "opened_beside"]


@contextmanager
def opened_beside(path: Path | None) -> Iterator[sqlite3.Connection | None]:
    """The read model as of a moment that is this one; None where there is none.

    Raises:
        Unreadable: it cannot be opened.
    """
    if path is None or not path.exists():
        yield None
        return
    with opened(path) as connection:
        cursor_of(connection)  # its moment is that of the first reading
        yield connection


def cursor_of(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    """How far it goes: the row of its cursor; nothing where that cannot be read."""
    try:
        return list(rows_of(connection, CURSOR))
    except Unreadable:
        return []


def make_anew(path: Path, records: Iterable[bytes]) -> None:
    """Write the read model of these records, the first of a journal, to a file of its own."""
    left = iter(enumerate(records, start=1))
    with closing(Followed(path)) as followed:
        followed.open()
        while some := [Committed(seq=seq, data=data) for seq, data in islice(left, BATCH_MAX)]:
            followed.extend(some)
