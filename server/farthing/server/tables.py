"""The table of calls that the platform makes: who is on the way, and what came, sealed.

Boundary: declarations, and what makes a file of an older version one of this. It lies in a file of
its own, outside the journal: what is in it is erased after its time. Source: spec/services.md.
"""

from typing import Final

from sqlalchemy import BigInteger, Column, Index, LargeBinary, MetaData, Table, Text, text

__all__ = [
    "BEGIN",
    "COLUMNS",
    "DURABLE",
    "LOGGED",
    "MIGRATIONS",
    "PRAGMAS",
    "SERVICE_CALL",
    "SET_VERSION",
    "SIZE",
    "UNTIL_POWER_FAILS",
    "VERSION",
]

_METADATA: Final = MetaData()

# Beside the journal, and as durable: a call is written down before it leaves.
LOGGED: Final = "PRAGMA journal_mode=WAL"
PRAGMAS: Final = (
    "PRAGMA synchronous=FULL",
    "PRAGMA secure_delete=ON",
    "PRAGMA busy_timeout=5000",
)

BEGIN: Final = "BEGIN IMMEDIATE"
DURABLE: Final = "PRAGMA synchronous=FULL"
# Whoever holds such a row ends with the machine.
UNTIL_POWER_FAILS: Final = "PRAGMA synchronous=NORMAL"

VERSION: Final = "PRAGMA user_version"
SET_VERSION: Final = "PRAGMA user_version={version:d}"
COLUMNS: Final = "SELECT name FROM pragma_table_info('service_call')"

# What makes each version of the file of the one before. A step stays as it was written: files of
# its version are in use.
MIGRATIONS: Final = (
    (
        """CREATE TABLE service_call (
            hold_id TEXT NOT NULL PRIMARY KEY, holder TEXT NOT NULL, held_until_us BIGINT NOT NULL,
            flights BIGINT NOT NULL, expires_at_us BIGINT NOT NULL, sealed BLOB NOT NULL
        )""",
        "CREATE INDEX service_call_expires ON service_call (expires_at_us)",
    ),
    (
        # What came before counts for nobody, and is erased in its time.
        "ALTER TABLE service_call ADD COLUMN owner TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE service_call ADD COLUMN size BIGINT NOT NULL DEFAULT 0",
        "CREATE INDEX service_call_owner ON service_call (owner, size)",
    ),
)

SIZE: Final = text(
    "SELECT (pages.page_count - free.freelist_count) * size.page_size"
    " FROM pragma_page_count AS pages, pragma_freelist_count AS free, pragma_page_size AS size"
)

# `owner`: whose money it is. `flights`: how often somebody set out to make the call; 0 while room
# is kept for it. `sealed`: empty until it ended. `size`: the bytes of its end, and until then the
# most that they may be.
SERVICE_CALL: Final = Table(
    "service_call",
    _METADATA,
    Column("hold_id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("holder", Text, nullable=False),
    Column("held_until_us", BigInteger, nullable=False),
    Column("flights", BigInteger, nullable=False),
    Column("expires_at_us", BigInteger, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
)
Index("service_call_expires", SERVICE_CALL.c.expires_at_us)
Index("service_call_owner", SERVICE_CALL.c.owner, SERVICE_CALL.c.size)
