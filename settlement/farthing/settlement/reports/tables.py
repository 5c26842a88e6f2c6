"""The tables of the followed read model: statement lines, what they share, and how far they go.

Boundary: declarations only. Every column is text, int64 or bytes; counters are text, because those
of a lifetime go beyond int64. Source: spec/statements.md.
"""

from typing import Final

from sqlalchemy import BigInteger, Column, Index, MetaData, Table, Text

__all__ = ["ACCOUNT", "CURSOR", "ENTRY", "LINE", "METADATA", "PRAGMAS", "VERSION"]

# Raised when the same journal would make other rows: they are then made anew.
VERSION: Final = 1
METADATA: Final = MetaData()

# The journal is the durable thing; what the log loses of these is followed again.
PRAGMAS: Final = ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL")

# How far the journal was followed: the last record, and its hash, which names the journal too.
CURSOR: Final = Table(
    "statement_cursor",
    METADATA,
    Column("one", BigInteger, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("record_sha256", Text, nullable=False),
)

# `lag_us_max`: the longest that a line of the account was recorded after it took effect.
ACCOUNT: Final = Table(
    "statement_account",
    METADATA,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False, unique=True),
    Column("owner", Text, nullable=False),
    Column("lag_us_max", BigInteger, nullable=False),
    Column("debits_pending", Text, nullable=False),
    Column("debits_posted", Text, nullable=False),
    Column("credits_pending", Text, nullable=False),
    Column("credits_posted", Text, nullable=False),
)
Index("statement_account_owner", ACCOUNT.c.owner)

ENTRY: Final = Table(
    "statement_entry",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
    Column("effective_at_us", BigInteger, nullable=False),
    Column("operation", Text, nullable=False),
    Column("ids", Text, nullable=False),
    Column("buyer_id", Text, nullable=False),
)
Index("statement_entry_at", ENTRY.c.at_us, ENTRY.c.seq)

LINE: Final = Table(
    "statement_line",
    METADATA,
    Column("account", BigInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("line", BigInteger, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
    Column("effective_at_us", BigInteger, nullable=False),
    Column("side", Text, nullable=False),
    Column("movement", Text, nullable=False),
    Column("units", BigInteger, nullable=False),
    Column("counterpart", Text, nullable=False),
    Column("debits_pending", Text, nullable=False),
    Column("debits_posted", Text, nullable=False),
    Column("credits_pending", Text, nullable=False),
    Column("credits_posted", Text, nullable=False),
    sqlite_with_rowid=False,
)
Index(
    "statement_line_effective",
    LINE.c.account,
    LINE.c.effective_at_us,
    LINE.c.seq,
    LINE.c.line,
)
