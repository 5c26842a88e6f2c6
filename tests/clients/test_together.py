"""What several callers have to say goes together, and each is answered for itself."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from farthing.clients import together
from farthing.clients.together import Together
from tests.patience import patiently, until

pytestmark = pytest.mark.asyncio


class Road:
    """Where requests go: each waits until it is let through."""

    def __init__(self) -> None:
        self.sent: list[list[bytes]] = []
        self.gates: list[asyncio.Future[None]] = []

    async def send(self, some: Sequence[bytes]) -> list[str]:
        self.sent.append(list(some))
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.gates.append(gate)
        await gate
        return [each.decode().upper() for each in some]


def open_road(
    send: Callable[[Sequence[bytes]], Awaitable[Sequence[str]]], *, bytes_max: int = 1000
) -> Together[str]:
    return Together(send, asks_max=3, bytes_max=bytes_max)


async def sent(road: Road, count: int) -> None:
    await until(lambda: len(road.sent) == count)


async def turn() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def asked(road: Together[str], *said: bytes) -> list[asyncio.Task[str]]:
    return [asyncio.create_task(road.call(each)) for each in said]


async def test_what_is_said_at_once_goes_in_one_request() -> None:
    road = Road()
    tasks = asked(open_road(road.send), b"a", b"b", b"c")
    await turn()

    assert road.sent == [[b"a", b"b", b"c"]]
    road.gates[0].set_result(None)
    async with patiently():
        assert await asyncio.gather(*tasks) == ["A", "B", "C"]


async def test_what_comes_while_two_are_on_their_way_waits_for_the_next() -> None:
    road, tasks = Road(), []
    way = open_road(road.send)
    for said in (b"a", b"b", b"c", b"d"):
        tasks += asked(way, said)
        await turn()
    assert road.sent == [[b"a"], [b"b"]]

    road.gates[1].set_result(None)
    await turn()

    assert road.sent == [[b"a"], [b"b"], [b"c", b"d"]]
    for gate in (road.gates[0], road.gates[2]):
        gate.set_result(None)
    async with patiently():
        assert await asyncio.gather(*tasks) == ["A", "B", "C", "D"]


async def test_two_that_are_never_answered_hold_up_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(together, "_LATE_S", 0.001)
    road, hung = Road(), []
    way = open_road(road.send)
    for said in (b"a", b"b"):
        hung += asked(way, said)
        await sent(road, len(hung))
    others = asked(way, b"c", b"d")
    await sent(road, 3)
    road.gates[2].set_result(None)

    async with patiently():
        assert await asyncio.gather(*others) == ["C", "D"]
        for gate in road.gates[:2]:
            gate.set_result(None)
        assert await asyncio.gather(*hung) == ["A", "B"]


async def test_of_requests_that_are_never_answered_there_are_no_more_than_eight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(together, "_LATE_S", 0)
    road, tasks = Road(), []
    way = open_road(road.send)
    for said in range(8):
        tasks += asked(way, b"%d" % said)
        await sent(road, len(tasks))
    tasks += asked(way, b"a")
    await turn()
    tasks += asked(way, b"b")
    await turn()
    assert len(road.sent) == 8

    road.gates[5].set_result(None)
    await sent(road, 9)
    assert road.sent[8] == [b"a", b"b"]
    for gate in road.gates:
        if not gate.done():
            gate.set_result(None)
    async with patiently():
        assert len(await asyncio.gather(*tasks)) == 10


async def test_no_more_goes_together_than_may() -> None:
    road = Road()
    tasks = asked(open_road(road.send), b"a", b"b", b"c", b"d")
    await turn()

    assert road.sent[0] == [b"a", b"b", b"c"]
    for _ in range(2):
        for gate in road.gates:
            if not gate.done():
                gate.set_result(None)
        await turn()
    async with patiently():
        assert await asyncio.gather(*tasks) == ["A", "B", "C", "D"]
    assert road.sent == [[b"a", b"b", b"c"], [b"d"]]


async def test_a_request_is_no_longer_than_it_may_be_and_what_is_longer_goes_alone() -> None:
    went: list[list[bytes]] = []

    async def send(some: Sequence[bytes]) -> list[str]:
        went.append(list(some))
        return ["" for _ in some]

    way = open_road(send, bytes_max=10)
    async with patiently():
        await asyncio.gather(*asked(way, b"a" * 5, b"b" * 4, b"c" * 20, b"d"))

    assert went == [[b"a" * 5], [b"b" * 4], [b"c" * 20], [b"d"]]


async def test_who_goes_away_is_sent_for_no_more_and_keeps_no_answer_from_others() -> None:
    road = Road()
    way = open_road(road.send)
    first = asked(way, b"a")
    await turn()
    second = asked(way, b"b")
    await turn()
    waiting = asked(way, b"c", b"d")
    await turn()
    waiting[0].cancel()
    first[0].cancel()
    await turn()
    for gate in road.gates:
        gate.set_result(None)
    await turn()
    road.gates[2].set_result(None)

    async with patiently():
        assert await second[0] == "B"
        assert await waiting[1] == "D"
    assert road.sent == [[b"a"], [b"b"], [b"d"]]


async def test_who_asks_again_as_soon_as_it_is_answered_is_sent_for() -> None:
    road = Road()
    way = open_road(road.send)

    async def twice(said: bytes) -> list[str]:
        return [await way.call(said), await way.call(said)]

    again = asyncio.create_task(twice(b"a"))
    await turn()
    other = asked(way, b"b")[0]
    await turn()
    for gate in list(road.gates):
        gate.set_result(None)
    await turn()
    assert road.sent == [[b"a"], [b"b"], [b"a"]]
    road.gates[2].set_result(None)

    async with patiently():
        assert await again == ["A", "A"]
        assert await other == "B"


async def test_who_is_given_no_answer_is_told_so() -> None:
    async def send(some: Sequence[bytes]) -> list[str]:
        return ["taken" for _ in some[1:]]

    async with patiently():
        told = await asyncio.gather(*asked(open_road(send), b"a", b"b"), return_exceptions=True)

    assert [type(each) for each in told] == [AssertionError, AssertionError]


async def test_what_keeps_a_request_from_being_answered_everybody_in_it_is_told() -> None:
    faults: list[Exception] = [OSError("gone")]

    async def send(some: Sequence[bytes]) -> list[str]:
        if faults:
            raise faults.pop()
        return ["taken" for _ in some]

    way = open_road(send)
    async with patiently():
        told = await asyncio.gather(*asked(way, b"a", b"b"), return_exceptions=True)
        after = await way.call(b"c")

    assert [type(each) for each in told] == [OSError, OSError]
    assert after == "taken"
