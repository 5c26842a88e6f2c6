"""The demo's market: a server, three vendors in processes of their own, an operator and its agent.

Boundary: brings everybody to the place where the story begins, with the calls that a person would
make by hand, and ends every process at its end. What they then do is in the acts.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx2
import orjson

from farthing.clients.buyers import Buyer
from farthing.clients.demo.network import LosesReplies
from farthing.clients.demo.offers import offer
from farthing.clients.demo.processes import Child, start, until
from farthing.clients.documents import Offer
from farthing.clients.home import Home, Profile
from farthing.clients.keys import keep_key, load_key, new_key
from farthing.clients.operators import Admin, Newcomer, Operator
from farthing.clients.transport import Connection
from farthing.clients.treasurers import Treasurer
from farthing.clients.vendors import Vendor
from farthing.protocol.errors import Unverified
from farthing.protocol.keys import Signer
from farthing.protocol.messages.authority import GrantView
from farthing.protocol.messages.listings import LintReport
from farthing.protocol.platform_keys import PlatformKeys
from farthing.protocol.rating import START, parse_card, rate
from farthing.protocol.wire import Money, money

__all__ = ["Market", "Shop", "opened"]

_SELLS: Final[Mapping[str, tuple[str, ...]]] = {
    "pagewright": ("pdf-text",),
    "lightbox": ("image-resize",),
    "plainword": ("text-analysis", "short-counts", "document-text", "translation"),
}
_VENDOR_TIMEOUT_S: Final = 40.0


@dataclass(slots=True, kw_only=True)
class Shop:
    """One vendor: its side of the platform, what it offers, and its server's process."""

    name: str
    vendor: Vendor
    url: str
    offers: Mapping[str, Offer]
    reports: Mapping[str, LintReport]
    child: Child


@dataclass(slots=True, kw_only=True)
class Market:
    """Everything that runs, and everybody who takes part.

    Args:
        folder: Where all of it keeps its files.
        url: The platform's public URL.
        journal_thumbprint: The key that the journal's heads are signed with, as the server's own
            machine said at its first start: what the proofs are later verified against.
        platform_keys: The keys that the platform publishes, by purpose.
        server: The server's process.
        http: The connections of everybody but the agent.
        network: The agent's road, which can lose replies.
    """

    folder: Path
    url: str
    journal_thumbprint: str
    platform_keys: PlatformKeys
    server: Child
    http: httpx2.AsyncClient
    network: LosesReplies
    agents_http: httpx2.AsyncClient
    admin: Admin
    treasurer: Treasurer
    ends: AsyncExitStack
    operator: Operator = field(init=False)
    agent: Buyer = field(init=False)
    shops: dict[str, Shop] = field(default_factory=dict)

    def connect(self, signer: Signer, http: httpx2.AsyncClient | None = None) -> Connection:
        """A connection of somebody with a key."""
        return Connection(self.url, signer=signer, http=http or self.http)

    async def enrol_operator(self, name: str, funds: Money) -> None:
        """Enrol an operator; the admin approves it, the treasurer credits it."""
        newcomer = Newcomer(self.connect(new_key()))
        registration = await newcomer.enrol("operator", name)
        await self.admin.approve(registration.principal_id)
        member = newcomer.member(registration)
        self.operator = Operator(member, platform_keys=self.platform_keys)
        await self.treasurer.fund(registration.principal_id, funds, "the demo's first credit")

    async def register_agent(self, name: str, *, per_call: Money, per_day: Money) -> GrantView:
        """Register an agent; its operator approves it and sets its limits."""
        newcomer = Newcomer(self.connect(new_key(), self.agents_http))
        registration = await newcomer.register(self.operator.connection.principal, name)
        await self.operator.approve(registration.principal_id)
        self.agent = Buyer(
            newcomer.member(registration),
            platform_keys=self.platform_keys,
            vendor_timeout_s=_VENDOR_TIMEOUT_S,
        )
        return await self.operator.set_authority(
            registration.principal_id, per_call_max=per_call, per_day_max=per_day
        )

    async def open_shops(self) -> None:
        """Enrol the vendors, publish what they sell, start their servers."""
        shops = await asyncio.gather(*(self._open_shop(name) for name in _SELLS))
        self.shops = {shop.name: shop for shop in shops}

    def selling(self, listing_id: str) -> Shop:
        """The vendor of a listing."""
        return next(
            shop
            for shop in self.shops.values()
            if any(each.listing["listing_id"] == listing_id for each in shop.offers.values())
        )

    def listing_id(self, name: str) -> str:
        """The listing that was published under a name."""
        shop = next(each for each in self.shops.values() if name in each.offers)
        return str(shop.offers[name].listing["listing_id"])

    def price(self, listing_id: str, usage: Mapping[str, int]) -> Money:
        """What usage costs from the beginning under a listing's rate card, computed here."""
        offers = self.selling(listing_id).offers.values()
        (sold,) = (each for each in offers if each.listing["listing_id"] == listing_id)
        card = parse_card(dict(sold.rate_card))
        return money(rate(card, START, usage).total_units, card.asset)

    async def close(self) -> None:
        """End every process and every connection; a second time does nothing."""
        await self.ends.aclose()

    async def _open_shop(self, name: str) -> Shop:
        home = Home(self.folder / name)
        newcomer = Newcomer(self.connect(home.key()))
        registration = await newcomer.enrol("vendor", name.title())
        await self.admin.approve(registration.principal_id)
        profile = Profile(url=self.url, platform_keys=self.platform_keys.jwks())
        home.save_profile(profile.of(registration))
        vendor = Vendor(newcomer.member(registration), platform_keys=self.platform_keys)
        # The process that sells meters with a key that can do nothing else.
        await vendor.add_metering_key(keep_key(home.metering_key_path))
        with _listening() as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
            offers = {each: offer(each, vendor.vendor_id, url) for each in _SELLS[name]}
            reports = {each: await vendor.lint(offers[each]) for each in offers}
            for each, published in offers.items():
                await vendor.publish(published)
                home.save_offer(each, published)
            child = await start(
                name,
                "farthing.clients.demo.vendors",
                [name, "--fd", str(listener.fileno())],
                folder=self.folder,
                more={"FARTHING_HOME": str(home.path)},
                pass_fds=[listener.fileno()],
            )
        self.ends.push_async_callback(child.stop)
        await child.hears("serving")
        return Shop(name=name, vendor=vendor, url=url, offers=offers, reports=reports, child=child)


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Market]:
    """Start a server on a database of its own; whatever was started is ended with the block.

    Args:
        folder: An empty folder for all files.

    Raises:
        DidNotStart: The server did not come up; its last words are in the message.
        Unverified: It does not publish the key that it said it signs its journal with.
    """
    async with AsyncExitStack() as ends:
        ready = folder / "ready.json"
        server = await start(
            "server",
            "farthing.clients.cli",
            [
                "serve",
                "--port",
                "0",
                "--data-dir",
                f"{folder / 'data'}",
                "--ready-file",
                f"{ready}",
            ],
            folder=folder,
        )
        ends.push_async_callback(server.stop)
        facts = orjson.loads(await until(ready, server))
        network = LosesReplies()
        http = await ends.enter_async_context(httpx2.AsyncClient(trust_env=False))
        agents_http = await ends.enter_async_context(httpx2.AsyncClient(transport=network))
        url, thumbprint = facts["issuer"], facts["journal_thumbprint"]
        keys = await Connection(url, http=http).platform_keys()
        if thumbprint not in keys.journal:
            raise Unverified(f"{url} does not publish its journal's key {thumbprint}")

        def staff(key_file: str) -> Connection:
            return Connection(url, signer=load_key(Path(facts[key_file])), http=http)

        yield Market(
            folder=folder,
            url=url,
            journal_thumbprint=thumbprint,
            platform_keys=keys,
            server=server,
            http=http,
            network=network,
            agents_http=agents_http,
            admin=Admin(staff("admin_key"), platform_keys=keys),
            treasurer=Treasurer(staff("treasurer_key"), platform_keys=keys),
            ends=ends,
        )


def _listening() -> socket.socket:
    """A socket on a free port, taken before the listing names it, so that nobody else can."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener
