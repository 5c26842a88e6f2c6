"""The tables of the followed read model: statement lines, reported usage, and how far they go.

Boundary: declarations only. Every column is text, int64 or bytes; counters are text, because those
of a lifetime go beyond int64. Source: spec/statements.md, spec/metering.md.
"""

from typing import Final

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, Table, Text, literal_column

__all__ = [
    "ACCOUNT",
    "BEGUN",
    "CORRECTED",
    "COUNTED",
    "CURSOR",
    "ENTRY",
    "FOLLOWED",
    "LATE",
    "LINE",
    "LISTED",
    "METADATA",
    "PRAGMAS",
    "REFERENCE",
    "REJECTED",
    "REPORT",
    "VERSION",
]

# Raised when the same journal would make other rows: they are then made anew.
VERSION: Final = 8
METADATA: Final = MetaData()

# A key declared so is SQLite's row id; any other would be an index beside it.
_ROW_ID: Final = BigInteger().with_variant(Integer, "sqlite")

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

# `lag_us_max`: the longest that a line of the account, of those that are not late, was recorded
# after it took effect.
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
    Column("seq", _ROW_ID, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
    Column("effective_at_us", BigInteger, nullable=False),
    Column("operation", Text, nullable=False),
    Column("ids", Text, nullable=False),
    Column("buyer_id", Text, nullable=False),
    Column("reference", Text, nullable=False),
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

# The lines that were recorded late, by how late: seldom many, and looked for by themselves.
LATE: Final = Table(
    "statement_late",
    METADATA,
    Column("account", BigInteger, primary_key=True, autoincrement=False),
    Column("lateness", BigInteger, primary_key=True, autoincrement=False),
    Column("effective_at_us", BigInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("line", BigInteger, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# The lines that are booked under a reference outside: few of all, and looked for by it.
REFERENCE: Final = Table(
    "statement_reference",
    METADATA,
    Column("account", BigInteger, primary_key=True, autoincrement=False),
    Column("reference", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("line", BigInteger, primary_key=True, autoincrement=False),
    Column("effective_at_us", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# A thing of a party, at the record that began it.
LISTED: Final = Table(
    "listed",
    METADATA,
    Column("party", Text, primary_key=True),
    Column("noun", Text, primary_key=True),
    Column("under", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False),
    Column("status", Text, nullable=False),
    sqlite_with_rowid=False,
)
Index("listed_newest", LISTED.c.party, LISTED.c.noun, LISTED.c.seq)
# Few things have a status here. An index of some rows serves a question in the same words alone.
FOLLOWED: Final = LISTED.c.status != literal_column("''")
_BY_STATUS: Final = (LISTED.c.party, LISTED.c.noun, LISTED.c.status, LISTED.c.seq)
Index("listed_status", *_BY_STATUS, sqlite_where=FOLLOWED)

REPORT: Final = Table(
    "usage_report",
    METADATA,
    Column("seq", _ROW_ID, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
    Column("session_id", Text, nullable=False),
    Column("agreement_id", Text, nullable=False),
    Column("charge_id", Text, nullable=False),
    Column("call_min", BigInteger, nullable=False),
    Column("call_max", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("rejected", BigInteger, nullable=False),
)
Index("usage_report_session", REPORT.c.session_id, REPORT.c.seq)

# The sessions of an agreement, and the holds of calls that the platform made under it.
BEGUN: Final = Table(
    "usage_begun",
    METADATA,
    Column("seq", _ROW_ID, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
    Column("agreement_id", Text, nullable=False),
    Column("noun", Text, nullable=False),
    Column("id", Text, nullable=False),
)
Index("usage_begun_agreement", BEGUN.c.agreement_id, BEGUN.c.at_us, BEGUN.c.id)

CORRECTED: Final = Table(
    "usage_corrected",
    METADATA,
    Column("seq", _ROW_ID, primary_key=True, autoincrement=False),
    Column("session_id", Text, nullable=False),
)
Index("usage_corrected_session", CORRECTED.c.session_id, CORRECTED.c.seq)

# One row an event that was not taken, or a batch that could not be attributed.
REJECTED: Final = Table(
    "usage_rejected",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("place", BigInteger, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
    Column("session_id", Text, nullable=False),
    Column("agreement_id", Text, nullable=False),
    Column("buyer_id", Text, nullable=False),
    Column("operator_id", Text, nullable=False),
    Column("vendor_id", Text, nullable=False),
    Column("call", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("events", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
Index("usage_rejected_call", REJECTED.c.session_id, REJECTED.c.call, REJECTED.c.seq)

# The records that rejected anything of a party's; under a session or an agreement, and for one
# reason, or under no name and for no one reason. `events`: how many in all, that record included.
COUNTED: Final = Table(
    "usage_counted",
    METADATA,
    Column("party", Text, primary_key=True),
    Column("under", Text, primary_key=True),
    Column("reason", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("events", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
