"""State, chain and tree from the journal alone: at the start, and after a commit that failed.

Boundary: reads batches and, as a shortcut, a signed snapshot; no table. Source: spec/journal.md.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from farthing.protocol.audit import verify_head, verify_journal
from farthing.protocol.chain import BadRecord, Chain
from farthing.protocol.errors import Unverified
from farthing.protocol.keys import PublicKey
from farthing.protocol.merkle import leaf_hash
from farthing.protocol.records import Record, head_of, line_of, read_record
from farthing.settlement.journal.index import Index
from farthing.settlement.journal.machine import Machine
from farthing.settlement.journal.snapshots import Snapshot, read_snapshot
from farthing.settlement.journal.store import Batch, Store, Unreadable
from farthing.settlement.journal.tree import TILE_LEAVES, JournalTree, LeavesOf

__all__ = ["Recovered", "leaves_in", "record_in", "recover"]

logger = logging.getLogger(__name__)

State = TypeVar("State")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered(Generic[State]):
    """What the journal comes to.

    Args:
        state: after the last record.
        chain: up to the last record.
        snapshot_seq: the record of the snapshot that was begun from; 0 for the first record on.
    """

    state: State
    chain: Chain
    snapshot_seq: int = 0


def recover(
    store: Store,
    machine: Machine[State],
    *,
    origin: str = "",
    keys: Sequence[PublicKey] = (),
    index: Index | None = None,
    indexed_seq: int = 0,
) -> Recovered[State]:
    """Replay a journal from its last snapshot on, or from its first record, checking all it reads.

    Args:
        store: where it lies; need not be acquired.
        machine: what applies the records.
        origin: the log that the last signed head must name.
        keys: the platform's keys; the last head must be signed by one, and a snapshot too. Empty:
            neither is looked at.
        index: takes the keys of records after `indexed_seq`, where the machine forgets things.
        indexed_seq: how far it knows them already.

    Raises:
        Unverified: the journal does not verify; a `BadRecord` where one record is to blame.
        Broken: a record breaks an invariant of the machine.
        Unreadable: storage cannot be read.
    """
    begun = _begin(store, machine, keys)
    state, chain, snapshot_seq = begun.state, begun.chain, begun.snapshot_seq
    memory = machine.memory
    if index is not None and memory is not None:
        for batch in store.batches(indexed_seq) if indexed_seq < snapshot_seq else ():
            records = [read_record(data)[0] for data in batch.records]
            known = [each for each in records if indexed_seq < each.seq <= snapshot_seq]
            if known:
                entries = [e for each in known for e in memory.entries(each)]
                last_seq = known[-1].seq
                last_head = head_of(batch.records[last_seq - batch.first_seq])
                index.add(entries, last_seq, last_head)
    note = ""
    for batch in store.batches(max(snapshot_seq - 1, 0)):
        try:
            for data in batch.records[max(chain.seq + 1 - batch.first_seq, 0) :]:
                machine.evolve(state, chain.follow(data))
            _check(batch, chain)
        except Unverified as error:
            raise _first_bad(store, error) from error
        note = batch.note
        if memory is not None:
            if index is not None and chain.seq > indexed_seq:
                index.add(memory.settled(state), chain.seq, chain.head)
            memory.forget(state)
    if keys and chain.seq:
        head = verify_head(note, origin, keys)
        if (head.size, head.root) != (chain.seq, chain.tree.root()):
            raise Unverified(f"the last signed head is not that of {chain.seq} records")
    return Recovered(state=state, chain=chain, snapshot_seq=snapshot_seq)


def record_in(store: Store, seq: int) -> Record:
    """The record at a position of what is stored.

    Raises:
        Unreadable: there is none, or it cannot be read.
    """
    data = store.record(seq)
    if data is None:
        raise Unreadable(f"record {seq} is not there")
    return read_record(data)[0]


def leaves_in(store: Store) -> LeavesOf:
    """The leaf hashes of a complete tile of what is stored."""

    def leaves_of(number: int) -> list[bytes]:
        first_seq = number * TILE_LEAVES + 1
        leaves: list[bytes] = []
        for batch in store.batches(first_seq - 1):
            wanted = batch.records[max(first_seq + len(leaves) - batch.first_seq, 0) :]
            leaves += [leaf_hash(line_of(data)) for data in wanted[: TILE_LEAVES - len(leaves)]]
            if len(leaves) == TILE_LEAVES:
                return leaves
        raise Unreadable(f"the records of tile {number} are not there")

    return leaves_of


def _begin(store: Store, machine: Machine[State], keys: Sequence[PublicKey]) -> Recovered[State]:
    """The state of the last snapshot, if it is of this journal; else the one before all records."""
    memory = machine.memory
    leaves_of = leaves_in(store)
    if memory is not None and keys and (data := store.snapshot()) is not None:
        try:
            snapshot = read_snapshot(data, keys, leaves_of)
            _belongs(store, snapshot)
            state = memory.unpack(snapshot.state, lambda seq: record_in(store, seq))
        except (Unverified, AttributeError, LookupError, TypeError, ValueError) as error:
            # Signed and yet of another form: another version of this program wrote it.
            logger.warning("the snapshot is passed over: %r", error)
        else:
            return Recovered(state=state, chain=snapshot.chain, snapshot_seq=snapshot.seq)
    chain = Chain(tree=JournalTree(leaves_of))
    return Recovered(state=machine.new_state(), chain=chain)


def _belongs(store: Store, snapshot: Snapshot) -> None:
    data = store.record(snapshot.seq)
    if data is None or head_of(data) != snapshot.chain.head:
        raise Unverified(f"it is not of this journal's record {snapshot.seq}")


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
