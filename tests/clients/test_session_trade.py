"""Spend sessions on the real server, with a real vendor: set aside, called, reported, settled."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from farthing.clients.callbooks import CallState
from farthing.clients.session_answers import CallFailed, CallLost
from farthing.clients.sessions import SpendSession
from farthing.protocol.canonical import Json
from farthing.protocol.errors import Code, Refused
from farthing.protocol.evidence import verify
from farthing.protocol.messages.agreements import Agreement
from farthing.protocol.messages.sessions import CLOSE_SESSION, CloseSession
from farthing.protocol.wire import Money
from tests.clients.trading import Trading, trading, usd
from tests.papers import card_document

FLAT = card_document(({"amount": "0.002", "per_quantity": "1"},))
LIMITS: dict[str, Json] = {"limits": {"input_bytes_max": 10_000, "concurrency_max": 64}}
PDF = {"pdf": "one|two"}


@asynccontextmanager
async def selling(tmp_path: Path) -> AsyncIterator[Trading]:
    async with trading(tmp_path, card=FLAT, listing=LIMITS) as market:
        yield market


async def agreed(market: Trading) -> Agreement:
    return await market.buyer.accept(await market.buyer.quote(market.listing_id, {"page": 1}))


async def opened(market: Trading, **more: Money) -> SpendSession:
    terms: dict[str, Any] = {"cap": usd("0.3"), "per_call": usd("0.01"), **more}
    return await market.buyer.open_session((await agreed(market)).agreement_id, **terms)


async def balance(market: Trading) -> tuple[str, str]:
    (account,) = (await market.buyer.balance()).accounts
    return account.available.amount, account.held.amount


async def test_many_calls_are_billed_in_few_charges_with_receipts(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        agreement = await agreed(market)
        async with market.buyer.session(
            agreement.agreement_id, cap=usd("0.8"), per_call=usd("0.01")
        ) as session:
            assert await balance(market) == ("0.2", "0.8")
            answers = await asyncio.gather(*(session.call(PDF) for _ in range(100)))
        await market.close_shop()

        view = await market.buyer.session_status(session.session_id)
        charges = (await market.buyer.charges()).charges
        receipts = [await market.buyer.receipt(each.charge_id) for each in charges]
        pack = tmp_path / "charge.zip"
        await market.buyer.save_evidence(charges[0].charge_id, pack)
        keys = frozenset((await market.buyer.platform_keys()).journal)

    assert {each.amount for each in answers} == {usd("0.004")}
    assert sorted(each.seq for each in answers) == list(range(1, 101))
    assert (view.status, view.calls, view.rejected) == ("closing", 100, 0)
    assert view.spent == usd("0.4")
    assert sum(each.amount.units for each in charges) == view.spent.units
    assert len(charges) < 20
    assert [each.seq for each in receipts] == [each.seq for each in charges]
    assert verify(pack.read_bytes(), keys).verified
    assert market.desk.runs == 100


async def test_the_rest_is_given_back_at_once_when_its_vendor_closes_it_too(
    tmp_path: Path,
) -> None:
    async with selling(tmp_path) as market:
        session = await opened(market)
        await session.call(PDF)
        closing = await session.close()
        await session.aclose()
        await market.close_shop()
        ask = CloseSession(
            session_id=session.session_id, idempotency_key=market.vendor.connection.new_key()
        )
        closed = await market.vendor.connection.call(CLOSE_SESSION, ask)
        after = await balance(market)

    assert (closing.status, closed.status) == ("closing", "closed")
    assert (closed.spent, after) == (usd("0.004"), ("0.996", "0"))


@pytest.mark.parametrize("is_closed", [True, False])
async def test_what_a_mac_paid_for_is_signed_for_though_the_session_was_closed_in_mid_call(
    tmp_path: Path, *, is_closed: bool
) -> None:
    async with selling(tmp_path) as market:
        session = await opened(market, unsigned=usd("0.05"))
        await session.call(PDF)
        market.desk.slow = True
        market.desk.started.clear()
        call = asyncio.create_task(session.call(PDF))
        await market.desk.started.wait()
        if is_closed:
            await session.close()
        market.desk.go.set()
        await call
        await session.aclose()
        await market.close_shop()
        view = await market.buyer.session_status(session.session_id)

    assert view.spent == usd("0.008")


async def test_lost_answers_are_asked_for_again_and_nothing_is_done_twice(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        session = await opened(market)
        market.routes.lose_replies = 1
        first = await session.call(PDF)
        market.routes.lose_replies = 3
        with pytest.raises(CallLost) as lost:
            await session.call(PDF)
        again = await session.call(PDF, again=lost.value.seq)
        await session.close()
        late = await session.call(PDF, again=2)
        await session.aclose()
        await market.close_shop()
        view = await market.buyer.session_status(session.session_id)

    assert (first.seq, again.seq, late.seq) == (1, 2, 2)
    assert market.desk.runs == 2
    assert (view.calls, view.spent) == (2, usd("0.008"))


async def test_a_vendor_that_is_started_again_goes_on_where_it_was(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        session = await opened(market)
        await session.call(PDF)
        await market.close_shop()
        with pytest.raises(CallLost) as lost:
            await session.call(PDF)
        await market.open_shop()
        again = await session.call(PDF, again=lost.value.seq)
        new = await session.call(PDF)
        await session.close()
        await session.aclose()
        await market.close_shop()
        view = await market.buyer.session_status(session.session_id)

    assert (again.seq, new.seq) == (2, 3)
    assert market.desk.runs == 3
    assert (view.calls, view.spent) == (3, usd("0.012"))


async def test_a_buyer_that_is_started_again_goes_on_with_its_book(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        session = await opened(market)
        await session.call(PDF)
        await session.aclose()

        resumed = await market.buyer.resume_session(session.session_id)
        answer = await resumed.call(PDF)
        await resumed.aclose()

    assert (answer.seq, answer.spent) == (2, usd("0.008"))


async def test_a_session_is_topped_up_and_its_vendor_takes_the_new_entitlement(
    tmp_path: Path,
) -> None:
    async with selling(tmp_path) as market:
        session = await opened(market, cap=usd("0.01"))
        await session.call(PDF)
        with pytest.raises(Refused) as caught:
            await session.call(PDF)
        topped = await session.top_up(usd("0.01"))
        answer = await session.call(PDF)
        held = await balance(market)
        await session.aclose()

    assert caught.value.code is Code.LOCAL_LIMIT_EXCEEDED
    assert topped.cap == usd("0.02")
    assert answer.spent == usd("0.008")
    assert held[0] == "0.98"


async def test_calls_by_mac_are_all_signed_for_in_the_end(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        session = await opened(market, unsigned=usd("0.05"))
        for _ in range(12):
            await session.call(PDF)
        await session.close()
        await session.aclose()
        await market.close_shop()
        view = await market.buyer.session_status(session.session_id)

    assert market.desk.runs == 12
    assert (view.calls, view.rejected, view.spent) == (12, 0, usd("0.048"))


async def test_a_tool_that_fails_in_a_session_costs_nothing(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        session = await opened(market)
        market.desk.fail = "no such page"
        with pytest.raises(CallFailed) as failed:
            await session.call(PDF)
        market.desk.fail = ""
        await session.call(PDF)
        calls = await session.calls(CallState.FAILED)
        await session.close()
        await session.aclose()
        await market.close_shop()
        view = await market.buyer.session_status(session.session_id)

    assert failed.value.code is Code.VENDOR_FAILED
    assert [each.seq for each in calls] == [failed.value.seq]
    assert (view.calls, view.spent) == (1, usd("0.004"))


async def test_usage_above_what_a_call_may_cost_is_refused_before_the_work(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        session = await opened(market, per_call=usd("0.002"))
        with pytest.raises(CallFailed) as failed:
            await session.call(PDF)
        await session.aclose()

    assert failed.value.code is Code.CAPTURE_EXCEEDS_HOLD
