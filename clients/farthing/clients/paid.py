"""Makes an ordinary MCP tool payable: entitlement checked, work done once, metered, captured.

    farthing = Seller.from_env()
    mcp = MCPServer("pdf", lifespan=farthing.lifespan)

    @mcp.tool()
    @farthing.paid(listing="pdf-text", meter={"page": lambda result: len(result.pages)})
    async def extract_text(pdf: str) -> PageTexts: ...

Boundary: between the MCP SDK and `counter`. Source: spec/payments-mcp.md.
"""

import asyncio
import functools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

from mcp.server.mcpserver import Context
from mcp_types import CallToolResult

from farthing.clients.collector import spare_the_collector
from farthing.clients.counter import Counter, Sold, Unpaid
from farthing.clients.documents import Offer
from farthing.clients.home import Home, default_home
from farthing.clients.metering import Meter
from farthing.clients.payable import Making, Payable, delivered, failed, unpaid
from farthing.clients.session_desks import DESKS_MAX, UNSIGNED_CALLS_MAX
from farthing.clients.spool import Spool
from farthing.clients.usage_spool import KeptCall
from farthing.clients.vendors import Vendor
from farthing.protocol.errors import Refusal, Unverified
from farthing.protocol.messages.disputes import Dispute
from farthing.protocol.platform_keys import PlatformKeys
from farthing.protocol.wire import EXTENSION
from farthing.protocol.x402 import PAYMENT

__all__ = ["Seller"]

Tool = Callable[..., Any]


class Seller:
    """A vendor's tools, made payable.

    Args:
        vendor: The vendor's side of the platform; a metering key is enough for it.
        platform_keys: The platform's keys by purpose, pinned.
        spool: Where work is remembered; one process has it open at a time.
        offer: Gives the offer that was published under a name.
        unsigned_calls_max: How many calls' worth may run in a session on MACs alone; 0 for none.
        desks_max: How many sessions may have a desk in memory at once.
    """

    def __init__(
        self,
        vendor: Vendor,
        *,
        platform_keys: PlatformKeys,
        spool: Path,
        offer: Callable[[str], Offer],
        unsigned_calls_max: int = UNSIGNED_CALLS_MAX,
        desks_max: int = DESKS_MAX,
    ) -> None:
        self.unsigned_calls_max = unsigned_calls_max
        self.desks_max = desks_max
        self.vendor = vendor
        self.platform = vendor.connection.url
        self._platform_keys = platform_keys
        self._spool_path = spool
        self._offer = offer
        self._counter: Counter | None = None
        self._opening = asyncio.Lock()

    @classmethod
    def from_home(
        cls,
        home: Home,
        *,
        unsigned_calls_max: int = UNSIGNED_CALLS_MAX,
        desks_max: int = DESKS_MAX,
    ) -> "Seller":
        """The seller of a vendor's home directory, with its metering key if there is one.

        Raises:
            Unverified: The directory is damaged, or no vendor has enrolled with it.
        """
        profile = home.profile()
        if profile is None or not profile.principal_id:
            raise Unverified(f"{home.path} is not a vendor's: enrol first")
        keys = profile.pinned()
        return cls(
            Vendor(home.serving_connection(profile), platform_keys=keys),
            platform_keys=keys,
            spool=home.spool_path,
            offer=home.offer,
            unsigned_calls_max=unsigned_calls_max,
            desks_max=desks_max,
        )

    @classmethod
    def from_env(
        cls,
        environment: Mapping[str, str] = os.environ,
        *,
        unsigned_calls_max: int = UNSIGNED_CALLS_MAX,
        desks_max: int = DESKS_MAX,
    ) -> "Seller":
        """The seller of the directory that `FARTHING_HOME` names; raises as `from_home`."""
        home = default_home(environment)
        return cls.from_home(home, unsigned_calls_max=unsigned_calls_max, desks_max=desks_max)

    def offer(self, listing: str | Offer) -> Offer:
        """The offer itself, whether it or its name is given.

        Raises:
            Unverified: There is none of this name.
        """
        return self._offer(listing) if isinstance(listing, str) else listing

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
        offer = self.offer(listing)

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
        offer = self.offer(listing)
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

    @property
    def is_open(self) -> bool:
        """Whether the spool is open here."""
        return self._counter is not None

    async def open(self) -> Counter:
        """Open the spool and go on with what a crash left; the first paid call does at the latest.

        Raises:
            SpoolInUse: Another process has it open.
        """
        if self._counter is not None:
            return self._counter
        async with self._opening:
            if self._counter is None:
                spool = await asyncio.to_thread(Spool, self._spool_path)
                counter = Counter(
                    self.vendor,
                    self._platform_keys,
                    spool,
                    unsigned_calls_max=self.unsigned_calls_max,
                    desks_max=self.desks_max,
                )
                await counter.open()
                spare_the_collector()
                self._counter = counter
            return self._counter

    async def close(self) -> None:
        """Report what can be reported at once, and close the spool and the connections."""
        if self._counter is not None:
            await self._counter.close()
            self._counter = None
        await self.vendor.connection.aclose()

    async def rejected_usage(self, limit: int = 50) -> list[KeptCall]:
        """The calls of sessions that settlement did not take, with the reason, newest first."""
        return await (await self.open()).sessions.rejected(limit)

    async def answer_dispute(self, dispute_id: str) -> Dispute:
        """Answer a dispute with the body that was delivered, from the spool.

        Raises:
            Unverified: It is not there: nothing was delivered by this process's home.
            Refused: `not_permitted` where the seller signs with a metering key.
        """
        deliveries = (await self.open()).deliveries
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
        counter = await self.open()
        making = Making(arguments)
        outcome = await counter.sell(payable, sent, meta.get(PAYMENT), partial(payable.run, making))
        match outcome:
            case Sold():
                return delivered(outcome, making.answer)
            case Unpaid(refusal=refusal):
                price = payable.price(str(params.get("name", "")), self.platform)
                return unpaid(price, refusal)
            case Refusal():
                return failed(outcome, self.platform)
