"""What a payable tool says of itself: what it is sold under, and all that it may answer."""

from collections.abc import Awaitable
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from mcp.server import MCPServer

from farthing.clients.metering import Meter
from farthing.clients.paid import Seller
from farthing.clients.payable import Payable
from farthing.clients.tools import Endpoint
from farthing.protocol.canonical import document_sha256
from farthing.protocol.schemas import check_schema, violation
from farthing.protocol.x402 import PAYMENT
from tests.clients.trading import VENDOR_URL, PageTexts, trading


async def test_every_answer_of_a_paid_tool_fits_the_output_schema_it_advertises(
    tmp_path: Path,
) -> None:
    async with trading(tmp_path) as market:
        endpoint = Endpoint(market.buyer.connection.http, f"{VENDOR_URL}/mcp", timeout_s=5)
        (tool,) = await endpoint.list_tools()
        schema: Any = tool["outputSchema"]
        unpaid = await endpoint.call_tool("extract_text", {"pdf": "x"})
        odd = await endpoint.call_tool("extract_text", {"pdf": "x"}, meta={PAYMENT: {}})
        bought = await market.buyer.call_service(market.listing_id, {"pdf": "x"}, {"page": 3})
        refusal = {"code": "x", "message": "x", "retryable": False, "next_action": "none"}

    assert (schema["type"], check_schema(schema)) == ("object", None)
    for answer in (unpaid.structured, odd.structured, bought.result, refusal):
        assert violation(schema, answer) is None
    assert violation(schema, {"words": []}) is not None
    assert bought.delivery["output_schema_sha256"] == document_sha256(
        market.offer.listing["output_schema"]
    )


async def test_a_tool_that_cannot_be_sold_is_refused_when_it_is_declared(tmp_path: Path) -> None:
    async def typed(pdf: str) -> PageTexts:
        return PageTexts(pages=[pdf])

    async def untyped(pdf: str): ...  # type: ignore[no-untyped-def] # noqa: ANN202

    async def greedy(result: str) -> PageTexts:
        return PageTexts(pages=[result])

    async with trading(tmp_path, open_shop=False) as market:
        unsellable: tuple[tuple[Any, dict[str, Meter]], ...] = (
            (untyped, {"page": 1}),
            (typed, {}),
            (typed, {"page": 1, "word": 1}),
            (typed, {"page": lambda file: len(file.pages)}),
            (greedy, {"page": lambda result: len(result.pages)}),
        )
        for fn, meter in unsellable:
            with pytest.raises(ValueError, match=r"meter|rate card|typed"):
                Payable(fn, market.offer, meter)


async def test_a_plain_function_around_an_async_one_is_sold_as_well(tmp_path: Path) -> None:
    async def typed(pdf: str) -> PageTexts:
        return PageTexts(pages=[pdf])

    @wraps(typed)
    def wrapped(pdf: str) -> Awaitable[PageTexts]:
        return typed(pdf)

    def sells(mcp: MCPServer[Any], seller: Seller) -> None:
        paid = seller.paid(listing="pdf-text", meter={"page": lambda result: len(result.pages)})
        mcp.tool(name="extract_text")(paid(wrapped))

    async with trading(tmp_path, open_shop=False) as market:
        await market.open_shop(sells)
        bought = await market.buyer.call_service(market.listing_id, {"pdf": "x"}, {"page": 3})

    assert bought.result == {"pages": ["x"]}
