"""A tool made payable when its vendor's disk is full, or it waits for others in vain itself."""

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mcp.server import MCPServer

from farthing.clients.paid import Seller
from farthing.clients.services import NotDelivered, ServiceFailed
from farthing.clients.spool import Spool
from farthing.protocol.canonical import Json
from farthing.protocol.errors import Code
from farthing.protocol.times import SECOND_US
from tests.clients.test_paid import available, buy
from tests.clients.trading import PageTexts, Trading, trading, usd
from tests.patience import until

ONCE: dict[str, Json] = {"idempotent": False, "side_effects": True}


def full(*given: object, **named: object) -> None:
    del given, named
    raise sqlite3.OperationalError("database or disk is full")


def states(market: Trading) -> set[str]:
    with closing(sqlite3.connect(f"{market.spool.as_uri()}?mode=ro", uri=True)) as db:
        return {state for (state,) in db.execute("SELECT state FROM work")}


async def test_a_tool_whose_own_wait_was_too_long_has_not_outlasted_its_hold(
    tmp_path: Path,
) -> None:
    def register(mcp: MCPServer[Any], seller: Seller) -> None:
        @mcp.tool()
        @seller.paid(listing="pdf-text", meter={"page": 1})
        async def extract_text(pdf: str) -> PageTexts:
            raise TimeoutError(pdf)

    async with trading(tmp_path, open_shop=False) as market:
        await market.open_shop(register)

        with pytest.raises(ServiceFailed) as failed:
            await buy(market)

        assert failed.value.code is Code.VENDOR_FAILED
        assert "hold" not in failed.value.refusal.message
        assert (await market.buyer.hold_status(failed.value.hold_id)).status == "released"


@pytest.mark.parametrize(
    ("step", "code", "left"),
    [
        ("begin", Code.UNAVAILABLE, "0.994"),
        ("deliver", Code.VENDOR_FAILED, "1"),
        ("deliver drop", Code.VENDOR_FAILED, "1"),
    ],
)
async def test_what_a_full_spool_does_not_take_is_not_charged_and_done_no_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, code: Code, left: str
) -> None:
    async with trading(tmp_path, listing=ONCE) as market:
        for each in step.split():
            monkeypatch.setattr(Spool, each, full)
        with pytest.raises(ServiceFailed) as failed:
            await buy(market, key="purchase-number-one")

        assert (failed.value.code, await available(market)) == (code, left)
        monkeypatch.undo()
        if code.retryable:
            assert (await buy(market, key="purchase-number-one")).charge.amount == usd("0.004")
        else:
            with pytest.raises(ServiceFailed):
                await buy(market, key="purchase-number-one")
        assert market.desk.runs == 1


async def test_a_charge_that_a_full_spool_does_not_take_is_asked_for_again_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with trading(tmp_path) as market:
        monkeypatch.setattr(Spool, "capture", full)
        with pytest.raises(NotDelivered) as charged:
            await buy(market, key="purchase-number-one")
        monkeypatch.undo()
        await until(lambda: states(market) == {"captured"})

        assert "ask again" in str(charged.value)
        assert (await buy(market, key="purchase-number-one")).result == {"pages": ["one", "two"]}
        assert (await available(market), market.desk.runs) == ("0.996", 1)


async def test_a_vendor_whose_clock_is_behind_hears_why_nobody_can_pay_and_fails_its_buyers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with trading(tmp_path) as market:
        assert market.seller is not None
        connection = market.seller.vendor.connection
        connection.clock = lambda: market.serving.clock() - 20 * SECOND_US
        await market.seller.close()
        with caplog.at_level(logging.WARNING), pytest.raises(ServiceFailed) as failed:
            await buy(market)

        assert failed.value.code is Code.VENDOR_FAILED
        assert "clock is behind" in str(failed.value)
        assert "this clock is behind the platform's" in caplog.text
        assert market.desk.runs == 0
