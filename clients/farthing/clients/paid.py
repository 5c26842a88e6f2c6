"""Makes an ordinary MCP tool payable: entitlement checked, work done once, metered, captured.

    farthing = Seller.from_env()
    mcp = MCPServer("pdf", lifespan=farthing.lifespan)

    @mcp.tool()
    @farthing.paid(listing="pdf-text", meter={"page": lambda result: len(result.pages)})
    async def extract_text(pdf: str) -> PageTexts: ...

Boundary: between the MCP SDK and `deliveries`. Source: spec/payments-mcp.md.
"""

import asyncio
import functools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from mcp.server.mcpserver import Context
from mcp_types import CallToolResult

from farthing.clients.deliveries import Deliveries, Work
from farthing.clients.documents import Offer, arguments_bytes
from farthing.clients.entitlements import Paid, check_payment, claimed_hold
from farthing.clients.home import Home, default_home
from farthing.clients.metering import Meter
from farthing.clients.payable import Payable, delivered, failed, unpaid
from farthing.clients.spool import Spool
from farthing.clients.vendors import Vendor
from farthing.clients.x402 import PAYMENT, Presented, read_payment
from farthing.protocol.canonical import Json, document_sha256, sha256_hex
from farthing.protocol.errors import Code, Refusal, Refused, Unreachable, Unverified, refuse
from farthing.protocol.keys import PublicKey
from farthing.protocol.messages.disputes import Dispute
from farthing.protocol.money import INT64_MAX
from farthing.protocol.wire import EXTENSION

__all__ = ["Seller"]

Tool = Callable[..., Any]


class Seller:
    """A vendor's tools, made payable.

    Args:
        vendor: The vendor's side of the platform.
        platform_keys: The platform's keys by thumbprint, pinned.
        spool: Where work is remembered; one process has it open at a time.
        offer: Gives the offer that was published under a name.
    """

    def __init__(
        self,
        vendor: Vendor,
        *,
        platform_keys: Mapping[str, PublicKey],
        spool: Path,
        offer: Callable[[str], Offer],
    ) -> None:
        self.vendor = vendor
        self.platform = vendor.connection.url
        self._platform_keys = platform_keys
        self._spool_path = spool
        self._offer = offer
        self._deliveries: Deliveries | None = None
        self._opening = asyncio.Lock()

    @classmethod
    def from_home(cls, home: Home) -> "Seller":
        """The seller of a vendor's home directory.

        Raises:
            Unverified: The directory is damaged, or no vendor has enrolled with it.
        """
        profile = home.profile()
        if profile is None or not profile.principal_id:
            raise Unverified(f"{home.path} is not a vendor's: enrol first")
        keys = [PublicKey.from_jwk(jwk) for jwk in profile.platform_keys]
        return cls(
            Vendor(home.connection(profile)),
            platform_keys={key.thumbprint: key for key in keys},
            spool=home.spool_path,
            offer=home.offer,
        )

    @classmethod
    def from_env(cls, environment: Mapping[str, str] = os.environ) -> "Seller":
        """The seller of the directory that `FARTHING_HOME` names; raises as `from_home`."""
        return cls.from_home(default_home(environment))

    def paid(
        self, *, listing: str | Offer, meter: Mapping[str, Meter]
    ) -> Callable[[Tool], Callable[..., Awaitable[CallToolResult]]]:
        """Make a tool payable; put it under `@mcp.tool()`.

        Args:
            listing: The name of a published offer, or the offer itself.
            meter: For each meter of its rate card a quantity, or a function whose parameters are
                named after the tool's arguments, or `result` for what the tool returned.

        Raises:
            ValueError: The meters do not fit card and tool, or the tool's result is not typed.
            Unverified: There is no such offer.
        """
        offer = self._offer(listing) if isinstance(listing, str) else listing

        def decorate(fn: Tool) -> Callable[..., Awaitable[CallToolResult]]:
            payable = Payable(fn, offer, meter)

            @functools.wraps(fn)
            async def call(**given: object) -> CallToolResult:
                context = cast("Context[Any, Any]", given[payable.context_name])
                if payable.own_context is None:
                    del given[payable.context_name]
                return await self._call(payable, given, context)

            # The SDK reads a tool's parameters from its signature and gives it the request's
            # context where its annotations ask for that.
            call.__signature__ = payable.signature  # type: ignore[attr-defined]
            call.__annotations__ = {
                **fn.__annotations__,
                payable.context_name: Context,
                "return": payable.returns,
            }
            return call

        return decorate

    def advert(self, listing: str | Offer) -> dict[str, object]:
        """What to give `@mcp.tool(meta=...)`, so that a buyer knows the price before it calls."""
        offer = self._offer(listing) if isinstance(listing, str) else listing
        return {
            EXTENSION: {
                "platform": self.platform,
                "listing_id": str(offer.listing["listing_id"]),
                "listing_sha256": offer.sha256,
                "rate_card_sha256": str(offer.listing["rate_card_sha256"]),
                "terms_sha256": str(offer.listing["terms_sha256"]),
            }
        }

    @asynccontextmanager
    async def lifespan(self, server: object = None) -> AsyncIterator[dict[str, Any]]:
        """For `MCPServer(lifespan=...)`: captures what a crash left, and closes at the end."""
        del server
        await self.open()
        try:
            yield {}
        finally:
            await self.close()

    async def open(self) -> Deliveries:
        """Open the spool and capture what a crash left; done by the first paid call at the latest.

        Raises:
            SpoolInUse: Another process has it open.
        """
        async with self._opening:
            if self._deliveries is None:
                spool = await asyncio.to_thread(Spool, self._spool_path)
                deliveries = Deliveries(self.vendor, spool)
                await deliveries.settle()
                self._deliveries = deliveries
            return self._deliveries

    async def close(self) -> None:
        """Close the spool and the connections."""
        if self._deliveries is not None:
            await self._deliveries.close()
            self._deliveries = None
        await self.vendor.connection.aclose()

    async def answer_dispute(self, dispute_id: str) -> Dispute:
        """Answer a dispute with the body that was delivered, from the spool.

        Raises:
            Unverified: It is not there: nothing was delivered by this process's home.
        """
        deliveries = await self.open()
        dispute = await self.vendor.dispute_status(dispute_id)
        entry = await deliveries.of_charge(dispute.charge_id)
        if entry is None:
            raise Unverified(f"no body is kept for {dispute.charge_id}")
        return await self.vendor.submit_evidence(dispute_id, entry.result)

    async def _call(
        self, payable: Payable, arguments: Mapping[str, object], context: Context[Any, Any]
    ) -> CallToolResult:
        params = context.request_context.params or {}
        meta, sent = params.get("_meta") or {}, params.get("arguments") or {}
        price = payable.price(str(params.get("name", "")), self.platform)
        deliveries = await self.open()
        try:
            presented = read_payment(meta.get(PAYMENT), self.platform)
            if isinstance(presented, Refusal):
                return unpaid(price, presented)
            args_sha256 = _digest(sent, payable.listing.limits.input_bytes_max)
            paid = await self._paid(payable, deliveries, presented, args_sha256)
            schema = await self._output_schema(payable, paid.entitlement.agreement_id)
            if await deliveries.find(paid.hold_id) is None:
                _check_room(payable, deliveries)
        except Refused as refused:
            return unpaid(price, refused.refusal)
        # Under an older card the price is the platform's to work out.
        is_current = paid.entitlement.card_sha256 == payable.card.card_sha256
        cap_units = paid.cap_units if is_current else INT64_MAX
        outcome = await deliveries.obtain(
            Work(
                paid=paid,
                args_sha256=args_sha256,
                output_schema_sha256=document_sha256(schema),
                repeatable=payable.listing.idempotent or not payable.listing.side_effects,
                run=functools.partial(payable.run, arguments, schema, cap_units),
            )
        )
        if isinstance(outcome, Refusal):
            return failed(outcome, self.platform)
        return delivered(outcome, self.platform)

    async def _paid(
        self,
        payable: Payable,
        deliveries: Deliveries,
        presented: Presented,
        args_sha256: str,
    ) -> Paid:
        entry = await deliveries.find(claimed_hold(presented))
        paid = check_payment(
            presented,
            platform_key_of=self._platform_keys.get,
            platform=self.platform,
            vendor_id=self.vendor.vendor_id,
            listing_id=payable.listing.listing_id,
            args_sha256=args_sha256,
            now_us=self.vendor.connection.clock(),
            done_at_us=entry.done_at_us if entry and entry.args_sha256 == args_sha256 else None,
        )
        if isinstance(paid, Refusal):
            raise Refused(paid)
        return paid

    async def _output_schema(self, payable: Payable, agreement_id: str) -> Mapping[str, Json]:
        # The first version of a listing is the only one that there can be an agreement on.
        if payable.listing.version == 1:
            return payable.listing.output_schema
        if agreement_id not in payable.output_schemas:
            try:
                agreement = await self.vendor.agreement(agreement_id)
                document = await self.vendor.document(agreement.listing_sha256)
            except Unreachable as error:
                text = "Which version was agreed on cannot be asked now."
                raise Refused(refuse(Code.UNAVAILABLE, message=text)) from error
            payable.output_schemas[agreement_id] = cast(
                "dict[str, Json]", document["output_schema"]
            )
        return payable.output_schemas[agreement_id]


def _digest(sent: Mapping[str, object], bytes_max: int) -> str:
    data = arguments_bytes(sent)
    if len(data) > bytes_max:
        raise Refused(refuse(Code.PAYLOAD_TOO_LARGE, path="arguments", required=str(bytes_max)))
    return sha256_hex(data)


def _check_room(payable: Payable, deliveries: Deliveries) -> None:
    if deliveries.working >= payable.listing.limits.concurrency_max:
        raise Refused(refuse(Code.OVERLOADED, retry_after_s=1))
