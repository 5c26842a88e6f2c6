"""What a call came to is kept before it lands, once, and nobody has more than a share kept."""

import asyncio
from pathlib import Path

import pytest

from farthing.protocol.errors import Code, Refused, refuse
from farthing.server.adapters.results import Results, Share
from tests.server.flying import (
    ANSWER_BYTES,
    HOLD_ENDS_US,
    KEPT_S,
    SECOND_US,
    Runway,
    Server,
    Work,
    asked,
    ended,
    land,
)


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


async def test_nobody_has_more_calls_remembered_than_its_share(server: Server) -> None:
    share = Share(calls=2, size=100 * ANSWER_BYTES)
    async with server.front_end("one", flights_max=80, share=share) as flights:
        await flights.obtain("hold", "greedy", HOLD_ENDS_US, Work(), land)
        async with flights.room("another", "greedy"):
            # One is kept, one is begun.
            assert await asked(flights, "one more", "greedy") is Code.OVERLOADED
            assert await asked(flights, "one more", "modest") is False
        assert await asked(flights, "one more", "greedy") is False
        # What it has can always be asked for.
        await flights.obtain("two", "greedy", HOLD_ENDS_US, Work(), land)
        assert await asked(flights, "hold", "greedy") is True

        server.clock.now_us += (KEPT_S + 1) * SECOND_US
        await server.results().forget(server.clock())
        assert await asked(flights, "one more", "greedy") is False


async def test_nobody_has_more_bytes_kept_than_its_share_whatever_its_calls_come_to(
    server: Server,
) -> None:
    share = Share(calls=100, size=2 * ANSWER_BYTES)
    async with server.front_end("one", flights_max=80, share=share) as flights:
        work = Work(slow=True, ending=b"x" * 100)
        on_its_way = asyncio.create_task(flights.obtain("hold", "greedy", HOLD_ENDS_US, work, land))
        await work.started.wait()
        async with flights.room("another", "greedy"):
            assert await asked(flights, "one more", "greedy") is Code.OVERLOADED
        work.go.set()
        await on_its_way

        assert await asked(flights, "one more", "greedy") is False
        async with flights.room("another", "greedy"):
            # What it came to counts for no more than it is.
            assert await asked(flights, "one more", "greedy") is Code.OVERLOADED
        long = Work(ending=b"x" * ANSWER_BYTES)
        await flights.obtain("long", "greedy", HOLD_ENDS_US, long, land)
        assert await asked(flights, "one more", "greedy") is Code.OVERLOADED


async def test_nothing_lands_that_cannot_be_kept(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(self: Results, hold_id: str, ending: bytes, expires_at_us: int) -> None:
        del self, hold_id, ending, expires_at_us
        raise Refused(refuse(Code.UNAVAILABLE))

    runway = Runway()
    async with server.front_end("one") as flights:
        with monkeypatch.context() as disk:
            disk.setattr(Results, "end", full)
            found = await ended(flights.obtain("hold", "owner", HOLD_ENDS_US, Work(), runway))
        assert (found, runway.landed) == (Code.UNAVAILABLE, [])

        # Whoever asks next goes on at once.
        await flights.obtain("hold", "owner", HOLD_ENDS_US, Work(), runway)

    assert runway.landed == [b"what came"]


async def test_an_end_that_is_kept_lands_before_it_is_told_and_again_when_it_is_asked_for(
    server: Server,
) -> None:
    runway = Runway()
    async with server.front_end("one") as flights:
        runway.fails = True
        asking = flights.obtain("hold", "owner", HOLD_ENDS_US, Work(), runway)
        assert await ended(asking) is Code.UNAVAILABLE
        assert await flights.kept("hold") == b"what came"
        runway.fails = False
        server.clock.now_us += SECOND_US

        landed = await flights.obtain("hold", "owner", HOLD_ENDS_US, Work(), runway)

    assert landed.replayed
    assert landed.kept.until_us == server.clock() + (KEPT_S - 1) * SECOND_US
    assert runway.landed == [b"what came"] * 2


async def test_of_two_that_fly_at_once_the_end_that_is_kept_first_counts_for_both(
    server: Server,
) -> None:
    slow, runway = Work(slow=True, ending=b"late"), Runway()
    async with server.front_end("one") as one, server.front_end("two") as two:
        asking = asyncio.create_task(one.obtain("hold", "owner", HOLD_ENDS_US, slow, runway))
        await slow.started.wait()
        server.clock.now_us += 6 * SECOND_US
        first = await two.obtain("hold", "owner", HOLD_ENDS_US, Work(), runway)
        slow.go.set()

        assert (await asking).ending == first.ending == b"what came"

    assert runway.landed == [b"what came"] * 2
