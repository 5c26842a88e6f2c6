"""A market whose vendor is reached over a real port: what the platform calls when it calls tools.

`selling` gives the platform in this process, a buyer with an agreement, and a vendor's server that
a test can make fail, wait, or answer with whatever it likes.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import orjson
import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, TypeAdapter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from farthing.clients.buyers import Buyer
from farthing.clients.documents import Offer
from farthing.clients.middleware import PaymentMiddleware, Priced
from farthing.clients.operators import Operator
from farthing.clients.paid import Seller
from farthing.clients.tools import Endpoint
from farthing.clients.transport import Reply
from farthing.clients.vendors import Vendor
from farthing.protocol.canonical import Json
from farthing.protocol.errors import Refusal, Refused
from farthing.protocol.messages.agreements import Agreement
from farthing.protocol.messages.services import CALL_SERVICE, ServiceResult
from farthing.protocol.wire import REPLAYED, Money
from tests.papers import card_document, listing_document, terms_document
from tests.patience import patiently, until
from tests.serving import Serving, serving

__all__ = ["KEY", "PDF", "App", "Desk", "Selling", "answering", "selling", "usd"]

PDF: dict[str, object] = {"pdf": "one|two"}
KEY = "call-service-key-1"
ANSWER = TypeAdapter(ServiceResult)

App = Callable[[Scope, Receive, Send], Awaitable[None]]


class PageTexts(BaseModel):
    pages: list[str]


@dataclass(slots=True)
class Desk:
    """What a test does to the vendor's tool, and what it did."""

    runs: int = 0
    requests: int = 0
    fail: str = ""
    slow: bool = False
    progress: bool = False
    started: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    instead: App | None = None
    lose_replies: int = 0

    async def begun(self) -> None:
        """Wait until the tool is at work."""
        async with patiently():
            await self.started.wait()


@dataclass(slots=True, kw_only=True)
class Selling:
    """The market, its buyer with an agreement, and the vendor."""

    serving: Serving
    operator: Operator
    buyer: Buyer
    vendor: Vendor
    agreement: Agreement
    desk: Desk
    spool: Path
    honest: App
    asked: list[str] = field(default_factory=list)

    async def call(
        self,
        arguments: dict[str, object] = PDF,
        *,
        key: str = KEY,
        pages: int = 3,
        meta: dict[str, object] | None = None,
    ) -> Reply[ServiceResult]:
        """Ask the platform to make the call, once."""
        connection = self.buyer.connection
        endpoint = Endpoint(
            connection.http, f"{connection.url}/mcp", timeout_s=30, auth=connection.auth
        )
        asked = self.asked_for(arguments, key=key, pages=pages)
        result = await endpoint.call_tool(CALL_SERVICE.name, asked, meta=meta)
        if result.is_error:
            assert isinstance(result.structured, dict)
            raise Refused(Refusal.from_document(result.structured))
        answer = ANSWER.validate_json(orjson.dumps(result.structured))
        return Reply(answer=answer, replayed=result.meta.get(REPLAYED) is True)

    def asked_for(
        self, arguments: dict[str, object] = PDF, *, key: str = KEY, pages: int = 3
    ) -> dict[str, object]:
        """The arguments of `call_service`."""
        return {
            "agreement_id": self.agreement.agreement_id,
            "workload": [{"meter": "page", "quantity": str(pages)}],
            "arguments": arguments,
            "idempotency_key": key,
        }

    async def attempt(self, *, key: str = KEY) -> Reply[ServiceResult] | Refused:
        """One ask, and what became of it."""
        try:
            return await self.call(key=key)
        except Refused as refused:
            return refused

    async def spooled(self, state: str) -> None:
        """Wait until all that the vendor worked for has come to this."""
        await until(lambda: self._states() == {state})

    def _states(self) -> set[str]:
        with closing(sqlite3.connect(f"{self.spool.as_uri()}?mode=ro", uri=True)) as db:
            return {state for (state,) in db.execute("SELECT state FROM work")}

    async def balance(self) -> tuple[str, str]:
        """What the operator can spend, and what is held of it."""
        accounts = (await self.operator.balance()).accounts
        prepaid = next(each for each in accounts if each.account == "prepaid")
        return prepaid.available.amount, prepaid.held.amount


@asynccontextmanager
async def selling(
    tmp_path: Path,
    *,
    listing: dict[str, Json] | None = None,
    url: str = "",
    json_response: bool = True,
    is_route: bool = False,
    **serve: Any,
) -> AsyncIterator[Selling]:
    """A market with one vendor on a port of this machine, whose service is a tool or a route."""
    desk = Desk()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(tmp_path / "platform", **serve))
        operator = await server.organisation("operator", "Operator One")
        agent = await server.agent(operator, "Agent One")
        vendor = Vendor(await server.organisation("vendor", "Vendor One"))
        await server.treasurer.fund(operator.principal, usd("1"), "test")
        await Operator(operator).set_authority(
            agent.principal, per_call_max=usd("0.5"), per_day_max=usd("1")
        )
        web = _Web(desk)
        port = await stack.enter_async_context(web.serving())
        where = url or f"http://127.0.0.1:{port}/mcp"
        document = listing_document(
            vendor.vendor_id, card_document(), terms_document(), url=where
        ) | (listing or {})
        if is_route:
            document["interface"] = {"kind": "http", "url": where.replace("/mcp", "/extract")}
        offer = Offer.bind(document, card_document(), terms_document())
        published = await vendor.publish(offer)
        seller = Seller(
            vendor,
            platform_keys=await vendor.connection.platform_keys(),
            spool=tmp_path / "vendor" / "spool.sqlite",
            offer=lambda _: offer,
        )
        shop = _route(seller, desk) if is_route else _shop(seller, desk, json_response)
        web.app = await stack.enter_async_context(shop)
        buyer = Buyer(agent)
        agreement = await buyer.accept(await buyer.quote(published.listing_id, {"page": 1}))
        asked: list[str] = []

        async def note(request: httpx2.Request) -> None:
            if request.headers.get("mcp-name") == CALL_SERVICE.name:
                asked.append(str(request.url))

        server.http.event_hooks["request"].append(note)
        yield Selling(
            asked=asked,
            serving=server,
            operator=Operator(operator),
            buyer=buyer,
            vendor=vendor,
            agreement=agreement,
            desk=desk,
            spool=tmp_path / "vendor" / "spool.sqlite",
            honest=web.app,
        )


@asynccontextmanager
async def _route(seller: Seller, desk: Desk) -> AsyncIterator[App]:
    async def extract(request: Request) -> Response:
        document = await request.json()
        desk.runs += 1
        desk.started.set()
        if desk.slow:
            await desk.go.wait()
        if desk.fail:
            return PlainTextResponse(desk.fail, 400)
        return JSONResponse({"pages": document["pdf"].split("|")})

    app = Starlette(routes=[Route("/extract", extract, methods=["POST"])])
    pages = {"page": lambda result: len(result["pages"])}
    yield PaymentMiddleware(app, seller, {"POST /extract": Priced("pdf-text", pages)})
    await seller.close()


@asynccontextmanager
async def _shop(seller: Seller, desk: Desk, json_response: bool) -> AsyncIterator[App]:  # noqa: FBT001
    mcp: MCPServer[Any] = MCPServer("pdf", lifespan=seller.lifespan, log_level="CRITICAL")

    @mcp.tool()
    @seller.paid(listing="pdf-text", meter={"page": lambda result: len(result.pages)})
    async def extract_text(pdf: str, ctx: Context[Any, Any]) -> PageTexts:
        desk.runs += 1
        if desk.progress:
            await ctx.report_progress(1, 2, "half\x1b[2J done")
        desk.started.set()
        if desk.slow:
            await desk.go.wait()
        if desk.fail:
            raise ToolError(desk.fail)
        return PageTexts(pages=pdf.split("|"))

    app = mcp.streamable_http_app(json_response=json_response)
    async with app.router.lifespan_context(app):
        yield app


class _Web:
    """The vendor's port: its own application, or what a test puts in its place."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.app: App | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.desk.requests += 1
        if self.desk.instead is not None:
            await self.desk.instead(scope, receive, send)
            return
        assert self.app is not None
        if self.desk.lose_replies:
            self.desk.lose_replies -= 1
            await self.app(scope, receive, _nowhere)
            raise ConnectionError("the reply is lost")
        await self.app(scope, receive, send)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        config = uvicorn.Config(
            self, port=0, log_config=None, lifespan="off", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        task = asyncio.create_task(server.serve())
        await until(lambda: server.started)
        try:
            yield server.servers[0].sockets[0].getsockname()[1]
        finally:
            server.should_exit = True
            await task


def answering(status: int, body: bytes, kind: str = "application/json") -> App:
    """A vendor that answers every call with these bytes, and leads elsewhere if it is believed."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        headers = [(b"content-type", kind.encode()), (b"location", b"http://127.0.0.1:1/mcp")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


async def _nowhere(message: object) -> None:
    del message


def usd(amount: str) -> Money:
    return Money(amount=amount, asset="USD")
