"""A vendor without MCP is called by POST and paid by headers, under the same rules."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import orjson
import pytest
from starlette.types import Receive, Scope, Send

from farthing.clients.buyers import Buyer
from farthing.clients.documents import result_sha256
from farthing.clients.services import ServiceFailed
from farthing.clients.transport import Connection
from farthing.protocol.canonical import Json
from farthing.protocol.errors import Code, Refused
from tests.server.calling import PDF, Selling, answering, selling, usd

GOOD = {"pages": ["one", "two"]}
ONCE: dict[str, Json] = {"idempotent": False, "side_effects": True}
NOTHING_HELD = ("1", "0")
PAID = ("0.996", "0")


@asynccontextmanager
async def going_itself(market: Selling) -> AsyncIterator[Buyer]:
    """The same buyer, with a way of its own to the vendor's port."""
    known = market.buyer.connection
    platform = httpx2.ASGITransport(app=market.serving.service.app)
    async with httpx2.AsyncClient(mounts={known.url: platform}) as http:
        yield Buyer(
            Connection(
                known.url,
                signer=known.signer,
                principal=known.principal,
                http=http,
                clock=known.clock,
            )
        )


async def refused(market: Selling, **asked: object) -> Refused:
    with pytest.raises(Refused) as found:
        await market.call(**asked)  # type: ignore[arg-type]
    return found.value


async def test_a_route_is_called_once_and_paid_once(tmp_path: Path) -> None:
    async with selling(tmp_path, is_route=True) as market:
        first, second = await market.call(), await market.call()

        assert (first.replayed, second.replayed) == (False, True)
        for answer in (first.answer, second.answer):
            assert answer.untrusted_result == GOOD
            assert answer.result_sha256 == result_sha256(GOOD)
            assert answer.charge.amount.amount == "0.004"
        assert (market.desk.requests, market.desk.runs) == (1, 1)
        assert await market.balance() == PAID
        await market.spooled("captured")


async def test_its_lost_answer_is_asked_for_again_where_that_does_no_harm(tmp_path: Path) -> None:
    async with selling(tmp_path, is_route=True) as market:
        market.desk.lose_replies = 1

        assert (await market.call()).answer.untrusted_result == GOOD
        assert (market.desk.requests, market.desk.runs) == (2, 1)
        assert await market.balance() == PAID


async def test_its_lost_answer_costs_nothing_where_it_may_not_be_repeated(tmp_path: Path) -> None:
    async with selling(tmp_path, is_route=True, listing=ONCE) as market:
        market.desk.lose_replies = 1

        assert (await refused(market)).code is Code.VENDOR_FAILED
        assert (market.desk.requests, market.desk.runs) == (1, 1)
        assert await market.balance() == NOTHING_HELD
        await market.spooled("dropped")


async def test_a_route_that_is_late_is_not_paid(tmp_path: Path) -> None:
    async with selling(tmp_path, is_route=True) as market:
        market.desk.slow = True
        asking = asyncio.create_task(market.attempt())
        await market.desk.begun()
        # The terms give it 60 seconds.
        market.serving.clock.ahead_us += 61_000_000
        market.desk.go.set()

        found = await asking

        assert isinstance(found, Refused)
        assert found.code is Code.VENDOR_FAILED
        assert await market.balance() == NOTHING_HELD


async def test_what_a_route_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    async with selling(tmp_path, is_route=True) as market:
        market.desk.fail = "the PDF is broken"

        found = await refused(market)

        assert found.code is Code.VENDOR_FAILED
        assert found.refusal.reasons == (Code.INVALID_ARGUMENT,)
        assert re.search('The vendor says: ".*the PDF is broken.*"[.]', found.refusal.message)
        assert await market.balance() == NOTHING_HELD


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (307, b""),
        (404, b"<html>"),
        (200, orjson.dumps(GOOD)),
        (200, b"no JSON"),
        (402, b'{"x402Version":2,"error":"proof_invalid"}'),
        (401, b'{"code":"unauthenticated","message":"who are you"}'),
        (200, b'"' + b"x" * 70_000 + b'"'),
    ],
)
async def test_an_answer_of_a_route_that_is_none_gives_the_money_back_at_once(
    tmp_path: Path, status: int, body: bytes
) -> None:
    async with selling(tmp_path, is_route=True, vendor_answer_bytes_max=65_536) as market:
        market.desk.instead = answering(status, body)

        found = await refused(market)

        assert found.code is Code.VENDOR_FAILED
        assert await market.balance() == NOTHING_HELD
        assert market.desk.requests == 1


async def test_a_result_that_its_route_did_not_sign_for_is_not_paid(tmp_path: Path) -> None:
    async with selling(tmp_path, is_route=True) as market:
        honest = market.honest

        async def swap(scope: Scope, receive: Receive, send: Send) -> None:
            async def lie(message: dict[str, object]) -> None:
                if "body" in message:
                    message["body"] = orjson.dumps({"pages": ["two", "one"]})
                await send(message)

            await honest(scope, receive, lie)  # type: ignore[arg-type]

        market.desk.instead = swap

        found = await refused(market)

        assert found.refusal.reasons == (Code.DELIVERY_INVALID,)
        assert await market.balance() == NOTHING_HELD


async def test_a_buyer_calls_a_route_itself_as_it_calls_a_tool(tmp_path: Path) -> None:
    async with selling(tmp_path, is_route=True) as market, going_itself(market) as buyer:
        purchase = await buyer.buy(market.agreement, PDF, {"page": 3})

        assert purchase.result == GOOD
        assert purchase.charge.amount.amount == "0.004"
        assert (market.desk.requests, market.desk.runs) == (1, 1)
        assert await market.balance() == PAID


async def test_a_buyer_asks_a_route_again_for_an_answer_that_was_lost(tmp_path: Path) -> None:
    async with selling(tmp_path, is_route=True) as market, going_itself(market) as buyer:
        market.desk.lose_replies = 1

        assert (await buyer.buy(market.agreement, PDF, {"page": 3})).result == GOOD
        assert (market.desk.requests, market.desk.runs) == (2, 1)


async def test_many_calls_of_a_route_are_paid_in_a_session(tmp_path: Path) -> None:
    async with (
        selling(tmp_path, is_route=True) as market,
        going_itself(market) as buyer,
        buyer.session(
            market.agreement.agreement_id, cap=usd("0.1"), per_call=usd("0.01")
        ) as session,
    ):
        answers = [await session.call(PDF) for _ in range(3)]

        assert [each.result for each in answers] == [GOOD] * 3
        assert market.desk.runs == 3


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (404, b"<html>", Code.VENDOR_FAILED),
        (402, b'{"code":"proof_invalid","message":"no"}', Code.PROOF_INVALID),
        (200, orjson.dumps(GOOD), Code.VENDOR_FAILED),
    ],
)
async def test_a_buyer_is_told_what_a_route_said_no_with(
    tmp_path: Path, status: int, body: bytes, code: Code
) -> None:
    async with selling(tmp_path, is_route=True) as market, going_itself(market) as buyer:
        market.desk.instead = answering(status, body)

        with pytest.raises(ServiceFailed) as found:
            await buyer.buy(market.agreement, PDF, {"page": 3})

        assert found.value.refusal.code is code


async def test_an_answer_that_is_larger_with_its_delivery_record_than_may_be_kept_costs_nothing(
    tmp_path: Path,
) -> None:
    limits: dict[str, Json] = {"limits": {"input_bytes_max": 100_000, "concurrency_max": 8}}
    for length, fits in ((60_000, True), (65_500, False)):
        folder = tmp_path / str(length)
        async with selling(
            folder, is_route=True, listing=limits, vendor_answer_bytes_max=65_536
        ) as market:
            if fits:
                assert (await market.call({"pdf": "x" * length})).answer.charge.amount is not None
            else:
                with pytest.raises(Refused) as found:
                    await market.call({"pdf": "x" * length})
                assert found.value.code is Code.VENDOR_FAILED
                assert "too large" in found.value.refusal.message
                assert await market.balance() == NOTHING_HELD
