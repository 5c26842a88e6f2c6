"""What the agent is sent out with: a file, how much work it is, and what it may cost.

Boundary: reads the file and measures it, in a process that may be stopped; judges nothing else.
"""

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from farthing.clients.demo.outcomes import Reason, Unworkable
from farthing.clients.demo.sample import sample_pdf
from farthing.clients.demo.worker import Worker

__all__ = ["Errand", "NoSuchFile", "measure", "write_sample"]

PAGES_GUESSED: Final = 30
"""What is asked for where the pages cannot be counted: the most that one would pay for."""
COUNTED_BYTES_MAX: Final = 256 * 1024**2
"""How large a file may be for its pages to be counted; its digest is taken whatever its size."""
_COUNT_S_MAX: Final = 10.0


class NoSuchFile(ValueError):
    """There is no file to read; the demo was called wrongly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """A file as the agent sees it before it asks anybody.

    Args:
        path: The file.
        size_bytes: Its size.
        sha256: Of its bytes.
        page_count: How many pages it has, None where nobody could count them here.
        uncounted: Why not.
    """

    path: Path
    size_bytes: int
    sha256: str
    page_count: int | None
    uncounted: Reason | None = None

    @property
    def pages(self) -> int:
        """The workload: the most pages that will be paid for."""
        return PAGES_GUESSED if self.page_count is None else max(self.page_count, 1)


async def measure(path: Path) -> Errand:
    """Take a file's digest and count its pages.

    Raises:
        NoSuchFile: It is not there, not a file, or not to be read.
    """
    try:
        size_bytes, sha256 = await asyncio.to_thread(_digest, path)
    except OSError as error:
        raise NoSuchFile(f"{path}: {error.strerror or 'cannot be read'}") from None
    page_count: int | None = None
    uncounted: Reason | None = None
    if size_bytes > COUNTED_BYTES_MAX:
        uncounted = Reason.TOO_LARGE
    else:
        try:
            counted = await Worker(deadline_s=_COUNT_S_MAX).perform(
                "count_pages", {"path": str(path)}
            )
            page_count = counted["pages"]
        except Unworkable as error:
            uncounted = error.reason
    return Errand(
        path=path,
        size_bytes=size_bytes,
        sha256=sha256,
        page_count=page_count,
        uncounted=uncounted,
    )


def write_sample(folder: Path) -> Path:
    """The file of a demo that was given none: thirty pages on farthings and ledgers."""
    path = folder / "farthings-and-ledgers.pdf"
    path.write_bytes(sample_pdf())
    return path


def _digest(path: Path) -> tuple[int, str]:
    if not path.is_file():
        raise OSError(0, "is not a file" if path.exists() else "is not there")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return file.tell(), digest.hexdigest()
