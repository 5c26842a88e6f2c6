"""A market on a server that runs in a process of its own, opened over real HTTP."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx2

from farthing.clients.buyers import Buyer
from farthing.clients.operators import Admin, Newcomer, Operator
from farthing.clients.transport import Connection
from farthing.clients.treasurers import Treasurer
from farthing.clients.vendors import Offer, Vendor
from farthing.protocol.canonical import document_sha256
from farthing.protocol.ids import derive_id
from farthing.protocol.keys import PrivateKey
from farthing.protocol.messages.agreements import Agreement
from farthing.protocol.wire import Money
from tests.papers import card_document, listing_document, signing_key, terms_document

__all__ = ["Market", "enrolled", "opened"]

PLENTY = Money(amount="1000000", asset="USD")


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """The parties, their connections, and one agreement in force."""

    buyer: Buyer
    vendor: Vendor
    operator: Operator
    treasurer: Connection
    agreement: Agreement
    output_schema_sha256: str


async def opened(facts: dict[str, Any], http: httpx2.AsyncClient) -> Market:
    """Enrol, approve, fund, grant, publish and agree.

    Args:
        facts: what the server's ready file says.
        http: whose connections to use; they outlive the server.
    """
    treasurer = _staff(facts, http, "treasurer_key")
    operator = await enrolled(facts, http, "operator", "Operator One")
    vendor = await enrolled(facts, http, "vendor", "Vendor One")
    agent = await Newcomer(_connect(facts, http, signing_key("Agent One"))).register(
        operator.principal, "Agent One"
    )
    await Operator(operator).approve(agent.principal_id)
    await Treasurer(treasurer).fund(operator.principal, PLENTY, "test")
    await Operator(operator).set_authority(
        agent.principal_id, per_call_max=PLENTY, per_day_max=PLENTY
    )
    card, terms = card_document(), terms_document()
    listing = listing_document(vendor.principal, card, terms)
    published = await Vendor(vendor).publish(Offer(listing=listing, rate_card=card, terms=terms))
    buyer = Buyer(_connect(facts, http, signing_key("Agent One"), agent.principal_id))
    quote = await buyer.quote(published.listing_id, {"page": 1})
    return Market(
        buyer=buyer,
        vendor=Vendor(vendor),
        operator=Operator(operator),
        treasurer=treasurer,
        agreement=await buyer.accept(quote),
        output_schema_sha256=document_sha256(listing["output_schema"]),
    )


async def enrolled(
    facts: dict[str, Any],
    http: httpx2.AsyncClient,
    kind: Literal["operator", "vendor"],
    name: str,
) -> Connection:
    """An organisation of this name, approved; its key is the name's."""
    registration = await Newcomer(_connect(facts, http, signing_key(name))).enrol(kind, name)
    await Admin(_staff(facts, http, "admin_key")).approve(registration.principal_id)
    return _connect(facts, http, signing_key(name), registration.principal_id)


def _connect(
    facts: dict[str, Any], http: httpx2.AsyncClient, key: PrivateKey, principal: str = ""
) -> Connection:
    return Connection(facts["issuer"], signer=key, principal=principal, http=http, sleep=_at_once)


def _staff(facts: dict[str, Any], http: httpx2.AsyncClient, path: str) -> Connection:
    key = PrivateKey.from_jwk(json.loads(Path(facts[path]).read_text()))
    return _connect(facts, http, key, derive_id("stf", key.thumbprint))


async def _at_once(seconds: float) -> None:
    del seconds
