"""Routes of an application that knows nothing of payments, paid for in the headers of HTTP."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send
from x402 import http as x402_http
from x402.schemas import PaymentPayload, PaymentRequired

from farthing.clients.documents import result_sha256
from farthing.clients.middleware import (
    PAYMENT_REQUIRED,
    PAYMENT_RESPONSE,
    PAYMENT_SIGNATURE,
    App,
    PaymentMiddleware,
    Priced,
)
from farthing.clients.paid import Seller
from farthing.clients.spool import SpoolInUse
from farthing.clients.sqlite_file import SqliteFile
from farthing.protocol.canonical import sha256_hex
from farthing.protocol.platform_keys import PlatformKeys
from farthing.protocol.x402 import Presented, payment, read_used
from tests.clients.settling import PAGE_UNITS, PLATFORM, PLATFORM_KEY, Shop, shop
from tests.patience import until

PDF = {"pdf": "one|two"}
URL = "http://vendor.example"
FUTURE = "Fri, 01 Jan 2100 00:00:00 GMT"


@dataclass
class Pages:
    """The application: three routes, and what they did."""

    runs: int = 0
    answer: Response | None = None
    go: asyncio.Event | None = None
    working: asyncio.Event = field(default_factory=asyncio.Event)

    async def extract(self, request: Request) -> Response:
        self.runs += 1
        body = await request.body()
        self.working.set()
        if self.go is not None:
            await self.go.wait()
        if self.answer is not None:
            return self.answer
        pdf = request.query_params.get("pdf") or orjson.loads(body)["pdf"]
        return JSONResponse({"pages": pdf.split("|")}, headers={"x-engine": "plain"})

    async def scan(self, request: Request) -> Response:
        self.runs += 1
        return JSONResponse({"pages": [sha256_hex(await request.body())]})

    async def free(self, request: Request) -> Response:
        del request
        return PlainTextResponse("free")


@dataclass
class Site:
    market: Shop
    pages: Pages
    seller: Seller
    http: httpx2.AsyncClient
    paid: PaymentMiddleware

    async def post(
        self, paid: Presented | None, arguments: Any = PDF, *, content: bytes = b"", query: str = ""
    ) -> httpx2.Response:
        headers = {PAYMENT_SIGNATURE: self.signature(paid)} if paid else {}
        if content:
            return await self.http.post("/scan" + query, content=content, headers=headers)
        return await self.http.post("/extract" + query, json=arguments, headers=headers)

    def signature(self, paid: Presented) -> str:
        price = self.market.ware.price("", PLATFORM, f"{URL}/extract")
        return base64.b64encode(orjson.dumps(payment(price, paid))).decode()


def said(response: httpx2.Response, header: str) -> Any:
    return orjson.loads(base64.b64decode(response.headers[header]))


@asynccontextmanager
async def site(folder: Path, around: Callable[[App], App] = lambda app: app) -> AsyncIterator[Site]:
    async with shop(folder / "other") as market:
        pages = Pages()
        seller = Seller(
            market.settlement,
            platform_keys=PlatformKeys.of(platform=[PLATFORM_KEY.public]),
            spool=folder / "spool.sqlite",
            offer=lambda _: market.offer,
        )
        app = Starlette(
            routes=[
                Route("/extract", pages.extract, methods=["GET", "POST"]),
                Route("/scan", pages.scan, methods=["POST"]),
                Route("/free", pages.free),
            ]
        )
        priced = Priced("pdf-text", {"page": lambda result: len(result["pages"])})
        paid = PaymentMiddleware(
            around(app),
            seller,
            {"POST /extract": priced, "GET /extract": priced, "POST /scan": priced},
        )
        transport = httpx2.ASGITransport(paid)
        async with httpx2.AsyncClient(transport=transport, base_url=URL) as http:
            try:
                yield Site(market, pages, seller, http, paid)
            finally:
                await seller.close()


async def test_a_route_is_paid_for_in_headers_and_its_usage_is_reported(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        payer = place.market.payer()
        response = await place.post(payer.signed(payer.voucher(PDF)))
        await place.market.settled(1)

        assert (response.status_code, response.headers["x-engine"]) == (200, "plain")
        assert response.content == b'{"pages":["one","two"]}'
        used = read_used(said(response, PAYMENT_RESPONSE))
        assert used is not None
        assert (used.seq, used.amount_units) == (1, 2 * PAGE_UNITS)
        assert used.result_sha256 == sha256_hex(response.content) == result_sha256(response.json())


async def test_an_application_that_compresses_its_answers_is_asked_for_plain_ones(
    tmp_path: Path,
) -> None:
    def compressing(app: App) -> App:
        return GZipMiddleware(app, minimum_size=1)

    async with site(tmp_path, compressing) as where:
        payer = where.market.payer()

        response = await where.post(payer.signed(payer.voucher(PDF)))

        assert "gzip" in response.request.headers["accept-encoding"]
        assert response.json() == {"pages": ["one", "two"]}


async def test_a_file_is_sold_whole_whatever_a_server_could_send_and_a_client_has_already(
    tmp_path: Path,
) -> None:
    (tmp_path / "result.json").write_bytes(b'{"pages":["one"]}')
    files = StaticFiles(directory=tmp_path)

    def filed(app: App) -> App:
        del app

        async def file(scope: Scope, receive: Receive, send: Send) -> None:
            await files({**scope, "path": "/result.json", "method": "GET"}, receive, send)

        return file

    def able(app: App) -> App:
        async def server(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "extensions": {"http.response.pathsend": {}}}, receive, send)

        return server

    async with site(tmp_path / "site", filed) as where:
        payer = where.market.payer()
        header = where.signature(payer.signed(payer.voucher(PDF)))
        asks = {"range": "bytes=0-3", "if-modified-since": FUTURE}
        transport = httpx2.ASGITransport(able(where.paid))
        async with httpx2.AsyncClient(transport=transport, base_url=URL) as http:
            response = await http.post(
                "/extract", json=PDF, headers={PAYMENT_SIGNATURE: header, **asks}
            )

        assert (response.status_code, response.json()) == (200, {"pages": ["one"]})


async def test_a_route_that_is_not_paid_for_says_what_it_asks(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        response = await place.post(None)

        required = said(response, PAYMENT_REQUIRED)
        assert response.status_code == 402
        assert response.json() == required
        assert required["resource"] == {"url": f"{URL}/extract"}
        (accepts,) = required["accepts"]
        assert (accepts["amount"], accepts["extra"]["takes"]) == ("2000000", ["hold", "session"])
        assert place.pages.runs == 0


async def test_x402_s_own_library_reads_what_is_asked_and_writes_what_is_paid(
    tmp_path: Path,
) -> None:
    async with site(tmp_path) as place:
        asked = await place.post(None)
        required = x402_http.decode_payment_required_header(asked.headers[PAYMENT_REQUIRED])
        assert isinstance(required, PaymentRequired)
        assert required.resource is not None
        payer = place.market.payer()
        tokens = payer.signed(payer.voucher(PDF))
        paid = PaymentPayload(
            resource=required.resource,
            accepted=required.accepts[0],
            payload={"entitlement": tokens.entitlement, "voucher": tokens.voucher},
        )
        header = x402_http.encode_payment_signature_header(paid)
        headers = {x402_http.PAYMENT_SIGNATURE_HEADER: header}
        response = await place.http.post("/extract", json=PDF, headers=headers)
        settled = x402_http.decode_payment_response_header(response.headers[PAYMENT_RESPONSE])

    assert (required.x402_version, required.accepts[0].extra["scale"]) == (2, 9)
    assert (response.status_code, settled.success) == (200, True)
    assert settled.amount == str(2 * PAGE_UNITS)


async def test_what_is_not_priced_is_served_as_before(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        response = await place.http.get("/free")

        assert (response.status_code, response.text) == (200, "free")


@pytest.mark.parametrize(
    ("method", "path", "root"),
    [
        ("HEAD", "/extract", ""),
        ("post", "/extract", ""),
        ("POST", "/extract/", ""),
        ("POST", "//extract", ""),
        ("POST", "/v1/extract", "/v1"),
        ("POST", "/v1/extract", "/v1/"),
    ],
)
async def test_another_spelling_of_a_route_is_paid_for_too(
    tmp_path: Path, method: str, path: str, root: str
) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": orjson.dumps(PDF), "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    async with site(tmp_path) as place:
        scope = {"type": "http", "method": method, "path": path, "root_path": root}
        headers = [(b"content-type", b"application/json")]
        await place.paid(scope | {"query_string": b"", "headers": headers}, receive, send)

        assert sent[0]["status"] == 402
        assert place.pages.runs == 0


async def test_a_request_that_is_sent_again_is_answered_again_and_not_worked_on(
    tmp_path: Path,
) -> None:
    async with site(tmp_path) as place:
        payer = place.market.payer()
        paid = payer.signed(payer.voucher(PDF))
        first, again = await place.post(paid), await place.post(paid)

        assert (first.content, first.headers) == (again.content, again.headers)
        assert place.pages.runs == 1


async def test_query_and_body_are_what_is_paid_for(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        payer = place.market.payer()
        by_query = payer.signed(payer.voucher(PDF))
        headers = {PAYMENT_SIGNATURE: place.signature(by_query)}
        got = await place.http.get("/extract?pdf=one|two", headers=headers)
        both = payer.signed(payer.voucher(PDF))
        changed = await place.post(both, query="?lang=de")
        raw: Any = {"body_sha256": sha256_hex(b"%PDF"), "lang": "de"}
        scanned = await place.post(
            payer.signed(payer.voucher(raw)), content=b"%PDF", query="?lang=de"
        )
        twice = await place.post(payer.signed(payer.voucher(PDF)), query="?pdf=x")

        assert got.json() == {"pages": ["one", "two"]}
        assert (changed.status_code, changed.json()["error"]) == (402, "proof_invalid")
        assert scanned.json() == {"pages": [sha256_hex(b"%PDF")]}
        assert (twice.status_code, twice.json()["path"]) == (400, "query.pdf")
        assert place.pages.runs == 2


@pytest.mark.parametrize("header", ["-", "e30=", "W10=", base64.b64encode(b"{").decode()])
async def test_a_header_that_is_no_payment_pays_for_nothing(tmp_path: Path, header: str) -> None:
    async with site(tmp_path) as place:
        response = await place.http.post("/extract", json=PDF, headers={PAYMENT_SIGNATURE: header})

        assert (response.status_code, response.json()["error"]) == (402, "proof_invalid")
        assert place.pages.runs == 0


@pytest.mark.parametrize(
    ("answer", "status", "code", "outcome"),
    [
        (PlainTextResponse("no such page", 404), 400, "invalid_argument", "failed_buyer"),
        (PlainTextResponse("the inside", 500), 502, "vendor_failed", "failed_vendor"),
        (PlainTextResponse("text"), 502, "vendor_failed", "failed_vendor"),
        (JSONResponse({"words": []}), 502, "vendor_failed", "failed_vendor"),
        (JSONResponse({"pages": [0.5]}), 502, "vendor_failed", "failed_vendor"),
    ],
)
async def test_an_answer_that_cannot_be_sold_is_not_billed(
    tmp_path: Path, answer: Response, status: int, code: str, outcome: str
) -> None:
    async with site(tmp_path) as place:
        payer = place.market.payer()
        place.pages.answer = answer
        response = await place.post(payer.signed(payer.voucher(PDF)))
        await place.seller.close()

        assert (response.status_code, response.json()["code"]) == (status, code)
        assert said(response, PAYMENT_RESPONSE)["errorReason"] == code
        assert "inside" not in response.text
        ((batch, *_),) = place.market.settlement.sent
        assert orjson.loads(batch)[0]["data"]["outcome"] == outcome
        assert place.market.settlement.billed == {}


@pytest.mark.parametrize(
    ("arguments", "status"),
    [({"pdf": 1}, 400), ([], 400), ({"pdf": "x", "scale": 0.5}, 400), ({"pdf": "x" * 2000}, 413)],
)
async def test_a_request_that_does_not_fit_is_refused_before_any_payment(
    tmp_path: Path, arguments: Any, status: int
) -> None:
    async with site(tmp_path) as place:
        response = await place.post(None, arguments)

        assert response.status_code == status
        assert place.pages.runs == 0


async def test_work_goes_on_when_its_caller_goes_away(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        payer = place.market.payer()
        place.pages.go = asyncio.Event()
        paid = payer.signed(payer.voucher(PDF))
        call = asyncio.create_task(place.post(paid))
        await place.pages.working.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        place.pages.go.set()

        assert (await place.post(paid)).json() == {"pages": ["one", "two"]}
        assert place.pages.runs == 1


async def test_the_seller_is_opened_and_closed_with_the_application(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        events = asyncio.Queue[dict[str, Any]]()
        sent: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            del scope
            for done in ("startup", "shutdown"):
                assert (await receive())["type"] == f"lifespan.{done}"
                await send({"type": f"lifespan.{done}.complete"})

        async def send(message: Any) -> None:
            sent.append(message["type"])

        wrapped = PaymentMiddleware(app, place.seller, {})
        life = asyncio.create_task(wrapped({"type": "lifespan"}, events.get, send))
        await events.put({"type": "lifespan.startup"})
        await until(lambda: bool(sent))
        is_open = place.seller.is_open
        await events.put({"type": "lifespan.shutdown"})
        await life

        assert (is_open, place.seller.is_open) == (True, False)
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_an_application_whose_seller_cannot_open_says_so_and_does_not_start(
    tmp_path: Path,
) -> None:
    async with site(tmp_path) as place:
        spool = tmp_path / "spool.sqlite"
        another = SqliteFile(spool, in_use=AssertionError())
        sent: list[Any] = []

        async def startup() -> Any:
            return {"type": "lifespan.startup"}

        async def send(message: Any) -> None:
            sent.append(message)

        with pytest.raises(SpoolInUse):
            await place.paid({"type": "lifespan"}, startup, send)
        another.close()

        whose = "each server of a vendor has a home of its own"
        text = f"SpoolInUse: {spool} is in use by another process: {whose}"
        assert sent == [{"type": "lifespan.startup.failed", "message": text}]
