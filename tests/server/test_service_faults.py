"""A vendor that charges for something else than it sends is told on, with the charge's id."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import orjson
import pytest
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from farthing.clients.documents import arguments_sha256, result_sha256
from farthing.protocol import base64url
from farthing.protocol.canonical import Json, document_sha256
from farthing.protocol.contracts import DeliveryRecord
from farthing.protocol.errors import Code, NextAction, Refused, refuse
from farthing.protocol.ids import derive_id
from farthing.protocol.x402 import PAYMENT, PAYMENT_RESPONSE, Settlement, settlement
from farthing.server.flights import Flights, Landed
from farthing.server.operations.calling import Ending
from farthing.settlement.engine.questions import Lookup
from farthing.settlement.engine.things import Hold
from tests.server.calling import PDF, App, Selling, selling

GOOD = {"pages": ["one", "two"]}
BAD = {"words": ["one", "two"]}


def charging(
    market: Selling,
    charged_for: Mapping[str, object],
    reply: Mapping[str, object],
    *,
    hold_id: str = "",
) -> App:
    """A vendor that captures for one result and answers with whatever it likes."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = orjson.loads(await Request(scope, receive).body())
        payment = body["params"]["_meta"][PAYMENT]["payload"]
        claims = orjson.loads(base64url.decode(payment["entitlement"].split(".")[1]))
        listing = await market.vendor.document(market.agreement.listing_sha256)
        delivery = DeliveryRecord(
            hold_id=claims["hold_id"],
            agreement_id=claims["agreement_id"],
            vendor_id=claims["aud"],
            listing_id=claims["listing_id"],
            args_sha256=arguments_sha256(PDF),
            result_sha256=result_sha256(charged_for),
            output_schema_sha256=document_sha256(listing["output_schema"]),  # type: ignore[arg-type]
            usage={"page": 2},
            delivered_at_us=market.serving.clock(),
        )
        charge = (await market.vendor.capture(delivery)).answer
        settled = Settlement(
            charge_id=charge.charge_id,
            hold_id=hold_id or claims["hold_id"],
            amount_units=1,
            delivery={},
            delivery_signature="",
        )
        shape = settlement(settled, payer="x", platform=market.serving.service.issuer)
        result = {"content": [], **reply, "_meta": {PAYMENT_RESPONSE: shape}}
        await answer(send, {"jsonrpc": "2.0", "id": 1, "result": result})

    return app


async def answer(send: Send, document: dict[str, object]) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": orjson.dumps(document)})


async def refused(market: Selling) -> Refused:
    with pytest.raises(Refused) as found:
        await market.call()
    return found.value


async def test_a_vendor_that_charges_for_what_it_sends_is_believed(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        market.desk.instead = charging(market, GOOD, {"structuredContent": GOOD})

        assert (await market.call()).answer.untrusted_result == GOOD


@pytest.mark.parametrize(
    ("charged_for", "reply", "says"),
    [
        (GOOD, {"structuredContent": {"pages": ["other"]}}, "and not"),
        (GOOD, {"structuredContent": {"pages": [None]}}, "no digest"),
        (GOOD, {}, "no digest"),
        (GOOD, {"isError": True, "structuredContent": {"code": "vendor_failed"}}, "vendor_failed"),
        (BAD, {"structuredContent": BAD}, "output schema"),
    ],
)
async def test_what_was_charged_for_something_else_is_told_and_can_be_disputed(
    tmp_path: Path, charged_for: dict[str, object], reply: dict[str, object], says: str
) -> None:
    async with selling(tmp_path) as market:
        market.desk.instead = charging(market, charged_for, reply)

        first, second = await refused(market), await refused(market)

        (charge,) = (await market.buyer.charges()).charges
        for found in (first, second):
            assert (found.code, found.refusal.path) == (Code.DELIVERY_INVALID, charge.charge_id)
            assert says in found.refusal.message
        assert market.desk.requests == 1
        dispute = await market.buyer.dispute(charge.charge_id, "not_delivered")
        assert dispute.held == charge.amount


async def test_a_vendor_that_speaks_of_another_hold_is_not_believed(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        another = f"hld_{'0' * 26}"
        market.desk.instead = charging(market, GOOD, {"structuredContent": GOOD}, hold_id=another)

        assert (await refused(market)).code is Code.DELIVERY_INVALID


async def test_whoever_said_that_it_failed_captures_nothing_afterwards(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        holds: list[str] = []

        async def failing(scope: Scope, receive: Receive, send: Send) -> None:
            body = orjson.loads(await Request(scope, receive).body())
            token = body["params"]["_meta"][PAYMENT]["payload"]["entitlement"]
            holds.append(orjson.loads(base64url.decode(token.split(".")[1]))["hold_id"])
            result = {"isError": True, "content": [{"type": "text", "text": "no"}]}
            await answer(send, {"jsonrpc": "2.0", "id": 1, "result": result})

        market.desk.instead = failing

        assert (await refused(market)).code is Code.VENDOR_FAILED

        hold = await market.serving.service.market.ask(Lookup(noun="hold", id=holds[0]))
        assert isinstance(hold, Hold)
        assert hold.status == "released"
        assert await market.balance() == ("1", "0")
        listing = await market.vendor.document(market.agreement.listing_sha256)
        delivery = DeliveryRecord(
            hold_id=holds[0],  # type: ignore[arg-type]
            agreement_id=market.agreement.agreement_id,  # type: ignore[arg-type]
            vendor_id=market.vendor.vendor_id,  # type: ignore[arg-type]
            listing_id=market.agreement.listing_id,  # type: ignore[arg-type]
            args_sha256=arguments_sha256(PDF),
            result_sha256=result_sha256(GOOD),
            output_schema_sha256=document_sha256(listing["output_schema"]),  # type: ignore[arg-type]
            usage={"page": 2},
            delivered_at_us=market.serving.clock(),
        )
        with pytest.raises(Refused) as too_late:
            await market.vendor.capture(delivery)
        assert too_late.value.code is Code.HOLD_RESOLVED


async def test_a_vendor_that_says_to_ask_again_is_asked_again(tmp_path: Path) -> None:
    async with selling(tmp_path, listing={"idempotent": False, "side_effects": True}) as market:

        async def once(scope: Scope, receive: Receive, send: Send) -> None:
            del scope, receive
            market.desk.instead = None
            error = {"code": "overloaded", "message": "one moment"}
            await answer(send, {"jsonrpc": "2.0", "id": 1, "error": error})

        market.desk.instead = once

        reply = await market.call()

        assert reply.answer.untrusted_result == GOOD
        assert (market.desk.requests, market.desk.runs) == (2, 1)


async def test_a_buyer_who_lets_the_platform_call_waits_and_checks(tmp_path: Path) -> None:
    async with selling(tmp_path, service_wait_s=1) as market:
        market.desk.slow = True
        asking = asyncio.create_task(
            market.buyer.have_called(market.agreement.agreement_id, PDF, {"page": 3})
        )
        await market.desk.started.wait()
        # Longer than one ask waits: it is asked a second time.
        while len(market.asked) < 2:  # noqa: ASYNC110 # it says so nowhere else
            await asyncio.sleep(0.05)
        market.desk.go.set()

        reply = await asking

        assert reply.answer.untrusted_result == GOOD
        assert market.desk.requests == 1


async def test_a_hold_that_nobody_set_out_for_is_used_by_whoever_asks_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with selling(tmp_path) as market:
        with monkeypatch.context() as killed:
            killed.setattr(Flights, "obtain", _killed)
            assert (await refused(market)).code is Code.UNAVAILABLE
        assert await market.balance() == ("0.994", "0.006")

        reply = await market.call()

        assert reply.answer.untrusted_result == GOOD
        assert market.desk.requests == 1
        assert await market.balance() == ("0.996", "0")


@pytest.mark.parametrize(("repeatable", "requests"), [(True, 1), (False, 0)])
async def test_after_somebody_set_out_and_fell_silent_only_what_may_be_repeated_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, repeatable: bool, requests: int
) -> None:
    listing: dict[str, Json] = {"idempotent": repeatable, "side_effects": not repeatable}
    async with selling(tmp_path, listing=listing, service_wait_s=1) as market:
        with monkeypatch.context() as killed:
            killed.setattr(Flights, "obtain", _killed_after_the_claim)
            await refused(market)
        market.serving.clock.ahead_us += 6_000_000

        asked = await market.attempt()

        assert market.desk.requests == requests
        assert isinstance(asked, Refused) is not repeatable
        if not repeatable:
            market.serving.clock.ahead_us += 60_000_000
            assert (await refused(market)).code is Code.VENDOR_FAILED
            assert market.desk.requests == 0
            assert await market.balance() == ("1", "0")


async def test_a_workload_that_was_too_small_is_to_be_quoted_again(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        with pytest.raises(Refused) as found:
            await market.call(pages=1)

        refusal = found.value.refusal
        assert (refusal.code, refusal.reasons) == (
            Code.VENDOR_FAILED,
            (Code.CAPTURE_EXCEEDS_HOLD,),
        )
        assert refusal.next_action is NextAction.QUOTE_AGAIN
        assert await market.balance() == ("1", "0")


async def _killed(*args: object) -> Landed:
    del args
    raise Refused(refuse(Code.UNAVAILABLE))


async def _killed_after_the_claim(
    flights: Flights, hold_id: str, owner: str, expires_at_us: int, fly: object
) -> Landed:
    del owner, fly
    now_us = flights._now_us()  # noqa: SLF001
    await flights._results.claim(  # noqa: SLF001
        hold_id,
        holder="a front end that was killed",
        now_us=now_us,
        held_until_us=now_us + 5_000_000,
        expires_at_us=expires_at_us + 60_000_000,
    )
    raise Refused(refuse(Code.UNAVAILABLE))


async def test_a_result_of_a_journal_that_was_lost_is_not_told(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        hold_id = derive_id(
            "hld", market.buyer.connection.principal, "call_service", "key-of-a-lost-call"
        )
        platform = market.serving.service.market

        async def fly(flights: int, progress: object) -> bytes:
            del flights, progress
            return Ending(result={"pages": []}).to_bytes()

        # As a journal put back from a backup finds it: the end is kept, the charge is lost.
        await platform.flights.obtain(hold_id, "owner", market.serving.clock() + 60_000_000, fly)

        first = await market.attempt(key="key-of-a-lost-call")
        market.serving.clock.ahead_us += 61_000_000
        last = await market.attempt(key="key-of-a-lost-call")

        assert isinstance(first, Refused)
        assert isinstance(last, Refused)
        assert (first.code, last.code) == (Code.UNAVAILABLE, Code.VENDOR_FAILED)
        assert await market.balance() == ("1", "0")
