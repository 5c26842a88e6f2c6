"""A session at a tool that was made payable: calls that overlap, a buyer that would not pay."""

import asyncio
import gc
from pathlib import Path
from typing import Any

import pytest
from mcp.server import MCPServer

from farthing.clients import session_desk
from farthing.clients.collector import spare_the_collector
from farthing.clients.paid import Seller
from farthing.clients.session_answers import CallFailed
from farthing.clients.sessions import SpendSession
from farthing.clients.tools import Endpoint
from farthing.clients.vendors import Vendor
from farthing.protocol.canonical import Json
from farthing.protocol.errors import Code
from farthing.protocol.messages.sessions import CLOSE_SESSION, CloseSession
from farthing.protocol.times import SECOND_US
from farthing.protocol.x402 import PAYMENT_RESPONSE, read_used
from tests.clients.trading import VENDOR_URL, PageTexts, Trading, trading, usd
from tests.papers import card_document
from tests.patience import patiently

PDF = {"pdf": "one|two"}
FLAT = card_document(({"amount": "0.002", "per_quantity": "1"},))
LIMITS: dict[str, Json] = {"limits": {"input_bytes_max": 10_000, "concurrency_max": 64}}


async def test_sixty_four_calls_of_one_session_are_all_in_the_tool_at_once(tmp_path: Path) -> None:
    everybody = asyncio.Barrier(64)

    def register(mcp: MCPServer[Any], seller: Seller) -> None:
        @mcp.tool()
        @seller.paid(listing="pdf-text", meter={"page": lambda result: len(result.pages)})
        async def extract_text(pdf: str) -> PageTexts:
            async with patiently():
                await everybody.wait()
            return PageTexts(pages=pdf.split("|"))

    async with trading(tmp_path, card=FLAT, listing=LIMITS, open_shop=False) as market:
        await market.open_shop(register)
        quote = await market.buyer.quote(market.listing_id, {"page": 1})
        agreement = await market.buyer.accept(quote)
        async with market.buyer.session(
            agreement.agreement_id, cap=usd("0.9"), per_call=usd("0.01")
        ) as session:
            answers = await asyncio.gather(*(session.call(PDF) for _ in range(64)))
        await market.close_shop()
        view = await market.buyer.session_status(session.session_id)

    assert sorted(each.seq for each in answers) == list(range(1, 65))
    assert (view.calls, view.rejected, view.spent) == (64, 0, usd("0.256"))


async def test_an_answer_that_was_just_made_is_the_one_that_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    call_tool = Endpoint.call_tool

    async def noted(self: Endpoint, *ask: Any, **named: Any) -> Any:
        asked.append((ask, named))
        return await call_tool(self, *ask, **named)

    monkeypatch.setattr(Endpoint, "call_tool", noted)
    async with trading(tmp_path, card=FLAT, listing=LIMITS) as market:
        quote = await market.buyer.quote(market.listing_id, {"page": 1})
        agreement = await market.buyer.accept(quote)
        async with market.buyer.session(
            agreement.agreement_id, cap=usd("0.9"), per_call=usd("0.01")
        ) as session:
            answer = await session.call(PDF)
        endpoint = Endpoint(market.buyer.connection.http, f"{VENDOR_URL}/mcp", timeout_s=5)
        ((ask, named),) = [each for each in asked if "extract_text" in each[0]]
        kept = await call_tool(endpoint, *ask, **named)

    assert market.desk.runs == 1
    assert (answer.result, answer.text, answer.content) == (
        kept.structured,
        kept.text,
        kept.content,
    )
    assert answer.result == {"pages": ["one", "two"]}
    used = read_used(kept.meta[PAYMENT_RESPONSE])
    assert used is not None
    assert (used.seq, used.result_sha256) == (answer.seq, answer.result_sha256)


async def test_a_buyer_that_closes_while_the_vendor_works_pays_for_the_work(tmp_path: Path) -> None:
    async with trading(tmp_path, card=FLAT, listing=LIMITS) as market:
        session = await opened(market, cap="0.1")
        market.desk.slow = True
        call = asyncio.create_task(session.call(PDF))
        await market.desk.started.wait()
        closing = await session.close()
        market.serving.clock.ahead_us += 20_000_000
        market.desk.go.set()
        answer = await call
        await session.aclose()
        await market.close_shop()
        view = await market.buyer.session_status(session.session_id)

    assert closing.status == "closing"
    assert answer.amount == view.spent == usd("0.004")
    assert (view.calls, view.rejected) == (1, 0)


async def test_calls_that_wait_are_not_looked_through_for_garbage_unless_the_process_says_so(
    tmp_path: Path,
) -> None:
    before = gc.get_threshold()
    try:
        gc.set_threshold(700, 10, 10)
        async with trading(tmp_path):
            in_a_seller = gc.get_threshold()
        gc.set_threshold(500, 10, 10)
        spare_the_collector()
        by_its_own_choice = gc.get_threshold()
    finally:
        gc.set_threshold(*before)

    assert in_a_seller == (20_000, 10, 10)
    assert by_its_own_choice == (500, 10, 10)


async def test_a_tool_says_that_it_takes_sessions(tmp_path: Path) -> None:
    async with trading(tmp_path) as market:
        endpoint = Endpoint(market.buyer.connection.http, f"{VENDOR_URL}/mcp", timeout_s=5)
        required: Any = (await endpoint.call_tool("extract_text", PDF)).structured

    assert required["accepts"][0]["extra"]["takes"] == ["hold", "session"]


async def opened(market: Trading, cap: str) -> SpendSession:
    """A session under a new agreement."""
    quote = await market.buyer.quote(market.listing_id, {"page": 1})
    agreement = await market.buyer.accept(quote)
    return await market.buyer.open_session(
        agreement.agreement_id, cap=usd(cap), per_call=usd("0.01")
    )


async def closed_by_hand(market: Trading, session: SpendSession) -> None:
    """Its buyer closes the session and lets its own program think that it is open."""
    ask = CloseSession(session_id=session.session_id, idempotency_key=f"by-hand-{'0' * 16}")
    await market.buyer.connection.call(CLOSE_SESSION, ask)


@pytest.mark.parametrize("calls_before", [0, 1])
async def test_a_session_that_was_closed_behind_the_vendors_back_gets_no_work(
    tmp_path: Path, calls_before: int
) -> None:
    async with trading(tmp_path, card=FLAT, listing=LIMITS) as market:
        session = await opened(market, cap="0.4")
        for _ in range(calls_before):
            await session.call(PDF)
        await closed_by_hand(market, session)
        market.serving.clock.ahead_us += 400 * SECOND_US
        called = await asyncio.gather(
            *(session.call(PDF) for _ in range(20)), return_exceptions=True
        )
        await session.aclose()

    refused = [each.refusal.code for each in called if isinstance(each, CallFailed)]
    assert refused == [Code.SESSION_CLOSED] * 20
    assert market.desk.runs == calls_before


async def test_a_session_of_which_long_nothing_was_heard_is_asked_about_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    session_status = Vendor.session_status

    async def noted(self: Vendor, session_id: str) -> Any:
        asked.append(session_id)
        return await session_status(self, session_id)

    monkeypatch.setattr(Vendor, "session_status", noted)
    async with trading(tmp_path, card=FLAT, listing=LIMITS) as market:
        quote = await market.buyer.quote(market.listing_id, {"page": 1})
        agreement = await market.buyer.accept(quote)
        async with market.buyer.session(
            agreement.agreement_id, cap=usd("0.4"), per_call=usd("0.01")
        ) as session:
            await session.call(PDF)
            at_once = len(asked)
            market.serving.clock.ahead_us += 200 * SECOND_US
            await asyncio.gather(*(session.call(PDF) for _ in range(20)))

    assert at_once == 0
    assert asked == [session.session_id]


async def test_a_call_that_takes_long_ends_before_a_close_makes_it_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_desk, "_WATCH_S", 0.001)
    async with trading(tmp_path, card=FLAT, listing=LIMITS) as market:
        session = await opened(market, cap="0.4")
        market.desk.slow = True
        call = asyncio.create_task(session.call(PDF))
        await market.desk.started.wait()
        await closed_by_hand(market, session)
        market.serving.clock.ahead_us += 250 * SECOND_US
        with pytest.raises(CallFailed) as failed:
            await call
        await session.aclose()

    assert failed.value.refusal.code is Code.VENDOR_FAILED
