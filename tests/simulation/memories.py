"""States and journals as values that can be compared: what memory should be after a record."""

from typing import Any

from farthing.settlement.engine.packing import pack
from farthing.settlement.engine.state import State, waits
from farthing.settlement.journal.memory import MemoryStore
from farthing.settlement.journal.store import Batch
from farthing.settlement.machine import MACHINE

__all__ = ["journal_until", "memory_of"]


def memory_of(state: State) -> dict[str, Any]:
    """A state as a document, without what settled and without what is only a hint."""
    assert MACHINE.memory is not None
    MACHINE.memory.forget(state)
    document: dict[str, Any] = pack(state)
    document["due"] = sorted({entry for entry in state.due if waits(state, *entry)})
    document["burnt_until"] = sorted(document["burnt_until"])
    document["counters"] = sorted(each for each in document["counters"] if each[2] != "0")
    for name in ("by_party", "grants"):
        document[name] = sorted(document[name], key=str)
    return document


def journal_until(batches: list[Batch], through_seq: int) -> MemoryStore:
    """A journal that ends where a batch did, at a record or soon after."""
    store, epoch = MemoryStore(), 0
    for batch in batches:
        if batch.first_seq > through_seq:
            break
        while epoch < batch.epoch:
            store.close()
            epoch = store.acquire()
        store.commit(batch)
    store.close()
    return store
