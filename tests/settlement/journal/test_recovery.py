from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.protocol.chain import BadRecord
from farthing.protocol.errors import Broken, Refused, Unverified
from farthing.settlement.engine.commands import Command
from farthing.settlement.engine.questions import AllAccounts, TreeHeadNow
from farthing.settlement.journal.memory import MemoryStore
from farthing.settlement.journal.recovery import recover
from farthing.settlement.journal.sealing import sign_head
from farthing.settlement.journal.store import Batch, CommitRefused, CommitUnknown
from tests.settlement.journal import bank
from tests.settlement.journal.bank import BANK, ORIGIN, SIGNER, START_US, STRANGER, fund, hold
from tests.settlement.journal.storage import Faulty, Storage

BATCHES = [
    [fund(100)],
    [hold(1, "a"), hold(2, "b", expires_at_us=START_US + 1), hold(3, "c")],
    [hold(500, "d"), fund(7, "more")],
]


@pytest.fixture
def written(storage: Storage) -> Storage:
    store = storage.open()
    stepper = bank.stepper(store)
    stepper.open()
    for commands in BATCHES:
        stepper.step(commands)
    stepper.close()
    return storage


def test_the_journal_alone_gives_state_tree_and_head(storage: Storage) -> None:
    stepper = bank.stepper(storage.open())
    stepper.open()
    for commands in BATCHES:
        stepper.step(commands)

    recovered = recover(storage.open(), BANK, origin=ORIGIN, keys=[SIGNER.public])

    assert recovered.state.seq == 7
    assert recovered.state.accounts == stepper.answer(AllAccounts())
    assert sign_head(recovered.chain, SIGNER, ORIGIN) == stepper.answer(TreeHeadNow())
    assert recovered.chain.seq == 7


def test_an_empty_journal_gives_a_new_state(storage: Storage) -> None:
    stepper = bank.stepper(storage.open())
    stepper.open()

    recovered = recover(storage.open(), BANK, origin=ORIGIN, keys=[SIGNER.public])

    assert (recovered.state, recovered.chain.seq) == (bank.Bank(), 0)


def test_it_goes_on_where_it_ended(written: Storage) -> None:
    stepper = bank.stepper(written.open())
    stepper.open()

    (outcome,) = stepper.step([hold(1, "later")])

    assert not isinstance(outcome, Refused)
    assert outcome.seq == 8
    assert recover(written.open(), BANK).chain.seq == 8


@pytest.mark.parametrize("seq", range(1, 8))
@pytest.mark.parametrize("place", ["units", "prev", "seq", "shape"])
def test_a_changed_byte_is_found_and_its_record_named(
    written: Storage, seq: int, place: str
) -> None:
    def change(data: bytes) -> bytes:
        match place:
            case "units":
                return data.replace(b'"units":"', b'"units":"9', 1)
            case "prev":
                at = data.index(b'"prev":"') + 8
                return data[:at] + (b"1" if data[at:][:1] == b"0" else b"0") + data[at + 1 :]
            case "seq":
                return data.replace(b'"seq":', b'"seq":9')
            case _:
                return data[:-1]

    def spoil(batch: Batch) -> Batch:
        records = [
            change(data) if batch.first_seq + index == seq else data
            for index, data in enumerate(batch.records)
        ]
        return replace(batch, records=tuple(records))

    written.spoil(spoil)

    with pytest.raises(BadRecord) as bad:
        recover(written.open(), BANK)
    # Without a successor to vouch for it, the last link accuses the earlier of the two.
    assert bad.value.seq == (6 if (seq, place) == (7, "prev") else seq)


def test_a_root_that_is_not_the_trees_is_found(written: Storage) -> None:
    written.spoil(lambda batch: replace(batch, root_sha256="0" * 64))

    with pytest.raises(Unverified):
        recover(written.open(), BANK)


def test_a_head_signed_by_nobody_known_is_found(written: Storage) -> None:
    recover(written.open(), BANK, origin=ORIGIN, keys=[STRANGER.public, SIGNER.public])

    with pytest.raises(Unverified):
        recover(written.open(), BANK, origin=ORIGIN, keys=[STRANGER.public])
    with pytest.raises(Unverified):
        recover(written.open(), BANK, origin="another.example", keys=[SIGNER.public])


def test_the_last_head_must_be_the_last(written: Storage) -> None:
    notes = [batch.note for batch in written.open().batches()]
    written.spoil(lambda batch: replace(batch, note=notes[0]))

    with pytest.raises(Unverified):
        recover(written.open(), BANK, origin=ORIGIN, keys=[SIGNER.public])


def test_a_record_that_cannot_be_applied_is_an_end(written: Storage) -> None:
    def refuse(state: bank.Bank, record: object) -> None:
        raise Broken(f"{state.seq} {record}")

    with pytest.raises(Broken):
        recover(written.open(), replace(BANK, evolve=refuse))


FAULTS = [
    None,
    ("before", CommitRefused("full")),
    ("before", CommitUnknown("input/output error")),
    ("after", CommitUnknown("input/output error")),
]
COMMANDS = st.one_of(
    st.builds(fund, st.integers(0, 20), st.sampled_from("abcdef")),
    st.builds(hold, st.integers(0, 9), st.sampled_from("abcdef")),
)


@given(steps=st.lists(st.tuples(st.lists(COMMANDS, max_size=6), st.sampled_from(FAULTS))))
def test_what_was_told_is_there_and_nothing_else_is(
    steps: list[tuple[list[Command], tuple[str, Exception] | None]],
) -> None:
    store = Faulty(MemoryStore())
    stepper = bank.stepper(store)
    stepper.open()
    told: dict[int, str] = {}
    for commands, fault in steps:
        store.faults = [fault]
        for command, reply in zip(commands, stepper.step(commands), strict=True):
            if not isinstance(reply, Refused):
                told.setdefault(reply.seq, f"{command.operation} {command.idempotency_key}")
    accounts = stepper.answer(AllAccounts())
    stepper.close()

    recovered = recover(store, BANK, origin=ORIGIN, keys=[SIGNER.public])

    assert sorted(told) == list(range(1, recovered.state.seq + 1))
    assert recovered.state.accounts == accounts
    kept = {
        seq: f"{operation} {key}" for (_, operation, key), seq in recovered.state.outcomes.items()
    }
    assert kept == told
