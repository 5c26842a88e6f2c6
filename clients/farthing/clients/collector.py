"""Python's cyclic collector in a process where many calls wait for the disk at once.

Boundary: the one place of this room that sets anything for the whole process.
"""

import gc
from typing import Final

__all__ = ["spare_the_collector"]

_DEFAULT: Final = (700, 10, 10)
# A call that waits holds some 150 objects, and 64 wait at once. At the interpreter's 700 they are
# looked through, found alive and kept as old ones again and again: 200 us of every call.
_YOUNG: Final = 20_000


def spare_the_collector() -> None:
    """Have garbage looked for where there may be some; a process that chose for itself is left."""
    if gc.isenabled() and gc.get_threshold() == _DEFAULT:
        gc.set_threshold(_YOUNG, *_DEFAULT[1:])
