"""Who closes is done within seconds, whoever hangs; what is left goes on at the next start."""

import asyncio
from pathlib import Path

import httpx2
import pytest

from farthing.clients import deliveries, sessions
from farthing.protocol.errors import Unreachable
from tests.clients.spending import FLAT, StandInBuyer, pdf, usd
from tests.clients.trading import trading
from tests.patience import patiently


class Hanging(httpx2.AsyncBaseTransport):
    """A network on which nothing is ever answered."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        del request
        await asyncio.Event().wait()
        raise AssertionError("never set")


async def test_a_seller_closes_while_the_platform_hangs_and_goes_on_when_it_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "_CLOSING_S", 0.01)
    async with trading(tmp_path) as market:
        asked = {"pdf": "one"}, {"page": 3}
        market.desk.slow = True
        call = asyncio.create_task(
            market.buyer.call_service(market.listing_id, *asked, key="purchase-number-one")
        )
        await market.desk.started.wait()
        platform, market.vendors_routes.platform = market.vendors_routes.platform, Hanging()
        assert market.seller is not None
        async with patiently():
            await market.seller.close()
        await asyncio.gather(call, return_exceptions=True)
        market.vendors_routes.platform = platform
        market.desk.slow = False
        await market.close_shop()
        await market.open_shop()
        purchase = await market.buyer.call_service(market.listing_id, *asked)

    assert purchase.result == {"pages": ["one"]}


async def test_a_session_closes_its_book_while_its_vendor_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "_SIGNING_S", 0.01)
    buyer = StandInBuyer(tmp_path, FLAT)
    session = await buyer.opened(unsigned=usd("0.05"))
    for _ in range(2):
        await session.call(pdf(1))
    assert buyer.vendor.macs == 1
    buyer.vendor.hold_back = asyncio.Event()

    async with patiently():
        await session.aclose()

    again = await buyer.resume_session(session.session_id)
    assert again.left.spent == usd("0.004")
    await again.aclose()


async def test_a_session_whose_platform_hangs_is_not_known_to_be_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hangs(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(sessions, "_CLOSING_S", 0.01)
    buyer = StandInBuyer(tmp_path, FLAT)
    session = await buyer.opened()
    with monkeypatch.context() as patched:
        patched.setattr(buyer.platform, "call", hangs)
        async with patiently():
            with pytest.raises(Unreachable, match="not known to be closed"):
                await session.close()

    assert (await session.close()).status == "closing"
    await session.aclose()
