"""Who waits for the disk is told, whatever else ends; who goes away takes nobody along."""

import asyncio
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from farthing.clients.commits import Commits
from farthing.clients.sqlite_file import SqliteFile
from farthing.protocol.errors import Code
from tests.clients.settling import shop
from tests.clients.test_session_desk import OTHER, PDF, events, failed, given
from tests.patience import PATIENCE_S, patiently

# Of the loop, which give a write on a thread time enough.
TURNS = 200


async def test_who_goes_away_takes_nobodys_commit_along() -> None:
    written: list[str] = []
    go = threading.Event()

    def write(rows: Sequence[str]) -> None:
        assert go.wait(PATIENCE_S)
        written.extend(rows)

    commits = Commits(write)
    commits.note("one")
    gone, stays = (asyncio.create_task(commits.kept()) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    go.set()
    async with patiently():
        await stays

    assert written == ["one"]
    with pytest.raises(asyncio.CancelledError):
        await gone


@pytest.mark.parametrize(("shared", "pause_s"), [(1, 0.001), (10, 0.01), (100, 0.02)])
async def test_while_callers_keep_coming_a_write_waits_by_how_many_shared_the_last_one(
    monkeypatch: pytest.MonkeyPatch, shared: int, pause_s: float
) -> None:
    now_s, written = 0.0, list[int]()
    begun, go = threading.Event(), threading.Event()

    def write(rows: Sequence[int]) -> None:
        begun.set()
        assert go.wait(PATIENCE_S)
        written.append(len(rows))

    async def come(callers: int) -> None:
        commits.note(*range(callers))
        await asyncio.gather(*(commits.kept() for _ in range(callers)))

    async def turn_often(writes: int) -> None:
        for _ in range(TURNS):
            await asyncio.to_thread(len, "")
            if len(written) == writes:
                return

    commits = Commits(write)
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now_s)
    first = asyncio.create_task(come(shared))
    assert await asyncio.to_thread(begun.wait, PATIENCE_S)
    later = asyncio.create_task(come(64))
    # By now each of them waits.
    for _ in range(2):
        await asyncio.sleep(0)
    go.set()
    await first
    now_s = pause_s - 0.0005
    await turn_often(2)
    assert written == [shared]

    now_s = pause_s + 0.0005
    await turn_often(2)
    assert written == [shared, 64]
    await later


async def test_all_are_told_in_their_turn_what_came_of_it() -> None:
    told: list[tuple[int, BaseException | None]] = []
    fault: OSError | None = OSError(28, "No space left on device")
    written: list[int] = []

    def write(rows: Sequence[int]) -> None:
        if fault is not None:
            raise fault
        written.extend(rows)

    commits = Commits(write)
    commits.note(1)
    commits.then(lambda error: told.append((1, error)))
    commits.then(lambda error: told.append((2, error)))
    with pytest.raises(OSError, match="space"):
        await commits.kept()
    first, fault = fault, None
    commits.then(lambda error: told.append((3, error)))
    await commits.kept()

    assert told == [(1, first), (2, first), (3, None)]
    assert written == [1]


@pytest.mark.parametrize("poison", ["\udc80", 2**70])
async def test_what_no_file_takes_is_told_and_takes_nobody_elses_along(
    tmp_path: Path, poison: object
) -> None:
    file = SqliteFile(tmp_path / "rows.sqlite", in_use=RuntimeError("in use"))
    file.make("CREATE TABLE row (it TEXT NOT NULL) STRICT")

    def write(rows: Sequence[object]) -> None:
        file.write([("INSERT INTO row VALUES (?)", [(cast("str", each),) for each in rows])])

    commits = Commits(write)
    commits.note("one", poison, "two")
    async with patiently():
        told = await asyncio.gather(*(commits.kept() for _ in range(2)), return_exceptions=True)
        commits.note("three")
        await commits.kept()
    kept = [row["it"] for row in file.do("SELECT it FROM row")]
    file.close()

    assert [type(each) for each in told] == [sqlite3.DataError] * 2
    assert kept == ["one", "two", "three"]


async def test_what_comes_to_a_closed_file_is_not_left_out(tmp_path: Path) -> None:
    def opened() -> SqliteFile:
        return SqliteFile(tmp_path / "rows.sqlite", in_use=RuntimeError("in use"))

    file = opened()
    file.make("CREATE TABLE row (it TEXT NOT NULL) STRICT")
    commits = Commits[str](lambda rows: file.write([("INSERT INTO row VALUES (?)", [rows])]))
    commits.note("one")
    file.close()
    async with patiently():
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            await commits.kept()
        file = opened()
        await commits.kept()
    kept = [row["it"] for row in file.do("SELECT it FROM row")]
    file.close()

    assert kept == ["one"]


async def test_a_desk_that_closes_leaves_nobody_waiting(tmp_path: Path) -> None:
    async with shop(tmp_path) as market:
        market.desk.go = asyncio.Event()
        payer = market.payer()
        running = asyncio.create_task(market.call(payer, PDF))
        async with patiently():
            await market.desk.is_full.wait()
        payment = payer.signed(payer.voucher(OTHER))
        # It is admitted when it is asked for, and its work begins a turn later.
        begins = asyncio.create_task(market.sell(payment, OTHER))
        await asyncio.sleep(0)
        desk = market.counter.sessions.find(payer.entitlement)
        assert desk is not None
        await desk.close()
        await market.counter.close()
        async with patiently():
            ended = await asyncio.gather(running, begins, return_exceptions=True)
        await market.open()
        market.desk.go = None
        outcome = await market.sell(payment, OTHER)

    assert [type(each) for each in ended] == [asyncio.CancelledError] * 2
    assert market.desk.runs == 2
    # The one whose work never began was taken by nobody: the next process does it.
    assert given(outcome) == {"pages": ["three"]}


async def test_work_that_takes_longer_than_its_terms_allow_is_stopped_and_not_billed(
    tmp_path: Path,
) -> None:
    async with shop(tmp_path) as market:
        ware, payer = market.ware, market.payer()
        ware.terms = replace(ware.terms, delivery=replace(ware.terms.delivery, deadline_s=0))
        market.desk.go = asyncio.Event()
        payment = payer.signed(payer.voucher(PDF))
        async with patiently():
            late = await market.sell(payment, PDF, ware)
        market.desk.go = None
        again = await market.sell(payment, PDF)
        await market.call(payer, OTHER)
        await market.settled(1)
        outcomes = [each["data"]["outcome"] for each in events(market)]

    assert failed(late) is failed(again) is Code.VENDOR_FAILED
    assert market.desk.working == 0
    assert outcomes == ["timed_out", "succeeded"]
