"""A stepper that forgets what has settled, and starts from snapshots, answers as one that keeps it.

The pure engine, which forgets nothing, runs the same commands beside it.
"""

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from farthing.protocol.canonical import canonical_bytes
from farthing.protocol.errors import Code, Refusal, Refused
from farthing.protocol.merkle import leaf_hash, verify_inclusion
from farthing.protocol.messages.charges import REFUND_CHARGE, RefundCharge
from farthing.protocol.messages.disputes import INITIATE_DISPUTE, InitiateDispute
from farthing.protocol.messages.holds import RELEASE_HOLD, ReleaseHold
from farthing.protocol.messages.sessions import CLOSE_SESSION, CloseSession
from farthing.protocol.records import Record, line_of
from farthing.protocol.times import DAY_US, SECOND_US
from farthing.protocol.wire import money
from farthing.settlement.engine.commands import Command, Outcome, Seen
from farthing.settlement.engine.packing import pack, unpack
from farthing.settlement.engine.questions import Lookup, OutcomeOf, Proof, ProofOf
from farthing.settlement.engine.state import State
from farthing.settlement.engine.things import Charge
from farthing.settlement.journal.index import Index
from farthing.settlement.journal.memory import MemoryStore
from farthing.settlement.journal.recovery import recover
from farthing.settlement.journal.snapshots import make_snapshot
from farthing.settlement.journal.sqlite import SqliteStore
from farthing.settlement.journal.stepper import Limits, Stepper, no_rows
from farthing.settlement.journal.store import Store
from farthing.settlement.machine import MACHINE
from tests.construction import EPOCH_US, Room, Trade
from tests.papers import signing_key
from tests.protocol.replay.metered import Metered, events

ORIGIN = "test/journal"
JOURNAL = signing_key("journal")


@dataclass(slots=True)
class Taped(Room):
    """A room that remembers what it decided, and when."""

    told: list[tuple[int, Command, Record | Refusal | Seen]] = field(default_factory=list)

    def run(self, command: Command) -> Record | Refusal | Seen:
        decision = Room.run(self, command)
        self.told.append((self.now_us, command, decision))
        return decision


def life(seed: int, steps: int) -> Taped:
    """Holds, sessions, captures, releases, refunds, disputes and the passing of time."""
    chance = random.Random(seed)
    room = Taped()
    operator = room.organisation("operator", "Operator One")
    agent = room.agent(operator, "Agent One")
    vendor = room.organisation("vendor", "Vendor One")
    room.fund(operator, 10**12)
    room.grant(operator, agent, 10**11, 10**12)
    agreement_id = room.agree(agent, room.publish(vendor))
    trade = Trade(room, operator, agent, vendor, "", agreement_id)
    holds: list[str] = []
    charges: list[str] = []
    sessions: list[Metered] = []
    for step in range(steps):
        match chance.randrange(10):
            case 0 | 1 | 2:
                holds.append(trade.held(chance.randint(1, 9)))
            case 3 | 4 if holds:
                record = room.capture(vendor, chance.choice(holds), 1)
                charges += [c.id for c in record.changed if c.noun == "charge"]
            case 5 if holds:
                ask = ReleaseHold(hold_id=chance.choice(holds), idempotency_key=room.key())
                room.submit(vendor, RELEASE_HOLD, ask)
            case 6 if charges:
                charge_id = chance.choice(charges)
                if chance.random() < 0.5:
                    refund = RefundCharge(
                        charge_id=charge_id,
                        amount=money(1, "USD"),
                        reason="kindness",
                        idempotency_key=room.key(),
                    )
                    room.submit(vendor, REFUND_CHARGE, refund)
                else:
                    dispute = InitiateDispute(
                        charge_id=charge_id,
                        reason=chance.choice(("calculation_error", "not_delivered")),
                        idempotency_key=room.key(),
                    )
                    room.submit(agent, INITIATE_DISPUTE, dispute)
            case 7:
                sessions.append(Metered.opened(trade, expires_in_s=chance.choice((40, 9_000))))
            case 8 if sessions:
                chance.choice(sessions).send(events(step, 1, 2, at_us=room.now_us))
                close = CloseSession(
                    session_id=chance.choice(sessions).session_id, idempotency_key=room.key()
                )
                room.submit(chance.choice((agent, vendor)), CLOSE_SESSION, close)
            case _:
                room.advance(chance.choice((1, 40, 4_000, 90_000)))
    return room


def stepper(store: Store, clock: list[int], index: Index, every: int) -> Stepper[State]:
    made = Stepper(
        store,
        MACHINE,
        signer=JOURNAL,
        origin=ORIGIN,
        now_us=lambda: clock[0],
        rows=no_rows,
        earlier_keys=(),
        limits=Limits(recent_max=3, snapshot_every=every),
        index=index,
    )
    made.open()
    return made


def given(command: Command) -> list[Command]:
    """What a step is given: what is due is done by itself."""
    due = command.by.principal_id == "platform" and command.operation != "genesis"
    return [] if due else [command]


def lived(room: Taped, store: Store, clock: list[int], keys: Path) -> Stepper[State]:
    """The engine that has done all that a life told."""
    engine = stepper(store, clock, Index(keys), every=1)
    for now_us, command, _ in room.told:
        clock[0] = now_us
        engine.step(given(command))
    return engine


def stores(path: Path) -> Sequence[tuple[Store, Path | None]]:
    return ((MemoryStore(), None), (SqliteStore(path / "journal.sqlite"), path / "keys"))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("where", [0, 1], ids=["memory", "disk"])
def test_a_stepper_that_forgets_and_restarts_writes_the_same_journal(
    seed: int, where: int, tmp_path: Path
) -> None:
    room = life(seed, 150)
    store, keys = stores(tmp_path)[where]
    chance = random.Random(seed)
    clock = [EPOCH_US]
    index = Index(keys)
    engine = stepper(store, clock, index, every=1)
    for now_us, command, decision in room.told:
        clock[0] = now_us
        if chance.random() < 0.1:
            engine.close()
            index = Index(keys)
            engine = stepper(store, clock, index, every=chance.choice((1, 40)))
        replies = engine.step(given(command))
        if not replies:
            continue
        (reply,) = replies
        match decision:
            case Record(refused=None):
                assert isinstance(reply, Outcome)
                assert reply.record == decision
            case Record():
                assert isinstance(reply, Outcome)
                assert reply.record.refused == decision.refused
            case Refusal():
                assert isinstance(reply, Refused)
                assert reply.refusal == decision
            case Seen():
                assert isinstance(reply, Outcome)
                assert reply.replayed
    assert [data for batch in store.batches() for data in batch.records] == room.journal
    engine.close()


def test_what_was_forgotten_is_told_and_proven_like_what_was_not(tmp_path: Path) -> None:
    room = life(3, 700)
    store = SqliteStore(tmp_path / "journal.sqlite")
    clock = [EPOCH_US]
    engine = lived(room, store, clock, tmp_path / "keys")
    engine.close()
    engine = stepper(store, clock, Index(tmp_path / "keys"), every=1)
    for noun, things in (("hold", room.state.holds), ("charge", room.state.charges)):
        for thing_id, thing in things.items():
            assert engine.answer(Lookup(noun=noun, id=thing_id)) == thing
            assert engine.answer(Lookup(noun="payout", id=thing_id)) is None
        assert engine.answer(Lookup(noun=noun, id="none")) is None
    for _, command, decision in room.told:
        if isinstance(decision, Record) and decision.request is not None:
            by = command.by
            found = engine.answer(
                OutcomeOf(
                    scope=by.principal_id or by.key_thumbprint,
                    operation=command.operation,
                    key=command.idempotency_key,
                )
            )
            assert found == decision.seq
    size = len(room.journal)
    assert size > 600  # more than two tiles
    for seq in (1, 2, 255, 256, 257, 400, 512, 513, size):
        proof = engine.answer(ProofOf(seq=seq))
        assert isinstance(proof, Proof)
        leaf = leaf_hash(line_of(room.journal[seq - 1]))
        root = recover(store, MACHINE).chain.tree.root()
        assert verify_inclusion(leaf, seq - 1, size, proof.path, root)
    engine.close()


def test_no_charge_stays_in_memory_for_its_window(tmp_path: Path) -> None:
    room = life(1, 80)
    store = SqliteStore(tmp_path / "journal.sqlite")
    clock = [EPOCH_US]
    engine = lived(room, store, clock, tmp_path / "keys")
    pending = {
        charge_id for charge_id, each in room.state.charges.items() if each.status == "pending"
    }
    assert len(pending) > 3
    assert pending.isdisjoint(engine._state.charges)  # noqa: SLF001
    engine.close()
    engine = stepper(store, clock, Index(tmp_path / "keys"), every=1)
    clock[0] += 400 * DAY_US
    engine.step([])
    for charge_id in pending:
        charge = engine.answer(Lookup(noun="charge", id=charge_id))
        assert isinstance(charge, Charge)
        assert charge.status == "payable"
    engine.close()


def test_a_window_that_is_over_is_in_no_snapshot_whoever_takes_it(tmp_path: Path) -> None:
    room = life(1, 120)
    store = SqliteStore(tmp_path / "journal.sqlite")
    clock = [EPOCH_US]
    engine = lived(room, store, clock, tmp_path / "keys")
    clock[0] += 400 * DAY_US
    engine.step([])

    recovered = recover(store, MACHINE, origin=ORIGIN, keys=(JOURNAL.public,))

    assert len(room.state.charges) > 9
    assert recovered.state.windows == []
    engine.close()


def test_a_packed_state_is_the_state(tmp_path: Path) -> None:
    room = life(5, 200)
    store = MemoryStore()
    engine = stepper(store, [EPOCH_US], Index(None), every=1)
    del engine, tmp_path
    for noun in (room.state.holds, room.state.charges, room.state.disputes, room.state.outcomes):
        noun.forget()
    document = pack(room.state)
    assert canonical_bytes(document)
    back = unpack(document, lambda seq: recorded(room, seq))
    assert back == room.state


def recorded(room: Taped, seq: int) -> Record:
    (record,) = (each for _, _, each in room.told if isinstance(each, Record) and each.seq == seq)
    return record


@pytest.mark.parametrize("spoil", [b"", b"x", b"{}\n\n", b"swap"])
def test_a_snapshot_that_does_not_verify_is_passed_over(spoil: bytes) -> None:
    room = life(1, 60)
    store = MemoryStore()
    clock = [EPOCH_US]
    engine = stepper(store, clock, Index(None), every=1)
    for now_us, command, _ in room.told:
        clock[0] = now_us
        engine.step(given(command))
    engine.close()
    whole = store.snapshot()
    assert whole is not None
    assert recover(store, MACHINE, origin=ORIGIN, keys=(JOURNAL.public,)).snapshot_seq > 0
    store.keep_snapshot(whole[:-9] + b"000000000" if spoil == b"swap" else spoil)
    recovered = recover(store, MACHINE, origin=ORIGIN, keys=(JOURNAL.public,))
    assert recovered.snapshot_seq == 0


@pytest.mark.parametrize("form", ["less", "other", "more"])
def test_a_snapshot_that_another_version_wrote_is_passed_over(form: str) -> None:
    room = life(1, 60)
    store = MemoryStore()
    clock = [EPOCH_US]
    engine = stepper(store, clock, Index(None), every=10**9)
    for now_us, command, _ in room.told:
        clock[0] = now_us
        engine.step(given(command))
    engine.close()
    whole = recover(store, MACHINE, origin=ORIGIN, keys=(JOURNAL.public,))
    assert MACHINE.memory is not None
    document: Any = pack(whole.state)
    if form == "less":
        del document["accounts"]
    elif form == "other":
        document["accounts"] = {"a": 7}
    else:
        next(iter(document["keys"].values()))["a_member_to_come"] = 1
    memory = replace(MACHINE.memory, pack=lambda _: document)
    store.keep_snapshot(make_snapshot(whole.state, whole.chain, memory, JOURNAL))

    recovered = recover(store, MACHINE, origin=ORIGIN, keys=(JOURNAL.public,))

    assert recovered.snapshot_seq == 0
    assert recovered.chain.head == whole.chain.head


def test_a_snapshot_of_another_key_is_passed_over() -> None:
    room = life(1, 20)
    store = MemoryStore()
    engine = stepper(store, [EPOCH_US], Index(None), every=1)
    engine.step([room.told[0][1]])
    engine.close()
    other = signing_key("somebody")
    with pytest.raises(Exception, match="signed"):
        recover(store, MACHINE, origin=ORIGIN, keys=(other.public,))


def test_a_retry_of_what_was_forgotten_is_answered_again(tmp_path: Path) -> None:
    room = life(2, 120)
    store = SqliteStore(tmp_path / "journal.sqlite")
    clock = [EPOCH_US]
    engine = stepper(store, clock, Index(tmp_path / "keys"), every=10**9)
    seen: list[tuple[Command, Record]] = []
    for now_us, command, decision in room.told:
        clock[0] = now_us
        engine.step(given(command))
        if isinstance(decision, Record) and decision.request is not None:
            seen.append((command, decision))
    clock[0] += 1
    for command, decision in seen[::7]:
        fresh = proven_again(command, clock[0])
        (reply,) = engine.step([fresh])
        if isinstance(reply, Refused):
            assert reply.code is Code.KEY_REVOKED
        else:
            assert (reply.replayed, reply.record) == (True, decision)
    engine.close()


def proven_again(command: Command, now_us: int) -> Command:
    by = replace(
        command.by,
        proof_jti=f"again-{command.by.proof_jti}",
        proof_expires_at_us=now_us + SECOND_US,
    )
    return structs.replace(command, by=by)


def test_an_older_file_in_its_place_is_not_judged_by_a_newer_index(tmp_path: Path) -> None:
    room = life(4, 60)
    path, keys = tmp_path / "journal.sqlite", tmp_path / "keys"
    clock = [EPOCH_US]
    engine = stepper(SqliteStore(path), clock, Index(keys, recent_max=1), every=1)
    older = b""
    for number, (now_us, command, _) in enumerate(room.told):
        clock[0] = now_us
        if number == len(room.told) // 2:
            engine.close()
            older = path.read_bytes()
            engine = stepper(SqliteStore(path), clock, Index(keys, recent_max=1), every=1)
        engine.step(given(command))
    engine.close()
    path.write_bytes(older)
    clock[0] = EPOCH_US
    engine = stepper(SqliteStore(path), clock, Index(keys, recent_max=1), every=1)
    for now_us, command, _ in room.told[len(room.told) // 2 :]:
        clock[0] = now_us
        engine.step(given(command))
    engine.close()
    stored = [data for batch in SqliteStore(path).batches() for data in batch.records]
    assert stored == room.journal


def test_a_file_that_went_another_way_is_not_judged_by_the_index_of_this_one(
    tmp_path: Path,
) -> None:
    lives = [life(4, 60), life(5, 200)]
    folders, keys = [tmp_path / "one", tmp_path / "other"], tmp_path / "keys"
    clock = [EPOCH_US]
    for room, folder in zip(lives, folders, strict=True):
        folder.mkdir()
        store = SqliteStore(folder / "journal.sqlite")
        engine = stepper(store, clock, Index(folder / "keys", recent_max=1), every=10**9)
        for now_us, command, _ in room.told:
            clock[0] = now_us
            engine.step(given(command))
        engine.close()
    # Put aside by hand, and put back: of the index nobody has thought.
    shutil.copytree(folders[0] / "keys", keys)
    clock[0] += SECOND_US

    store = SqliteStore(folders[1] / "journal.sqlite")
    engine = stepper(store, clock, Index(keys, recent_max=1), every=10**9)

    for _, command, decision in lives[1].told:
        if isinstance(decision, Record) and decision.request is not None:
            (reply,) = engine.step([proven_again(command, clock[0])])
            assert isinstance(reply, Refused) or reply.seq == decision.seq
    engine.close()
