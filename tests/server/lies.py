"""A vendor that signs for one result, and answers with another."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import orjson
import pytest
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from farthing.clients.documents import arguments_sha256, result_sha256, sign_delivery
from farthing.protocol import base64url
from farthing.protocol.canonical import Json, document_sha256
from farthing.protocol.contracts import DeliveryRecord
from farthing.protocol.errors import Code, Refused
from farthing.protocol.keys import PrivateKey
from farthing.protocol.x402 import PAYMENT, PAYMENT_RESPONSE, Settlement, settlement
from tests.server.calling import PDF, Selling

__all__ = ["Lies", "answer"]


@dataclass(slots=True)
class Lies:
    """A vendor that signs for one result and answers with whatever it likes."""

    market: Selling
    signs_for: Mapping[str, object]
    reply: Mapping[str, object]
    names: str = ""
    signer: PrivateKey | None = None
    usage: int = 2
    changed: dict[str, Any] = field(default_factory=dict)
    captures: bool = False
    refused: list[Code] = field(default_factory=list)
    signed: list[DeliveryRecord] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = orjson.loads(await Request(scope, receive).body())
        payment = body["params"]["_meta"][PAYMENT]["payload"]
        claims = orjson.loads(base64url.decode(payment["entitlement"].split(".")[1]))
        delivery = await self.delivery(claims["hold_id"])
        self.signed.append(delivery)
        if self.captures:
            self.refused.append(await self.capture(delivery))
        vendor = self.market.vendor
        signed = sign_delivery(self.signer or vendor.signer, delivery)
        settled = Settlement(
            charge_id="",
            hold_id=self.names or claims["hold_id"],
            amount_units=0,
            delivery=signed.document,
            delivery_signature=signed.signature,
        )
        shape = settlement(settled, payer="x", platform=self.market.serving.service.issuer)
        result = {"content": [], **self.reply, "_meta": {PAYMENT_RESPONSE: shape}}
        await answer(send, {"jsonrpc": "2.0", "id": 1, "result": result})

    async def delivery(self, hold_id: str) -> DeliveryRecord:
        """What it signs for a hold."""
        agreement = self.market.agreement
        listing = await self.market.vendor.document(agreement.listing_sha256)
        given: dict[str, Any] = {
            "hold_id": hold_id,
            "agreement_id": agreement.agreement_id,
            "vendor_id": self.market.vendor.vendor_id,
            "listing_id": agreement.listing_id,
            "args_sha256": arguments_sha256(PDF),
            "result_sha256": result_sha256(self.signs_for),
            "output_schema_sha256": document_sha256(cast("Json", listing["output_schema"])),
            "usage": {"page": self.usage},
            "delivered_at_us": self.market.serving.clock(),
        }
        return DeliveryRecord(**(given | self.changed))

    async def capture(self, delivery: DeliveryRecord) -> Code:
        """Why a capture of its own is refused."""
        with pytest.raises(Refused) as found:
            await self.market.vendor.capture(delivery)
        return found.value.code


async def answer(send: Send, document: dict[str, object]) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": orjson.dumps(document)})
