"""Quotes and agreements."""

from typing import cast

from farthing.identity.callers import Caller
from farthing.protocol import contracts
from farthing.protocol.authority.standing import decide_purchase
from farthing.protocol.canonical import Json, canonical_bytes
from farthing.protocol.errors import Code, Refused, refuse
from farthing.protocol.ids import (
    AgreementId,
    ListingId,
    OrganisationId,
    PrincipalId,
    QuoteId,
    typeid,
    uuid7_bytes,
)
from farthing.protocol.messages.agreements import (
    ACCEPT_TERMS,
    TERMINATE_AGREEMENT,
    AcceptTerms,
    Agreements,
    GetAgreement,
    GetLegalContext,
    GetQuote,
    LegalContext,
    Line,
    ListAgreements,
    Quote,
    TerminateAgreement,
)
from farthing.protocol.messages.listings import Document
from farthing.protocol.rating import (
    RateCard,
    Rating,
    RatingCode,
    RatingError,
    first_fault,
    rate,
)
from farthing.protocol.signatures import Typ, sign_detached
from farthing.protocol.terms import Terms
from farthing.protocol.times import SECOND_US, format_time
from farthing.protocol.wire import money
from farthing.server.market import Market
from farthing.server.operations.listings import listing_head, purchase_of
from farthing.server.operations.pages import page_of
from farthing.server.operations.replies import Reply, checked, known, own, public_key, reply
from farthing.settlement.engine.agreements import Acceptance, agreement_answer, agreement_view
from farthing.settlement.engine.holds import quantities
from farthing.settlement.engine.questions import Lookup, StandingOf
from farthing.settlement.engine.things import Agreement, Listing

__all__ = [
    "accept_terms",
    "get_agreement",
    "get_legal_context",
    "get_quote",
    "list_agreements",
    "terminate_agreement",
]

QUOTE_LIFETIME_S = 300


async def get_quote(market: Market, caller: Caller, ask: GetQuote) -> Reply:
    """An exact price, signed, from the rating position it names. Nothing is recorded."""
    listing = await listing_head(market, ask.listing_id)
    card_sha256, asset = listing.rate_card_sha256, listing.asset
    position: dict[str, int] = {}
    if ask.agreement_id is not None:
        agreement = await own(market, caller, Agreement, "agreement_id", ask.agreement_id)
        if agreement.listing_id != ask.listing_id:
            raise Refused(refuse(Code.NOT_FOUND, path="agreement_id"))
        # A newer version's card may be in another asset.
        card_sha256, asset = agreement.rate_card_sha256, agreement.asset
        position = await _position(market, agreement)
    if listing.state != "active":
        raise Refused(refuse(Code.LISTING_UNAVAILABLE, path="listing_id"))
    workload = quantities(ask.workload)
    card = await market.ask(Lookup(noun="card", id=card_sha256))
    assert isinstance(card, RateCard)
    rating = _rated(card, position, workload)
    now_us = market.now_us()
    quote = contracts.QuoteDocument(
        quote_id=QuoteId(typeid("qte", uuid7_bytes(now_us // 1000, market.entropy(10)))),
        platform=market.issuer,
        buyer_id=PrincipalId(caller.principal_id),
        operator_id=OrganisationId(PrincipalId(caller.organisation_id)),
        vendor_id=OrganisationId(PrincipalId(listing.vendor_id)),
        listing_id=ListingId(listing.listing_id),
        listing_version=listing.version,
        listing_sha256=listing.listing_sha256,
        rate_card_sha256=card_sha256,
        terms_sha256=listing.terms_sha256,
        asset=asset,
        workload=workload,
        position=position,
        total_units=rating.total_units,
        lines=rating.lines,
        issued_at_us=now_us,
        expires_at_us=now_us + QUOTE_LIFETIME_S * SECOND_US,
        agreement_id=None if ask.agreement_id is None else AgreementId(ask.agreement_id),
    )
    return Reply(answer=await _quote(market, caller, listing, quote))


async def accept_terms(market: Market, caller: Caller, ask: AcceptTerms) -> Reply:
    """Make an agreement of a quote that the platform signed and an acceptance the buyer signed."""
    platform = market.signer.public
    quote = checked(
        contracts.read_quote(ask.quote, ask.quote_signature, {platform.thumbprint: platform}.get)
    )
    key = await public_key(market, caller.key_thumbprint)
    acceptance = checked(
        contracts.read_acceptance(
            ask.acceptance, ask.acceptance_signature, {key.thumbprint: key}.get
        )
    )
    if refusal := contracts.check_acceptance(acceptance, quote):
        raise Refused(refusal)
    body = Acceptance(
        ask=ask, quote=quote, quote_sha256=quote.sha256, acceptance_sha256=acceptance.sha256
    )
    facts: dict[str, Json] = {
        "acceptance": cast("Json", ask.acceptance),
        "acceptance_signature": ask.acceptance_signature,
        "quote": cast("Json", ask.quote),
        "quote_signature": ask.quote_signature,
    }
    outcome = await market.submit(caller, ACCEPT_TERMS, ask, body=body, facts=facts)
    return reply(outcome, agreement_answer)


async def get_agreement(market: Market, caller: Caller, ask: GetAgreement) -> Reply:
    """One agreement of the caller's, with its rating position."""
    agreement = await own(market, caller, Agreement, "agreement_id", ask.agreement_id)
    return Reply(answer=agreement_view(agreement, await _position(market, agreement)))


async def list_agreements(market: Market, caller: Caller, ask: ListAgreements) -> Reply:
    """The caller's agreements, newest first."""
    if ask.listing_id is not None:
        await listing_head(market, ask.listing_id)
    page = await page_of(market, caller, Agreement, ask, under=ask.listing_id)
    agreements = [agreement_view(each, await _position(market, each)) for each in page.things]
    return Reply(
        answer=Agreements(
            agreements=tuple(agreements), as_of_seq=page.as_of_seq, cursor=page.cursor
        )
    )


async def terminate_agreement(market: Market, caller: Caller, ask: TerminateAgreement) -> Reply:
    """End an agreement for new holds."""
    return reply(await market.submit(caller, TERMINATE_AGREEMENT, ask), agreement_answer)


async def get_legal_context(market: Market, caller: Caller, ask: GetLegalContext) -> Reply:
    """Where a listing's terms are and how they are accepted."""
    del caller
    listing = await listing_head(market, ask.listing_id)
    terms = await known(market, Terms, listing.terms_sha256)
    return Reply(
        answer=LegalContext(
            terms=f"{market.issuer}/v1/documents/{listing.terms_sha256}",
            terms_format="json",
            terms_sha256=listing.terms_sha256,
            acceptance_required=True,
            dispute_method="deterministic-rules",
            dispute_window_s=terms.dispute.window_s,
            usage_tolerance_ppm=terms.usage.tolerance_ppm,
        )
    )


async def _quote(
    market: Market, caller: Caller, listing: Listing, quote: contracts.QuoteDocument
) -> Quote:
    document = quote.document()
    standing = await market.ask(StandingOf(principal_id=caller.principal_id))
    purchase = await purchase_of(market, listing, quote.asset, quote.total_units)
    reasons = decide_purchase(standing, purchase, quote.issued_at_us)
    return Quote(
        quote_id=quote.quote_id,
        listing_id=quote.listing_id,
        total=money(quote.total_units, quote.asset),
        lines=tuple(Line.of(line, quote.asset) for line in quote.lines),
        expires_at=format_time(quote.expires_at_us),
        document=cast("Document", document),
        document_sha256=quote.sha256,
        signature=sign_detached(market.signer, Typ.QUOTE, canonical_bytes(document)),
        allowed=not reasons,
        reasons=tuple(reason.code.value for reason in reasons),
    )


async def _position(market: Market, agreement: Agreement) -> dict[str, int]:
    position = await market.ask(Lookup(noun="position", id=agreement.agreement_id))
    return dict(cast("dict[str, int]", position)) if position else {}


def _rated(card: RateCard, position: dict[str, int], workload: dict[str, int]) -> Rating:
    if not workload:
        raise Refused(refuse(Code.USAGE_INVALID, path="workload"))
    try:
        return rate(card, position, workload)
    except RatingError as found:
        error = first_fault(card, position, workload) or found
        overflow = error.code is RatingCode.AMOUNT_OVERFLOW
        code = Code.AMOUNT_OVERFLOW if overflow else Code.USAGE_INVALID
        raise Refused(refuse(code, path="workload", message=str(error))) from error
