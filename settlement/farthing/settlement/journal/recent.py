"""The newest durable records in memory, for replays, receipts and followers that keep up.

Boundary: written by the writer's thread, read by any. Older records are read from the store.
"""

from collections import deque
from collections.abc import Sequence
from itertools import islice
from threading import Lock

from farthing.settlement.engine.commands import Committed

__all__ = ["Recent"]


class Recent:
    """The records up to `last_seq`, the newest durable one, as many as fit both bounds.

    Args:
        last_seq: how far the journal has got.
        kept_max: how many are kept at most.
        bytes_max: how large they are together at most: one with a batch of usage may have 600 kB.
    """

    def __init__(self, last_seq: int, kept_max: int, bytes_max: int) -> None:
        self.last_seq = last_seq
        self._kept_max = kept_max
        self._bytes_max = bytes_max
        self._kept: deque[Committed] = deque()
        self._bytes = 0
        self._lock = Lock()

    def extend(self, committed: Sequence[Committed]) -> None:
        """Take in the records of a batch that has become durable."""
        with self._lock:
            self._kept.extend(committed)
            self._bytes += sum(len(each.data) for each in committed)
            while len(self._kept) > self._kept_max or self._bytes > self._bytes_max:
                self._bytes -= len(self._kept.popleft().data)
            self.last_seq = committed[-1].seq

    def at(self, seq: int) -> Committed | None:
        """One record, if it is kept."""
        with self._lock:
            index = seq - self._first_seq
            return self._kept[index] if 0 <= index < len(self._kept) else None

    def after(self, seq: int, count_max: int) -> list[Committed] | None:
        """The next records after `seq`, none if it is the newest; None if they are not kept."""
        with self._lock:
            index = seq + 1 - self._first_seq
            return None if index < 0 else list(islice(self._kept, index, index + count_max))

    @property
    def _first_seq(self) -> int:
        return self.last_seq - len(self._kept) + 1
