"""A vendor in a process of its own, that stops dead where a test wants to kill it.

    python -m tests.vendor '{"issuer": ..., "principal": ..., "folder": ..., "port": ..., ...}'

It prints `ready` when it serves, and the name of the place where it stands still.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from mcp.server import MCPServer
from pydantic import BaseModel

from farthing.clients.documents import Offer
from farthing.clients.paid import Seller
from farthing.clients.transport import Connection
from farthing.clients.vendors import Vendor
from farthing.protocol.messages.holds import CAPTURE_HOLD
from tests.papers import card_document, listing_document, signing_key, terms_document
from tests.patience import patiently
from tests.processes import ServerProcess, free_port
from tests.remote import Market, opened

__all__ = ["PLACES", "Selling", "VendorProcess", "selling"]

# In the middle of the order of things: the work is done and not kept; it is kept and the capture
# not sent; the platform has captured and its answer is not read.
PLACES = ("worked", "kept", "captured")


class PageTexts(BaseModel):
    pages: list[str]


@dataclass(slots=True)
class VendorProcess:
    """The process, to be started, killed and started again on one spool."""

    settings: dict[str, Any]
    process: "asyncio.subprocess.Process | None" = None

    async def start(self, *, stand_still_at: str = "") -> None:
        """Start it, and wait until it serves."""
        settings = json.dumps({**self.settings, "stand_still_at": stand_still_at})
        command = [sys.executable, "-m", "tests.vendor", settings]
        with (Path(self.settings["folder"]) / "vendor.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.PIPE, stderr=log
            )
        await self.says("ready")

    async def says(self, word: str) -> None:
        """Wait until it has said a word."""
        assert self.process is not None
        assert self.process.stdout is not None
        async with patiently():
            line = await self.process.stdout.readline()
        log = Path(self.settings["folder"]) / "vendor.log"
        assert line.decode().strip() == word, log.read_text()[-2000:]

    async def kill(self) -> None:
        """kill -9, now."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    @property
    def runs(self) -> int:
        """How often the work was done so far."""
        path = Path(self.settings["folder"]) / "runs"
        return len(path.read_text().splitlines()) if path.exists() else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Selling:
    """A platform, its market, and the vendor's process with the offers of its two tools."""

    platform: ServerProcess
    market: Market
    vendor: VendorProcess
    offers: dict[str, Offer]


@asynccontextmanager
async def selling(tmp_path: Path, *, workers: int = 1) -> AsyncIterator[Selling]:
    """A platform that runs, and a vendor that waits to be started.

    Its tool `extract_text` may be run again, `extract_once` may not.
    """
    platform = ServerProcess(tmp_path / "platform", free_port(), workers=workers)
    platform.data_dir.mkdir()
    folder = tmp_path / "vendor"
    folder.mkdir()
    vendor = VendorProcess({})
    try:
        facts = await platform.start()
        async with httpx2.AsyncClient() as http:
            market = await opened(facts, http)
            port = free_port()
            offers = {
                tool: offer_of(market, tool, port, repeatable=tool == "extract_text")
                for tool in ("extract_text", "extract_once")
            }
            for offer in offers.values():
                await market.vendor.publish(offer)
            vendor.settings = {
                "issuer": facts["issuer"],
                "name": "Vendor One",
                "principal": market.vendor.vendor_id,
                "port": port,
                "folder": str(folder),
                "offers": {tool: asdict(offer) for tool, offer in offers.items()},
            }
            yield Selling(platform=platform, market=market, vendor=vendor, offers=offers)
    finally:
        await vendor.kill()
        platform.stop()


def offer_of(market: Market, tool: str, port: int, *, repeatable: bool) -> Offer:
    card, terms = card_document(), terms_document()
    url = f"http://127.0.0.1:{port}/mcp"
    listing = listing_document(market.vendor.vendor_id, card, terms, name=f"Pages {tool}", url=url)
    listing["interface"] = {"kind": "mcp", "url": url, "tool": tool}
    listing |= {"idempotent": repeatable, "side_effects": not repeatable}
    return Offer.bind(listing, card, terms)


def say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


class Stopping(httpx2.AsyncBaseTransport):
    """The way to the platform, on which a capture is lost before or after it arrives."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._inner = httpx2.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        captures = request.url.path == f"/v1/{CAPTURE_HOLD.name}"
        if captures and self._place == "kept":
            await stand_still(self._place)
        response = await self._inner.handle_async_request(request)
        if captures and self._place == "captured":
            await response.aread()
            await stand_still(self._place)
        return response


async def stand_still(place: str) -> None:
    say(place)
    await asyncio.Event().wait()


async def serve(settings: dict[str, Any]) -> None:
    folder, place = Path(settings["folder"]), settings["stand_still_at"]
    connection = Connection(
        settings["issuer"],
        signer=signing_key(settings["name"]),
        principal=settings["principal"],
        http=httpx2.AsyncClient(transport=Stopping(place)),
        transport="http",
    )
    offers = {name: Offer(**offer) for name, offer in settings["offers"].items()}
    seller = Seller(
        Vendor(connection),
        platform_keys=await connection.platform_keys(),
        spool=folder / "spool.sqlite",
        offer=offers.__getitem__,
    )
    mcp: MCPServer[Any] = MCPServer("pdf", lifespan=seller.lifespan, log_level="CRITICAL")

    async def read(pdf: str) -> PageTexts:
        with (folder / "runs").open("a") as runs:
            runs.write(f"{pdf}\n")
        if place == "worked":
            await stand_still(place)
        return PageTexts(pages=pdf.split("|"))

    for name in offers:

        @mcp.tool(name=name)
        @seller.paid(listing=name, meter={"page": lambda result: len(result.pages)})
        async def extract_text(pdf: str) -> PageTexts:
            return await read(pdf)

    class Ready(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            say("ready")

    app = mcp.streamable_http_app(json_response=True)
    config = uvicorn.Config(app, port=settings["port"], log_config=None)
    await Ready(config).serve()


if __name__ == "__main__":
    asyncio.run(serve(json.loads(sys.argv[1])))
