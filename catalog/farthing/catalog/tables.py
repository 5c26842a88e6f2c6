"""The catalog's tables: every version of a listing, which one is offered, and the text index.

Boundary: declarations. Rows come from `projection`, written by the one writer in the transaction of
their record; columns hold text, 64-bit integers and bytes only. The text index follows
`listing_head` by triggers, so that it holds what is offered now and nothing else.
"""

from typing import Final

from sqlalchemy import (
    DDL,
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    event,
)

__all__ = [
    "ACTIVE",
    "LISTING",
    "LISTING_HEAD",
    "LISTING_REGION",
    "LISTING_TAG",
    "METADATA",
    "RATE_CARD",
    "TABLES",
    "TEXT_COLUMNS",
]

ACTIVE: Final = "active"

METADATA: Final = MetaData()

# On SQLite only a column declared INTEGER can be the row id that an external-content index needs.
_Int64 = BigInteger().with_variant(Integer, "sqlite")

LISTING: Final = Table(
    "listing",
    METADATA,
    Column("row_id", _Int64, primary_key=True, autoincrement=False),
    Column("listing_id", Text, nullable=False),
    Column("version", _Int64, nullable=False),
    Column("vendor_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("summary", Text, nullable=False),
    Column("tag_words", Text, nullable=False),
    Column("example_requests", Text, nullable=False),
    Column("primary_tag", Text, nullable=False),
    Column("tags", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("meters", Text, nullable=False),
    Column("latency_ms_p50", _Int64, nullable=False),
    Column("latency_ms_p95", _Int64, nullable=False),
    Column("availability_ppm", _Int64, nullable=False),
    Column("regions", Text, nullable=False),
    Column("retention_days", _Int64, nullable=False),
    Column("training_use", _Int64, nullable=False),
    Column("listing_sha256", Text, nullable=False),
    Column("rate_card_sha256", Text, nullable=False),
    Column("terms_sha256", Text, nullable=False),
    Column("signature", Text, nullable=False),
)
"""One row a published version, never changed; `row_id` is the seq of the record."""

LISTING_HEAD: Final = Table(
    "listing_head",
    METADATA,
    Column("listing_id", Text, primary_key=True),
    Column("row_id", _Int64, nullable=False),
    Column("state", Text, nullable=False),
    Index("listing_head_row", "row_id", unique=True),
)
"""The newest version of each listing, and whether it is offered."""

LISTING_TAG: Final = Table(
    "listing_tag",
    METADATA,
    Column("path", Text, nullable=False),
    Column("row_id", _Int64, nullable=False),
    PrimaryKeyConstraint("path", "row_id"),
    sqlite_with_rowid=False,
)
"""Each tag of a version, and every branch above it: asking for a branch is one look-up."""

LISTING_REGION: Final = Table(
    "listing_region",
    METADATA,
    Column("row_id", _Int64, nullable=False),
    Column("region", Text, nullable=False),
    PrimaryKeyConstraint("row_id", "region"),
    sqlite_with_rowid=False,
)

RATE_CARD: Final = Table(
    "rate_card",
    METADATA,
    Column("sha256", Text, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)
"""Every published rate card by hash: canonical bytes."""

TABLES: Final = tuple(METADATA.sorted_tables)
"""All of them, for whoever keeps or audits what the projection writes."""

TEXT_COLUMNS: Final = ("name", "summary", "tag_words", "example_requests")

# External content: the index keeps no copy, so whoever deletes must say what was there.
_TEXT_INDEX: Final = (
    """\
CREATE VIRTUAL TABLE IF NOT EXISTS listing_text USING fts5(
    name, summary, tag_words, example_requests,
    content='listing', content_rowid='row_id', tokenize='porter unicode61 remove_diacritics 2'
)""",
    """\
CREATE TRIGGER IF NOT EXISTS listing_text_insert AFTER INSERT ON listing_head BEGIN
    INSERT INTO listing_text(rowid, name, summary, tag_words, example_requests)
    SELECT row_id, name, summary, tag_words, example_requests FROM listing
    WHERE row_id = new.row_id AND new.state = 'active';
END""",
    """\
CREATE TRIGGER IF NOT EXISTS listing_text_update AFTER UPDATE ON listing_head BEGIN
    INSERT INTO listing_text(listing_text, rowid, name, summary, tag_words, example_requests)
    SELECT 'delete', row_id, name, summary, tag_words, example_requests FROM listing
    WHERE row_id = old.row_id AND old.state = 'active';
    INSERT INTO listing_text(rowid, name, summary, tag_words, example_requests)
    SELECT row_id, name, summary, tag_words, example_requests FROM listing
    WHERE row_id = new.row_id AND new.state = 'active';
END""",
    """\
CREATE TRIGGER IF NOT EXISTS listing_text_delete AFTER DELETE ON listing_head BEGIN
    INSERT INTO listing_text(listing_text, rowid, name, summary, tag_words, example_requests)
    SELECT 'delete', row_id, name, summary, tag_words, example_requests FROM listing
    WHERE row_id = old.row_id AND old.state = 'active';
END""",
)


# Hung on the tables' creation, so that whoever creates them has the text index too.
for _statement in _TEXT_INDEX:
    _create = DDL(_statement)  # type: ignore[no-untyped-call] # SQLAlchemy ships it untyped
    event.listen(METADATA, "after_create", _create.execute_if(dialect="sqlite"))
