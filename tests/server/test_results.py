"""What a call came to is kept before it lands, once, and nobody has more than a share kept."""

import asyncio
import sqlite3
import sys
from collections.abc import Awaitable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from farthing.protocol.errors import Code, Refused, refuse
from farthing.server.adapters.results import Claim, Results, Share
from farthing.server.tables import MIGRATIONS, SERVICE_CALL
from farthing.settlement.journal.store import Unreadable
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
    has_room,
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
        await server.forget()
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


async def begun(results: Results, names: Sequence[str], share: Share) -> int:
    """How many calls of one owner there is room for, when all are begun at once."""
    return sum(await asyncio.gather(*(has_room(results, name, share) for name in names)))


@pytest.mark.parametrize(
    "share",
    [Share(calls=7, size=100 * ANSWER_BYTES), Share(calls=100, size=8 * ANSWER_BYTES - 1)],
)
async def test_front_ends_that_begin_calls_at_once_keep_to_one_share(
    server: Server, share: Share
) -> None:
    several = [server.results() for _ in range(4)]
    await asyncio.gather(*(each.open() for each in several))
    names = [[f"{end} {number}" for number in range(10)] for end in range(4)]

    rooms = await asyncio.gather(*map(begun, several, names, [share] * 4))

    assert sum(rooms) == 7
    await asyncio.gather(*(each.close() for each in several))


async def test_processes_that_begin_calls_at_once_keep_to_one_share(server: Server) -> None:
    command = (sys.executable, "-m", "tests.server.crowding", str(server.folder))
    processes = [
        await asyncio.create_subprocess_exec(*command, name, stdout=asyncio.subprocess.PIPE)
        for name in ("one", "two")
    ]
    told = [(await process.communicate())[0] for process in processes]

    assert sum(map(int, told)) == 25
    assert [process.returncode for process in processes] == [0, 0]


async def test_room_that_nobody_sets_out_from_is_left(server: Server) -> None:
    share = Share(calls=1, size=ANSWER_BYTES)
    async with server.front_end("one", share=share) as one:
        assert await asked(one, "first", "owner") is False
        assert await asked(one, "second", "owner") is False
    results = server.results()
    await results.open()
    assert await has_room(results, "of a process that is killed", share)
    await results.close()
    async with server.front_end("two", share=share) as two:
        assert await asked(two, "third", "greedy") is Code.OVERLOADED
        server.clock.now_us += 61 * SECOND_US
        await server.forget()
        assert await asked(two, "third", "greedy") is False


async def test_a_call_that_lost_its_room_is_not_made_beyond_the_share(server: Server) -> None:
    share = Share(calls=1, size=ANSWER_BYTES)
    work = Work()
    async with server.front_end("one", share=share) as flights:
        await flights.obtain("kept", "greedy", HOLD_ENDS_US, Work(), land)

        late = await ended(flights.obtain("late", "greedy", HOLD_ENDS_US, work, land))

    assert late is Code.OVERLOADED
    assert work.flights == []


@pytest.mark.parametrize("steps", [0, 1, 2])
async def test_a_file_of_an_older_version_is_gone_on_with(server: Server, steps: int) -> None:
    results = server.results()
    await results.open()
    await results.close()
    async with server.front_end("old") as flights:
        await flights.obtain("hold", "owner", HOLD_ENDS_US, Work(), land)
    path = server.folder / "results.sqlite"
    with closing(sqlite3.connect(path)) as database, database:
        # As the versions before wrote it, which did not say which they are.
        row = dict.fromkeys(("hold_id", "holder", "held_until_us", "flights", "expires_at_us"))
        members = ", ".join([*row, "sealed", *(["owner", "size"] if steps == 2 else [])])
        kept = database.execute(f"SELECT {members} FROM service_call").fetchone()  # noqa: S608
        database.execute("DROP TABLE service_call")
        for step in MIGRATIONS[:steps]:
            for statement in step:
                database.execute(statement)
        if steps:
            values = ", ".join("?" * len(kept))
            database.execute(f"INSERT INTO service_call ({members}) VALUES ({values})", kept)  # noqa: S608
        database.execute("PRAGMA user_version = 0")

    async with server.front_end("one") as one, server.front_end("two") as two:
        landed = await one.obtain("hold", "owner", HOLD_ENDS_US, Work(ending=b"anew"), land)
        other = await two.obtain("other", "owner", HOLD_ENDS_US, Work(), land)

    assert landed.ending == (b"what came" if steps else b"anew")
    assert other.ending == b"what came"
    with closing(sqlite3.connect(path)) as database:
        version = database.execute("PRAGMA user_version").fetchone()
        columns = database.execute("SELECT name FROM pragma_table_info('service_call')").fetchall()
    assert version == (len(MIGRATIONS),)
    assert {name for (name,) in columns} == set(SERVICE_CALL.columns.keys())


async def test_a_file_that_cannot_be_used_is_named_at_the_start(server: Server) -> None:
    path = server.folder / "results.sqlite"
    path.write_bytes(b"no database" * 100)

    results = server.results()
    with pytest.raises(Unreadable, match=f"{path}.*not a database"):
        await results.open()
    await results.close()


async def test_what_does_not_open_is_told_as_gone_and_said_in_the_log(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with server.front_end("one") as flights:
        await flights.obtain("hold", "owner", HOLD_ENDS_US, Work(), land)
        assert await flights.kept("hold") == b"what came"
        with closing(sqlite3.connect(server.folder / "results.sqlite")) as database, database:
            (sealed,) = database.execute("SELECT sealed FROM service_call").fetchone()
            changed = bytes([sealed[0] ^ 1]) + sealed[1:]
            database.execute("UPDATE service_call SET sealed = ?", (changed,))

        landed = await flights.obtain("hold", "owner", HOLD_ENDS_US, Work(), land)

    assert (landed.ending, landed.replayed) == (b"", True)
    assert "what hold hold came to does not open" in caplog.text


async def test_no_result_is_promised_for_longer_than_results_are_kept(server: Server) -> None:
    async with server.front_end("one") as flights:
        await flights.obtain("hold", "owner", HOLD_ENDS_US, Work(), land)
        with closing(sqlite3.connect(server.folder / "results.sqlite")) as database, database:
            database.execute("UPDATE service_call SET expires_at_us = 1 << 62")

        landed = await flights.obtain("hold", "owner", HOLD_ENDS_US, Work(), land)

    assert landed.kept.until_us == server.clock() + KEPT_S * SECOND_US


async def test_a_file_of_a_newer_version_is_left_alone(server: Server) -> None:
    path = server.folder / "results.sqlite"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")

    results = server.results()
    with pytest.raises(Unreadable, match="newer"):
        await results.open()
    await results.close()


@pytest.mark.parametrize(
    "damage",
    [
        "sealed = 'text'",
        "sealed = x'00'",
        "expires_at_us = 'late'",
        "sealed = CAST(x'ff' AS TEXT)",
    ],
)
async def test_a_row_that_is_damaged_is_unavailable(damage: str, server: Server) -> None:
    results, now_us = server.results(), server.clock()

    def claim() -> Awaitable[Claim]:
        return results.claim(
            "hold",
            owner="owner",
            holder="one",
            share=Share(calls=9, size=9 * ANSWER_BYTES),
            now_us=now_us,
            held_until_us=now_us + SECOND_US,
            expires_at_us=HOLD_ENDS_US,
        )

    await results.open()
    await claim()
    await results.end("hold", b"ending", HOLD_ENDS_US)
    with closing(sqlite3.connect(server.folder / "results.sqlite")) as connection:
        assert connection.execute(f"UPDATE service_call SET {damage}").rowcount == 1  # noqa: S608
        connection.commit()

    with pytest.raises(Refused) as refused:
        await claim()

    assert refused.value.code is Code.UNAVAILABLE
    await results.close()
