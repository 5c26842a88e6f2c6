"""What a buyer must not forget of a session: which numbers it gave out, what it has acknowledged.

Boundary: one file of one session, open in one process at a time. What a number means is the law's
`SpendBook`. Source: spec/sessions.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, cast

from farthing.clients.sqlite_file import SqliteFile, Value, looked_into
from farthing.protocol.canonical import Json, canonical_bytes, parse_json

__all__ = [
    "CallBook",
    "CallState",
    "Called",
    "Document",
    "SessionInUse",
    "asked_units",
    "note_top_up",
    "read_book",
]

Document = Mapping[str, Json]

_COLUMNS: Final = (
    *("seq", "args_sha256", "state", "place", "usage"),
    *("units", "said_units", "result_sha256", "fault"),
)
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS call (
    seq INTEGER PRIMARY KEY, args_sha256 TEXT NOT NULL, state TEXT NOT NULL,
    place INTEGER NOT NULL, usage BLOB NOT NULL, units INTEGER NOT NULL,
    said_units INTEGER NOT NULL, result_sha256 TEXT NOT NULL, fault TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS book (id INTEGER PRIMARY KEY, document BLOB NOT NULL) STRICT;
"""


_THE_BOOK: Final = "SELECT document FROM book WHERE id = 1"
_ALL_CALLS: Final = "SELECT * FROM call ORDER BY seq"


class SessionInUse(RuntimeError):
    """Another process calls through this session: two would give out the same numbers."""


class CallState(StrEnum):
    """How far a call has come, as the buyer knows it."""

    ASKED = "asked"
    """A voucher for it may be in the vendor's hands; what became of it is not known."""
    ANSWERED = "answered"
    """Its answer came and is acknowledged."""
    FAILED = "failed"
    """The vendor said that it did not deliver; nothing may be billed."""
    DISPUTED = "disputed"
    """Something came that the buyer does not acknowledge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """One call of a session.

    Args:
        seq: Its number.
        args_sha256: The digest of its arguments.
        state: How far it has come.
        place: Its place among the acknowledged answers, from 1; 0 where it is not among them.
        usage: What the vendor says it used.
        units: What that costs, computed here.
        said_units: What it costs in the vendor's words.
        result_sha256: The digest of what came.
        fault: What is wrong with the answer; empty where nothing is.
    """

    seq: int
    args_sha256: str
    state: CallState
    place: int = 0
    usage: Mapping[str, int] = field(default_factory=dict)
    units: int = 0
    said_units: int = 0
    result_sha256: str = ""
    fault: str = ""


class CallBook:
    """The file. Every method blocks until what it says is on disk; call it from a thread.

    Args:
        path: The file, made if it is not there.

    Raises:
        SessionInUse: Another process has it open.
    """

    def __init__(self, path: Path) -> None:
        in_use = SessionInUse(f"{path.stem} is in use by another process")
        self._file = SqliteFile(path, in_use=in_use)
        self._file.make(_TABLES)

    def document(self) -> Document | None:
        """The book as it was last kept, None in a new file."""
        return _document(self._file.do(_THE_BOOK))

    def write(self, notes: Sequence[Called | Document]) -> None:
        """Keep calls, and the last of the books among them, all or nothing."""
        calls = [_row(each) for each in notes if isinstance(each, Called)]
        books = [each for each in notes if not isinstance(each, Called)]
        self._file.write((
            ("INSERT OR REPLACE INTO call VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", calls),
            (
                "INSERT OR REPLACE INTO book VALUES (1, ?)",
                [(canonical_bytes(each),) for each in books[-1:]],
            ),
        ))  # fmt: skip

    def find(self, seq: int) -> Called | None:
        """A call by its number."""
        found = _calls(self._file.do("SELECT * FROM call WHERE seq = ?", seq))
        return found[0] if found else None

    def calls(self) -> tuple[Called, ...]:
        """All calls, by number."""
        return _calls(self._file.do(_ALL_CALLS))

    def answered(self) -> int:
        """How many calls were answered and acknowledged."""
        (row,) = self._file.do("SELECT count(*) FROM call WHERE place > 0")
        return int(row[0])

    def disputed(self) -> set[int]:
        """The calls whose answer came and is not acknowledged."""
        rows = self._file.do("SELECT seq FROM call WHERE state = ?", CallState.DISPUTED.value)
        return {int(row["seq"]) for row in rows}

    def close(self) -> None:
        """Close the file and let another process have it."""
        self._file.close()


def read_book(path: Path) -> tuple[Document, tuple[Called, ...]]:
    """What a session's file holds, whoever has it open: the book as last kept, and its calls.

    Raises:
        FileNotFoundError, Unverified: As `looked_into`.
    """
    with looked_into(path) as db:
        book = _document(db.execute(_THE_BOOK).fetchall())
        return book or {}, _calls(db.execute(_ALL_CALLS).fetchall())


def asked_units(book: Document) -> int:
    """All that was asked to be set aside, as a book has it; one of before says what it was told."""
    of_before = cast("Mapping[str, Json]", book["book"])["cap_units"]
    return int(str(book.get("asked", of_before)))


def note_top_up(path: Path, units: int, cap_units: int) -> None:
    """Keep that more was asked for, by whom no call is made; of a cap that was answered.

    Raises:
        SessionInUse: As `CallBook`.
    """
    file = CallBook(path)
    try:
        book = file.document()
        if book is not None:
            asked = asked_units(book)
            file.write([{**book, "asked": str(max(asked, min(asked + units, cap_units)))}])
    finally:
        file.close()


def _document(rows: Sequence[Sequence[Any]]) -> Document | None:
    return cast("Document", parse_json(rows[0][0])) if rows else None


def _calls(rows: Sequence[Sequence[Any]]) -> tuple[Called, ...]:
    return tuple(map(_called, rows))


def _row(called: Called) -> tuple[Value, ...]:
    usage = canonical_bytes({meter: str(each) for meter, each in called.usage.items()})
    members = {**asdict(called), "state": called.state.value, "usage": usage}
    return tuple(members[name] for name in _COLUMNS)


def _called(row: Sequence[Any]) -> Called:
    members = dict(zip(_COLUMNS, row, strict=True))
    usage = cast("dict[str, str]", parse_json(members["usage"]))
    members["usage"] = {meter: int(quantity) for meter, quantity in usage.items()}
    members["state"] = CallState(members["state"])
    return Called(**members)
