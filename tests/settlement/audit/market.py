"""A journal on disk as a server leaves it: the real engine's records, sealed in batches."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from farthing.catalog.tables import TABLES
from farthing.protocol.canonical import sha256_hex
from farthing.protocol.merkle import Tree, leaf_hash
from farthing.protocol.records import Record, line_of, parse_record
from farthing.server.engine import projected
from farthing.settlement.audit.database import DatabaseFindings, audit_database
from farthing.settlement.journal.sqlite import SqliteStore
from farthing.settlement.journal.stepper import RowsOf
from farthing.settlement.journal.store import Batch, Row
from farthing.settlement.tables import KEPT_TABLES, PERSONAL
from tests.protocol.bundling import batches
from tests.protocol.evidence_market import JOURNAL_KEY, ORIGIN, QUOTE_KEY

__all__ = ["audited", "sealed", "written"]


def sealed(records: list[bytes]) -> Iterator[Batch]:
    """The records as batches, some to each, of the first tenure."""
    tree, first_seq = Tree(), 1
    for batch, note in batches(records):
        for data in batch:
            tree.append(leaf_hash(line_of(data)))
        parsed = [parse_record(data)[0] for data in batch]
        yield Batch(
            epoch=1,
            first_seq=first_seq,
            records=tuple(batch),
            head_sha256=sha256_hex(line_of(batch[-1])),
            root_sha256=tree.root().hex(),
            note=note,
            at_us=parsed[-1].at_us,
            rows=tuple(row for each in parsed for row in _rows(each)),
        )
        first_seq += len(batch)


def written(path: Path, records: list[bytes]) -> Path:
    """A database with these records, in two tenures."""
    made = list(sealed(records))
    for part in (made[:3], made[3:]):
        store = SqliteStore(path, tables=TABLES)
        epoch = store.acquire()
        for batch in part:
            store.commit(replace(batch, epoch=epoch))
        store.close()
    return path


def audited(path: Path, rows: RowsOf = projected, reports: Path | None = None) -> DatabaseFindings:
    return audit_database(
        path,
        origin=ORIGIN,
        keys=[JOURNAL_KEY.public],
        quote_keys=[QUOTE_KEY.public],
        tables=TABLES,
        rows=rows,
        reports=reports,
    )


def _rows(record: Record) -> Iterable[Row]:
    yield from projected(record)
    name_sha256 = record.asked.get("name_sha256")
    if isinstance(name_sha256, str):
        # The room commits to names with an empty salt.
        value = next(name for name in NAMES if sha256_hex(name.encode()) == name_sha256)
        yield PERSONAL, {"commitment": name_sha256, "salt": "", "value": value}
    assert set(KEPT_TABLES) == {"kept_body", "personal"}


NAMES = ("Operator One", "Agent One", "Vendor One")
