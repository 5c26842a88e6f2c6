"""Sessions between real processes: a vendor and a platform that are killed while calls are out."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
from mcp.server import MCPServer

from farthing.clients.documents import Offer
from farthing.clients.paid import Seller
from farthing.clients.session_answers import Answer, CallLost
from farthing.clients.sessions import SpendSession
from farthing.clients.transport import Connection
from farthing.clients.vendors import Vendor
from tests.clients.test_processes import SHOP, heard, running, world
from tests.clients.trading import PageTexts, Routes, usd
from tests.papers import card_document, listing_document, terms_document
from tests.patience import patiently
from tests.processes import ServerProcess, free_port
from tests.remote import opened

PDF = {"pdf": "one|two"}


async def asked_until_answered(session: SpendSession, outcome: object) -> Answer:
    """The answer of a call, asked for again where it was lost."""
    if isinstance(outcome, CallLost):
        return await session.call(PDF, again=outcome.seq)
    assert isinstance(outcome, Answer)
    return outcome


async def test_a_vendor_killed_anywhere_in_a_session_is_paid_once_for_every_call(
    tmp_path: Path,
) -> None:
    port = free_port()
    async with world(tmp_path) as market:
        home = await market.vendor(port)
        listing_id = str(home.offer("pdf-text").listing["listing_id"])
        shop = (str(SHOP), str(port), str(tmp_path))
        env = {"FARTHING_HOME": str(home.path)}
        quote = await market.buyer.quote(listing_id, {"page": 1})
        agreement = await market.buyer.accept(quote)
        session = await market.buyer.open_session(
            agreement.agreement_id, cap=usd("0.3"), per_call=usd("0.01")
        )
        answers: list[Answer] = []
        for place in ("working", "before_report", "after_report"):
            (tmp_path / "kill_at").write_text(place)
            async with running(*shop, env=env) as vendor:
                await heard(vendor, b"serving")
                calls = (session.call(PDF) for _ in range(4))
                outcomes = await asyncio.gather(*calls, return_exceptions=True)
                assert await vendor.wait() == -9
            async with running(*shop, env=env) as vendor:
                await heard(vendor, b"serving")
                answers += [await asked_until_answered(session, each) for each in outcomes]
                vendor.terminate()
                await vendor.wait()
            view = await market.buyer.session_status(session.session_id)
            assert (view.calls, view.rejected) == (len(answers), 0)
        await session.close()
        await session.aclose()

        charges = (await market.buyer.charges()).charges
        assert {each.seq for each in answers} == set(range(1, 13))
        assert sum(each.amount.units for each in charges) == view.spent.units
        assert view.spent.units == sum(each.amount.units for each in answers)


async def test_a_platform_killed_in_mid_session_bills_every_call_once_it_is_back(
    tmp_path: Path,
) -> None:
    server = ServerProcess(tmp_path, free_port())
    async with (
        httpx2.AsyncHTTPTransport() as road,
        httpx2.AsyncClient(transport=(roads := Routes(road))) as http,
    ):
        try:
            market = await opened(await server.start(), http)
            vendor = market.vendor
            papers = card_document(), terms_document()
            seller = Seller(
                Vendor(
                    Connection(
                        vendor.connection.url,
                        signer=vendor.signer,
                        principal=vendor.vendor_id,
                        http=http,
                    )
                ),
                platform_keys=await vendor.connection.platform_keys(),
                spool=tmp_path / "vendor" / "spool.sqlite",
                offer=lambda _: Offer.bind(listing_document(vendor.vendor_id, *papers), *papers),
            )
            mcp: MCPServer[Any] = MCPServer("pdf", lifespan=seller.lifespan, log_level="ERROR")

            @mcp.tool()
            @seller.paid(listing="pdf-text", meter={"page": lambda result: len(result.pages)})
            async def extract_text(pdf: str) -> PageTexts:
                return PageTexts(pages=pdf.split("|"))

            app = mcp.streamable_http_app(json_response=True)
            async with app.router.lifespan_context(app):
                roads.vendor = httpx2.ASGITransport(app)
                session = await market.buyer.open_session(
                    market.agreement.agreement_id, cap=usd("1"), per_call=usd("0.01")
                )
                before = await asyncio.gather(*(session.call(PDF) for _ in range(4)))
                server.kill()
                without = await asyncio.gather(*(session.call(PDF) for _ in range(4)))
                await server.start()
                async with patiently():
                    while (view := await session.refresh()).calls < 8:  # noqa: ASYNC110 # a process
                        await asyncio.sleep(0.05)
                await session.aclose()
        finally:
            server.stop()

    assert (view.calls, view.rejected) == (8, 0)
    assert view.spent.units == sum(each.amount.units for each in (*before, *without))
