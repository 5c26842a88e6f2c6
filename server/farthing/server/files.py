"""Files that a command leaves behind: whole or not there, and their owner's alone to read.

Boundary: one new file at a time; what a running server writes is not written here.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

__all__ = ["new_file"]


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """A new file, durable at the end of the block; nothing is left of one that was not finished.

    Raises:
        FileExistsError, OSError: there is one already; it cannot be written.
    """
    with open(path, "xb", opener=_owners) as file, ExitStack() as undo:
        undo.callback(path.unlink)
        yield file
        file.flush()
        os.fsync(file.fileno())
        undo.pop_all()


def _owners(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
