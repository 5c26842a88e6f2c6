"""How many values JSON has, told before it is read: each is worth many bytes of text.

Boundary: counts marks, reads nothing.
"""

from typing import Final

__all__ = ["VALUES_MAX", "has_more_values"]

VALUES_MAX: Final = 100_000
"""The most that is read at once of anybody: a tenth of a second's work."""

_MARKS: Final = (b",", b"[", b"{")
# A value is a text at most, and has a name at most.
_QUOTES_OF_ONE: Final = 4


def has_more_values(raw: bytes, values_max: int) -> bool:
    """Whether JSON has more values than this; an empty list or object counts twice.

    Of what is no JSON it may say either: whoever reads it stops at the first fault, and up to there
    it is counted truly.
    """
    if _marks(raw) < values_max:
        return False
    # What stands in texts is no mark.
    bare = raw.replace(rb"\\", b"").replace(rb"\"", b"")
    if bare.count(b'"') > _QUOTES_OF_ONE * values_max:
        return True
    return _marks(b"".join(bare.split(b'"')[::2])) >= values_max


def _marks(raw: bytes) -> int:
    return sum(map(raw.count, _MARKS))
