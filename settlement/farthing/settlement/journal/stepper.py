"""One step of the writer, without threads: decide, apply, seal, commit, and what to tell.

Boundary: the only caller of `decide`, `evolve` and `Store.commit`; blocking, used by one thread.
Between two steps memory equals disk, which is when questions are answered.
Source: spec/journal.md.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, cast

from farthing.protocol.authority.standing import Standing
from farthing.protocol.errors import Broken, Code, Refusal, Refused, refuse
from farthing.protocol.keys import PublicKey, Signer
from farthing.protocol.messages.operations import OPERATIONS
from farthing.protocol.records import Record, head_of, read_record
from farthing.protocol.tiles import tile_of
from farthing.protocol.wire import Effect
from farthing.settlement.engine.commands import Command, Committed, Outcome, Question, Seen
from farthing.settlement.engine.questions import (
    Consistency,
    ConsistencyOf,
    Proof,
    ProofOf,
    RecordAt,
    StandingOf,
    TileAt,
    TreeHeadNow,
)
from farthing.settlement.journal.index import Index
from farthing.settlement.journal.machine import Machine
from farthing.settlement.journal.recent import Recent
from farthing.settlement.journal.recovery import record_in, recover
from farthing.settlement.journal.sealing import Draft, sign_head
from farthing.settlement.journal.snapshots import make_snapshot
from farthing.settlement.journal.store import CommitRefused, CommitUnknown, Row, Store, Unreadable
from farthing.settlement.tables import KEPT_TABLES

__all__ = ["Limits", "RowsOf", "Stepper", "no_rows", "unavailable"]

logger = logging.getLogger(__name__)

State = TypeVar("State")
RowsOf = Callable[[Record], Iterable[Row]]

# What a defect in a pure function raises. Nothing has changed then, so that one caller is told and
# the writer goes on: one poisonous command must not stop everybody's. `Broken` and a failed
# assertion are not among them: after those nothing can be trusted.
_DEFECTS: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)

_MOVES_MONEY: Final = frozenset(
    name for name, operation in OPERATIONS.items() if operation.effect is Effect.MOVES_MONEY
)
_RETRY_AFTER_S: Final = 1
# Asleep at most this long while something is due later, so that a clock that is set is noticed.
_NAP_US_MAX: Final = 1_000_000
# Nothing is tried for at most this long after a commit that failed, however a clock was set.
_REST_US_MAX: Final = 60_000_000
# Asleep at least this long after a look for due things found none, whatever the machine foretold.
_NAP_US_MIN: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of the writer.

    Args:
        batch_max: commands per batch, and things due per batch.
        batch_bytes_max: size of a batch's records from which on no more is put into it.
        queue_max: commands, and questions, that may wait before callers are refused.
        recent_max: newest records kept in memory.
        recent_bytes_max: size of the newest records kept in memory.
        page_max: records that a follower is handed at once.
        snapshot_every: records after the last snapshot that make a new one worth while.
    """

    batch_max: int = 2_000
    batch_bytes_max: int = 8_000_000
    queue_max: int = 10_000
    recent_max: int = 4_096
    recent_bytes_max: int = 32_000_000
    page_max: int = 500
    snapshot_every: int = 20_000


@dataclass(frozen=True, slots=True)
class _Judged:
    """A command with a record, told once that is durable."""

    command: Command
    record: Record
    replayed: bool


class Stepper(Generic[State]):
    """State, chain and storage, moved on one batch at a time. Args as for `Writer`."""

    def __init__(
        self,
        store: Store,
        machine: Machine[State],
        *,
        signer: Signer,
        origin: str,
        now_us: Callable[[], int],
        rows: RowsOf,
        earlier_keys: Sequence[PublicKey],
        limits: Limits,
        index: Index | None = None,
    ) -> None:
        self._store = store
        self._machine = machine
        self._signer = signer
        self._origin = origin
        self._keys = (signer.public, *earlier_keys)
        self._now_us = now_us
        self._rows = rows
        self._limits = limits
        self._index = Index(None) if index is None else index
        self._indexed_seq = 0
        self._snapshot_seq = 0
        # Whether memory is what the journal says; not so after a step that raised.
        self._sound = False
        self._nothing_due = False
        # After a commit that failed: nothing is tried before this, so that rebuilding takes at
        # most half of the time, and the clock alone starts nothing before that.
        self._failed_at_us = 0
        self._resume_at_us = 0
        self._rest_until_us = 0

    def open(self) -> None:
        """Take the storage and recover. Raises as `Store.acquire` and `recover` do."""
        self._epoch = self._store.acquire()
        with ExitStack() as undo:
            undo.callback(self._store.close)
            self.restored_at_us = self._store.restored_at_us()
            undo.callback(self._index.close)
            # A restored journal, or one that was put there by hand, may have taken another way
            # since its index was written.
            identity = f"{self._origin} {self.restored_at_us}"
            self._indexed_seq = self._index.open(identity, self._head_at)
            self._recover()
            undo.pop_all()
        limits = self._limits
        self.recent = Recent(self._chain.seq, limits.recent_max, limits.recent_bytes_max)

    def close(self) -> None:
        """Write down where things stand, if that saves a start much reading; give storage free."""
        try:
            if self._sound and self._chain.seq >= self._snapshot_seq + self._limits.snapshot_every:
                self.keep_snapshot()
        except CommitRefused:
            logger.warning("no snapshot was kept", exc_info=True)
        finally:
            self._index.close()
            self._store.close()

    def keep_snapshot(self) -> None:
        """Keep a signed snapshot of the state as it is now, between two steps.

        Raises:
            CommitRefused: storage did not take it.
        """
        memory = self._machine.memory
        if memory is not None and self._chain.seq > self._snapshot_seq:
            data = make_snapshot(self._state, self._chain, memory, self._signer)
            self._store.keep_snapshot(data)
            self._snapshot_seq = self._chain.seq

    def answer(self, question: Question[Any]) -> object:
        """The answer to a question, or a `Refused` to raise at who asked."""
        try:
            match question:
                case RecordAt(seq=seq):
                    return self._data(seq)
                case ProofOf(seq=seq):
                    return self._proof(seq)
                case TreeHeadNow():
                    return self._note
                case ConsistencyOf(first=first, second=second):
                    return self._consistency(first, second or self._chain.seq)
                case TileAt(level=level, index=index, width=width):
                    return tile_of(self._chain.tree, level, index, width)
                case _:
                    return self._machine.answer(self._state, question, self._now_us())
        except Refused as error:
            return error
        except Unreadable:
            # A question changes nothing: it fails alone, and may be asked again.
            logger.exception("storage could not be read for %s", type(question).__name__)
            return Refused(unavailable())
        except _DEFECTS:
            logger.exception("defect in answering %s", type(question).__name__)
            return Refused(refuse(Code.INTERNAL_ERROR))

    def step(self, commands: Sequence[Command]) -> list[Outcome | Refused]:
        """Do commands in order, as one batch, after whatever is due.

        Returns:
            What to tell each of them, now that it is durable. Fewer than were given, or none, when
            the batch was full before.

        Raises:
            Broken: an invariant does not hold; nothing can be done any more.
            Unreadable, Unverified, DatabaseInUse: neither can it without storage.
        """
        now_us = self._now_us()
        # A clock that was set back since is no reason to rest until that time comes again.
        if self._failed_at_us <= now_us < self._resume_at_us:
            return [Refused(unavailable()) for _ in commands]
        self._sound = False
        draft = Draft(self._chain)
        judged: list[_Judged | Refused] = []
        # What is due comes first: nobody is judged by what should not be so any more.
        try:
            if not self._do_due(draft, now_us):
                commands = ()
        except Unreadable:
            logger.exception("storage could not be read for what is due")
            self._nothing_due = True
            judged, commands = [Refused(unavailable()) for _ in commands], ()
        for command in commands:
            if draft.size_bytes >= self._limits.batch_bytes_max:
                break
            judged.append(self._judge(command, draft, now_us))
        # Refusals wait for the disk too: they may rest on records of this very batch.
        if draft.records and not self._commit(draft):
            self._sound = True
            return [Refused(unavailable()) for _ in judged]
        self._sound = True
        standings: dict[str, Standing | None] = {}
        return [
            each if isinstance(each, Refused) else self._outcome(each, standings, now_us)
            for each in judged
        ]

    def due_in_us(self) -> int | None:
        """How long until a step is needed though nobody asks; None for never."""
        next_us = self._machine.next_due_us(self._state)
        if next_us is None:
            return None
        now_us = self._now_us()
        wait_us = min(max(next_us, self._rest_until_us) - now_us, _NAP_US_MAX)
        return max(wait_us, _NAP_US_MIN) if self._nothing_due else wait_us

    def stored_page(self, after_seq: int) -> list[Committed]:
        """Records after `after_seq` from storage, a page or what a batch has. Any thread."""
        page: list[Committed] = []
        size_bytes = 0
        for batch in self._store.batches(after_seq):
            first_seq = max(after_seq + 1, batch.first_seq)
            wanted = batch.records[first_seq - batch.first_seq :]
            page += [Committed(seq=seq, data=data) for seq, data in enumerate(wanted, first_seq)]
            size_bytes += sum(map(len, wanted))
            if len(page) >= self._limits.page_max or size_bytes >= self._limits.batch_bytes_max:
                break
        return page

    def _do_due(self, draft: Draft, now_us: int) -> bool:
        """Do what is due; False where more of it is left than a batch takes.

        Raises:
            Unreadable: storage cannot be read for the next of it.
        """
        for count in range(self._limits.batch_max + 1):
            command = self._machine.due(self._state, now_us)
            self._nothing_due = command is None
            if command is None:
                return True
            if count == self._limits.batch_max:
                break
            record = self._machine.decide(self._state, command, now_us)
            if not isinstance(record, Record):
                raise Broken(f"{command.operation} is due and was not done: {record}")
            self._apply(draft, record, self._chain.bytes_of(record), tuple(self._rows(record)))
        return False

    def _judge(self, command: Command, draft: Draft, now_us: int) -> _Judged | Refused:
        try:
            decision = self._machine.decide(self._state, command, now_us)
            if isinstance(decision, Refusal):
                return Refused(decision)
            if isinstance(decision, Seen):
                return self._replay(command, draft.record(decision.seq), decision.seq)
            data = self._chain.bytes_of(decision)
            # A refusal changes nothing, beside the journal either.
            kept = () if decision.refused else _kept(command)
            rows = _checked([*self._rows(decision), *kept])
        except Unreadable:
            logger.exception("storage could not be read for %s", command.operation)
            return Refused(unavailable())
        except _DEFECTS:
            logger.exception("defect in %s", command.operation)
            return Refused(refuse(Code.INTERNAL_ERROR))
        self._apply(draft, decision, data, rows)
        return _Judged(command, decision, replayed=False)

    def _apply(self, draft: Draft, record: Record, data: bytes, rows: Sequence[Row]) -> None:
        try:
            self._machine.evolve(self._state, record)
        except _DEFECTS as error:
            raise Broken(f"record {record.seq} ({record.operation}) cannot be applied") from error
        draft.add(record, data, rows)

    def _replay(self, command: Command, record: Record | None, seq: int) -> _Judged | Refused:
        record = self._record(seq) if record is None else record
        if record is None or record.request is None:
            raise Broken(f"{command.operation} was seen at {seq}, where no request is recorded")
        if record.request.sha256 == command.request_sha256:
            return _Judged(command, record, replayed=True)
        before, now = record.request.args_sha256, command.args_sha256
        path = next((n for n in sorted({*before, *now}) if before.get(n) != now.get(n)), "")
        return Refused(refuse(Code.IDEMPOTENCY_CONFLICT, path=path))

    def _commit(self, draft: Draft) -> bool:
        """Whether the batch is durable. If it is not, memory is as if it had never been."""
        batch = draft.seal(epoch=self._epoch, signer=self._signer, origin=self._origin)
        began_us = self._now_us()
        try:
            self._store.commit(batch)
        except CommitRefused as error:
            logger.debug("batch %d was refused by storage: %s", batch.first_seq, error)
            self._recover()
        except CommitUnknown:
            logger.exception("whether batch %d is written is not known", batch.first_seq)
            self._store.reopen()
            self._recover()
        else:
            self._note = batch.note
        if (self._chain.seq, self._chain.head) == (batch.last_seq, batch.head_sha256):
            self.recent.extend(draft.committed)
            self._forget()
            return True
        if self._chain.seq != self.recent.last_seq:
            raise Broken(f"storage ends at {self._chain.seq}, not at {self.recent.last_seq}")
        now_us = self._now_us()
        self._failed_at_us = now_us
        self._resume_at_us = now_us + min(now_us - began_us, _REST_US_MAX)
        self._rest_until_us = now_us + _NAP_US_MAX
        return False

    def _recover(self) -> None:
        recovered = recover(
            self._store,
            self._machine,
            origin=self._origin,
            keys=self._keys,
            index=self._index,
            indexed_seq=self._indexed_seq,
        )
        self._state = recovered.state
        self._chain = recovered.chain
        self._snapshot_seq = recovered.snapshot_seq
        self._indexed_seq = max(self._indexed_seq, self._chain.seq)
        if self._machine.memory is not None:
            self._machine.memory.connect(self._state, self._index.get, self._record_at)
        self._sound = True
        # By the key of now: the last batch's head may be of one that was retired since.
        self._note = sign_head(self._chain, self._signer, self._origin)
        logger.debug("recovered %d records", self._chain.seq)

    def _forget(self) -> None:
        """What has settled is durable now, and can be found by its key."""
        memory = self._machine.memory
        if memory is not None:
            self._index.add(memory.settled(self._state), self._chain.seq, self._chain.head)
            self._indexed_seq = self._chain.seq
            memory.forget(self._state)

    def _outcome(
        self, judged: _Judged, standings: dict[str, Standing | None], now_us: int
    ) -> Outcome:
        principal_id = judged.command.by.principal_id
        standing = None
        if principal_id and judged.command.operation in _MOVES_MONEY:
            if principal_id not in standings:
                standings[principal_id] = self._standing(principal_id, now_us)
            standing = standings[principal_id]
        return Outcome(record=judged.record, replayed=judged.replayed, standing=standing)

    def _standing(self, principal_id: str, now_us: int) -> Standing | None:
        try:
            question = StandingOf(principal_id=principal_id)
            return cast("Standing", self._machine.answer(self._state, question, now_us))
        except (Refused, *_DEFECTS):
            # The effect is durable and has to be told, with or without its ornament.
            logger.exception("defect in the standing of %s", principal_id)
            return None

    def _head_at(self, seq: int) -> str:
        data = self._store.record(seq)
        return "" if data is None else head_of(data)

    def _data(self, seq: int) -> bytes | None:
        if not 0 < seq <= self.recent.last_seq:
            return None
        committed = self.recent.at(seq)
        return self._store.record(seq) if committed is None else committed.data

    def _record(self, seq: int) -> Record | None:
        committed = self.recent.at(seq)
        if committed is not None:
            return committed.record
        data = self._data(seq)
        return None if data is None else read_record(data)[0]

    def _record_at(self, seq: int) -> Record:
        committed = self.recent.at(seq)
        return record_in(self._store, seq) if committed is None else committed.record

    def _proof(self, seq: int) -> Proof | None:
        data = self._data(seq)
        if data is None:
            return None
        size = self._chain.seq
        path = tuple(self._chain.tree.inclusion(seq - 1, size))
        return Proof(record=data, tree_size=size, path=path, note=self._note)

    def _consistency(self, first: int, second: int) -> Consistency | None:
        if not 0 <= first <= second <= self._chain.seq:
            return None
        path = tuple(self._chain.tree.consistency(first, second))
        return Consistency(first=first, second=second, path=path, note=self._note)


def no_rows(record: Record) -> Iterable[Row]:
    """The projection of a journal without tables."""
    del record
    return ()


def unavailable() -> Refusal:
    """The refusal of a command that was not made durable."""
    return refuse(Code.UNAVAILABLE, retry_after_s=_RETRY_AFTER_S)


def _kept(command: Command) -> Iterable[Row]:
    return ((KEPT_TABLES[kept.table], kept.row) for kept in command.kept)


def _checked(rows: list[Row]) -> list[Row]:
    """The rows, each with known columns only: a wrong one must not spoil others' batch."""
    for table, row in rows:
        for name in row:
            table.c[name]
    return rows
