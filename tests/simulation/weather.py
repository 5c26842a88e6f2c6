"""What a simulated machine's storage does to an engine, and the store in memory that does it.

Boundary: faults are drawn by the life from its own chance; here they only happen.
"""

from collections.abc import Iterator
from random import Random
from typing import Protocol

from farthing.protocol.errors import FarthingError
from farthing.settlement.journal.index import Index
from farthing.settlement.journal.memory import MemoryStore
from farthing.settlement.journal.store import (
    Batch,
    CommitRefused,
    CommitUnknown,
    Store,
    Unreadable,
)

__all__ = ["Attic", "Place", "PowerCut"]


class PowerCut(FarthingError):
    """The machine stops here, whoever is at work."""


class Place(Protocol):
    """Where a journal lies while engines come and go."""

    def boot(self) -> tuple[Store, Index]:
        """The storage as a new process finds it."""

    def threaten(self, chance: Random) -> str:
        """Let something go wrong soon; gives its name."""

    def calm(self) -> None:
        """From now on all goes well."""

    @property
    def is_off(self) -> bool:
        """Whether the power is gone; nothing that is said now was said."""

    def cut(self, chance: Random) -> None:
        """Take the power away, now or where it went; what was not durable is lost by chance."""

    def batches(self, after_seq: int = 0) -> list[Batch]:
        """What is stored after a record, read with nothing in the way."""


class Attic:
    """A journal in memory behind a store that fails when it is told to."""

    def __init__(self) -> None:
        self.inner = MemoryStore()
        self.store = _Failing(self.inner)

    def boot(self) -> tuple[Store, Index]:
        self.inner.close()
        self.store = _Failing(self.inner)
        return self.store, Index(None)

    def threaten(self, chance: Random) -> str:
        fault = chance.choice(
            (*_COMMITS, *_COMMITS, "unreadable", "no snapshot", "spoilt snapshot")
        )
        match fault:
            case "unreadable":
                self.store.reads_left = chance.randrange(6)
                self.store.fault = chance.choice(("", "lost", "kept", "refused"))
            case "no snapshot":
                self.store.keeps_snapshots = False
            case "spoilt snapshot":
                if (data := self.inner.snapshot()) is not None:
                    self.inner.keep_snapshot(_spoilt(data, chance))
            case _:
                self.store.fault = fault
        return fault

    def calm(self) -> None:
        self.store.fault = ""
        self.store.reads_left = -1
        self.store.keeps_snapshots = True

    @property
    def is_off(self) -> bool:
        return self.store.is_off

    def cut(self, chance: Random) -> None:
        self.store.is_off = True
        del chance

    def batches(self, after_seq: int = 0) -> list[Batch]:
        return list(self.inner.batches(after_seq))


_COMMITS = ("refused", "lost", "kept", "lost, unreadable", "kept, unreadable", "cut", "kept, cut")


class _Failing:
    """A store whose next commit meets `fault`, and whose reads fail after so many more."""

    def __init__(self, inner: MemoryStore) -> None:
        self.inner = inner
        self.fault = ""
        self.reads_left = -1
        self.keeps_snapshots = True
        self.is_off = False

    def acquire(self) -> int:
        return self.inner.acquire()

    def commit(self, batch: Batch) -> None:
        fault, self.fault = self.fault, ""
        if self.is_off:
            raise PowerCut
        if not fault or "kept" in fault:
            self.inner.commit(batch)
        if "unreadable" in fault:
            self.reads_left = 0
        if "cut" in fault:
            self.is_off = True
            raise PowerCut
        if fault == "refused":
            raise CommitRefused("full")
        if fault:
            raise CommitUnknown("no answer")

    def batches(self, after_seq: int = 0) -> Iterator[Batch]:
        for batch in self.inner.batches(after_seq):
            self._read()
            yield batch

    def record(self, seq: int) -> bytes | None:
        self._read()
        return self.inner.record(seq)

    def snapshot(self) -> bytes | None:
        return self.inner.snapshot()

    def keep_snapshot(self, data: bytes) -> None:
        if not self.keeps_snapshots or self.is_off:
            raise CommitRefused("full")
        self.inner.keep_snapshot(data)

    def reopen(self) -> None:
        self._read()

    def restored_at_us(self) -> int:
        return 0

    def close(self) -> None:
        self.inner.close()

    def _read(self) -> None:
        if self.is_off:
            raise PowerCut
        if self.reads_left == 0:
            raise Unreadable("no answer")
        self.reads_left -= self.reads_left > 0


def _spoilt(data: bytes, chance: Random) -> bytes:
    at = chance.randrange(len(data))
    torn = data[:at]
    return torn if chance.random() < 0.5 else torn + bytes([data[at] ^ 1]) + data[at + 1 :]
