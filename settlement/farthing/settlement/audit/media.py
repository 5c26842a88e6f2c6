"""A database on media that nothing can be written to: SQLite reads none that keeps a log there.

To read one it makes an index of the log beside it, even of a log that is empty or not there.

Boundary: what can be read in place is; else a copy is made, with its log. Source: spec/audit.md.
"""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from farthing.settlement.audit.log import log_beside
from farthing.settlement.audit.tables import opened, schema_of
from farthing.settlement.journal.store import Unreadable

__all__ = ["readable"]

_BARRED: Final = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY})
# Of an extended code the low byte is the code.
_CODE: Final = 0xFF


@contextmanager
def readable(path: Path) -> Iterator[Path]:
    """The file itself; where it cannot be read in place, a copy that lasts as long as the block.

    Raises:
        Unreadable: there is no room for a copy, or the files changed while it was made.
        OSError: one of the files cannot be read.
    """
    if not path.exists() or _readable_in_place(path):
        yield path
        return
    with TemporaryDirectory(prefix="farthing-audit-") as folder:
        copy = Path(folder) / path.name
        before = _parts(path)
        size_bytes = sum(size for _, size, _ in before.values())
        if size_bytes > shutil.disk_usage(folder).free:
            raise Unreadable(
                f"{path} lies where nothing can be written, so a copy is read, and {folder} has no"
                f" room for its {size_bytes} bytes: name a folder that has in TMPDIR"
            )
        for part, (file, *_) in before.items():
            shutil.copyfile(file, f"{copy}{part}")
        # A writer that folds its log meanwhile would leave a copy that is of no one moment.
        if _parts(path) != before:
            raise Unreadable(f"{path} is being written to: verify a backup of it")
        yield copy


def _readable_in_place(path: Path) -> bool:
    try:
        with opened(path) as database:
            schema_of(database)
    except Unreadable as error:
        # Whatever else is wrong with it is for who reads it to say.
        return getattr(error.__cause__, "sqlite_errorcode", 0) & _CODE not in _BARRED
    return True


def _parts(path: Path) -> dict[str, tuple[Path, int, int]]:
    """The file, its log and the snapshot that is judged with it: where, how long, when changed."""
    files = {"": path, "-wal": log_beside(path), "-snapshot": Path(f"{path.resolve()}-snapshot")}
    return {
        part: (file, file.stat().st_size, file.stat().st_mtime_ns)
        for part, file in files.items()
        if file.exists()
    }
