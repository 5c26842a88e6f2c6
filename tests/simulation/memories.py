"""What can be compared: memory and journal as they should be after a record, and who asked what."""

from collections.abc import Sequence
from typing import Any

from farthing.settlement.engine.commands import Command
from farthing.settlement.engine.packing import pack
from farthing.settlement.engine.state import State, waits
from farthing.settlement.journal.memory import MemoryStore
from farthing.settlement.journal.store import Batch
from farthing.settlement.machine import MACHINE
from tests.simulation.auditor import NEWCOMERS, Json

__all__ = ["journal_until", "memory_of", "proof_of", "scope_of"]


def memory_of(state: State, records: Sequence[Json]) -> dict[str, Any]:
    """A state as a document, without what settled and without what is only a hint.

    `records` is the journal from its beginning, as documents; what comes after is passed over.
    """
    assert MACHINE.memory is not None
    MACHINE.memory.forget(state)
    document: dict[str, Any] = pack(state)
    document["due"] = sorted({entry for entry in state.due if waits(state, *entry)})
    pending = _pending(records[: state.seq])
    document["windows"] = sorted({entry for entry in state.windows if entry[1] in pending})
    document["burnt_until"] = sorted(document["burnt_until"])
    document["counters"] = sorted(each for each in document["counters"] if each[2] != "0")
    for name in ("by_party", "grants"):
        document[name] = sorted(document[name], key=str)
    return document


def _pending(records: Sequence[Json]) -> set[str]:
    """The charges whose window is open."""
    changes = (change for record in records for change in record.get("changed", ()))
    charges = {each["id"]: each["after"] for each in changes if each["noun"] == "charge"}
    return {charge_id for charge_id, each in charges.items() if each["status"] == "pending"}


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


def scope_of(command: Command) -> tuple[str, str, str]:
    """Whose key it carries, as the auditor files its outcome."""
    by = command.by
    who = by.key_thumbprint if command.operation in NEWCOMERS else by.principal_id
    return who, command.operation, command.idempotency_key


def proof_of(command: Command) -> tuple[str, str]:
    """The proof it uses up."""
    return command.by.key_thumbprint, command.by.proof_jti
