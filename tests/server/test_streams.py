"""Streams over a real socket: what is told, to whom, how many, for how long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest

from farthing.clients.transport import Connection
from farthing.protocol.errors import Code, Refused
from farthing.protocol.messages.statements import BalanceEvent
from farthing.protocol.wire import Money
from farthing.server.doors.streams import Patient
from tests.patience import PATIENCE_S, patiently
from tests.server.listening import listening
from tests.serving import Shop, serving
from tests.subscribing import asked, subscribed


def usd(amount: str) -> Money:
    return Money(amount=amount, asset="USD")


async def next_of(events: Any) -> Any:
    async with patiently():
        return await anext(events)


@asynccontextmanager
async def unfollowed(*_: object) -> AsyncIterator[None]:
    yield


def told(event: BalanceEvent) -> dict[str, str]:
    return {each.account: each.available.amount for each in event.accounts}


async def test_a_stream_begins_with_what_is_and_goes_on_with_what_happens(tmp_path: Path) -> None:
    async with listening(tmp_path) as server:
        shop = await Shop.opened(server)
        async with aclosing(shop.operator.balance_events()) as events:
            first = await next_of(events)
            assert (told(first), first.operation) == ({"prepaid": "1"}, "")
            await server.treasurer.fund(shop.operator.connection.principal, usd("2"), "more")
            second = await next_of(events)

        assert (told(second), second.operation) == ({"prepaid": "3"}, "fund_account")
        assert second.seq > first.seq
        assert list(second.ids) == ["funding"]


async def test_a_stream_goes_on_after_the_last_event_that_was_seen(tmp_path: Path) -> None:
    async with listening(tmp_path) as server:
        shop = await Shop.opened(server)
        async with aclosing(shop.operator.balance_events()) as events:
            seen = (await next_of(events)).seq
        for amount in ("2", "3"):
            await server.treasurer.fund(shop.operator.connection.principal, usd(amount), "more")
        async with aclosing(shop.operator.balance_events(seen)) as events:
            missed = [await next_of(events), await next_of(events)]

        assert [told(each) for each in missed] == [{"prepaid": "3"}, {"prepaid": "6"}]
        assert [each.operation for each in missed] == ["fund_account"] * 2


async def test_what_was_missed_is_told_at_once_however_much_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farthing.server.doors.streams._LINES_MAX", 3)
    monkeypatch.setattr("farthing.server.doors.streams.HEARTBEAT_S", 10 * PATIENCE_S)
    async with listening(tmp_path) as server:
        shop = await Shop.opened(server)
        owner = shop.operator.connection.principal
        for _ in range(8):
            await server.treasurer.fund(owner, usd("1"), "more")
        async with aclosing(shop.operator.balance_events(1)) as events:
            missed = [await next_of(events) for _ in range(9)]

    assert [told(each)["prepaid"] for each in missed] == [str(n) for n in range(1, 10)]


async def test_a_stream_is_not_silent_while_what_it_reads_is_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farthing.server.app.following_history", unfollowed)
    monkeypatch.setattr("farthing.server.doors.streams.HEARTBEAT_S", 0.1)
    monkeypatch.setattr("farthing.server.doors.streams.AGAIN_S", 0.01)
    async with listening(tmp_path) as server:
        monkeypatch.setattr(server.service.market.reports, "_tail_max", 1)
        operator = await server.organisation("operator", "Operator One")
        async with opened(operator, {"last-event-id": "3"}) as response, patiently():
            assert await anext(response.aiter_lines()) == ": still here"


async def test_an_agent_is_told_the_ids_of_its_own_trades_alone(tmp_path: Path) -> None:
    async with listening(tmp_path) as server:
        shop = await Shop.opened(server)
        await server.treasurer.fund(shop.operator.connection.principal, usd("2"), "more")
        quote = await shop.buyer.quote(shop.listing_id, {"page": 2})
        agreement = await shop.buyer.accept(quote)
        async with aclosing(shop.buyer.balance_events(0)) as events:
            funded = [await next_of(events), await next_of(events)]
            await shop.buyer.hold(agreement.agreement_id, {"page": 2}, {"call": "one"})
            held = await next_of(events)

        assert [each.ids for each in funded] == [{}, {}]
        assert held.operation == "place_hold"
        assert held.ids["agreement"] == agreement.agreement_id


async def test_a_stream_ends_with_the_key_that_opened_it(tmp_path: Path) -> None:
    async with listening(tmp_path) as server:
        shop = await Shop.opened(server)
        agent = shop.buyer.connection
        assert agent.signer is not None
        async with aclosing(shop.buyer.balance_events()) as events:
            await next_of(events)
            await shop.operator.revoke_key(agent.principal, agent.signer.thumbprint)
            with pytest.raises(StopAsyncIteration):
                await next_of(events)

        with pytest.raises(Refused) as refused:
            await next_of(shop.buyer.balance_events())
        assert refused.value.code is Code.KEY_REVOKED


async def test_a_stream_needs_an_account_holders_signature(tmp_path: Path) -> None:
    async with listening(tmp_path) as server:
        response = await server.http.get(f"{server.service.issuer}/v1/events")

        assert response.status_code == 401
        assert response.json()["code"] == "unauthenticated"
        assert "resource_metadata" in response.headers["www-authenticate"]


@pytest.mark.parametrize("last", ["x", "-1", "9" * 16, "1000000"])
async def test_a_place_that_has_not_been_is_refused(tmp_path: Path, last: str) -> None:
    async with listening(tmp_path) as server:
        operator = await server.organisation("operator", "Operator One")
        async with opened(operator, {"last-event-id": last}) as response:
            refusal = orjson.loads(await response.aread())

        assert (refusal["code"], refusal["path"]) == ("invalid_argument", "last-event-id")


async def test_a_stream_takes_no_query(tmp_path: Path) -> None:
    async with listening(tmp_path) as server:
        operator = await server.organisation("operator", "Operator One")
        async with opened(operator, {}, "?account=prepaid") as response:
            refusal = orjson.loads(await response.aread())

        assert (refusal["code"], refusal["path"]) == ("invalid_argument", "query")


async def test_a_principal_has_eight_streams_at_most(tmp_path: Path) -> None:
    async with listening(tmp_path) as server:
        shop = await Shop.opened(server)
        streams = [shop.operator.balance_events() for _ in range(9)]
        for stream in streams[:8]:
            await next_of(stream)

        with pytest.raises(Refused) as refused:
            await next_of(streams[8])
        assert refused.value.code is Code.RATE_LIMITED

        await next_of(shop.vendor.balance_events())
        for stream in streams:
            await stream.aclose()


async def test_a_slow_reader_is_given_nothing_once_its_key_has_ended(tmp_path: Path) -> None:
    async with listening(tmp_path) as server:
        shop = await Shop.opened(server)
        for amount in ("2", "3", "4"):
            await server.treasurer.fund(shop.operator.connection.principal, usd(amount), "more")
        agent = shop.buyer.connection
        assert agent.signer is not None
        taken, may_go_on, sent = asyncio.Event(), asyncio.Event(), list[bytes]()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                sent.append(message["body"])
                taken.set()
                await may_go_on.wait()

        async def receive() -> Any:
            await asyncio.Event().wait()

        streaming = asyncio.ensure_future(server.service.app(signed_get(agent), receive, send))
        async with patiently():
            await taken.wait()
            async with aclosing(shop.operator.balance_events()) as other:
                await next_of(other)
                await shop.operator.revoke_key(agent.principal, agent.signer.thumbprint)
                await server.treasurer.fund(shop.operator.connection.principal, usd("5"), "more")
                # What is told of the funding is told after the revocation.
                await next_of(other)
                may_go_on.set()
                await streaming

        assert [bool(each) for each in sent] == [True, False]


def signed_get(connection: Connection) -> Any:
    url = f"{connection.url}/v1/events"
    assert connection.auth is not None
    request = next(connection.auth.auth_flow(httpx2.Request("GET", url)))
    headers = [(name.lower(), value) for name, value in request.headers.raw]
    return {
        "type": "http",
        "method": "GET",
        "path": "/v1/events",
        "raw_path": b"/v1/events",
        "query_string": b"",
        "headers": [*headers, (b"last-event-id", b"0")],
        "client": ("127.0.0.1", 1),
        "asgi": {"version": "3.0"},
    }


async def test_who_asks_for_the_head_of_a_stream_holds_none(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, patiently():
        operator = await server.organisation("operator", "Operator One")
        for _ in range(9):
            url, auth = f"{operator.url}/v1/events", operator.auth
            response = await operator.http.request("HEAD", url, auth=auth)
            assert response.status_code == 200
            assert response.headers["content-type"] == "text/event-stream"


async def test_a_balance_is_a_resource_and_its_changes_a_subscription(tmp_path: Path) -> None:
    async with listening(tmp_path) as server:
        shop = await Shop.opened(server)
        operator = shop.operator.connection
        listed = await asked(operator, "resources/list", {})
        uri = listed["resources"][0]["uri"]
        foreign = uri.replace(operator.principal, shop.vendor.connection.principal)
        wanted = {"notifications": {"resourceSubscriptions": [uri, foreign, "farthing://x"]}}
        async with subscribed(operator, wanted) as messages:
            acknowledged = await next_of(messages)
            await server.treasurer.fund(operator.principal, usd("2"), "more")
            updated = await next_of(messages)
        read = await asked(operator, "resources/read", {"uri": uri})
        refused = await asked(operator, "resources/read", {"uri": foreign})

        assert uri == f"farthing://accounts/{operator.principal}/prepaid/USD/balance"
        assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
        assert acknowledged["params"]["notifications"] == {"resourceSubscriptions": [uri]}
        assert updated["method"] == "notifications/resources/updated"
        assert updated["params"]["uri"] == uri
        balance = orjson.loads(read["contents"][0]["text"])
        assert balance["available"] == {"amount": "3", "asset": "USD"}
        assert refused["code"] == -32602
        assert refused["data"]["code"] == "not_found"


async def test_a_subscription_ends_with_the_key_that_opened_it(tmp_path: Path) -> None:
    async with listening(tmp_path) as server:
        shop = await Shop.opened(server)
        agent = shop.buyer.connection
        assert agent.signer is not None
        async with subscribed(agent, {"notifications": {}}) as messages:
            assert "method" in await next_of(messages)
            await shop.operator.revoke_key(agent.principal, agent.signer.thumbprint)
            last = await next_of(messages)

        assert "result" in last


async def test_nobody_without_an_account_lists_or_subscribes(tmp_path: Path) -> None:
    async with listening(tmp_path) as server:
        nobody = server.connect()

        assert (await asked(nobody, "resources/list", {}))["resources"] == []
        refused = await asked(nobody, "subscriptions/listen", {"notifications": {}})
        assert refused["data"]["code"] == "unauthenticated"


async def test_open_streams_do_not_keep_a_server_from_stopping(tmp_path: Path) -> None:
    async with listening(tmp_path) as server:
        shop = await Shop.opened(server)
        events = shop.operator.balance_events()
        await next_of(events)
        server.service.stop_streams()

        with pytest.raises(StopAsyncIteration):
            await next_of(events)
        with pytest.raises(Refused) as refused:
            await next_of(shop.operator.balance_events())
        assert refused.value.code is Code.UNAVAILABLE


async def test_a_reader_that_takes_nothing_is_left_alone() -> None:
    sent: list[Any] = []

    async def streaming(scope: Any, receive: Any, send: Any) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"1", "more_body": True})
        await send({"type": "http.response.body", "body": b"2", "more_body": True})

    async def stuck(message: Any) -> None:
        sent.append(message)
        if message.get("body"):
            await asyncio.Event().wait()

    async def nothing() -> Any:
        await asyncio.Event().wait()

    await Patient(streaming, write_s_max=0.01)({"path": "/", "type": "http"}, nothing, stuck)

    assert [each.get("body") for each in sent] == [None, b"1"]


@asynccontextmanager
async def opened(
    connection: Connection, headers: dict[str, str], query: str = ""
) -> AsyncIterator[Any]:
    url = f"{connection.url}/v1/events{query}"
    auth = connection.auth
    async with connection.http.stream("GET", url, headers=headers, auth=auth) as response:
        yield response
