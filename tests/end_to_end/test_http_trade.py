"""One trade through the HTTP door alone: the SDK is the same, and so is every answer."""

from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from farthing.clients.documents import result_sha256
from farthing.clients.transport import Connection
from farthing.protocol.errors import Code, Refused, Unreachable
from farthing.protocol.messages.accounts import GET_BALANCE, GetBalance
from farthing.protocol.messages.trails import GET_TREE_HEAD, GetTreeHead
from tests.serving import Shop, serving

WORK = {"pages": ["One page.", "Another."]}


async def test_a_whole_trade_goes_over_plain_http(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        paths: list[str] = []

        async def seen(request: httpx2.Request) -> None:
            paths.append(request.url.path)

        server.http.event_hooks["request"].append(seen)
        shop = await Shop.opened(replace(server, transport="http"))
        agreement = await shop.buyer.accept(await shop.buyer.quote(shop.listing_id, {"page": 2}))
        placed = await shop.buyer.hold(
            agreement.agreement_id, {"page": 2}, {"pdf": "x"}, key="k" * 16
        )
        again = await shop.buyer.hold(
            agreement.agreement_id, {"page": 2}, {"pdf": "x"}, key="k" * 16
        )
        charge_id = await shop.captured(
            agreement, placed.answer.hold_id, {"page": 2}, result_sha256(WORK)
        )
        dispute = await shop.buyer.dispute(charge_id, "not_delivered")
        over_http = await shop.buyer.connection.call(GET_BALANCE, GetBalance())
        over_mcp = await server.connect(
            shop.buyer.connection.signer, shop.buyer.connection.principal
        ).call(GET_BALANCE, GetBalance())

        assert (placed.replayed, again.replayed) == (False, True)
        assert again.answer == placed.answer
        assert dispute.charge_id == charge_id
        assert over_http == over_mcp
        called = [path for path in paths if not path.startswith("/.well-known/")]
        assert {path.split("/")[1] for path in called[:-1]} == {"v1"}
        assert called[-1] == "/mcp"


async def test_a_refusal_over_http_is_the_same_class(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(replace(server, transport="http"), per_call="0.001")
        agreement = await shop.buyer.accept(await shop.buyer.quote(shop.listing_id, {"page": 2}))

        with pytest.raises(Refused) as refused:
            await shop.buyer.hold(agreement.agreement_id, {"page": 2}, {"pdf": "x"})

        assert refused.value.code is Code.PER_CALL_LIMIT_EXCEEDED
        assert refused.value.request_id.startswith("req_")


@pytest.mark.parametrize(
    "response",
    [
        httpx2.Response(502, content=b"<html>"),
        httpx2.Response(200, content=b"[]"),
        httpx2.Response(404, json={"detail": "no"}),
    ],
)
async def test_what_no_platform_answers_says_nothing_about_what_happened(
    response: httpx2.Response,
) -> None:
    async def at_once(wait_s: float) -> None:
        del wait_s

    http = httpx2.AsyncClient(transport=httpx2.MockTransport(lambda _: response))
    connection = Connection("http://127.0.0.1:8321", http=http, transport="http", sleep=at_once)

    with pytest.raises(Unreachable):
        await connection.call(GET_TREE_HEAD, GetTreeHead())
