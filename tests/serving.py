"""A real server for tests: the composition root over an ASGI transport, real keys, a real file.

`serving` gives a market that anybody can connect to in process; nothing of it is a stand-in.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx2

from farthing.clients.buyers import Buyer
from farthing.clients.operators import Admin, Newcomer, Operator
from farthing.clients.transport import Connection
from farthing.clients.treasurers import Treasurer
from farthing.clients.vendors import Offer, Vendor
from farthing.identity.keyring import Purpose
from farthing.protocol.canonical import Json
from farthing.protocol.contracts import DeliveryRecord
from farthing.protocol.ids import derive_id
from farthing.protocol.keys import Signer
from farthing.protocol.messages.agreements import Agreement
from farthing.protocol.wire import Money, Role
from farthing.server.adapters.outbound import Outbound
from farthing.server.app import Service, build
from farthing.server.engine import now_us
from farthing.server.settings import Settings
from farthing.settlement.engine import things
from farthing.settlement.engine.questions import Lookup
from tests.papers import card_document, listing_document, signing_key, terms_document

__all__ = ["Clock", "Serving", "Shop", "serving"]

PORT = 8321


@dataclass(slots=True)
class Clock:
    """The wall clock, how far a test has moved it, and where one has stopped it."""

    ahead_us: int = 0
    stopped_us: int | None = None

    def __call__(self) -> int:
        return (now_us() if self.stopped_us is None else self.stopped_us) + self.ahead_us

    def stop(self) -> None:
        """From here on it goes only where the test moves it."""
        self.stopped_us = now_us()


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A server that runs in this process."""

    service: Service
    http: httpx2.AsyncClient
    clock: Clock
    transport: Literal["mcp", "http"] = "mcp"

    def connect(self, signer: Signer | None = None, principal: str = "") -> Connection:
        """A connection to it, signed by a key or by nobody."""
        return Connection(
            self.service.issuer,
            signer=signer,
            principal=principal,
            http=self.http,
            transport=self.transport,
            clock=self.clock,
        )

    def staff(self, role: Role) -> Connection:
        """The admin's or the treasurer's connection."""
        key = self.service.keyring[Purpose(role.value)]
        return self.connect(key, derive_id("stf", key.thumbprint))

    @property
    def admin(self) -> Admin:
        """The admin."""
        return Admin(self.staff(Role.ADMIN))

    @property
    def treasurer(self) -> Treasurer:
        """The treasurer."""
        return Treasurer(self.staff(Role.TREASURER))

    async def organisation(self, kind: Literal["operator", "vendor"], name: str) -> Connection:
        """Enrol and approve an organisation."""
        newcomer = Newcomer(self.connect(signing_key(name)))
        registration = await newcomer.enrol(kind, name)
        await self.admin.approve(registration.principal_id)
        return newcomer.member(registration)

    async def agent(self, operator: Connection, name: str) -> Connection:
        """Register an agent and let its operator approve it."""
        newcomer = Newcomer(self.connect(signing_key(name)))
        registration = await newcomer.register(operator.principal, name)
        await Operator(operator).approve(registration.principal_id)
        return newcomer.member(registration)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """A market with one operator, one agent and one vendor that has published one listing."""

    serving: Serving
    operator: Operator
    buyer: Buyer
    vendor: Vendor
    listing_id: str

    @classmethod
    async def opened(
        cls,
        serving: Serving,
        *,
        suffix: str = "One",
        url: str = "http://127.0.0.1:9/mcp",
        terms: dict[str, Json] | None = None,
        balance: str = "1",
        per_call: str = "0.5",
        per_day: str = "1",
    ) -> "Shop":
        """Enrol, approve, fund, grant and publish."""
        operator = await serving.organisation("operator", f"Operator {suffix}")
        agent = await serving.agent(operator, f"Agent {suffix}")
        vendor = await serving.organisation("vendor", f"Vendor {suffix}")
        await serving.treasurer.fund(operator.principal, _usd(balance), "test")
        await Operator(operator).set_authority(
            agent.principal, per_call_max=_usd(per_call), per_day_max=_usd(per_day)
        )
        card, terms = card_document(), terms or terms_document()
        listing = listing_document(vendor.principal, card, terms, url=url)
        published = await Vendor(vendor).publish(
            Offer(listing=listing, rate_card=card, terms=terms)
        )
        return cls(
            serving=serving,
            operator=Operator(operator),
            buyer=Buyer(agent),
            vendor=Vendor(vendor),
            listing_id=published.listing_id,
        )

    async def captured(
        self, agreement: Agreement, hold_id: str, usage: dict[str, int], result_sha256: str
    ) -> str:
        """Capture a hold with a signed delivery record; gives the charge's id."""
        market = self.serving.service.market
        hold = await market.ask(Lookup(noun="hold", id=hold_id))
        bound = await market.ask(Lookup(noun="agreement", id=agreement.agreement_id))
        assert isinstance(hold, things.Hold)
        assert isinstance(bound, things.Agreement)
        delivery = DeliveryRecord(
            hold_id=hold_id,  # type: ignore[arg-type]
            agreement_id=agreement.agreement_id,  # type: ignore[arg-type]
            vendor_id=agreement.vendor_id,  # type: ignore[arg-type]
            listing_id=agreement.listing_id,  # type: ignore[arg-type]
            args_sha256=hold.args_sha256,
            result_sha256=result_sha256,
            output_schema_sha256=bound.output_schema_sha256,
            usage=usage,
            delivered_at_us=self.serving.clock(),
        )
        return (await self.vendor.capture(delivery)).answer.charge_id


@asynccontextmanager
async def serving(
    data_dir: Path, *, outbound: Outbound | None = None, **settings: Any
) -> AsyncIterator[Serving]:
    """Run a server in this process until the block ends."""
    clock = Clock()
    service = build(
        Settings(data_dir=data_dir, **{"anonymous_per_minute": 100_000, **settings}),
        port=PORT,
        clock=clock,
        entropy=os.urandom,
        outbound=outbound,
    )
    async with service.running():
        transport = httpx2.ASGITransport(app=service.app)
        async with httpx2.AsyncClient(transport=transport, base_url=service.issuer) as http:
            yield Serving(service=service, http=http, clock=clock)


def _usd(amount: str) -> Money:
    return Money(amount=amount, asset="USD")
