"""The engine behind its socket: as the port promises, whoever is at the other end."""

import asyncio
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any

import pytest
from msgspec.structs import replace

from farthing.protocol.errors import Broken, Code, Refused, refuse
from farthing.protocol.records import parse_record
from farthing.settlement.engine.commands import Committed, Outcome
from farthing.settlement.engine.questions import AllAccounts, Lookup, RecordAt, StandingOf
from farthing.settlement.journal import service
from farthing.settlement.journal.frames import (
    FRAME_BYTES_MAX,
    PROTOCOL,
    Done,
    Hello,
    Refuse,
    ask_of,
    asks_in,
    bytes_of,
    frames,
    replies_in,
    submit_of,
)
from farthing.settlement.journal.remote import RemoteEngine
from farthing.settlement.journal.stepper import Limits
from farthing.settlement.port import Engine
from tests.patience import PATIENCE_S, patiently, until
from tests.settlement.journal.served import Raw, Served, connected, raw, served


async def code_of(call: Any) -> Code:
    with pytest.raises(Refused) as refused:
        await call
    return refused.value.code


async def first_of(engine: Engine, after_seq: int, count: int) -> list[Committed]:
    found: list[Committed] = []
    async with aclosing(engine.follow(after_seq)) as followed:  # type: ignore[type-var]
        async for committed in followed:
            found.append(committed)
            if len(found) == count:
                break
    return found


async def healthy(remote: RemoteEngine, *, wanted: bool = True) -> None:
    """Wait until the port is connected, or no longer is."""
    await until(lambda: remote.healthy is wanted)


async def test_the_remote_engine_is_an_engine() -> None:
    with served() as engine:
        before = len(engine.trade.room.journal)
        async with connected(engine.address) as remote:
            port: Engine = remote

            outcome = await port.submit(engine.hold())
            hold = await port.ask(Lookup(noun="hold", id=outcome.record.changed[0].id))
            standing = await port.ask(StandingOf(principal_id=engine.trade.agent.principal_id))
            data = await port.ask(RecordAt(seq=outcome.seq))
            followed = await first_of(port, 0, before + 1)

    assert outcome.seq == before + 1
    assert hold is not None
    assert standing == outcome.standing
    assert [each.data for each in followed] == [*engine.trade.room.journal, data]
    assert followed[-1].record == outcome.record


async def test_a_retry_is_replayed_and_another_ask_under_its_key_is_refused() -> None:
    with served() as engine:
        async with connected(engine.address) as remote:
            first = await remote.submit(engine.hold("one-key-0000000000"))
            again = await remote.submit(engine.hold("one-key-0000000000"))
            other = replace(engine.hold("one-key-0000000000"), request_sha256="f" * 64)
            conflict = await code_of(remote.submit(other))

    assert again.replayed
    assert again.record == first.record
    assert conflict is Code.IDEMPOTENCY_CONFLICT


async def test_everything_of_one_turn_crosses_in_one_frame() -> None:
    arrived: list[int] = []

    def answer(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        with sock:
            connection = Raw(sock)
            connection.send(bytes_of(Hello(protocol=PROTOCOL)))
            for frame in connection.frames():
                ids = [each.id for each in asks_in(frame) if not isinstance(each, Hello)]
                arrived.append(len(ids))
                refusal = refuse(Code.NOT_FOUND)
                connection.send(*(bytes_of(Refuse(id=id_, refusal=refusal)) for id_ in ids))

    with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        address = Path(folder) / "engine.sock"
        listener.bind(str(address))
        listener.listen()
        thread = Thread(target=answer, args=(listener,))
        thread.start()
        async with connected(address) as remote:
            asked = [remote.ask(AllAccounts()) for _ in range(100)]
            told = await asyncio.gather(*asked, return_exceptions=True)
        await asyncio.to_thread(thread.join)

    assert arrived == [0, 100]
    assert all(isinstance(each, Refused) for each in told)


async def test_a_front_end_refuses_at_once_what_is_beyond_its_calls_in_flight() -> None:
    with served() as engine:
        async with connected(engine.address, in_flight_max=3) as remote:
            calls = [remote.submit(engine.hold()) for _ in range(9)]
            told = await asyncio.gather(*calls, return_exceptions=True)
            later = await remote.submit(engine.hold())

    refused = [each for each in told if isinstance(each, Refused)]
    assert [each.code for each in refused] == [Code.OVERLOADED] * 6
    assert all(each.refusal.retry_after_s for each in refused)
    assert not later.replayed


def test_the_engine_refuses_at_once_what_is_beyond_its_queue() -> None:
    with served(limits=Limits(queue_max=5)) as engine, raw(engine.address) as flood:
        flood.send(*(submit_of(number, engine.hold()) for number in range(50)))
        told = {reply.id: reply for reply in islice(_replies(flood), 50)}

    done = [reply for reply in told.values() if isinstance(reply, Done)]
    refused = [reply for reply in told.values() if isinstance(reply, Refuse)]
    assert len(done) == 5
    assert {reply.refusal.code for reply in refused} == {Code.OVERLOADED}
    assert len(refused) == 45


async def test_what_did_not_fit_into_a_batch_is_done_in_the_next() -> None:
    with served(limits=Limits(batch_max=7, batch_bytes_max=5_000)) as engine:
        async with connected(engine.address) as remote, patiently():
            calls = [remote.submit(engine.hold()) for _ in range(40)]
            seqs = [outcome.seq for outcome in await asyncio.gather(*calls)]

    assert seqs == list(range(seqs[0], seqs[0] + 40))


def test_while_a_batch_is_under_way_no_more_is_taken_than_a_socket_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entered, gate = Event(), Event()
    with served() as engine, raw(engine.address) as flood:
        assert engine.stepper is not None
        step = engine.stepper.step

        def held_up(commands: Any) -> Any:
            entered.set()
            gate.wait()
            return step(commands)

        monkeypatch.setattr(engine.stepper, "step", held_up)
        flood.send(submit_of(1, engine.hold()))
        entered.wait()
        (frame,) = frames([submit_of(number, engine.hold()) for number in range(2, 100)])
        flood.sock.settimeout(0)
        taken_bytes = 0
        try:
            while taken_bytes < FRAME_BYTES_MAX:
                taken_bytes += flood.sock.send(frame)
        except BlockingIOError:
            gate.set()

    assert gate.is_set()
    assert taken_bytes < 4 * 1024 * 1024


def _replies(connection: Raw) -> Any:
    for frame in connection.frames():
        for reply in replies_in(frame):
            if not isinstance(reply, Hello):
                yield reply


async def test_when_the_engine_goes_whoever_waits_is_told_and_may_ask_again() -> None:
    with TemporaryDirectory() as folder:
        engine = Served(Path(folder) / "engine.sock")
        engine.begin()
        with engine.running():
            remote = RemoteEngine(engine.address, in_flight_max=10)
            await remote.open()
            first = await remote.submit(engine.hold("kept-key-000000000"))
        await healthy(remote, wanted=False)
        gone = await code_of(remote.submit(engine.hold()))
        asked = await code_of(remote.ask(AllAccounts()))
        with engine.running():
            await healthy(remote)
            again = await remote.submit(engine.hold("kept-key-000000000"))
            after = await remote.submit(engine.hold())
            await remote.close()

    assert (gone, asked) == (Code.UNAVAILABLE, Code.UNAVAILABLE)
    assert again.replayed
    assert again.record == first.record
    assert after.seq == first.seq + 1


async def test_a_call_that_waits_when_the_engine_goes_is_told_that_it_may_have_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with served() as engine:
        assert engine.stepper is not None
        monkeypatch.setattr(engine.stepper, "step", _broken)
        async with connected(engine.address) as remote:
            with pytest.raises(Refused) as refused:
                await remote.submit(engine.hold())

    assert isinstance(engine.ended, Broken)
    assert refused.value.code is Code.UNAVAILABLE
    assert refused.value.refusal.message != Code.UNAVAILABLE.says
    assert not engine.address.exists()


async def test_who_waits_for_an_engine_that_stands_still_is_told_that_it_may_have_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    thawed = Event()
    with served() as engine:
        assert engine.stepper is not None
        step = engine.stepper.step

        def frozen(commands: Any) -> Any:
            thawed.wait(PATIENCE_S)
            return step(commands)

        monkeypatch.setattr(engine.stepper, "step", frozen)
        remote = RemoteEngine(engine.address, in_flight_max=10, silence_ms=50)
        await remote.open()
        async with patiently():
            with pytest.raises(Refused) as refused:
                await remote.submit(engine.hold("kept-key-000000000"))
        await healthy(remote, wanted=False)
        thawed.set()
        await healthy(remote)
        again = await remote.submit(engine.hold("kept-key-000000000"))
        await remote.close()

    assert refused.value.code is Code.UNAVAILABLE
    assert refused.value.refusal.message != Code.UNAVAILABLE.says
    assert again.replayed


async def test_a_follower_that_waits_for_the_next_record_is_not_an_engine_that_stands_still(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with served() as engine:
        remote = RemoteEngine(engine.address, in_flight_max=10, silence_ms=20)
        await remote.open()
        last = await remote.submit(engine.hold())
        following = asyncio.create_task(first_of(remote, last.seq, 1))
        _, waiting = await asyncio.wait({following}, timeout=0.2)
        await remote.submit(engine.hold())
        async with patiently():
            await following
        await remote.close()

    assert waiting
    assert "has said nothing" not in caplog.text


def _broken(commands: Any) -> Any:
    del commands
    raise Broken("an invariant of a test")


async def test_a_follower_goes_on_by_itself_after_the_engine_was_away() -> None:
    with TemporaryDirectory() as folder:
        engine = Served(Path(folder) / "engine.sock")
        engine.begin()
        with engine.running():
            remote = RemoteEngine(engine.address, in_flight_max=10)
            await remote.open()
            last = await remote.submit(engine.hold())
            following = asyncio.create_task(first_of(remote, last.seq - 1, 3))
            await remote.ask(AllAccounts())
        await healthy(remote, wanted=False)
        with engine.running():
            await healthy(remote)
            await remote.submit(engine.hold())
            await remote.submit(engine.hold())
            async with patiently():
                followed = await following
            await remote.close()

    assert [each.record.seq for each in followed] == [last.seq, last.seq + 1, last.seq + 2]


async def test_a_follower_far_behind_reads_pages_and_holds_up_nobody() -> None:
    with served(limits=Limits(recent_max=4, page_max=3)) as engine:
        async with (
            connected(engine.address) as remote,
            connected(engine.address) as other,
            aclosing(remote.follow(0)) as followed,
        ):
            slow = [await anext(followed)]
            told = await asyncio.gather(*(other.submit(engine.hold()) for _ in range(40)))
            last = max(outcome.seq for outcome in told)
            async for committed in followed:
                slow.append(committed)
                if committed.record.seq == last:
                    break

    assert [each.record.seq for each in slow] == list(range(1, last + 1))
    assert all(parse_record(each.data)[0] == each.record for each in slow)


def test_a_front_end_that_does_not_read_is_dropped_and_costs_the_others_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "_OUT_BYTES_MAX", 500_000)
    with served() as engine, raw(engine.address) as deaf, raw(engine.address) as other:
        question = RecordAt(seq=len(engine.trade.room.journal))
        try:
            for number in range(2_000):
                deaf.send(*(ask_of(number, question) for _ in range(20)))
        except (BrokenPipeError, ConnectionResetError):
            dropped = True
        other.send(submit_of(1, engine.hold()))
        told = next(_replies(other))

    assert dropped
    assert isinstance(told, Done)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        (FRAME_BYTES_MAX + 1).to_bytes(4, "big"),
        (3).to_bytes(4, "big") + b"\xc1\xc1\xc1",
        next(frames([b"\x93\x01\x02\x03"])),
    ],
)
async def test_garbage_ends_its_own_connection_alone(garbage: bytes) -> None:
    with served() as engine:
        async with connected(engine.address) as remote:
            with raw(engine.address) as connection:
                connection.sock.sendall(garbage)
                ended = await asyncio.to_thread(lambda: connection.has_ended)
            outcome = await remote.submit(engine.hold())

    assert ended
    assert isinstance(outcome, Outcome)


def test_who_says_nothing_is_dropped_and_whoever_has_said_hello_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "_PEERS_MAX", 2)
    with served() as engine, raw(engine.address) as greeted:
        replies = _replies(greeted)
        greeted.send(submit_of(1, engine.hold()))
        first = next(replies)
        monkeypatch.setattr(service, "_HELLO_S", 0.01)
        for _ in range(3):
            with _silent(engine.address) as connection:
                assert connection.has_ended
        greeted.send(submit_of(2, engine.hold()))
        told = [first, next(replies)]

    assert all(isinstance(reply, Done) for reply in told)


def test_who_has_not_said_hello_is_given_no_memory() -> None:
    with served() as engine, _silent(engine.address) as connection:
        connection.sock.sendall((FRAME_BYTES_MAX // 2).to_bytes(4, "big"))

        assert connection.has_ended


@contextmanager
def _silent(address: Path) -> Iterator[Raw]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE_S)
        sock.connect(str(address))
        yield Raw(sock)


def test_another_protocol_and_another_user_are_not_served() -> None:
    with served() as engine, raw(engine.address, protocol=99) as connection:
        assert connection.has_ended
    with served(uid=os.getuid() + 1) as engine, raw(engine.address) as connection:
        assert list(connection.frames()) == []


async def test_a_command_that_cannot_be_read_costs_its_caller_alone() -> None:
    with served() as engine:
        async with connected(engine.address) as remote:
            wrong = replace(engine.hold(), body={"agreement_id": 7})
            calls = (remote.submit(engine.hold()), remote.submit(wrong))
            done, refused = await asyncio.gather(*calls, return_exceptions=True)
            unknown = await code_of(remote.submit(replace(engine.hold(), operation="unknown")))

    assert isinstance(done, Outcome)
    assert isinstance(refused, Refused)
    assert (refused.code, unknown) == (Code.INTERNAL_ERROR, Code.INTERNAL_ERROR)


async def test_an_answer_too_large_to_be_sent_costs_its_caller_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "MESSAGE_BYTES_MAX", 100)
    with served() as engine:
        async with connected(engine.address) as remote:
            calls = (remote.submit(engine.hold()), code_of(remote.ask(AllAccounts())))
            done, refused = await asyncio.gather(*calls)

    assert isinstance(done, Outcome)
    assert refused is Code.PAYLOAD_TOO_LARGE


def test_told_to_stop_it_does_and_answers_what_was_sent() -> None:
    with TemporaryDirectory() as folder:
        engine = Served(Path(folder) / "engine.sock")
        engine.begin()
        with engine.running():
            with raw(engine.address) as connection:
                replies = _replies(connection)
                connection.send(submit_of(1, engine.hold()))
                first = next(replies)
                connection.send(*(submit_of(number, engine.hold()) for number in range(2, 30)))
                engine.stop()
                rest = list(replies)
            left = engine.address.exists()

    assert isinstance(first, Done)
    assert all(isinstance(reply, Done) for reply in rest)
    assert [reply.id for reply in rest] == list(range(2, 30))
    assert not left


async def test_what_is_due_is_done_though_nobody_asks() -> None:
    with served() as engine:
        async with connected(engine.address) as remote:
            held = await remote.submit(engine.hold())
            engine.ahead_us += 86_400 * 1_000_000
            async with patiently():
                (expiry,) = await first_of(remote, held.seq, 1)

    assert expiry.record.operation == "expire_hold"


def test_the_socket_is_for_its_owner_alone_and_replaces_one_that_was_left_behind() -> None:
    with TemporaryDirectory() as folder:
        engine = Served(Path(folder) / "engine.sock")
        engine.begin()
        engine.address.write_text("left behind")
        with engine.running():
            mode = engine.address.stat().st_mode

    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
