"""The write-ahead log beside a database: whether a byte of it hides what had been written.

SQLite reads its log up to the first frame that does not verify, and says nothing of what follows.
The writer syncs each transaction before it begins the next, so a power cut leaves at most the last
one torn, and what is left of one that failed is followed by nothing that sums it up: where several
that follow each other stand behind such a frame, they were durable, and somebody or something
changed a byte. Format: https://sqlite.org/fileformat2.html, section 4.

Boundary: reads bytes, also while they are written; locks nothing. Source: spec/audit.md.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from farthing.protocol.errors import Unverified

__all__ = ["check_log", "hidden_in_log", "log_beside"]

_HEADER: Final = struct.Struct(">8I")
_FRAME: Final = struct.Struct(">6I")
_SUMMED_OF_HEADER: Final = 24
_SUMMED_OF_FRAME: Final = 8
# The last bit of the first word says in which order words are summed.
_MAGIC: Final = 0x377F0682
_PAGE_BYTES_MAX: Final = 65_536
_WORD: Final = 0xFFFFFFFF
_PAGE_SIZE_AT: Final = 16
# At most the torn one that a power cut leaves.
_TORN_MAX: Final = 1
# What is wrong because it was being written meanwhile is right when it is read again.
_READINGS: Final = 3

Sums = tuple[int, int]


def hidden_in_log(database: Path) -> int:
    """How many transactions of a database's log are not read any more and were durable once."""
    log = log_beside(database)
    hidden = 0
    for _ in range(_READINGS):
        try:
            with log.open("rb") as file:
                header = file.read(_HEADER.size)
                hidden = _hidden(header, file, _page_bytes(database))
                file.seek(0)
                if file.read(_HEADER.size) != header:
                    # It was begun again meanwhile, and so folded whole before.
                    return 0
        except FileNotFoundError:
            return 0
        if not hidden:
            break
    return hidden


def log_beside(database: Path) -> Path:
    """Where SQLite keeps a database's log: beside the file itself, where a link leads to it."""
    return Path(f"{database.resolve()}-wal")


def check_log(database: Path) -> None:
    """See that all that was durable is read: SQLite passes over what a changed byte hides.

    Raises:
        Unverified: the log hides something.
    """
    if hidden := hidden_in_log(database):
        raise Unverified(
            f"the log beside {database} is damaged: {hidden} batches that were acknowledged stand "
            "in it and cannot be read. Keep the folder as it is, and put back a backup of it or of "
            "that file; farthing restore says what a backup lacks"
        )


def _page_bytes(database: Path) -> int:
    """The size of a page, from the database itself: the log's own header may be what changed."""
    with database.open("rb") as file:
        file.seek(_PAGE_SIZE_AT)
        size = int.from_bytes(file.read(2), "big")
    return _PAGE_BYTES_MAX if size == 1 else size


def _hidden(header: bytes, file: BinaryIO, page_bytes: int) -> int:
    if len(header) < _HEADER.size or not page_bytes:
        return 0
    magic, _, said_bytes, _, *salts, sum_1, sum_2 = _HEADER.unpack(header)
    order = ">" if magic & 1 else "<"
    sums = _summed(header[:_SUMMED_OF_HEADER], (0, 0), order)
    sound = magic & ~1 == _MAGIC and (said_bytes, *sums) == (page_bytes, sum_1, sum_2)
    begun = sound
    # What the frame before is said to sum up to, and what it does: either may be what changed.
    before: tuple[Sums, ...] = (sums,)
    run = longest = 0
    for head, page in _frames(file, page_bytes):
        _, commits, *said, sum_1, sum_2 = _FRAME.unpack(head)
        stated = sum_1, sum_2
        if not begun:  # a header that does not verify: the frames agree on what it was
            salts, begun = said, True
        if said != salts:  # of an earlier round of the log, or changed
            sound, before = False, (stated,)
            continue
        found = [_summed(head[:_SUMMED_OF_FRAME] + page, each, order) for each in before]
        follows = stated in found
        sound = sound and follows
        if not sound:
            run = (run if follows else 0) + bool(commits)
            longest = max(longest, run)
        before = (stated,) if follows else (stated, found[0])
    return longest if longest > _TORN_MAX else 0


def _frames(file: BinaryIO, page_bytes: int) -> Iterator[tuple[bytes, bytes]]:
    while len(frame := file.read(_FRAME.size + page_bytes)) == _FRAME.size + page_bytes:
        yield frame[: _FRAME.size], frame[_FRAME.size :]


def _summed(data: bytes, sums: Sums, order: str) -> Sums:
    one, two = sums
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for first, second in zip(words, words, strict=True):
        one = (one + first + two) & _WORD
        two = (two + second + one) & _WORD
    return one, two
