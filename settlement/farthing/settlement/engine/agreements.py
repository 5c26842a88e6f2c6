"""Agreements: acceptance of exact documents, by signature, under authority.

Boundary: the signatures and hashes were checked by `protocol.contracts` before; here it is decided
whether what was accepted is still what is offered, and whether the agent may agree.
Source: spec/contracts.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from farthing.protocol.authority.decide import Purchase, first_of
from farthing.protocol.canonical import Json
from farthing.protocol.contracts import QuoteDocument
from farthing.protocol.errors import Code, Refusal, refuse
from farthing.protocol.messages.agreements import AcceptTerms, TerminateAgreement
from farthing.protocol.messages.agreements import Agreement as AgreementView
from farthing.protocol.records import Record
from farthing.protocol.times import format_time
from farthing.protocol.wire import Usage
from farthing.settlement.engine import grants
from farthing.settlement.engine.drafts import Call, Draft, change
from farthing.settlement.engine.state import State
from farthing.settlement.engine.things import Agreement
from farthing.settlement.engine.treasury import partner_of

__all__ = ["Acceptance", "accept", "agreement_answer", "agreement_view", "terminate"]

# Which argument says what of a purchase is refused.
_ARGUMENTS = {
    "asset": "quote.asset",
    "primary_tag": "quote.listing_id",
    "vendor_id": "quote.vendor_id",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """An acceptance whose signatures and hashes have been checked."""

    ask: AcceptTerms
    quote: QuoteDocument
    quote_sha256: str
    acceptance_sha256: str

    @property
    def asked(self) -> dict[str, Json]:
        """What stands in the record; the documents themselves are its facts."""
        return {"acceptance_sha256": self.acceptance_sha256, "quote_sha256": self.quote_sha256}


def accept(state: State, call: Call) -> Draft | Refusal:
    """Make an agreement of an accepted quote."""
    body = call.command.body
    assert isinstance(body, Acceptance)
    quote = body.quote
    if quote.agreement_id is not None or quote.position:
        # A price from an agreement's position is that agreement's; a new one starts at nothing.
        text = "The quote is a price under an agreement that is in force: ask for one without it."
        return refuse(Code.INVALID_ARGUMENT, path="quote.agreement_id", message=text)
    if quote.buyer_id != call.principal_id:
        text = "The quote is another buyer's."
        return refuse(Code.NOT_FOUND, path="quote.buyer_id", message=text)
    listing = state.listings.get(quote.listing_id)
    if listing is None:
        return refuse(Code.NOT_FOUND, path="quote.listing_id")
    if listing.state != "active":
        return refuse(Code.LISTING_UNAVAILABLE, path="quote.listing_id")
    if call.now_us >= quote.expires_at_us:
        return refuse(Code.QUOTE_EXPIRED, path="quote.expires_at_us")
    offered = (listing.listing_sha256, listing.rate_card_sha256, listing.terms_sha256)
    if offered != (quote.listing_sha256, quote.rate_card_sha256, quote.terms_sha256):
        return refuse(Code.TERMS_CHANGED, path="quote.listing_sha256")
    purchase = Purchase(
        vendor_id=listing.vendor_id, tags=listing.tags, asset=listing.asset, units=0
    )
    if reasons := grants.not_authorised(state, call, purchase):
        return first_of(reasons, _ARGUMENTS)
    terms = state.terms[listing.terms_sha256]
    agreement = Agreement(
        agreement_id=call.new_id("agr"),
        status="in_force",
        buyer_id=call.principal_id,
        operator_id=call.organisation_id,
        vendor_id=listing.vendor_id,
        listing_id=listing.listing_id,
        listing_version=listing.version,
        listing_sha256=listing.listing_sha256,
        rate_card_sha256=listing.rate_card_sha256,
        terms_sha256=listing.terms_sha256,
        output_schema_sha256=listing.output_schema_sha256,
        tags=listing.tags,
        asset=listing.asset,
        fee_ppm=state.fee_ppm,
        delivery_deadline_s=terms.delivery.deadline_s,
        dispute_window_s=terms.dispute.window_s,
        evidence_window_s=terms.dispute.evidence_window_s,
        accepted_at_us=call.now_us,
        quote_sha256=body.quote_sha256,
        acceptance_sha256=body.acceptance_sha256,
        seq=call.seq,
        partner=partner_of(state, listing.listing_id, listing.vendor_id),
    )
    return Draft(changed=(change("agreement", agreement.agreement_id, agreement),))


def terminate(state: State, call: Call) -> Draft | Refusal:
    """End an agreement for new holds; either party or the buyer's operator can."""
    body = call.command.body
    assert isinstance(body, TerminateAgreement)
    agreement = state.agreements.get(body.agreement_id)
    if agreement is None or call.principal_id not in agreement.parties:
        return refuse(Code.NOT_FOUND, path="agreement_id")
    if agreement.status != "in_force":
        return refuse(Code.AGREEMENT_ENDED, path="agreement_id")
    ended = replace(agreement, status="terminated")
    return Draft(changed=(change("agreement", ended.agreement_id, ended, agreement),))


def agreement_answer(record: Record) -> AgreementView:
    """The answer of both, from the record alone; the rating position is asked for, not told."""
    return agreement_view(Agreement.from_document(record.changed[0].after), {})


def agreement_view(agreement: Agreement, position: Mapping[str, int]) -> AgreementView:
    """An agreement as its parties see it."""
    return AgreementView(
        agreement_id=agreement.agreement_id,
        status=agreement.status,
        buyer_id=agreement.buyer_id,
        operator_id=agreement.operator_id,
        vendor_id=agreement.vendor_id,
        listing_id=agreement.listing_id,
        listing_version=agreement.listing_version,
        listing_sha256=agreement.listing_sha256,
        rate_card_sha256=agreement.rate_card_sha256,
        terms_sha256=agreement.terms_sha256,
        asset=agreement.asset,
        accepted_at=format_time(agreement.accepted_at_us),
        position=tuple(
            Usage(meter=meter, quantity=str(quantity))
            for meter, quantity in sorted(position.items())
        ),
        quote_sha256=agreement.quote_sha256,
        acceptance_sha256=agreement.acceptance_sha256,
    )
