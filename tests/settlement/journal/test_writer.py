import asyncio
import logging
from asyncio import Task, create_task, gather, to_thread
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from farthing.protocol.errors import Code, Refused
from farthing.settlement.engine.commands import Command, Committed, Outcome
from farthing.settlement.engine.questions import RecordAt, StandingOf, TreeHeadNow
from farthing.settlement.journal.store import CommitUnknown, DatabaseInUse, Unreadable
from farthing.settlement.journal.writer import Limits, Writer
from farthing.settlement.port import Engine
from tests.settlement.journal import bank
from tests.settlement.journal.bank import START_US, Bank, Clock, fund, hold
from tests.settlement.journal.storage import Faulty, Gated, Storage


@asynccontextmanager
async def running(writer: Writer[Bank]) -> AsyncIterator[Writer[Bank]]:
    writer.start()
    try:
        yield writer
    finally:
        await writer.close()


async def queued(*work: Any) -> list[Task[Any]]:
    """Tasks that have had their turn to queue what they ask."""
    tasks = [create_task(each) for each in work]
    await asyncio.sleep(0)
    return tasks


async def submitted_behind(
    gated: Gated, writer: Writer[Bank], *commands: Command
) -> tuple[Task[Outcome], list[Task[Outcome]]]:
    """A first command that is being committed, and others that wait behind it."""
    first, *_ = await queued(writer.submit(fund(1_000)))
    await to_thread(gated.entered.wait)
    return first, await queued(*(writer.submit(command) for command in commands))


async def code_of(task: Task[Outcome]) -> Code:
    with pytest.raises(Refused) as refused:
        await task
    return refused.value.code


async def first_of(committed: AsyncIterator[Committed], count: int) -> list[bytes]:
    found = []
    async for each in committed:
        found.append(each.data)
        if len(found) == count:
            break
    return found


async def test_the_writer_is_an_engine(storage: Storage) -> None:
    async with running(bank.writer(storage.open())) as writer:
        engine: Engine = writer

        outcome = await engine.submit(fund(10))
        standing = await engine.ask(StandingOf(principal_id=bank.BUYER))
        followed = [each async for each in _until(engine.follow(0), 1)]

    assert outcome.record == followed[0].record
    assert standing.available_units == {"XTS": 10}


async def _until(committed: AsyncIterator[Committed], seq: int) -> AsyncIterator[Committed]:
    async for each in committed:
        yield each
        if each.record.seq == seq:
            return


async def test_callers_that_come_during_a_commit_share_the_next(storage: Storage) -> None:
    gated = Gated(storage.open())
    async with running(bank.writer(gated)) as writer:
        first, others = await submitted_behind(
            gated, writer, *(hold(1, f"key{number}") for number in range(99))
        )
        gated.gate.set()
        outcomes = await gather(first, *others)

    assert [outcome.seq for outcome in outcomes] == list(range(1, 101))
    assert [len(batch.records) for batch in gated.batches()] == [1, 99]


async def test_a_batch_is_bounded(storage: Storage) -> None:
    gated = Gated(storage.open())
    async with running(bank.writer(gated, limits=Limits(batch_max=10))) as writer:
        first, others = await submitted_behind(
            gated, writer, *(hold(1, f"key{number}") for number in range(25))
        )
        gated.gate.set()
        outcomes = await gather(first, *others)

    assert [outcome.seq for outcome in outcomes] == list(range(1, 27))
    assert [len(batch.records) for batch in gated.batches()] == [1, 10, 10, 5]


async def test_what_does_not_fit_into_a_large_batch_keeps_its_place(storage: Storage) -> None:
    gated = Gated(storage.open())
    async with running(bank.writer(gated, limits=Limits(batch_bytes_max=1))) as writer:
        first, others = await submitted_behind(
            gated, writer, *(hold(1, f"key{number}") for number in range(5))
        )
        gated.gate.set()
        outcomes = await gather(first, *others)

    assert [outcome.seq for outcome in outcomes] == list(range(1, 7))


async def test_nothing_is_told_before_it_is_durable(storage: Storage) -> None:
    gated = Gated(storage.open())
    async with running(bank.writer(gated)) as writer:
        first, (refusal, replay, question) = await submitted_behind(
            gated, writer, hold(0, "a"), fund(1_000), hold(1, "b")
        )
        follower = create_task(first_of(writer.follow(0), 1))
        await asyncio.sleep(0)

        assert not any(task.done() for task in (first, refusal, replay, question, follower))
        assert list(gated.batches()) == []

        gated.gate.set()
        assert (await first).seq == 1
        assert await code_of(refusal) is Code.STALE
        assert (await replay).replayed
        assert await follower == list(next(gated.batches()).records)


async def test_a_question_is_answered_from_what_is_durable(storage: Storage) -> None:
    gated = Gated(storage.open())
    gated.faults = [None, ("before", CommitUnknown("input/output error"))]
    async with running(bank.writer(gated)) as writer:
        first, (spent,) = await submitted_behind(gated, writer, hold(400, "a"))
        (asked,) = await queued(writer.ask(StandingOf(principal_id=bank.BUYER)))
        gated.gate.set()
        await first

        assert (await asked).available_units == {"XTS": 1_000}
        assert await code_of(spent) is Code.UNAVAILABLE
        standing = await writer.ask(StandingOf(principal_id=bank.BUYER))
        assert standing.available_units == {"XTS": 1_000}


async def test_one_wake_up_of_the_loop_serves_a_whole_batch(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    gated = Gated(storage.open())
    async with running(bank.writer(gated)) as writer:
        follower = create_task(first_of(writer.follow(0), 51))
        first, others = await submitted_behind(
            gated, writer, *(hold(1, f"key{number}") for number in range(50))
        )
        loop = asyncio.get_running_loop()
        wake_ups = []
        call_soon_threadsafe = loop.call_soon_threadsafe

        def counted(callback: Callable[..., object], *args: Any) -> object:
            if "settle" in callback.__name__:
                wake_ups.append(callback)
            return call_soon_threadsafe(callback, *args)

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        gated.gate.set()
        await gather(first, *others)
        await follower

    assert len(wake_ups) == 2


async def test_a_caller_who_left_does_not_disturb_the_others(storage: Storage) -> None:
    gated = Gated(storage.open())
    async with running(bank.writer(gated)) as writer:
        first, (left, stayed) = await submitted_behind(gated, writer, hold(1, "a"), hold(2, "b"))
        left.cancel()
        gated.gate.set()

        assert (await stayed).seq == 3
        assert (await writer.submit(hold(1, "a"))).replayed
        await first


async def test_a_full_queue_refuses_at_once(storage: Storage) -> None:
    gated = Gated(storage.open())
    async with running(bank.writer(gated, limits=Limits(queue_max=2))) as writer:
        first, others = await submitted_behind(
            gated, writer, *(hold(1, f"key{number}") for number in range(3))
        )
        questions = await queued(*(writer.ask(TreeHeadNow()) for _ in range(3)))

        assert await code_of(others[2]) is Code.OVERLOADED
        assert await code_of(questions[2]) is Code.OVERLOADED
        with pytest.raises(Refused) as refused:
            await writer.submit(hold(1, "late"))
        assert refused.value.refusal.retry_after_s == 1

        gated.gate.set()
        await gather(first, *others[:2], *questions[:2])
        assert (await writer.submit(hold(1, "key2"))).seq == 4


async def test_a_second_engine_on_the_same_storage_is_refused(storage: Storage) -> None:
    async with running(bank.writer(storage.open())) as writer:
        with pytest.raises(DatabaseInUse):
            bank.writer(storage.open()).start()

        assert (await writer.submit(fund(10))).seq == 1

    async with running(bank.writer(storage.open())) as successor:
        assert (await successor.submit(fund(10))).replayed


async def test_closing_does_what_is_queued_and_takes_no_more(storage: Storage) -> None:
    gated = Gated(storage.open())
    writer = bank.writer(gated)
    writer.start()
    first, others = await submitted_behind(gated, writer, hold(1, "a"), hold(2, "b"))
    (closing,) = await queued(writer.close())

    with pytest.raises(Refused) as refused:
        await writer.submit(hold(3, "c"))
    gated.gate.set()
    await closing

    assert refused.value.code is Code.UNAVAILABLE
    assert not writer.healthy
    assert [(await task).seq for task in (first, *others)] == [1, 2, 3]
    await writer.close()


async def test_a_broken_invariant_stops_the_writer(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    gated = Gated(storage.open())
    writer = bank.writer(gated)
    writer.start()
    first, others = await submitted_behind(
        gated, writer, hold(1, "a"), hold(1, "b", poison="broken"), hold(1, "c")
    )
    follower = create_task(first_of(writer.follow(1), 1))
    gated.gate.set()

    assert (await first).seq == 1
    assert [await code_of(task) for task in others] == [Code.UNAVAILABLE] * 3
    with pytest.raises(Refused):
        await follower
    with pytest.raises(Refused):
        await writer.ask(TreeHeadNow())
    assert not writer.healthy
    loud = [entry.levelname for entry in caplog.records if entry.levelno >= logging.WARNING]
    assert loud == ["CRITICAL"]

    await writer.close()
    async with running(bank.writer(storage.open())) as successor:
        assert (await successor.submit(hold(1, "c"))).seq == 2


async def test_storage_that_is_gone_stops_the_writer(storage: Storage) -> None:
    faulty = Faulty(storage.open())
    faulty.faults = [("after", CommitUnknown("input/output error"))]
    faulty.unreadable = Unreadable("gone")
    async with running(bank.writer(faulty)) as writer:
        (task,) = await queued(writer.submit(fund(10)))

        assert await code_of(task) is Code.UNAVAILABLE
        assert not writer.healthy


async def test_followers_get_everything_from_storage_and_then_live(storage: Storage) -> None:
    async with running(
        bank.writer(storage.open(), limits=Limits(recent_max=3, page_max=2))
    ) as writer:
        await gather(*(writer.submit(fund(1, f"key{number}")) for number in range(9)))
        behind = create_task(first_of(writer.follow(0), 12))
        ahead = create_task(first_of(writer.follow(9), 3))
        for number in range(3):
            await writer.submit(hold(1, f"key{number}"))

        records = [await writer.ask(RecordAt(seq=seq)) for seq in range(1, 13)]
        assert await behind == records
        assert await ahead == records[9:]


async def test_following_ends_when_the_writer_is_closed(storage: Storage) -> None:
    writer = bank.writer(storage.open())
    writer.start()
    (follower,) = await queued(first_of(writer.follow(0), 9))
    await writer.submit(fund(10))
    await writer.close()

    assert len(await follower) == 1


async def test_a_follower_may_leave(storage: Storage) -> None:
    async with running(bank.writer(storage.open())) as writer:
        await writer.submit(fund(10))
        async with aclosing(writer.follow(0)) as committed:
            async for each in committed:
                assert each.record.seq == 1
                break

        assert (await writer.submit(hold(1, "a"))).seq == 2


async def test_a_hold_expires_with_nobody_calling(storage: Storage) -> None:
    async with running(bank.writer(storage.open(), now_us=Clock(tick_us=500))) as writer:
        await writer.submit(fund(10))
        await writer.submit(hold(10, "a", expires_at_us=START_US + 5_000))

        followed = [each async for each in _until(writer.follow(0), 3)]

    assert followed[2].record.operation == "expire_hold"
    assert followed[2].record.at_us >= START_US + 5_000
