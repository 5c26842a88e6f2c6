"""A side's own counting of calls, from its own files: a buyer's books, a vendor's spool.

Boundary: reads only, whoever has the files open. Source: spec/metering.md#reconciliation.
"""

from collections.abc import Iterable, Mapping
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import cast

from farthing.clients.callbooks import Called, read_book
from farthing.clients.spooled import read_delivered
from farthing.protocol.messages.reconciliation import AcknowledgedCall, AcknowledgedSession
from farthing.protocol.wire import usage_of

__all__ = ["acknowledged_of", "booked", "listed_in", "spooled"]


def acknowledged_of(calls: Iterable[Called]) -> tuple[AcknowledgedCall, ...]:
    """The list that a book's calls make: those that were acknowledged, in that order."""
    return tuple(
        AcknowledgedCall(
            call=each.seq,
            units=str(each.units),
            result_sha256=each.result_sha256,
            usage=usage_of(each.usage),
        )
        for each in sorted(calls, key=lambda each: each.place)
        if each.place
    )


def booked(books: Path, agreement_id: str) -> tuple[AcknowledgedSession, ...]:
    """What a buyer's books hold of an agreement's sessions.

    Args:
        books: the folder of the books; it may not be there.
        agreement_id: whose sessions.
    """
    found: list[AcknowledgedSession] = []
    for path in sorted(books.glob("ses_*.sqlite")):
        document, calls = read_book(path)
        book = cast("Mapping[str, object]", document.get("book", {}))
        if book.get("agreement_id") == agreement_id:
            found.append(_listed(path, calls))
    return tuple(found)


def listed_in(path: Path) -> AcknowledgedSession:
    """What one book holds; its file is named by its session."""
    return _listed(path, read_book(path)[1])


def spooled(path: Path) -> tuple[AcknowledgedSession, ...]:
    """What a vendor's spool says was delivered, by session: the vendor's list, proven by nobody.

    Args:
        path: the spool; it may not be there.
    """
    if not path.exists():
        return ()
    return tuple(
        AcknowledgedSession(
            session_id=session_id,
            calls=tuple(
                AcknowledgedCall(
                    call=each.seq,
                    units=str(each.units),
                    result_sha256=each.result_sha256,
                    usage=usage_of(each.usage),
                )
                for each in calls
            ),
        )
        for session_id, calls in groupby(read_delivered(path), attrgetter("session_id"))
    )


def _listed(path: Path, calls: Iterable[Called]) -> AcknowledgedSession:
    return AcknowledgedSession(session_id=path.stem, calls=acknowledged_of(calls))
