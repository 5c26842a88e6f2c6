"""A call is on its way once, whichever front end was asked, and its end is kept for its time."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from farthing.protocol.errors import Code, Refused, refuse
from farthing.server.adapters.results import Results
from farthing.server.flights import listening
from farthing.server.ports import Progress
from tests.patience import patiently, until
from tests.server.flying import (
    HOLD_ENDS_US,
    KEPT_S,
    SECOND_US,
    SHARE,
    Server,
    Work,
    asked,
    ended,
    land,
)


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


async def test_two_front_ends_make_one_call(server: Server) -> None:
    work = Work(slow=True)
    async with server.front_end("one") as one, server.front_end("two") as two:
        asking = [
            asyncio.create_task(each.obtain("hold", "owner", HOLD_ENDS_US, work, land))
            for each in (one, one, two)
        ]
        await work.started.wait()
        work.go.set()

        landed = await asyncio.gather(*asking)

    assert {each.ending for each in landed} == {b"what came"}
    assert work.flights == [0]


async def test_what_has_ended_is_told_again_after_a_restart(server: Server) -> None:
    async with server.front_end("one") as flights:
        first = await flights.obtain("hold", "owner", HOLD_ENDS_US, Work(), land)
    async with server.front_end("two") as flights:
        second = await flights.obtain("hold", "owner", HOLD_ENDS_US, Work(ending=b"another"), land)

    assert (first.ending, first.replayed) == (b"what came", False)
    assert (second.ending, second.replayed) == (b"what came", True)


async def test_while_another_is_on_the_way_nobody_else_sets_out(server: Server) -> None:
    work = Work()
    async with server.front_end("two", wait_s=0.2) as flights:
        await claimed(server, "one", held_s=5)

        assert (
            await ended(flights.obtain("hold", "owner", HOLD_ENDS_US, work, land))
            is Code.UNAVAILABLE
        )
        assert work.flights == []


async def test_a_flight_that_fell_silent_is_taken_up_and_knows_of_the_first(server: Server) -> None:
    work = Work()
    async with server.front_end("two") as flights:
        await claimed(server, "one", held_s=5)
        server.clock.now_us += 6 * SECOND_US

        landed = await flights.obtain("hold", "owner", HOLD_ENDS_US, work, land)

    assert (landed.ending, landed.replayed) == (b"what came", False)
    assert work.flights == [1]


async def test_a_flight_that_could_not_speak_once_speaks_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold_on, spoken = Results.hold_on, 0

    async def once_full(results: Results, hold_id: str, holder: str, until_us: int) -> None:
        nonlocal spoken
        spoken += 1
        if spoken == 1:
            raise Refused(refuse(Code.UNAVAILABLE))
        await hold_on(results, hold_id, holder, until_us)

    monkeypatch.setattr(Results, "hold_on", once_full)
    monkeypatch.setattr("farthing.server.flights._HOLD_ON_S", 0.01)
    work, other = Work(slow=True), Work()
    async with server.front_end("one") as one, server.front_end("two", wait_s=0.2) as two:
        asking = asyncio.create_task(one.obtain("hold", "owner", HOLD_ENDS_US, work, land))
        await work.started.wait()
        server.clock.now_us += 6 * SECOND_US
        # The next may be the one that fails; another is done once there is a third.
        begun = spoken
        await until(lambda: spoken > begun + 2)

        late = await ended(two.obtain("hold", "owner", HOLD_ENDS_US, other, land))
        work.go.set()
        await asking

    assert late is Code.UNAVAILABLE
    assert other.flights == []


async def test_a_front_end_that_stops_lets_go_at_once(server: Server) -> None:
    work, other = Work(slow=True), Work()
    async with server.front_end("one") as one:
        asking = asyncio.create_task(one.obtain("hold", "owner", HOLD_ENDS_US, work, land))
        await work.started.wait()
    await asyncio.gather(asking, return_exceptions=True)
    async with server.front_end("two", wait_s=0.2) as two:
        await two.obtain("hold", "owner", HOLD_ENDS_US, other, land)

    assert other.flights == [1]


async def test_a_flight_without_an_end_can_be_flown_again(server: Server) -> None:
    lost = Work(raises=Refused(refuse(Code.UNAVAILABLE)))
    work = Work()
    async with server.front_end("one") as flights:
        assert (
            await ended(flights.obtain("hold", "owner", HOLD_ENDS_US, lost, land))
            is Code.UNAVAILABLE
        )
        await flights.obtain("hold", "owner", HOLD_ENDS_US, work, land)

    assert work.flights == [1]


async def test_whoever_goes_away_leaves_the_flight_to_others(server: Server) -> None:
    work = Work(slow=True)
    async with server.front_end("one") as flights:
        gone = asyncio.create_task(flights.obtain("hold", "owner", HOLD_ENDS_US, work, land))
        await work.started.wait()
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        work.go.set()

        landed = await flights.obtain("hold", "owner", HOLD_ENDS_US, Work(), land)

    assert landed.ending == b"what came"
    assert work.flights == [0]


async def test_after_its_time_an_end_is_erased_and_no_other_is_made(server: Server) -> None:
    work = Work()
    async with server.front_end("one") as flights:
        await flights.obtain("hold", "owner", HOLD_ENDS_US, work, land)
        server.clock.now_us += KEPT_S * SECOND_US

        landed = await flights.obtain("hold", "owner", HOLD_ENDS_US, work, land)

        assert (landed.ending, landed.replayed, work.flights) == (b"", True, [0])
    results = server.results()
    assert await results.forget(server.clock.now_us) == 1
    await results.close()
    async with server.front_end("two") as flights:
        assert await asked(flights, "hold", "owner") is False


async def test_what_is_not_past_its_time_is_kept(server: Server) -> None:
    async with server.front_end("one") as flights:
        await flights.obtain("hold", "owner", HOLD_ENDS_US, Work(), land)
    results = server.results()

    assert await results.forget(server.clock.now_us + (KEPT_S - 1) * SECOND_US) == 0
    await results.close()


async def test_an_end_can_be_read_with_the_secret_alone_and_for_its_own_hold(
    server: Server,
) -> None:
    async with server.front_end("one") as flights:
        await flights.obtain("hold", "owner", HOLD_ENDS_US, Work(ending=b"plain-to-see"), land)
        await flights.obtain("other", "owner", HOLD_ENDS_US, Work(ending=b"another end"), land)
    path = server.folder / "results.sqlite"
    assert b"plain-to-see" not in path.read_bytes()

    async with server.front_end("two", secret=bytes(32)) as flights:
        assert (await flights.obtain("hold", "owner", HOLD_ENDS_US, Work(), land)).ending == b""
    with sqlite3.connect(path) as database:
        database.execute(
            "UPDATE service_call SET sealed ="
            " (SELECT sealed FROM service_call WHERE hold_id = 'other') WHERE hold_id = 'hold'"
        )
    database.close()
    async with server.front_end("three") as flights:
        assert (await flights.obtain("hold", "owner", HOLD_ENDS_US, Work(), land)).ending == b""
        assert (
            await flights.obtain("other", "owner", HOLD_ENDS_US, Work(), land)
        ).ending == b"another end"


async def test_the_same_end_is_never_encrypted_the_same(server: Server) -> None:
    async with server.front_end("one") as flights:
        for hold_id in ("one", "two"):
            await flights.obtain(hold_id, "owner", HOLD_ENDS_US, Work(), land)
    with sqlite3.connect(server.folder / "results.sqlite") as database:
        sealed = [row[0] for row in database.execute("SELECT sealed FROM service_call")]
    database.close()

    assert len({each[:12] for each in sealed}) == 2
    assert len({each[12:] for each in sealed}) == 2


async def test_no_more_is_begun_than_there_is_room_for(server: Server) -> None:
    work = Work(slow=True)
    async with server.front_end("one", flights_max=1) as flights:
        asking = asyncio.create_task(flights.obtain("hold", "owner", HOLD_ENDS_US, work, land))
        await work.started.wait()

        assert await asked(flights, "another", "owner") is Code.OVERLOADED
        assert await asked(flights, "hold", "owner") is True
        work.go.set()
        await asking
        assert await asked(flights, "another", "owner") is False


async def test_nobody_has_more_than_a_share_of_the_flights(server: Server) -> None:
    work = Work(slow=True)
    async with server.front_end("one", flights_max=16) as flights:
        asking = [
            asyncio.create_task(flights.obtain(hold_id, "greedy", HOLD_ENDS_US, work, land))
            for hold_id in ("one", "two")
        ]
        await until(lambda: flights.in_flight == 2)

        assert await asked(flights, "three", "greedy") is Code.OVERLOADED
        assert await asked(flights, "three", "another") is False
        work.go.set()
        await asyncio.gather(*asking)


async def test_those_who_ask_at_once_share_the_room_there_is(server: Server) -> None:
    async with server.front_end("one", flights_max=16) as flights:
        inside: list[str] = []
        all_asked, refused = asyncio.Barrier(6), 0

        async def ask(hold_id: str) -> None:
            nonlocal refused
            try:
                async with flights.room(hold_id, "greedy"):
                    inside.append(hold_id)
                    await all_asked.wait()
            except Refused:
                refused += 1
                await all_asked.wait()

        async with patiently():
            await asyncio.gather(*map(ask, ("one", "two", "three", "four", "one", "two")))

        assert (len(set(inside)), len(inside) + refused) == (2, 6)
        # Who has gone leaves the room to others.
        assert await asked(flights, "five", "greedy") is False


async def test_who_listens_hears_and_who_is_slow_holds_nobody_up(server: Server) -> None:
    heard: list[float] = []
    stuck = asyncio.Event()

    async def hear(done: float, total: float | None, said: str) -> None:
        del total, said
        heard.append(done)

    async def never(done: float, total: float | None, said: str) -> None:
        del done, total, said
        await stuck.wait()

    async with server.front_end("one") as flights:
        work = Work(slow=True, told=0)
        with listening(hear):
            hearing = asyncio.create_task(
                flights.obtain("hold", "owner", HOLD_ENDS_US, telling(work), land)
            )
        await work.started.wait()
        with listening(never):
            slow = asyncio.create_task(flights.obtain("hold", "owner", HOLD_ENDS_US, work, land))
        await asyncio.sleep(0)
        work.go.set()

        assert (await hearing).ending == (await slow).ending

    assert heard == list(range(10))


def telling(work: Work) -> Callable[[int, Progress], Awaitable[bytes]]:
    """The same work, which tells ten times once it may go on."""

    async def fly(flights: int, progress: Progress) -> bytes:
        ending = await work(flights, progress)
        for number in range(10):
            progress(number, None, "")
        return ending

    return fly


async def claimed(server: Server, holder: str, *, held_s: int) -> None:
    """Another front end has set out, and says nothing more."""
    results = server.results()
    await results.open()
    claim = await results.claim(
        "hold",
        owner="owner",
        holder=holder,
        share=SHARE,
        now_us=server.clock(),
        held_until_us=server.clock() + held_s * SECOND_US,
        expires_at_us=HOLD_ENDS_US * 100,
    )
    assert claim.mine
    await results.close()
