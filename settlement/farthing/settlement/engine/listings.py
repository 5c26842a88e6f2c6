"""Listing heads: which version is offered. What a listing says was checked before it came here."""

from dataclasses import dataclass

from msgspec.structs import replace

from farthing.protocol.canonical import Json
from farthing.protocol.errors import Code, Refusal, refuse
from farthing.protocol.listing import Listing as ListingDocument
from farthing.protocol.messages.listings import Publication, PublishListing, WithdrawListing
from farthing.protocol.records import Record
from farthing.settlement.engine.drafts import Call, Draft, change
from farthing.settlement.engine.state import State
from farthing.settlement.engine.things import Listing

__all__ = ["Publishing", "publication_answer", "publish", "withdraw"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Publishing:
    """A publication that has passed its lint, with what the engine needs of the documents."""

    ask: PublishListing
    listing: ListingDocument
    asset: str
    listing_sha256: str
    output_schema_sha256: str

    @property
    def asked(self) -> dict[str, Json]:
        """What stands in the record; the documents themselves are its facts."""
        return {"listing_sha256": self.listing_sha256}


def publish(state: State, call: Call) -> Draft | Refusal:
    """Make a version the one that is offered; versions count up by one from 1."""
    body = call.command.body
    assert isinstance(body, Publishing)
    listing = body.listing
    before = state.listings.get(listing.listing_id)
    if listing.vendor_id != call.organisation_id or (
        before is not None and before.vendor_id != call.organisation_id
    ):
        return refuse(Code.NOT_FOUND, path="listing.listing_id")
    expected = 1 if before is None else before.version + 1
    if listing.version != expected:
        return refuse(
            Code.STALE,
            path="listing.version",
            required=str(expected),
            message=f"The next version of this listing is {expected}.",
        )
    head = Listing(
        listing_id=listing.listing_id,
        vendor_id=listing.vendor_id,
        version=listing.version,
        state="active",
        asset=body.asset,
        primary_tag=listing.primary_tag,
        tags=(listing.primary_tag, *(t for t in listing.tags if t != listing.primary_tag)),
        listing_sha256=body.listing_sha256,
        rate_card_sha256=listing.rate_card_sha256,
        terms_sha256=listing.terms_sha256,
        output_schema_sha256=body.output_schema_sha256,
        seq=call.seq,
    )
    return Draft(changed=(change("listing", head.listing_id, head, before),))


def withdraw(state: State, call: Call) -> Draft | Refusal:
    """Take a listing off the market; agreements in force are kept."""
    body = call.command.body
    assert isinstance(body, WithdrawListing)
    before = state.listings.get(body.listing_id)
    if before is None or before.vendor_id != call.organisation_id:
        return refuse(Code.NOT_FOUND, path="listing_id")
    head = replace(before, state="withdrawn")
    return Draft(changed=(change("listing", head.listing_id, head, before),))


def publication_answer(record: Record) -> Publication:
    """The answer of both, from the record alone."""
    head = Listing.from_document(record.changed[0].after)
    return Publication(
        listing_id=head.listing_id,
        version=head.version,
        listing_sha256=head.listing_sha256,
        rate_card_sha256=head.rate_card_sha256,
        terms_sha256=head.terms_sha256,
    )
