"""A session on a server of its own process, and what its sides would send: honest, late or forged.

Boundary: what is signed here is what a test says; the clients' own sides are not used.
"""

from dataclasses import dataclass, replace
from typing import Any

from farthing.clients.documents import Offer
from farthing.clients.transport import Connection
from farthing.protocol.batches import sign_batch
from farthing.protocol.errors import Code, Refused
from farthing.protocol.ids import AgreementId, SessionId
from farthing.protocol.keys import Signer
from farthing.protocol.messages.sessions import (
    GET_SESSION,
    OPEN_SESSION,
    REPORT_USAGE,
    GetSession,
    OpenSession,
    ReportUsage,
    Session,
    UsageReport,
)
from farthing.protocol.proofs import Voucher, voucher_jwt
from farthing.protocol.times import parse_time
from farthing.protocol.usage import UsageEvent, batch_bytes
from farthing.protocol.wire import money
from tests.papers import card_document, listing_document, signing_key, terms_document
from tests.protocol.replay.metered import PAGE_UNITS, events
from tests.remote import Market

__all__ = ["PAGE_UNITS", "Metered", "flat_agreement", "metered", "reasons"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metered:
    """A session, its vendor's connection and its payer's key."""

    session: Session
    vendor: Connection
    payer: Signer

    @property
    def opened_us(self) -> int:
        """When it was opened, by the platform's clock."""
        return parse_time(self.session.opened_at)

    def events(self, first: int, *pages: int, at_us: int = 0) -> list[UsageEvent]:
        """Calls from a number on, at the session's opening where nothing else is said."""
        return events(first, *pages, at_us=at_us or self.opened_us)

    def voucher(self, seq: int = 1_000, pages: int = 500, **other: Any) -> str:
        """What the payer signs: all calls up to a number, for as much as so many pages."""
        signer = other.pop("signer", self.payer)
        voucher = Voucher(
            agreement_id=AgreementId(self.session.agreement_id),
            session_id=SessionId(self.session.session_id),
            args_sha256="a" * 64,
            seq=seq,
            max_cum_units=pages * PAGE_UNITS,
            ack="",
        )
        return voucher_jwt(
            signer,
            replace(voucher, **other),
            now_us=self.opened_us,
            jti=self.vendor.new_key(),
            lifetime_s=60,
        )

    def ask(
        self,
        listed: list[UsageEvent],
        *,
        key: str = "",
        signer: Signer | None = None,
        source: str = "",
        voucher: str = "",
    ) -> ReportUsage:
        """A report of calls; everything about it can be told otherwise than it should be."""
        data = batch_bytes(source or self.session.session_id, listed)
        vendor = signer or self.vendor.signer
        assert vendor is not None
        return ReportUsage(
            session_id=self.session.session_id,
            batch=data.decode(),
            batch_signature=sign_batch(vendor, self.session.session_id, data),
            voucher=voucher or self.voucher(),
            idempotency_key=key or self.vendor.new_key(),
        )

    async def report(self, listed: list[UsageEvent], **how: Any) -> UsageReport:
        """Report calls."""
        return await self.vendor.call(REPORT_USAGE, self.ask(listed, **how))

    async def refused(self, listed: list[UsageEvent], **how: Any) -> tuple[Code, str]:
        """Report calls that nobody may be billed for; gives why."""
        try:
            told = await self.report(listed, **how)
        except Refused as refused:
            return refused.refusal.code, refused.refusal.path
        raise AssertionError(f"taken: {told}")

    async def view(self) -> Session:
        """Where it stands now."""
        return await self.vendor.call(GET_SESSION, GetSession(session_id=self.session.session_id))

    async def spent_pages(self) -> int:
        """How many pages are billed by now."""
        return (await self.view()).spent.units // PAGE_UNITS


async def flat_agreement(market: Market, name: str = "Flat pages") -> str:
    """An agreement under which every page costs `PAGE_UNITS`, wherever it comes."""
    card = card_document(({"amount": money(PAGE_UNITS, "USD").amount, "per_quantity": "1"},))
    terms = terms_document()
    listing = listing_document(market.vendor.vendor_id, card, terms, name=name)
    offer = Offer(listing=listing, rate_card=card, terms=terms)
    published = await market.vendor.publish(offer)
    quote = await market.buyer.quote(published.listing_id, {"page": 1})
    return (await market.buyer.accept(quote)).agreement_id


async def metered(
    market: Market, agreement_id: str, *, cap: int = 100, per_call: int = 10, **ask: Any
) -> Metered:
    """A session of so many pages."""
    opened = await market.buyer.connection.call(
        OPEN_SESSION,
        OpenSession(
            agreement_id=agreement_id,
            cap=money(cap * PAGE_UNITS, "USD"),
            per_call=money(per_call * PAGE_UNITS, "USD"),
            idempotency_key=market.buyer.connection.new_key(),
            **ask,
        ),
    )
    return Metered(session=opened, vendor=market.vendor.connection, payer=signing_key("Agent One"))


def reasons(report: UsageReport) -> list[tuple[str, str]]:
    """What was not taken, and why."""
    return [(each.id, each.reason) for each in report.rejected]
