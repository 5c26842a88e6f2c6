"""More sessions than a vendor keeps desks for: those that leave memory come back as they were."""

import asyncio
import gc
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from farthing.clients.counter import Sold
from farthing.clients.documents import arguments_sha256
from farthing.clients.pruning import KEEP_US, Pruning
from farthing.clients.session_desk import SessionDesk
from farthing.clients.session_desks import SessionDesks
from farthing.protocol.errors import Code
from farthing.protocol.times import DAY_US, SECOND_US
from tests.clients.settling import MAC_KEY, PAGE_UNITS, Payer, Shop, shop
from tests.clients.test_session_desk import OTHER, PDF, PLEASE, given, refused
from tests.patience import patiently


def desks(market: Shop) -> int:
    """How many desks of a vendor are in memory."""
    gc.collect()
    every = [each for each in gc.get_objects() if type(each) is SessionDesk]
    return sum(each._tools.vendor is market.settlement for each in every)  # noqa: SLF001


async def crowd(market: Shop, size: int) -> list[Payer]:
    """Sessions, each with one call, so that whatever was at a desk before is there no more."""
    payers = [market.payer(f"crowd {number}") for number in range(size)]
    for payer in payers:
        assert given(await market.call(payer, PDF))
    return payers


async def test_desks_in_memory_are_bounded_however_many_sessions_there_are(tmp_path: Path) -> None:
    async with shop(tmp_path, desks_max=4) as market:
        payers = await crowd(market, 40)
        after_one_each = desks(market)
        for payer in payers:
            assert given(await market.call(payer, OTHER))
        await market.settled(80)

        assert after_one_each <= 4
        assert desks(market) <= 4
        assert market.desk.runs == 80
        assert sum(market.settlement.billed.values()) == 40 * 3 * PAGE_UNITS


async def test_sessions_that_come_at_once_get_no_more_desks_than_there_are(tmp_path: Path) -> None:
    async with shop(tmp_path, desks_max=3) as market:
        payers = [market.payer(f"{number}") for number in range(30)]
        payments = [payer.signed(payer.voucher(PDF)) for payer in payers]
        left, most = list(payments), 0
        async with patiently():
            while left:
                outcomes = await asyncio.gather(*(market.sell(each, PDF) for each in left))
                most = max(most, desks(market))
                told = {refused(each)[0] for each in outcomes if not isinstance(each, Sold)}
                assert told <= {Code.OVERLOADED}
                left = [
                    each
                    for each, outcome in zip(left, outcomes, strict=True)
                    if not isinstance(outcome, Sold)
                ]
        await market.settled(30)

        assert most <= 3
        assert market.desk.runs == 30


@pytest.mark.parametrize("killed", [False, True])
async def test_a_desk_that_left_memory_takes_no_number_twice_and_no_lower_sum(
    tmp_path: Path, *, killed: bool
) -> None:
    async with shop(tmp_path, desks_max=2) as market:
        payer = market.payer(cap=5, per_call=2)
        voucher = payer.voucher(PDF)
        payment = payer.signed(voucher)
        first = await market.sell(payment, PDF)
        assert isinstance(first, Sold)
        payer.answered(first)
        await crowd(market, 6)
        if killed:
            await market.crash()
            await market.open()

        again = await market.sell(payment, PDF)
        await crowd(market, 6)
        other = replace(voucher, args_sha256=arguments_sha256(OTHER))
        taken = await market.sell(payer.signed(other), OTHER)
        await crowd(market, 6)
        uncovered = replace(payer.book.again(1, arguments_sha256(PDF)), seq=2)
        low = await market.sell(payer.signed(uncovered), PDF)
        assert given(await market.call(payer, PDF))

        assert again == first
        assert refused(taken) == (Code.PROOF_INVALID, "arguments")
        assert refused(low) == (Code.PROOF_INVALID, "voucher.max_cum_units")
        assert payer.book.spent_units == 4 * PAGE_UNITS


async def test_a_desk_that_left_memory_begins_nothing_for_whoever_still_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shop(tmp_path, desks_max=1) as market:
        payer = market.payer()
        assert given(await market.call(payer, PDF))
        left = market.counter.sessions.find(payer.entitlement)
        await crowd(market, 1)
        payment = payer.signed(payer.voucher(PDF))

        with monkeypatch.context() as still:
            still.setattr(SessionDesks, "find", lambda *_: left)
            gone = await market.sell(payment, PDF)
        back = await market.sell(payment, PDF)
        await market.settled(3)

        assert refused(gone)[0] is Code.OVERLOADED
        assert given(back)
        assert market.desk.runs == 3


async def test_where_every_desk_has_calls_that_run_another_session_is_asked_to_wait(
    tmp_path: Path,
) -> None:
    async with shop(tmp_path, desks_max=2) as market:
        market.desk.go, market.desk.full_house = asyncio.Event(), 2
        busy = [market.payer(name) for name in ("one", "two")]
        calls = [asyncio.create_task(market.call(payer, PDF)) for payer in busy]
        async with patiently():
            await market.desk.is_full.wait()

        third = market.payer("three")
        payment = third.signed(third.voucher(PDF))
        waits = await market.sell(payment, PDF)
        more = asyncio.create_task(market.call(busy[0], OTHER))
        market.desk.go.set()
        outcomes = await asyncio.gather(*calls, more)
        later = await market.sell(payment, PDF)

        assert refused(waits)[0] is Code.OVERLOADED
        assert {type(each) for each in (*outcomes, later)} == {Sold}
        assert market.desk.runs == 4


async def test_what_desks_that_left_had_to_report_is_reported_once(tmp_path: Path) -> None:
    async with shop(tmp_path, desks_max=2) as market:
        market.settlement.is_down = True
        await crowd(market, 70)
        assert desks(market) <= 2
        market.settlement.is_down = False
        await market.settled(70)

        assert set(market.settlement.billed.values()) == {2 * PAGE_UNITS}
        await market.counter.close()
        keys = [key for *_, key in market.settlement.sent]
        await market.open()
        assert [key for *_, key in market.settlement.sent] == keys


async def test_a_spool_that_says_nothing_of_stops_is_gone_on_with(tmp_path: Path) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer()
        market.settlement.is_down = True
        assert given(await market.call(payer, PDF))
        await market.counter.close()
        with closing(sqlite3.connect(market.spool)) as database, database:
            (kept,) = database.execute("SELECT document FROM session").fetchone()
            document = orjson.loads(kept)
            del document["stopped"]
            database.execute("UPDATE session SET document = ?", (orjson.dumps(document),))
        market.settlement.is_down = False
        await market.open()
        assert given(await market.call(payer, OTHER))
        await market.settled(2)

        assert sum(market.settlement.billed.values()) == 3 * PAGE_UNITS


async def test_what_many_sessions_left_behind_is_reported_after_a_kill(tmp_path: Path) -> None:
    async with shop(tmp_path, desks_max=2) as market:
        market.settlement.is_down = True
        await crowd(market, 70)
        await market.crash()
        market.settlement.is_down = False
        await market.open()
        await market.settled(70)

        assert set(market.settlement.billed.values()) == {2 * PAGE_UNITS}


async def test_a_mac_key_and_what_runs_on_it_outlive_the_desk_in_memory(tmp_path: Path) -> None:
    async with shop(tmp_path, desks_max=1) as market:
        payer = market.payer(per_call=1, unsigned=2)
        signed = await market.sell(payer.signed(payer.voucher(PLEASE), mac_key=MAC_KEY), PLEASE)
        assert isinstance(signed, Sold)
        payer.answered(signed)
        for _ in range(2):
            await crowd(market, 3)
            sold = await market.sell(payer.maced(payer.voucher(PLEASE)), PLEASE)
            assert isinstance(sold, Sold)
            payer.answered(sold)
        await crowd(market, 3)
        beyond = payer.voucher(PLEASE)
        too_far = await market.sell(payer.maced(beyond), PLEASE)
        mine = [seq for session, seq in market.settlement.billed if session == beyond.session_id]
        await crowd(market, 3)
        last = await market.sell(
            payer.signed(payer.book.again(4, arguments_sha256(PLEASE))), PLEASE
        )
        await crowd(market, 3)
        async with patiently():
            while (payer.book.session_id, 4) not in market.settlement.billed:
                market.settlement.reported.clear()
                await market.settlement.reported.wait()

        assert refused(too_far) == (Code.PROOF_INVALID, "mac.signature")
        assert max(mine) < 3
        assert given(last) == {"pages": ["one"]}
        bills = [seq for session, seq in market.settlement.billed if session == beyond.session_id]
        assert bills == [1, 2, 3, 4]


async def test_a_session_that_was_stopped_stays_so_out_of_memory_and_after_a_restart(
    tmp_path: Path,
) -> None:
    async with shop(tmp_path, desks_max=1) as market:
        market.settlement.closes_at = "2026-11-21T00:00:00Z"
        payer = market.payer()
        assert given(await market.call(payer, PDF))
        await market.settled(1)
        async with patiently():
            while isinstance(await market.sell(payer.signed(payer.voucher(PDF)), PDF), Sold):
                pass
        runs = market.desk.runs
        await crowd(market, 2)
        market.settlement.closes_at = ""
        left = await market.sell(payer.signed(payer.book.again(1, arguments_sha256(OTHER))), OTHER)
        over = await market.call(payer, PDF)
        await market.counter.close()
        await market.open()
        still = await market.call(payer, PDF)

        assert refused(left) == (Code.PROOF_INVALID, "arguments")
        assert refused(over)[0] is refused(still)[0] is Code.SESSION_CLOSED
        assert market.desk.runs == runs + 2


async def test_desks_of_sessions_that_are_over_or_long_idle_leave_memory(tmp_path: Path) -> None:
    async with shop(tmp_path) as market:
        payers = await crowd(market, 5)
        await market.settled(5)
        before = desks(market)
        market.clock.now_us += 599 * SECOND_US
        fresh = market.payer("fresh")
        assert given(await market.call(fresh, PDF))
        still = desks(market)
        market.clock.now_us += 11 * SECOND_US
        assert given(await market.call(market.payer("another"), PDF))

        assert (before, still, desks(market)) == (5, 6, 2)
        assert refused(await market.call(payers[0], PDF))[0] is Code.PROOF_INVALID


async def test_a_spool_is_pruned_while_its_vendor_serves_of_what_is_settled_and_old(
    tmp_path: Path,
) -> None:
    def rows(of: str) -> set[str]:
        return {row[0] for row in market.file.file.do(of)}

    pruned = asyncio.Event()
    async with shop(tmp_path) as market:
        old = await crowd(market, 3)
        await market.settled(3)
        await market.counter.close()
        await market.open()
        market.settlement.is_down = True
        owed = market.payer("owed")
        assert given(await market.call(owed, PDF))
        market.clock.now_us += 30 * DAY_US
        young = market.payer("young")
        assert given(await market.call(young, PDF))
        before = rows("SELECT session_id FROM call")
        market.clock.now_us += 2 * DAY_US
        last = market.payer("last")
        do = market.file.file.do

        def noted(statement: str, *values: str | int | bytes) -> list[sqlite3.Row]:
            found = do(statement, *values)
            if "DELETE FROM session" in statement and not found:
                loop.call_soon_threadsafe(pruned.set)
            return found

        loop = asyncio.get_running_loop()
        market.file.file.do = noted  # type: ignore[method-assign]
        assert given(await market.call(last, PDF))
        async with patiently():
            await pruned.wait()

        kept = {each.book.session_id for each in (owed, young, last)}
        assert before == {*(each.book.session_id for each in (*old, owed, young))}
        assert rows("SELECT session_id FROM call") == kept
        assert rows("SELECT session_id FROM session") == kept
        assert rows("SELECT session_id FROM batch") <= kept


async def test_a_clock_that_was_set_back_keeps_no_spool_from_being_pruned() -> None:
    pruned_us: list[int] = []

    def forget(before_us: int, _: int) -> int:
        pruned_us.append(before_us)
        return 0

    pruning = Pruning((forget,))
    for now_us in (10 * DAY_US, 10 * DAY_US + 1, 2 * DAY_US):
        pruning.look(now_us)
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))

    assert pruned_us == [10 * DAY_US - KEEP_US, 2 * DAY_US - KEEP_US]


async def left_unsigned(market: Shop, name: str) -> tuple[Payer, int]:
    """Who signed one call and asks for another by MAC; how often the tool had run before that."""
    payer = market.payer(name, per_call=1, unsigned=1000)
    first = payer.signed(payer.voucher(PLEASE), mac_key=MAC_KEY)
    assert isinstance(await market.sell(first, PLEASE), Sold)
    before = market.desk.runs
    await market.sell(payer.maced(payer.voucher(PLEASE)), PLEASE)
    return payer, before


@pytest.mark.parametrize(("later_s", "runs"), [(0, 2), (120, 1)])
async def test_who_left_calls_unsigned_signs_each_call_of_its_next_session(
    tmp_path: Path, later_s: int, runs: int
) -> None:
    async with shop(tmp_path) as market:
        for name in ("one", "two"):
            payer, before = await left_unsigned(market, name)
            market.clock.now_us += later_s * SECOND_US
        signed = payer.signed(payer.voucher(PLEASE))

        assert market.desk.runs - before == runs - 1
        assert isinstance(await market.sell(signed, PLEASE), Sold)


async def test_who_left_calls_unsigned_is_known_for_it_when_its_desk_has_just_left_memory(
    tmp_path: Path,
) -> None:
    async with shop(tmp_path) as market:
        for name in ("one", "two"):
            _, before = await left_unsigned(market, name)
            if name == "one":
                market.clock.now_us += 700 * SECOND_US
                await crowd(market, 1)
                assert desks(market) == 1

        assert market.desk.runs == before
