"""A vendor runs no call beyond an allowance that it knows of, though the platform be away."""

import asyncio
from dataclasses import replace
from pathlib import Path

from farthing.clients.counter import Sold, Unpaid
from farthing.clients.documents import arguments_sha256
from farthing.protocol.errors import Code, Refusal
from farthing.protocol.times import SECOND_US
from tests.clients.settling import MAC_KEY, Shop, shop
from tests.clients.test_session_desk import PDF, PLEASE, events, failed, given, refused
from tests.patience import patiently


async def served(market: Shop, calls: int) -> list[Sold | Unpaid | Refusal]:
    """So many calls of two pages, one after the other, of one session."""
    payer = market.payer()
    outcomes = []
    for _ in range(calls):
        outcomes.append(await market.call(payer, PDF))
        if not isinstance(outcomes[-1], Sold):
            payer.book.failed(payer.book.seq)
    return outcomes


async def test_what_the_allowance_has_no_room_for_is_refused_before_it_is_run(
    tmp_path: Path,
) -> None:
    async with shop(tmp_path) as market:
        market.settlement.allow(4)

        outcomes = await served(market, 4)
        await market.settled(2)

        assert [type(each) for each in outcomes[:2]] == [Sold, Sold]
        told = [refused(each) for each in outcomes[2:]]
        assert told == [(Code.ALLOWANCE_EXCEEDED, "usage.page")] * 2
        assert market.desk.runs == 2
        assert await market.counter.sessions.rejected(10) == []


async def test_calls_at_once_do_not_share_what_is_left(tmp_path: Path) -> None:
    async with shop(tmp_path) as market:
        market.settlement.allow(7)
        market.desk.go = asyncio.Event()
        payers = [market.payer(name) for name in ("one", "two")]
        calls = [asyncio.create_task(market.call(payer, PDF)) for payer in payers for _ in range(4)]
        async with patiently():
            await market.desk.is_full.wait()
        market.desk.go.set()
        outcomes = await asyncio.gather(*calls)
        sold = [each for each in outcomes if isinstance(each, Sold)]
        await market.settled(3)

        assert len(sold) == 3
        assert await market.counter.sessions.rejected(10) == []
        assert sum(market.settlement.used.values()) == 6


async def test_what_turns_out_to_be_beyond_the_allowance_is_not_given(tmp_path: Path) -> None:
    async with shop(tmp_path) as market:
        market.settlement.allow(3)
        payer = market.payer()
        assert given(await market.call(payer, PDF))

        beyond = await market.call(payer, PDF)
        payer.book.failed(2)
        within = await market.call(payer, PLEASE)
        await market.settled(2)

        assert failed(beyond) is Code.ALLOWANCE_EXCEEDED
        assert given(within) == {"pages": ["one"]}
        assert sum(market.settlement.used.values()) == 3
        assert await market.counter.sessions.rejected(10) == []


async def test_a_platform_that_is_away_stops_nobody_and_its_last_word_is_kept_to(
    tmp_path: Path,
) -> None:
    async with shop(tmp_path) as market:
        market.settlement.allow(2)
        market.settlement.is_down = True
        unknown = await served(market, 1)
        market.settlement.is_down = False
        await market.settled(1)
        market.settlement.allow(4)
        market.clock.now_us += 61 * SECOND_US
        payer = market.payer("two")
        known = await market.call(payer, PDF)
        market.settlement.is_down = True
        market.clock.now_us += 61 * SECOND_US
        offline = await market.call(payer, PDF)

        assert given(unknown[0]) == given(known)
        assert refused(offline)[0] is Code.ALLOWANCE_EXCEEDED
        assert market.desk.runs == 2


async def test_an_allowance_that_grew_is_heard_of_before_a_call_is_refused(tmp_path: Path) -> None:
    async with shop(tmp_path) as market:
        market.settlement.allow(2)
        payer = market.payer()
        assert given(await market.call(payer, PDF))
        market.settlement.allow(4)
        at_once = await market.call(payer, PDF)
        payment = payer.signed(payer.book.again(2, arguments_sha256(PDF)))
        market.clock.now_us += 5 * SECOND_US
        soon = await market.sell(payment, PDF)
        asked = market.settlement.allowances_asked

        assert refused(at_once)[0] is Code.ALLOWANCE_EXCEEDED
        assert given(soon)
        assert asked == 2


async def test_one_that_was_agreed_on_in_mid_session_is_known_within_a_minute_or_a_rejection(
    tmp_path: Path,
) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer()
        assert given(await market.call(payer, PDF))
        market.settlement.allow(2)
        assert given(await market.call(payer, PDF))
        async with patiently():
            while len(events(market)) < 2:
                market.settlement.reported.clear()
                await market.settlement.reported.wait()
        market.clock.now_us += 31 * SECOND_US
        heard = await market.call(payer, PDF)
        await market.counter.sessions.close()
        rejected = await market.counter.sessions.rejected(10)

        assert [each.rejected for each in rejected] == ["over_allowance"]
        assert refused(heard)[0] is Code.ALLOWANCE_EXCEEDED
        assert market.desk.runs == 2


async def test_use_that_no_signature_covers_yet_counts_too(tmp_path: Path) -> None:
    async with shop(tmp_path) as market:
        market.settlement.allow(3)
        payer = market.payer(per_call=1, unsigned=10)
        first = payer.signed(payer.voucher(PLEASE), mac_key=MAC_KEY)
        assert isinstance(await market.sell(first, PLEASE), Sold)
        for _ in range(2):
            assert isinstance(await market.sell(payer.maced(payer.voucher(PLEASE)), PLEASE), Sold)
        await market.settled(1)
        market.clock.now_us += 61 * SECOND_US
        beyond = await market.sell(payer.maced(payer.voucher(PLEASE)), PLEASE)

        assert refused(beyond)[0] is Code.ALLOWANCE_EXCEEDED
        assert market.desk.runs == 3


async def test_what_is_only_to_be_reported_is_served(tmp_path: Path) -> None:
    async with shop(tmp_path) as market:
        market.settlement.allow(1, enforcement="report")
        market.settlement.limits = replace(market.settlement.limits, in_all=())  # type: ignore[type-var]

        assert {type(each) for each in await served(market, 3)} == {Sold}
