"""Write the books for other programs: JSON lines, CSV, Parquet, hledger and beancount text.

Boundary: from a stream of entries to a stream of bytes; a journal of any length passes through in
the memory of a batch and of its accounts. Source: spec/audit.md.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from importlib import import_module
from itertools import islice
from types import ModuleType
from typing import IO, Any, Final

from farthing.protocol.errors import FarthingError
from farthing.protocol.money import ASSETS
from farthing.settlement.audit.plain_text import beancount_lines, hledger_lines
from farthing.settlement.audit.postings import COLUMNS, Books, Entry, Posting, postings

__all__ = ["ExportUnavailable", "Form", "export"]

# A row group of a Parquet file is made in memory as a whole.
ROWS_AT_ONCE: Final = 20_000
# The most digits that the ledger's own counters can have fit a Decimal128.
_DIGITS_MAX: Final = 38


class Form(StrEnum):
    """What the books are written as."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    HLEDGER = "hledger"
    BEANCOUNT = "beancount"


class ExportUnavailable(FarthingError):
    """What the form needs is not installed."""


def export(entries: Iterable[Entry], form: Form, origin: str, out: IO[bytes]) -> Books:
    """Write all entries, and give what they come to.

    Args:
        entries: of a journal, from the first record on.
        form: what to write.
        origin: the journal's name, for the heading.
        out: opened for writing bytes.

    Raises:
        ExportUnavailable: the form needs a library that is not installed.
        Broken: an entry breaks the ledger.
    """
    books = Books()
    _WRITERS[form](_counting(entries, books), origin, books, out)
    return books


def _counting(entries: Iterable[Entry], books: Books) -> Iterator[Entry]:
    for entry in entries:
        books.take(entry)
        yield entry


def _jsonl(entries: Iterator[Entry], origin: str, books: Books, out: IO[bytes]) -> None:
    """The records themselves, byte for byte, one to a line."""
    del origin, books
    for entry in entries:
        out.write(entry.data + b"\n")


def _csv(entries: Iterator[Entry], origin: str, books: Books, out: IO[bytes]) -> None:
    del origin, books
    line = io.StringIO(newline="")
    writer = csv.writer(line, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for entry in entries:
        writer.writerows(postings(entry))
        out.write(line.getvalue().encode())
        line.seek(0)
        line.truncate()
    out.write(line.getvalue().encode())


def _parquet(entries: Iterator[Entry], origin: str, books: Books, out: IO[bytes]) -> None:
    del books
    arrow, parquet = _arrow()
    schema = _schema(arrow, origin)
    rows = (posting for entry in entries for posting in postings(entry))
    with parquet.ParquetWriter(out, schema, compression="zstd") as writer:
        while page := list(islice(rows, ROWS_AT_ONCE)):
            columns = [[_plain(name, row) for row in page] for name in COLUMNS]
            arrays = [
                arrow.array(column, type=field.type)
                for column, field in zip(columns, schema, strict=True)
            ]
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))


def _schema(arrow: Any, origin: str) -> Any:  # noqa: ANN401 - pyarrow ships no types
    scale = max(asset.scale for asset in ASSETS.values())
    kinds = {
        "seq": arrow.int64(),
        "transfer": arrow.int32(),
        "at": arrow.timestamp("us", tz="UTC"),
        "units": arrow.int64(),
        "amount": arrow.decimal128(_DIGITS_MAX, scale),
    }
    fields = [
        arrow.field(name, kinds.get(name, arrow.string()), nullable=False) for name in COLUMNS
    ]
    return arrow.schema(fields, metadata={"origin": origin})


def _plain(name: str, row: Posting) -> object:
    value: object = getattr(row, name)
    if name == "amount":
        return Decimal(row.amount)
    if name == "at":
        return datetime.fromisoformat(row.at).astimezone(UTC)
    return value


def _arrow() -> tuple[ModuleType, ModuleType]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        text = "Parquet needs pyarrow, which is not installed: pip install 'farthing[export]'"
        raise ExportUnavailable(text) from None


def _hledger(entries: Iterator[Entry], origin: str, books: Books, out: IO[bytes]) -> None:
    for line in hledger_lines(entries, origin, books):
        out.write(line.encode() + b"\n")


def _beancount(entries: Iterator[Entry], origin: str, books: Books, out: IO[bytes]) -> None:
    for line in beancount_lines(entries, origin, books):
        out.write(line.encode() + b"\n")


_WRITERS: Final[dict[Form, Callable[[Iterator[Entry], str, Books, IO[bytes]], None]]] = {
    Form.JSONL: _jsonl,
    Form.CSV: _csv,
    Form.PARQUET: _parquet,
    Form.HLEDGER: _hledger,
    Form.BEANCOUNT: _beancount,
}
