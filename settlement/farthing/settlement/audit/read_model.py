"""The read model beside a database, as it is and as the journal gives it: statements come of it.

Boundary: what is there is read, what it should be is written to a scratch file; nothing is judged
here. Source: spec/audit.md.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path

from farthing.protocol.errors import Unverified
from farthing.settlement.audit.tables import opened, rows_of
from farthing.settlement.engine.commands import Committed
from farthing.settlement.journal.store import Unreadable
from farthing.settlement.reports.projection import BATCH_MAX, Followed
from farthing.settlement.reports.tables import CURSOR, VERSION

__all__ = ["check_end", "cursor_of", "followed_to", "make_anew", "opened_beside"]


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


def followed_to(connection: sqlite3.Connection) -> int:
    """The last record that it took in; 0 where it is of another version of this program."""
    known = ((version, seq) for _, version, seq, _ in cursor_of(connection))
    return next((seq for version, seq in known if version == VERSION and type(seq) is int), 0)


def check_end(reports: Path, last_seq: int) -> None:
    """See that a journal goes as far as the read model beside it.

    Args:
        reports: where its read model would be.
        last_seq: the journal's last record.

    Raises:
        Unverified: The read model goes further; what was acknowledged is not there.
    """
    try:
        with opened_beside(reports) as followed:
            goes_to = 0 if followed is None else followed_to(followed)
    except Unreadable:
        # Damaged; it is made anew.
        return
    if goes_to > last_seq:
        raise Unverified(
            f"the journal ends at record {last_seq}, and {reports} has followed it to record"
            f" {goes_to}: an older copy was put in its place, or what was acknowledged is gone."
            " Put the newer file back; or move this one away and have `farthing restore` put it"
            " here, which says what is lost and lets no proof from before be used again"
        )


def make_anew(path: Path, records: Iterable[bytes]) -> None:
    """Write the read model of these records, the first of a journal, to a file of its own."""
    left = iter(enumerate(records, start=1))
    with closing(Followed(path)) as followed:
        followed.open()
        while some := [Committed(seq=seq, data=data) for seq, data in islice(left, BATCH_MAX)]:
            followed.extend(some)
