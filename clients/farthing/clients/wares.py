"""What is sold: an offer, how its use is metered, what it costs, and whether a result may be sold.

Boundary: what is known of a service when it is declared, whatever way it is called. How an MCP tool
runs is `payable`, how a route of an application does `middleware`. Source: spec/payments-mcp.md.
"""

import inspect
from collections.abc import Mapping
from typing import NamedTuple

import anyio.to_thread

from farthing.clients.allowance_watch import Judge
from farthing.clients.deliveries import Produced, Undeliverable
from farthing.clients.documents import Offer, result_bytes
from farthing.clients.metering import Meter, Meters, least_units
from farthing.protocol.errors import Code, Refused, refuse
from farthing.protocol.listing import parse_listing
from farthing.protocol.money import format_units
from farthing.protocol.rating import START, parse_card, rate
from farthing.protocol.shapes import Shape
from farthing.protocol.terms import parse_terms
from farthing.protocol.x402 import Price

__all__ = ["Cap", "Ware"]


class Cap(NamedTuple):
    """The most that a call may cost, and who judges what it will use."""

    units: int
    judge: Judge | None = None


class Ware:
    """A service under its offer.

    Args:
        offer: The published offer.
        meters: How each meter of the rate card is read.
        signature: What the meters are named after.

    Raises:
        ValueError: The meters fit neither card nor service.
    """

    def __init__(
        self, offer: Offer, meters: Mapping[str, Meter], signature: inspect.Signature
    ) -> None:
        self.offer = offer
        self.listing = parse_listing(dict(offer.listing))
        self.card = parse_card(dict(offer.rate_card))
        self.terms = parse_terms(dict(offer.terms))
        self.meters = Meters(meters, signature, self.card)
        self.shape = Shape(self.listing.output_schema)
        # By agreement: one may be bound to an older version of the listing.
        self.output_shapes: dict[str, Shape] = {}

    @property
    def repeatable(self) -> bool:
        """Whether its work may be done again after it was interrupted."""
        return self.listing.idempotent or not self.listing.side_effects

    def shape_under(self, agreement_id: str) -> Shape | None:
        """What its results are sold under in an agreement; None where that is not known here."""
        # The first version of a listing is the only one that there can be an agreement on.
        return self.shape if self.listing.version == 1 else self.output_shapes.get(agreement_id)

    def price(self, tool: str, platform: str, url: str = "") -> Price:
        """What it asks for, told to somebody who has not paid.

        No meter is read: that may be work, and nobody has paid for it.

        Args:
            tool: Its name as an MCP tool.
            platform: The platform's public URL.
            url: Where it was called, where it is no MCP tool.
        """
        fixed = self.meters.fixed()
        usage = self.meters.smallest() if fixed is None else fixed
        return Price(
            tool=tool,
            platform=platform,
            vendor_id=self.listing.vendor_id,
            listing_id=self.listing.listing_id,
            listing_sha256=self.listing.listing_sha256,
            rate_card_sha256=self.listing.rate_card_sha256,
            terms_sha256=self.listing.terms_sha256,
            asset=self.card.asset,
            amount_units=rate(self.card, START, usage).total_units,
            exact=fixed is not None,
            deadline_s=self.terms.delivery.deadline_s,
            url=url,
        )

    async def check_cap(self, values: Mapping[str, object], cap: Cap) -> None:
        """Refuse, before the work, what is known to cost or use more than can be had.

        Args:
            values: What the meters are named after.
            cap: The most that can be had.

        Raises:
            Undeliverable: `capture_exceeds_hold`, `allowance_exceeded`.
        """
        if self.meters.need_result:
            return
        usage = await anyio.to_thread.run_sync(self.meters.before, values)
        if usage is None:
            return
        if (least := least_units(self.card, usage)) <= cap.units:
            if cap.judge is not None and (beyond := await cap.judge(usage)) is not None:
                raise Undeliverable(beyond)
            return
        refusal = refuse(
            Code.CAPTURE_EXCEEDS_HOLD,
            path="arguments",
            required=format_units(least, self.card.asset),
            remaining=format_units(cap.units, self.card.asset),
            asset=self.card.asset,
        )
        raise Undeliverable(refusal)

    async def produced(
        self,
        shape: Shape,
        structured: object,
        values: Mapping[str, object],
        value: object,
        content: bytes,
    ) -> Produced:
        """What is delivered, with what it used.

        Args:
            shape: What the result is sold under.
            structured: The result as JSON.
            values: What the meters are named after.
            value: The result as they are given it.
            content: What goes to the buyer beside it.

        Raises:
            Undeliverable: The result cannot be sold.
        """
        try:
            result = result_bytes(structured)
        except Refused as refused:
            text = f"The vendor's result cannot be signed: {refused.refusal.message}"
            raise Undeliverable(refuse(Code.VENDOR_FAILED, message=text)) from None
        if found := shape.violation(structured):
            text = f"The vendor's result does not fit its schema at {found.path or '.'}."
            raise Undeliverable(refuse(Code.VENDOR_FAILED, message=text))
        # A result was just made and written here; a look at it is not worth a thread.
        if self.meters.need_arguments:
            usage = await anyio.to_thread.run_sync(self.meters.after, values, value)
        else:
            usage = self.meters.after(values, value)
        return Produced(result=result, content=content, usage=usage)
