"""The table of calls that the platform makes: who is on the way, and what came, sealed.

Boundary: declarations only. It lies in a file of its own, outside the journal: what is in it is
erased after its time. Source: spec/services.md.
"""

from typing import Final

from sqlalchemy import BigInteger, Column, Index, LargeBinary, MetaData, Table, Text, text

__all__ = ["PRAGMAS", "SERVICE_CALL", "SIZE"]

_METADATA: Final = MetaData()

# Beside the journal, and as durable: a call is written down before it leaves.
PRAGMAS: Final = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA secure_delete=ON",
    "PRAGMA busy_timeout=5000",
)

SIZE: Final = text(
    "SELECT (pages.page_count - free.freelist_count) * size.page_size"
    " FROM pragma_page_count AS pages, pragma_freelist_count AS free, pragma_page_size AS size"
)

# `owner`: whose money it is. `flights`: how often somebody set out to make the call. `sealed`:
# empty until it ended. `size`: its bytes, and until then the most that it may come to.
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
