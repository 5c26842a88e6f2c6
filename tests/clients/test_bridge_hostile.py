"""A bridge between a careless model and a platform that answers anything: each call has an end."""

import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest

from farthing.clients import services
from farthing.clients.bridge_tools import takes_key
from farthing.protocol.x402 import Settlement, read_settlement
from tests.clients.test_bridge import MAXIMUM, WORKLOAD, Agent, bridged, left_today
from tests.clients.trading import Trading

TOO_MUCH = {"amount": "9999999999999999999", "asset": "USD"}


@dataclass
class Liar(httpx2.AsyncBaseTransport):
    """Puts something else at one place of the answers of one operation."""

    platform: httpx2.AsyncBaseTransport
    operation: str
    place: tuple[str | int, ...]
    lie: object

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self.platform.handle_async_request(request)
        if request.headers.get("mcp-name") != self.operation:
            return response
        answer = orjson.loads(await response.aread())
        *way, last = ("result", "structuredContent", *self.place)
        within: Any = answer
        for each in way:
            within = within[each]
        within[last] = copy.deepcopy(self.lie)
        return httpx2.Response(200, json=answer)


@asynccontextmanager
async def lying(market: Trading, *lie: Any) -> AsyncIterator[None]:
    """The buyer's platform lies so, to the end of the block."""
    honest = market.routes.platform
    market.routes.platform = Liar(honest, *lie)
    try:
        yield
    finally:
        market.routes.platform = honest


async def asks(agent: Agent) -> dict[str, dict[str, Any]]:
    """An ask of each tool that these tests call, under an agreement and a session."""
    bought = await agent.buy()
    terms = {
        "agreement_id": bought["agreement_id"],
        "cap": {"amount": "0.1", "asset": "USD"},
        "per_call": {"amount": "0.01", "asset": "USD"},
    }
    session = {"session_id": (await agent("open_session", **terms))["session_id"]}
    hold = {"agreement_id": bought["agreement_id"], "workload": WORKLOAD, "args_sha256": "a" * 64}
    return {
        "call_service": agent.purchase(),
        "get_quote": {"listing_id": agent.market.listing_id, "workload": WORKLOAD},
        "list_agreements": {},
        "open_session": terms,
        "top_up_session": {**session, "amount": MAXIMUM},
        "place_hold": hold,
        "get_agreement": {"agreement_id": bought["agreement_id"]},
    }


@pytest.mark.parametrize(
    ("tool", "lie"),
    [
        ("get_quote", ("get_quote", ("lines", 0), "no line")),
        ("get_quote", ("get_quote", ("quote_id",), None)),
        (
            "list_agreements",
            ("list_agreements", ("agreements",), "x" * 99_999),
        ),
        ("get_agreement", ("get_agreement", ("agreement_id",), "agr_00000000000000000000000000")),
        ("place_hold", ("place_hold", ("amount",), [])),
        ("place_hold", ("place_hold", ("agreement_id",), "\u202e\u2028")),
        ("place_hold", ("get_quote", ("total",), TOO_MUCH)),
        ("call_service", ("place_hold", ("amount",), TOO_MUCH)),
        ("call_service", ("place_hold", ("hold_id",), "")),
        ("call_service", ("place_hold", ("hold_id",), "hld_00000000000000000000000000")),
        ("call_service", ("get_document", ("document", "example"), 1.5)),
        ("call_service", ("explain_charge", ("charge", "amount"), TOO_MUCH)),
        ("open_session", ("open_session", ("expires_at",), "never")),
        ("open_session", ("get_document", ("document", "dimensions"), None)),
        ("top_up_session", ("top_up_session", ("cap",), TOO_MUCH)),
        ("top_up_session", ("top_up_session", ("expires_at",), "never")),
    ],
)
async def test_whatever_the_platform_answers_the_model_is_told_that_it_does_not_hold(
    tmp_path: Path, tool: str, lie: Any
) -> None:
    async with bridged(tmp_path) as agent:
        await agent.ready()
        ask = (await asks(agent))[tool]
        async with lying(agent.market, *lie):
            refused = await agent.refused(tool, **ask)
        again = await agent.client.call_tool(tool, ask)

    assert refused["code"] == "signature_invalid"
    assert len(refused["message"]) < 500
    assert ("idempotency_key" in refused) is takes_key(tool)
    assert not again.is_error


@pytest.mark.parametrize("amount", ["1.00", "-1", "9999999999999999999"])
async def test_what_a_model_gives_for_an_amount_is_refused_with_its_place(
    tmp_path: Path, amount: str
) -> None:
    none = {"amount": amount, "asset": "USD"}
    async with bridged(tmp_path) as agent:
        await agent.ready()
        all_asks = await asks(agent)
        refused = [
            await agent.refused("call_service", **all_asks["call_service"], max_total=none),
            await agent.refused("open_session", **all_asks["open_session"] | {"cap": none}),
            await agent.refused("top_up_session", **all_asks["top_up_session"] | {"amount": none}),
        ]

    assert {each["code"] for each in refused} == {"invalid_amount"}
    assert [each["path"] for each in refused] == ["max_total", "cap", "amount"]


@pytest.mark.parametrize(
    ("tool", "amount", "code", "left"),
    [
        ("call_service", "0.5", "proof_invalid", "9.496"),
        ("call_service", "5", "local_limit_exceeded", "4.996"),
        ("place_hold", "5", None, "4.996"),
    ],
)
async def test_a_hold_that_is_dearer_than_its_quote_counts_with_all_of_it(
    tmp_path: Path, tool: str, amount: str, code: str | None, left: str
) -> None:
    """As where a period ended in between; here the entitlement is of less, and nobody takes it."""
    async with bridged(tmp_path) as agent:
        await agent.ready()
        bought = await agent.buy()
        hold = {"agreement_id": bought["agreement_id"], "args_sha256": "a" * 64}
        ask = agent.purchase() if tool == "call_service" else {**hold, "workload": WORKLOAD}
        dearer = {"amount": amount, "asset": "USD"}
        async with lying(agent.market, "place_hold", ("amount",), dearer):
            told = (await agent.client.call_tool(tool, ask)).structured_content
        assert told is not None
        counted = left_today(await agent("get_bridge_status"))

    assert (told.get("code"), counted) == (code, left)


async def test_a_vendor_that_names_another_charge_keeps_nobody_from_what_was_paid_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def misnamed(value: object) -> Settlement | None:
        settled = read_settlement(value)
        return settled and replace(settled, charge_id=f"chg_{'0' * 26}")

    async with bridged(tmp_path) as agent:
        await agent.ready()
        monkeypatch.setattr(services, "read_settlement", misnamed)
        bought = await agent.buy()

    assert bought["untrusted_result"] == {"pages": ["one", "two"]}
    assert bought["charge"]["hold_id"] == bought["hold_id"]
