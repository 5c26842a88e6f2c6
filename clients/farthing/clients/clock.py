"""The clock and the entropy of a client: the one place of this room where either is read.

Boundary: everything else takes both as arguments, so that a test can bring its own.
"""

import os
import time
from collections.abc import Callable
from typing import Final

__all__ = ["Clock", "Entropy", "now_us", "random_bytes"]

Clock = Callable[[], int]
"""Gives the present instant in microseconds since 1970, UTC."""

Entropy = Callable[[int], bytes]
"""Gives so many random bytes."""

_NS_PER_US: Final = 1_000


def now_us() -> int:
    """Read the system's clock."""
    return time.time_ns() // _NS_PER_US


def random_bytes(count: int) -> bytes:
    """Draw from the operating system's generator."""
    return os.urandom(count)
