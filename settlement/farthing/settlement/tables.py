"""Tables of kept rows: what is committed with a record, can be erased, and is in no hash.

Boundary: declarations only. The store of the journal creates and writes them; others read.
Source: spec/journal.md.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from sqlalchemy import BigInteger, Column, Index, LargeBinary, MetaData, Table, Text

__all__ = ["KEPT_BODY", "KEPT_TABLES", "METADATA", "PERSONAL"]

METADATA: Final = MetaData()

# What opens the commitment of a personal field: commitment = SHA-256 over salt and value. Erasing
# the row leaves the record, and every proof over it, standing.
PERSONAL: Final = Table(
    "personal",
    METADATA,
    Column("commitment", Text, primary_key=True),
    Column("salt", Text, nullable=False),
    Column("value", Text, nullable=False),
)

# Bodies that can be asked for again until they expire, such as a delivered result.
KEPT_BODY: Final = Table(
    "kept_body",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("expires_at_us", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
Index("kept_body_expires", KEPT_BODY.c.expires_at_us)

KEPT_TABLES: Final[Mapping[str, Table]] = MappingProxyType(
    {table.name: table for table in METADATA.sorted_tables}
)
