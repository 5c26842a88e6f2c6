"""Which failures of storage a server that ran before waits for."""

import errno
import sqlite3

import pytest

from farthing.protocol.errors import Unverified
from farthing.server.storage import may_pass
from farthing.settlement.journal.store import DatabaseInUse, Unreadable


def of_sqlite(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("of the disk")
    error.sqlite_errorcode = code
    return error


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (OSError(errno.ENOSPC, "full"), True),
        (OSError(errno.EIO, "damaged"), True),
        (FileNotFoundError(errno.ENOENT, "not mounted"), True),
        (PermissionError(errno.EACCES, "another's"), False),
        (caused(Unreadable("full"), of_sqlite(sqlite3.SQLITE_FULL)), True),
        (caused(Unreadable("damaged"), of_sqlite(sqlite3.SQLITE_IOERR_FSYNC)), True),
        (caused(Unreadable("no database"), of_sqlite(sqlite3.SQLITE_NOTADB)), False),
        (Unreadable("schema version 9 is not known"), False),
        (DatabaseInUse("here"), False),
        (Unverified("a record changed"), False),
    ],
    ids=str,
)
def test_no_room_and_errors_of_the_disk_may_pass_and_nothing_else(
    error: Exception, *, passes: bool
) -> None:
    assert may_pass(error) is passes
