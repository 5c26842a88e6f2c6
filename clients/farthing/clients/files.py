"""Small files that must be whole: written beside, flushed, then put in place in one step.

Boundary: bytes and permissions. A directory made here is the owner's alone (0700), as is every
file (0600).
"""

import os
import tempfile
from pathlib import Path
from typing import Final

__all__ = ["FILE_MODE", "make_directory", "write_new", "write_whole"]

FILE_MODE: Final = 0o600
_DIRECTORY_MODE: Final = 0o700


def make_directory(path: Path) -> None:
    """Make a directory for its owner alone; one that is there already is left as it is."""
    # `parents=True` would give those above it the modes of the umask.
    for missing in [each for each in (*reversed(path.parents), path) if not each.exists()]:
        missing.mkdir(mode=_DIRECTORY_MODE, exist_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file's content. A crash leaves the old file or the new one, never a part."""
    beside = _written_beside(path, data)
    beside.replace(path)
    _flush_directory(path.parent)


def write_new(path: Path, data: bytes) -> None:
    """Make a file that is not there yet.

    Raises:
        FileExistsError: Somebody was faster; theirs is left as it is.
    """
    beside = _written_beside(path, data)
    try:
        # A hard link fails where the name is taken; a rename would replace what is there.
        path.hardlink_to(beside)
    finally:
        beside.unlink()
    _flush_directory(path.parent)


def _written_beside(path: Path, data: bytes) -> Path:
    make_directory(path.parent)
    # mkstemp makes the file 0600 from the start: there is no moment in which others can read it.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        Path(name).unlink()
        raise
    return Path(name)


def _flush_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
