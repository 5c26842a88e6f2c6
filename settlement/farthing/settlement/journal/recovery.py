"""State, chain and tree from the journal alone: at the start, and after a commit that failed.

Boundary: reads batches and nothing else; no table, no snapshot. Source: spec/journal.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from farthing.protocol.audit import verify_head, verify_journal
from farthing.protocol.chain import BadRecord, Chain
from farthing.protocol.errors import Unverified
from farthing.protocol.keys import PublicKey
from farthing.settlement.journal.machine import Machine
from farthing.settlement.journal.store import Batch, Store

__all__ = ["Recovered", "recover"]

State = TypeVar("State")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered(Generic[State]):
    """What the journal comes to. `note` is the last batch's signed head; "" without a batch."""

    state: State
    chain: Chain
    note: str


def recover(
    store: Store,
    machine: Machine[State],
    *,
    origin: str = "",
    keys: Sequence[PublicKey] = (),
) -> Recovered[State]:
    """Replay a journal from its first record on, checking every record and every batch.

    Args:
        store: where it lies; need not be acquired.
        machine: what applies the records.
        origin: the log that the last signed head must name.
        keys: the platform's keys; the last head must be signed by one. Empty: it is not looked at.

    Raises:
        Unverified: the journal does not verify; a `BadRecord` where one record is to blame.
        Broken: a record breaks an invariant of the machine.
        Unreadable: storage cannot be read.
    """
    state = machine.new_state()
    chain = Chain()
    note = ""
    for batch in store.batches():
        try:
            for data in batch.records:
                machine.evolve(state, chain.read(data))
            _check(batch, chain)
        except Unverified as error:
            raise _first_bad(store, error) from error
        note = batch.note
    if keys and chain.seq:
        head = verify_head(note, origin, keys)
        if (head.size, head.root) != (chain.seq, chain.tree.root()):
            raise Unverified(f"the last signed head is not that of {chain.seq} records")
    return Recovered(state=state, chain=chain, note=note)


def _check(batch: Batch, chain: Chain) -> None:
    if batch.last_seq != chain.seq:
        raise Unverified(f"batch {batch.first_seq} ends at record {chain.seq}")
    if batch.head_sha256 != chain.head:
        raise BadRecord(chain.seq, "was changed after it was chained")
    if batch.root_sha256 != chain.tree.root().hex():
        raise Unverified(f"the root of batch {batch.first_seq} is not the tree's")


def _first_bad(store: Store, error: Unverified) -> Unverified:
    """The auditor looks ahead, and so can tell a changed record from the one after it."""
    records = (data for batch in store.batches() for data in batch.records)
    fault = verify_journal(records).fault
    return error if fault is None else BadRecord(fault.seq, fault.why)
