"""A whole trade in one process: the real server, a real MCP vendor, a buyer, no sockets.

`trading` gives a market whose vendor sells one tool, made payable as any vendor would do it. The
vendor can be stopped and started again on the same spool, as a process would be.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel

from farthing.clients.buyers import Buyer
from farthing.clients.documents import Offer
from farthing.clients.metering import Meter
from farthing.clients.operators import Operator
from farthing.clients.paid import Seller
from farthing.clients.transport import Connection
from farthing.clients.vendors import Vendor
from farthing.protocol.canonical import Json
from farthing.protocol.keys import Signer
from farthing.protocol.wire import Money
from tests.papers import card_document, listing_document, signing_key, terms_document
from tests.serving import Serving, serving

__all__ = ["Desk", "PageTexts", "Trading", "trading", "usd"]

VENDOR_URL = "http://127.0.0.1:9000"
JsonObject = dict[str, Json]


class PageTexts(BaseModel):
    pages: list[str]


@dataclass(slots=True)
class Desk:
    """What a test does to the vendor's tool, and what it did."""

    runs: int = 0
    fail: str = ""
    crash: bool = False
    slow: bool = False
    started: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self, pdf: str) -> PageTexts:
        self.runs += 1
        self.started.set()
        if self.slow:
            await self.go.wait()
        if self.fail:
            raise ToolError(self.fail)
        if self.crash:
            raise RuntimeError("the inside of the vendor")
        return PageTexts(pages=pdf.split("|"))


@dataclass(slots=True, kw_only=True)
class Trading:
    """The market, its buyer, and the one vendor's server."""

    serving: Serving
    operator: Operator
    buyer: Buyer = field(init=False)
    vendor: Vendor
    offer: Offer
    spool: Path
    desk: Desk = field(default_factory=Desk)
    meter: dict[str, Meter] = field(default_factory=dict)
    seller: Seller | None = None
    routes: "Routes"
    vendors_routes: "Routes"
    _running: AsyncExitStack | None = None

    @property
    def listing_id(self) -> str:
        return str(self.offer.listing["listing_id"])

    def connect(self, signer: Signer, principal: str, routes: "Routes") -> Connection:
        """A connection over a party's own network."""
        return Connection(
            self.serving.service.issuer,
            signer=signer,
            principal=principal,
            http=httpx2.AsyncClient(transport=routes),
            clock=self.serving.clock,
            sleep=_no_wait,
        )

    async def open_shop(
        self, register: Callable[..., Any] | None = None, *, signer: Signer | None = None
    ) -> None:
        """Start the vendor's server, with another key than the vendor's where one is given."""
        signer = signer or self.vendor.signer
        seller = Seller(
            Vendor(self.connect(signer, self.vendor.vendor_id, self.vendors_routes)),
            platform_keys=await self.vendor.connection.platform_keys(),
            spool=self.spool,
            offer=lambda _: self.offer,
        )
        mcp: MCPServer[Any] = MCPServer("pdf", lifespan=seller.lifespan, log_level="CRITICAL")
        if register is None:
            desk = self.desk

            @mcp.tool()
            @seller.paid(listing="pdf-text", meter=self.meter)
            async def extract_text(pdf: str) -> PageTexts:
                return await desk.read(pdf)
        else:
            register(mcp, seller)
        app = mcp.streamable_http_app(json_response=True)
        self._running = AsyncExitStack()
        await self._running.enter_async_context(app.router.lifespan_context(app))
        self.routes.vendor = httpx2.ASGITransport(app)
        self.seller = seller

    async def close_shop(self) -> None:
        """Stop the vendor's server."""
        self.routes.vendor = None
        if self._running is not None:
            await self._running.aclose()
            self._running = None


class Routes(httpx2.AsyncBaseTransport):
    """One party's network: the vendor's address, and the platform's for everything else."""

    def __init__(self, platform: httpx2.AsyncBaseTransport) -> None:
        self.platform = platform
        self.vendor: httpx2.AsyncBaseTransport | None = None
        self.lose_replies = 0
        self.false_reply: bytes = b""
        self.platform_is_down = False
        self.captured = asyncio.Event()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.port != 9000:
            if self.platform_is_down:
                raise httpx2.ConnectError("nobody listens", request=request)
            answer = await self.platform.handle_async_request(request)
            if request.headers.get("mcp-name") == "capture_hold":
                self.captured.set()
            return answer
        if self.vendor is None:
            raise httpx2.ConnectError("nobody listens", request=request)
        response = await self.vendor.handle_async_request(request)
        if self.lose_replies:
            self.lose_replies -= 1
            raise httpx2.ReadError("the reply is lost", request=request)
        if self.false_reply:
            kind = {"content-type": "application/json"}
            return httpx2.Response(200, content=self.false_reply, headers=kind)
        return response


@asynccontextmanager
async def trading(
    tmp_path: Path,
    *,
    meter: dict[str, Meter] | None = None,
    listing: JsonObject | None = None,
    card: JsonObject | None = None,
    balance: str = "1",
    open_shop: bool = True,
    usage_tolerance_ppm: int = 0,
) -> AsyncIterator[Trading]:
    """A market with an operator, its agent and a vendor; times and sleeps are not waited for."""
    async with serving(tmp_path / "platform") as server:
        operator = await server.organisation("operator", "Operator One")
        agent = await server.agent(operator, "Agent One")
        selling = await server.organisation("vendor", "Vendor One")
        await server.treasurer.fund(operator.principal, usd(balance), "test")
        await Operator(operator).set_authority(
            agent.principal, per_call_max=usd("0.5"), per_day_max=usd("1")
        )
        terms = terms_document(usage_tolerance_ppm=usage_tolerance_ppm)
        document = listing_document(
            selling.principal, card or card_document(), terms, url=f"{VENDOR_URL}/mcp"
        )
        offer = Offer.bind(document | (listing or {}), card or card_document(), terms)
        await Vendor(selling).publish(offer)
        platform = httpx2.ASGITransport(server.service.app)
        market = Trading(
            serving=server,
            operator=Operator(operator),
            vendor=Vendor(selling),
            offer=offer,
            spool=tmp_path / "vendor" / "spool.sqlite",
            meter=meter or {"page": lambda result: len(result.pages)},
            routes=Routes(platform),
            vendors_routes=Routes(platform),
        )
        market.buyer = Buyer(
            market.connect(signing_key("Agent One"), agent.principal, market.routes)
        )
        if open_shop:
            await market.open_shop()
        try:
            yield market
        finally:
            await market.close_shop()


def usd(amount: str) -> Money:
    return Money(amount=amount, asset="USD")


async def _no_wait(_: float) -> None:
    await asyncio.sleep(0)
