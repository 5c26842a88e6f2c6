"""New connections go to the front end that has fewest, or to another where that one is busy."""

import asyncio
import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pytest

from farthing.server import acceptor
from farthing.server.acceptor import Acceptor, Share, Shares
from tests.patience import patiently, until

pytestmark = pytest.mark.asyncio


@dataclass
class FrontEnd:
    """What a front end is to its acceptor: some connections, at first of others' making."""

    had: int = 0
    held_max: int = 1000
    silent: int = 0
    taken: list[asyncio.BaseTransport] = field(default_factory=list)
    asked: int = 0

    def held(self) -> int:
        self.asked += 1
        return self.had + len(self.taken)

    def __len__(self) -> int:
        return self.silent

    def end_one(self) -> None:
        self.silent -= 1
        self.had -= 1

    def serve(self) -> asyncio.BaseProtocol:
        return _Kept(self.taken)


class _Kept(asyncio.Protocol):
    def __init__(self, taken: list[asyncio.BaseTransport]) -> None:
        self._taken = taken

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._taken.append(transport)
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"here")


class Failing(socket.socket):
    """A listening socket of a system that has no descriptor left, some times."""

    faults: list[int]

    def accept(self) -> tuple[socket.socket, object]:
        if self.faults:
            raise OSError(self.faults.pop(), "it cannot be accepted")
        return super().accept()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        yield listening


def accept(listener: socket.socket, front_end: FrontEnd, share: Share) -> Acceptor:
    return Acceptor(
        listener,
        front_end.serve,
        share=share,
        held=front_end.held,
        held_max=front_end.held_max,
        silent=front_end,
    )


@contextmanager
def accepting(listener: socket.socket, front_end: FrontEnd, share: Share) -> Iterator[Acceptor]:
    """An acceptor at its own descriptor of a socket, as each process has one."""
    with listener.dup() as own:
        taking = accept(own, front_end, share)
        try:
            yield taking
        finally:
            taking.close()
            for transport in front_end.taken:
                transport.close()


async def connect(listener: socket.socket, callers: ExitStack) -> None:
    """A caller that is served, which each is before the next one comes."""
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    callers.callback(writer.close)
    assert await reader.readexactly(4) == b"here"


async def test_connections_go_to_whichever_front_end_has_fewest(listener: socket.socket) -> None:
    shares = Shares(3)
    first, second, third = FrontEnd(had=3), FrontEnd(), FrontEnd()
    with (
        accepting(listener, first, shares.of(1)),
        accepting(listener, second, shares.of(2)),
        accepting(listener, third, shares.of(3)),
        ExitStack() as callers,
    ):
        async with patiently():
            for _ in range(12):
                await connect(listener, callers)

    assert [first.held(), second.held(), third.held()] == [5, 5, 5]


async def test_callers_that_come_at_once_are_shared_too(listener: socket.socket) -> None:
    shares = Shares(2)
    first, second = FrontEnd(), FrontEnd()
    with (
        accepting(listener, first, shares.of(1)),
        accepting(listener, second, shares.of(2)),
        ExitStack() as callers,
    ):
        async with patiently():
            await asyncio.gather(*(connect(listener, callers) for _ in range(32)))

    assert first.held() + second.held() == 32
    # Who has left one to the other may find it still there.
    assert abs(first.held() - second.held()) <= 2


async def test_a_connection_is_taken_where_the_front_end_with_fewer_does_not(
    listener: socket.socket,
) -> None:
    shares = Shares(2)
    alone = FrontEnd(had=100)
    with accepting(listener, alone, shares.of(1)), ExitStack() as callers:
        async with patiently():
            for _ in range(3):
                await connect(listener, callers)

    assert len(alone.taken) == 3


async def test_connections_that_ended_count_no_more(listener: socket.socket) -> None:
    shares = Shares(2)
    first, second = FrontEnd(had=2), FrontEnd(had=1)
    with (
        accepting(listener, first, shares.of(1)) as taking,
        accepting(listener, second, shares.of(2)),
        ExitStack() as callers,
    ):
        first.had = 0
        taking.tell()
        async with patiently():
            await connect(listener, callers)

    assert (len(first.taken), len(second.taken)) == (1, 0)


async def test_a_front_end_with_all_it_may_have_leaves_callers_to_another(
    listener: socket.socket,
) -> None:
    shares = Shares(2)
    full, other = FrontEnd(had=1, held_max=2), FrontEnd(had=50)
    with (
        accepting(listener, full, shares.of(1)),
        accepting(listener, other, shares.of(2)),
        ExitStack() as callers,
    ):
        async with patiently():
            for _ in range(4):
                await connect(listener, callers)

    assert (len(full.taken), len(other.taken)) == (1, 3)


async def test_callers_wait_where_all_are_full_and_are_taken_once_there_is_room(
    listener: socket.socket,
) -> None:
    front_end = FrontEnd(had=1, held_max=1)
    with accepting(listener, front_end, Shares(1).of(1)), ExitStack() as callers:
        async with patiently():
            waiting = asyncio.create_task(connect(listener, callers))
            asked = front_end.asked
            await until(lambda: front_end.asked > asked + 20)
            assert not front_end.taken

            front_end.had = 0
            await waiting

    assert len(front_end.taken) == 1


async def test_where_all_are_full_one_that_is_silent_gives_way_to_each_that_comes(
    listener: socket.socket,
) -> None:
    front_end = FrontEnd(had=3, held_max=3, silent=2)
    with accepting(listener, front_end, Shares(1).of(1)), ExitStack() as callers:
        async with patiently():
            for _ in range(2):
                await connect(listener, callers)

    assert (front_end.silent, front_end.held()) == (0, 3)


async def test_nothing_is_taken_once_it_is_closed(listener: socket.socket) -> None:
    front_end = FrontEnd()
    with accepting(listener, front_end, Shares(1).of(1)) as taking:
        taking.close()
        with socket.create_connection(listener.getsockname()):
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        assert not front_end.taken


async def test_what_is_being_taken_when_it_is_closed_ends(listener: socket.socket) -> None:
    front_end = FrontEnd()

    def serve() -> asyncio.BaseProtocol:
        taking.close()
        return front_end.serve()

    taking = Acceptor(
        listener,
        serve,
        share=Shares(1).of(1),
        held=front_end.held,
        held_max=front_end.held_max,
        silent=front_end,
    )
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    async with patiently():
        assert await reader.read() == b"here"
    writer.close()


@pytest.mark.parametrize("fault", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_a_system_without_descriptors_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, fault: int
) -> None:
    monkeypatch.setattr(acceptor, "_PAUSE_S", 0)
    front_end = FrontEnd()
    with Failing() as listener, ExitStack() as callers:
        listener.faults = [fault, fault]
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taking = accept(listener, front_end, Shares(1).of(1))
        async with patiently():
            await connect(listener, callers)
        taking.close()

    assert not listener.faults
    assert len(front_end.taken) == 1


@pytest.mark.parametrize("fault", [errno.EAGAIN, errno.EINTR, errno.ECONNABORTED])
async def test_a_connection_that_another_took_or_that_ended_is_no_fault(
    monkeypatch: pytest.MonkeyPatch, fault: int
) -> None:
    monkeypatch.setattr(acceptor, "_PAUSE_S", 3600)
    front_end = FrontEnd()
    with Failing() as listener, ExitStack() as callers:
        listener.faults = [fault]
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taking = accept(listener, front_end, Shares(1).of(1))
        async with patiently():
            await connect(listener, callers)
        taking.close()

    assert len(front_end.taken) == 1
