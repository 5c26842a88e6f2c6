from dataclasses import replace

import pytest
from sqlalchemy import Column, MetaData, Table, Text

from farthing.protocol.checkpoints import verify_checkpoint
from farthing.protocol.errors import Broken, Code, Refused, Unverified
from farthing.protocol.merkle import leaf_hash, verify_inclusion
from farthing.protocol.records import Record
from farthing.settlement.engine.commands import Committed, Kept, Outcome
from farthing.settlement.engine.questions import (
    AllAccounts,
    FiguresNow,
    ProofOf,
    RecordAt,
    StandingOf,
    TreeHeadNow,
)
from farthing.settlement.journal.memory import MemoryStore
from farthing.settlement.journal.recent import Recent
from farthing.settlement.journal.stepper import Limits, Stepper
from farthing.settlement.journal.store import CommitRefused, CommitUnknown, Unreadable
from tests.settlement.journal import bank
from tests.settlement.journal.bank import (
    ORIGIN,
    SIGNER,
    START_US,
    STRANGER,
    Ask,
    Bank,
    Clock,
    command,
    fund,
    hold,
)
from tests.settlement.journal.storage import Faulty, Storage


@pytest.fixture
def store(storage: Storage) -> Faulty:
    return Faulty(storage.open())


@pytest.fixture
def opened(store: Faulty) -> Stepper[Bank]:
    stepper = bank.stepper(store)
    stepper.open()
    return stepper


def balance_of(stepper: Stepper[Bank]) -> int:
    standing = stepper.answer(StandingOf(principal_id=bank.BUYER))
    return standing.available_units["XTS"]  # type: ignore[attr-defined,no-any-return]


def codes(replies: list[Outcome | Refused]) -> list[Code | None]:
    return [reply.code if isinstance(reply, Refused) else reply.record.code for reply in replies]


def seqs(replies: list[Outcome | Refused]) -> list[int]:
    return [0 if isinstance(reply, Refused) else reply.seq for reply in replies]


def records_of(store: Faulty) -> list[bytes]:
    return [data for batch in store.batches() for data in batch.records]


def test_commands_are_done_in_order_in_one_batch(opened: Stepper[Bank], store: Faulty) -> None:
    replies = opened.step([fund(10), hold(4, "a"), hold(6, "b"), hold(1, "c")])

    assert seqs(replies) == [1, 2, 3, 4]
    assert codes(replies) == [None, None, None, Code.INSUFFICIENT_FUNDS]
    assert [len(batch.records) for batch in store.batches()] == [4]


def test_a_used_key_gives_the_same_record_again(opened: Stepper[Bank], store: Faulty) -> None:
    replies = opened.step([fund(10), hold(4, "a"), hold(4, "a")])
    replies += opened.step([hold(4, "a")])

    outcomes = [reply for reply in replies if isinstance(reply, Outcome)]
    assert [outcome.replayed for outcome in outcomes] == [False, False, True, True]
    assert [outcome.record for outcome in outcomes[1:]] == [outcomes[1].record] * 3
    assert balance_of(opened) == 6
    assert len(records_of(store)) == 2


def test_a_final_refusal_is_remembered_too(opened: Stepper[Bank]) -> None:
    refused = opened.step([hold(4, "a")])
    again = opened.step([fund(10), hold(4, "a")])

    assert codes(refused) == [Code.INSUFFICIENT_FUNDS]
    assert codes(again) == [None, Code.INSUFFICIENT_FUNDS]
    assert balance_of(opened) == 10


def test_a_used_key_with_another_request_names_the_argument(opened: Stepper[Bank]) -> None:
    (_, refused) = opened.step([fund(10), fund(11)])

    assert isinstance(refused, Refused)
    assert (refused.code, refused.refusal.path) == (Code.IDEMPOTENCY_CONFLICT, "units")


def test_a_replay_from_long_ago_is_read_from_storage(storage: Storage) -> None:
    stepper = bank.stepper(storage.open(), limits=Limits(recent_max=1))
    stepper.open()
    (first,) = stepper.step([fund(10)])
    stepper.step([hold(1, f"key{number}") for number in range(5)])

    (again,) = stepper.step([fund(10)])

    assert isinstance(first, Outcome)
    assert isinstance(again, Outcome)
    assert (again.record, again.replayed) == (first.record, True)


def test_a_refusal_that_is_not_remembered_leaves_nothing(
    opened: Stepper[Bank], store: Faulty
) -> None:
    opened.step([fund(10)])
    head = opened.answer(TreeHeadNow())

    replies = opened.step([hold(0, "a")])

    assert codes(replies) == [Code.STALE]
    assert len(records_of(store)) == 1
    assert opened.answer(TreeHeadNow()) == head


@pytest.mark.parametrize("poison", ["decide", "bytes"])
def test_a_defect_hurts_only_the_command_that_meets_it(
    opened: Stepper[Bank], poison: str, caplog: pytest.LogCaptureFixture
) -> None:
    replies = opened.step([fund(10), hold(1, "a", poison=poison), hold(2, "b")])

    assert codes(replies) == [None, Code.INTERNAL_ERROR, None]
    assert seqs(replies) == [1, 0, 2]
    assert balance_of(opened) == 8
    assert [entry.levelname for entry in caplog.records] == ["ERROR"]


def test_a_row_that_fits_no_table_hurts_only_its_command(storage: Storage) -> None:
    table = Table("seen", MetaData(), Column("seq", Text, primary_key=True))

    def rows(record: Record) -> list[tuple[Table, dict[str, str]]]:
        column = "wrong" if record.asked == {"units": "2"} else "seq"
        return [(table, {column: str(record.seq)})]

    stepper = bank.stepper(storage.open([table]), rows=rows)
    stepper.open()

    replies = stepper.step([fund(10), hold(2, "a"), hold(3, "b")])

    assert codes(replies) == [None, Code.INTERNAL_ERROR, None]


def test_a_kept_row_of_an_unknown_table_hurts_only_its_command(opened: Stepper[Bank]) -> None:
    kept = (Kept(table="journal_batch", row={"first_seq": 1}),)

    replies = opened.step([fund(10), command("place_hold", "a", Ask(units=1), kept=kept)])

    assert codes(replies) == [None, Code.INTERNAL_ERROR]


@pytest.mark.parametrize("poison", ["broken", "evolve"])
def test_a_broken_invariant_ends_it(opened: Stepper[Bank], store: Faulty, poison: str) -> None:
    with pytest.raises(Broken):
        opened.step([fund(10), hold(1, "a", poison=poison)])

    assert records_of(store) == []


@pytest.mark.parametrize(
    "fault",
    [("before", CommitRefused("full")), ("before", CommitUnknown("input/output error"))],
    ids=["refused", "unknown and not written"],
)
def test_a_batch_that_was_not_written_never_happened(
    opened: Stepper[Bank], store: Faulty, fault: tuple[str, Exception]
) -> None:
    opened.step([fund(10)])
    store.faults = [fault]

    failed = opened.step([hold(4, "a"), hold(0, "stale"), hold(7, "b")])
    assert codes(failed) == [Code.UNAVAILABLE] * 3
    assert balance_of(opened) == 10

    while codes(retried := opened.step([hold(7, "b"), hold(4, "a")])) == [Code.UNAVAILABLE] * 2:
        pass  # the clock ticks on to the end of the pause
    assert codes(retried) == [None, Code.INSUFFICIENT_FUNDS]
    assert seqs(retried) == [2, 3]
    assert balance_of(opened) == 3


@pytest.mark.parametrize("set_by_us", [-86_400_000_000, 86_400_000_000])
def test_a_clock_that_is_set_after_a_failed_commit_stops_nothing_for_long(
    store: Faulty, set_by_us: int
) -> None:
    clock = Clock(tick_us=50_000)
    stepper = bank.stepper(store, now_us=clock)
    stepper.open()
    store.faults = [("before", CommitRefused("full"))]
    if set_by_us > 0:
        # Within the commit: what it took is measured by this clock.
        clock.tick_us = set_by_us
    stepper.step([fund(10)])
    clock.tick_us = 50_000
    clock.now_us += 60_000_000 if set_by_us > 0 else set_by_us

    assert codes(stepper.step([fund(10)])) == [None]


def test_after_a_failed_commit_it_pauses_as_long_as_the_rebuilding_took(store: Faulty) -> None:
    clock = Clock(tick_us=50_000)
    stepper = bank.stepper(store, now_us=clock)
    stepper.open()
    store.faults = [("before", CommitRefused("full"))]
    stepper.step([fund(10)])
    clock.tick_us = 10_000

    assert [codes(stepper.step([fund(10)])) for _ in range(5)] == [
        [Code.UNAVAILABLE],
        [Code.UNAVAILABLE],
        [Code.UNAVAILABLE],
        [Code.UNAVAILABLE],
        [None],
    ]


def test_an_unknown_commit_that_was_written_is_acknowledged(
    opened: Stepper[Bank], store: Faulty
) -> None:
    store.faults = [("after", CommitUnknown("input/output error"))]

    replies = opened.step([fund(10), hold(4, "a")])

    assert seqs(replies) == [1, 2]
    assert balance_of(opened) == 6
    assert seqs(opened.step([hold(4, "a"), hold(1, "b")])) == [2, 3]


def test_storage_that_cannot_be_read_any_more_ends_it(opened: Stepper[Bank], store: Faulty) -> None:
    store.faults = [("after", CommitUnknown("input/output error"))]
    store.unreadable = Unreadable("gone")

    with pytest.raises(Unreadable):
        opened.step([fund(10)])


def test_a_batch_ends_when_it_is_large(storage: Storage) -> None:
    stepper = bank.stepper(storage.open(), limits=Limits(batch_bytes_max=1))
    stepper.open()

    replies = stepper.step([fund(10), hold(1, "a")])

    assert seqs(replies) == [1]


def test_what_is_due_is_done_first_and_with_nobody_asking(
    opened: Stepper[Bank], store: Faulty
) -> None:
    opened.step([fund(10), hold(10, "a", expires_at_us=START_US + 20_000)])
    waits_us = [opened.due_in_us() or 0 for _ in range(20)]

    replies = opened.step([hold(10, "b")])

    assert waits_us == sorted(waits_us, reverse=True)
    assert 0 < waits_us[-1] < waits_us[0] < 20_000
    assert seqs(replies) == [4]
    assert codes(replies) == [None]
    assert b"expire_hold" in records_of(store)[2]
    assert opened.due_in_us() is None


def test_nobody_is_judged_while_what_is_due_cannot_be_read(
    opened: Stepper[Bank], store: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise Unreadable("gone")

    opened.step([fund(10), hold(10, "a", expires_at_us=START_US + 1)])
    with monkeypatch.context() as patched:
        patched.setattr(opened, "_machine", replace(opened._machine, due=gone))  # noqa: SLF001
        away = opened.step([hold(10, "b"), fund(1, "more")])
    stored = len(records_of(store))
    replies = opened.step([hold(10, "b")])

    assert codes(away) == [Code.UNAVAILABLE] * 2
    assert stored == 2
    assert codes(replies) == [None]
    assert b"expire_hold" in records_of(store)[2]


def test_nobody_is_judged_while_more_is_due_than_a_batch_takes(store: Faulty) -> None:
    clock = Clock()
    opened = bank.stepper(store, limits=Limits(batch_max=2), now_us=clock)
    opened.open()
    opened.step([fund(3)])
    for key in "abc":
        opened.step([hold(1, key, expires_at_us=START_US + 90_000)])
    clock.now_us = START_US + 90_000

    replies = [opened.step([hold(3, "d")]), opened.step([hold(3, "d")])]

    assert [codes(each) for each in replies] == [[], [None]]
    assert [b"expire_hold" in data for data in records_of(store)[4:]] == [True] * 3 + [False]


def test_the_standing_after_the_batch_comes_with_money_moving_outcomes_only(
    opened: Stepper[Bank],
) -> None:
    replies = opened.step([fund(10), hold(4, "a"), command("freeze", "f", Ask(units=1))])

    standings = [reply.standing for reply in replies if isinstance(reply, Outcome)]
    assert [standing and standing.as_of_seq for standing in standings] == [3, 3, None]
    assert [standing and standing.available_units["XTS"] for standing in standings[:2]] == [5, 5]


def test_every_record_is_proven_under_the_signed_head(opened: Stepper[Bank]) -> None:
    for units in range(1, 8):
        opened.step([fund(units, f"key{units}"), fund(units, f"other{units}")])

    note = opened.answer(TreeHeadNow())
    assert isinstance(note, str)
    head = verify_checkpoint(note, ORIGIN, SIGNER.public)
    assert head.size == 14
    for seq in range(1, 15):
        proof = opened.answer(ProofOf(seq=seq))
        assert proof is not None
        assert (proof.tree_size, proof.note) == (14, note)  # type: ignore[attr-defined]
        leaf = leaf_hash(proof.record)  # type: ignore[attr-defined]
        assert verify_inclusion(leaf, seq - 1, 14, list(proof.path), head.root)  # type: ignore[attr-defined]


@pytest.mark.parametrize("seq", [-1, 0, 2, 2**80])
def test_there_is_no_record_and_no_proof_where_the_journal_has_none(
    opened: Stepper[Bank], seq: int
) -> None:
    opened.step([fund(10)])

    assert opened.answer(RecordAt(seq=seq)) is None
    assert opened.answer(ProofOf(seq=seq)) is None


def test_an_empty_journal_has_a_signed_head(opened: Stepper[Bank]) -> None:
    note = opened.answer(TreeHeadNow())

    assert isinstance(note, str)
    assert verify_checkpoint(note, ORIGIN, SIGNER.public).size == 0


def test_a_question_that_cannot_be_answered_is_refused(opened: Stepper[Bank]) -> None:
    reply = opened.answer(FiguresNow())

    assert isinstance(reply, Refused)
    assert reply.code is Code.INTERNAL_ERROR


def test_all_stores_hold_the_same_journal(storage: Storage) -> None:
    pages = []
    for store in (MemoryStore(), storage.open()):
        stepper = bank.stepper(store)
        stepper.open()
        stepper.step([fund(10)])
        stepper.step([hold(4, "a"), hold(9, "b")])
        pages.append(list(store.batches()))

    assert [batch.records for batch in pages[0]] == [batch.records for batch in pages[1]]
    assert pages[0] == pages[1]


def test_accounts_in_an_answer_do_not_move_later(opened: Stepper[Bank]) -> None:
    opened.step([fund(10)])
    accounts = opened.answer(AllAccounts())
    opened.step([fund(5, "more")])

    assert accounts[bank.PREPAID].posted_units == 10  # type: ignore[index]


def test_the_signing_key_can_change_when_the_earlier_one_is_known(storage: Storage) -> None:
    first = bank.stepper(storage.open())
    first.open()
    first.step([fund(10)])
    first.close()

    with pytest.raises(Unverified):
        bank.stepper(storage.open(), signer=STRANGER).open()

    second = bank.stepper(storage.open(), signer=STRANGER, earlier_keys=[SIGNER.public])
    second.open()
    second.step([hold(1, "a")])
    note = second.answer(TreeHeadNow())
    assert isinstance(note, str)
    assert verify_checkpoint(note, ORIGIN, STRANGER.public).size == 2


def test_a_start_that_fails_gives_the_storage_free(storage: Storage) -> None:
    stepper = bank.stepper(storage.open())
    stepper.open()
    stepper.step([fund(10)])
    stepper.close()
    stranger = bank.stepper(storage.open(), signer=STRANGER)

    with pytest.raises(Unverified):
        stranger.open()

    bank.stepper(storage.open()).open()


def test_of_the_newest_records_as_many_are_kept_as_fit_both_bounds() -> None:
    recent = Recent(0, kept_max=3, bytes_max=10)

    def kept(*sizes: int) -> list[int]:
        first_seq = recent.last_seq + 1
        added = [Committed(seq=seq, data=bytes(n)) for seq, n in enumerate(sizes, first_seq)]
        recent.extend(added)
        return [seq for seq in range(recent.last_seq + 1) if recent.at(seq) is not None]

    assert kept(5, 5) == [1, 2]
    assert kept(1) == [2, 3]
    assert recent.after(0, 9) is None
    assert kept(1, 1) == [3, 4, 5]
    assert kept(11) == []
    assert recent.after(5, 9) is None
    assert recent.after(6, 9) == []
    assert kept(10) == [7]


def test_a_page_from_storage_ends_at_the_size_of_a_batch(storage: Storage) -> None:
    stepper = bank.stepper(storage.open(), limits=Limits(batch_bytes_max=1_000))
    stepper.open()
    stepper.step([fund(10)])
    for number in range(4):
        stepper.step([hold(1, f"key{number}")])
    pages: list[list[Committed]] = []
    while page := stepper.stored_page(sum(map(len, pages))):
        pages.append(page)

    assert [each.seq for page in pages for each in page] == [1, 2, 3, 4, 5]
    assert len(pages) > 1
    assert all(sum(len(each.data) for each in page[:-1]) < 1_000 for page in pages)
