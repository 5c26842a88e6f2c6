"""Which failures of storage may pass: the disk is full, read-only, gone or gives an I/O error.

Boundary: judges an exception by what caused it; knows nothing of who met it.
"""

import errno
import sqlite3
from typing import Final

__all__ = ["may_pass"]

_NUMBERS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENOENT})
# What SQLite makes of those, and of a database that somebody else holds for long.
_CODES: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
    }
)
# Of an extended code the low byte is the code.
_CODE: Final = 0xFF


def may_pass(error: BaseException) -> bool:
    """Whether the same thing may be possible later, with nothing changed but the disk."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _NUMBERS:
            return True
        if isinstance(cause, sqlite3.Error):
            return getattr(cause, "sqlite_errorcode", 0) & _CODE in _CODES
        cause = cause.__cause__
    return False
