"""A session at its vendor's when things go wrong: a full disk, a clock set back, a tool's words."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from farthing.clients.counter import Sold
from farthing.clients.deliveries import Undeliverable
from farthing.protocol.errors import Code, refuse
from farthing.protocol.times import SECOND_US
from tests.clients.settling import MAC_KEY, PAGE_UNITS, shop
from tests.clients.test_session_desk import OTHER, PDF, failed, given, refused


async def test_what_cannot_be_written_is_not_answered_and_not_lost(tmp_path: Path) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer()
        payment = payer.signed(payer.voucher(PDF))
        write = market.file.file.write

        def full(steps: object) -> None:
            del steps
            raise OSError(28, "No space left on device")

        market.file.file.write = full  # type: ignore[method-assign]
        first = await market.sell(payment, PDF)
        still = await market.sell(payment, PDF)
        market.file.file.write = write  # type: ignore[method-assign]
        again = await market.sell(payment, PDF)
        other = await market.call(payer, OTHER)
        await market.settled(2)

        assert refused(first)[0] is refused(still)[0] is Code.UNAVAILABLE
        assert (given(other), given(again)) == ({"pages": ["three"]}, {"pages": ["one", "two"]})
        assert market.desk.runs == 2
        assert sum(market.settlement.billed.values()) == 3 * PAGE_UNITS


async def test_a_call_that_was_begun_and_could_not_be_written_to_its_end_has_not_failed(
    tmp_path: Path,
) -> None:
    listing: Any = {"idempotent": False, "side_effects": True}
    async with shop(tmp_path, listing=listing) as market:
        payer = market.payer()
        payment = payer.signed(payer.voucher(PDF))
        write = market.file.file.write
        begun: list[object] = []

        def full(steps: Any) -> None:
            if begun:
                raise OSError(28, "No space left on device")
            begun.append(write(steps))

        market.file.file.write = full  # type: ignore[method-assign]
        first = await market.sell(payment, PDF)
        still = await market.sell(payment, PDF)
        market.file.file.write = write  # type: ignore[method-assign]
        again = await market.sell(payment, PDF)

        assert refused(first)[0] is refused(still)[0] is Code.UNAVAILABLE
        assert given(again) == {"pages": ["one", "two"]}
        assert market.desk.runs == 1


async def test_words_of_a_tool_that_have_no_bytes_cost_no_other_call_its_record(
    tmp_path: Path,
) -> None:
    async with shop(tmp_path) as market:
        bad = market.payer("bad")
        payment = bad.signed(bad.voucher(PDF))
        market.desk.fail = Undeliverable(refuse(Code.VENDOR_FAILED, message="no \udcff"))
        told = await market.sell(payment, PDF)
        market.desk.fail = None
        await market.call(market.payer("good"), OTHER)
        await market.settled(1)

        assert failed(told) is failed(await market.sell(payment, PDF)) is Code.VENDOR_FAILED


async def test_a_clock_that_was_set_back_dates_no_call_before_its_session(tmp_path: Path) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer(unsigned=12)
        signed = payer.signed(payer.voucher(PDF), mac_key=MAC_KEY)
        opened_at_us = market.clock.now_us
        assert isinstance(await market.sell(signed, PDF), Sold)
        market.clock.now_us -= 100 * SECOND_US
        maced = replace(payer.maced(payer.voucher(OTHER)), entitlement=signed.entitlement)

        assert given(await market.sell(maced, OTHER)) == {"pages": ["three"]}

        ((first_us,),) = market.file.file.do("SELECT min(at_us) FROM call")
        assert first_us == opened_at_us


async def test_a_clock_that_was_set_back_is_no_word_that_a_session_is_open(
    tmp_path: Path,
) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer()
        token = payer.token()
        assert given(await market.call(payer, PDF))
        market.clock.now_us -= 3600 * SECOND_US
        market.settlement.status = "closed"

        again = replace(payer.signed(payer.voucher(OTHER)), entitlement=token)
        outcome = await market.sell(again, OTHER)

        assert refused(outcome)[0] is Code.SESSION_CLOSED
        assert market.desk.runs == 1
