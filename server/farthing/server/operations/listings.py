"""Listings: lint, publish, withdraw, read; documents by their hash."""

from typing import cast

from farthing.catalog import lint
from farthing.identity.callers import Caller
from farthing.protocol.authority.decide import Purchase
from farthing.protocol.canonical import Json, canonical_bytes, document_sha256
from farthing.protocol.errors import Code, Refused, refuse
from farthing.protocol.listing import parse_listing
from farthing.protocol.messages.listings import (
    PUBLISH_LISTING,
    WITHDRAW_LISTING,
    Document,
    DocumentAnswer,
    GetDocument,
    GetListing,
    LintListing,
    LintReport,
    ListingView,
    PublishListing,
    WithdrawListing,
)
from farthing.protocol.messages.operations import OPERATIONS
from farthing.protocol.rating import parse_card
from farthing.protocol.signatures import InvalidSignature, Typ, verify_detached
from farthing.server.market import Market
from farthing.server.operations.replies import Reply, is_frozen, public_key, record_at, reply
from farthing.settlement.engine.listings import Publishing, publication_answer
from farthing.settlement.engine.questions import Lookup
from farthing.settlement.engine.things import Listing

__all__ = [
    "document_at",
    "get_document",
    "get_listing",
    "lint_listing",
    "listing_head",
    "publish_listing",
    "purchase_of",
    "withdraw_listing",
]

JsonObject = dict[str, Json]


async def lint_listing(market: Market, caller: Caller, ask: LintListing) -> Reply:
    """Report on three documents; nothing is published."""
    del caller
    return Reply(answer=_report(market, ask))


async def publish_listing(market: Market, caller: Caller, ask: PublishListing) -> Reply:
    """Publish a version that passes its lint and carries the vendor's signature."""
    report = _report(market, ask)
    if not report.publishable:
        first = next(each for each in report.findings if each.severity == "error")
        text = f"{first.code}: {first.message}"
        raise Refused(refuse(Code.LISTING_INVALID, path=first.path, message=text))
    listing = parse_listing(cast("Json", ask.listing))
    key = await public_key(market, caller.key_thumbprint)
    try:
        payload = canonical_bytes(cast("Json", ask.listing))
        verify_detached(ask.signature, Typ.LISTING, payload, {key.thumbprint: key}.get)
    except InvalidSignature as error:
        raise Refused(refuse(Code.SIGNATURE_INVALID, path="signature")) from error
    body = Publishing(
        ask=ask,
        listing=listing,
        asset=parse_card(cast("Json", ask.rate_card)).asset,
        listing_sha256=document_sha256(cast("Json", ask.listing)),
        output_schema_sha256=document_sha256(listing.output_schema),
    )
    facts: JsonObject = {
        "listing": cast("Json", ask.listing),
        "rate_card": cast("Json", ask.rate_card),
        "signature": ask.signature,
        "terms": cast("Json", ask.terms),
    }
    outcome = await market.submit(caller, PUBLISH_LISTING, ask, body=body, facts=facts)
    return reply(outcome, publication_answer)


async def withdraw_listing(market: Market, caller: Caller, ask: WithdrawListing) -> Reply:
    """Take a listing off the market."""
    return reply(await market.submit(caller, WITHDRAW_LISTING, ask), publication_answer)


async def get_listing(market: Market, caller: Caller, ask: GetListing) -> Reply:
    """The newest version of a listing, whole, as it was published and signed."""
    del caller
    head = await listing_head(market, ask.listing_id)
    facts = await _facts_at(market, head.seq)
    return Reply(
        answer=ListingView(
            listing_id=head.listing_id,
            version=head.version,
            state=head.state,
            vendor_id=head.vendor_id,
            listing_sha256=head.listing_sha256,
            rate_card_sha256=head.rate_card_sha256,
            terms_sha256=head.terms_sha256,
            listing=cast("Document", facts["listing"]),
            rate_card=cast("Document", facts["rate_card"]),
            terms=cast("Document", facts["terms"]),
            signature=cast("str", facts["signature"]),
        )
    )


async def get_document(market: Market, caller: Caller, ask: GetDocument) -> Reply:
    """A published document by its hash."""
    del caller
    document = await document_at(market, ask.sha256)
    answer = DocumentAnswer(sha256=ask.sha256, document=cast("Document", document))
    return Reply(answer=answer)


async def listing_head(market: Market, listing_id: str) -> Listing:
    """The head of a listing, or `not_found`."""
    head = await market.ask(Lookup(noun="listing", id=listing_id))
    if not isinstance(head, Listing):
        raise Refused(refuse(Code.NOT_FOUND, path="listing_id"))
    return head


async def purchase_of(market: Market, listing: Listing, asset: str, units: int) -> Purchase:
    """What buying from a listing now would be, to be judged against a standing."""
    return Purchase(
        vendor_id=listing.vendor_id,
        tags=listing.tags,
        asset=asset,
        units=units,
        vendor_frozen=await is_frozen(market, listing.vendor_id),
    )


async def document_at(market: Market, sha256: str) -> JsonObject:
    """A published document by its hash, or `not_found`."""
    seq = await market.ask(Lookup(noun="document_seq", id=sha256))
    if not isinstance(seq, int):
        raise Refused(refuse(Code.NOT_FOUND, path="sha256"))
    facts = await _facts_at(market, seq)
    documents = (facts[name] for name in ("listing", "rate_card", "terms"))
    found = next(document for document in documents if document_sha256(document) == sha256)
    return cast("JsonObject", found)


def _report(market: Market, ask: LintListing | PublishListing) -> LintReport:
    return lint.lint(
        cast("JsonObject", ask.listing),
        cast("JsonObject", ask.rate_card),
        cast("JsonObject", ask.terms),
        vocabulary=market.vocabulary,
        tool_names=OPERATIONS.keys(),
    )


async def _facts_at(market: Market, seq: int) -> JsonObject:
    record = await record_at(market, seq)
    assert record.facts is not None
    return record.facts
