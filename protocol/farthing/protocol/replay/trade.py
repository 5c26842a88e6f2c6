"""The records that make a charge: publication, agreement, hold, capture, each followed anew.

Boundary: from the signed documents in a record and the things before it follows what the record
must say; that it says so is what is checked. Source: spec/evidence.md.
"""

from collections.abc import Mapping
from typing import TypeVar

from farthing.protocol.canonical import Json, canonical_bytes, document_sha256
from farthing.protocol.contracts import (
    DeliveryRecord,
    QuoteDocument,
    check_acceptance,
    check_price,
    read_acceptance,
    read_delivery,
    read_quote,
)
from farthing.protocol.errors import Refusal, Unverified
from farthing.protocol.keys import PublicKey
from farthing.protocol.ledger import Movement, Transfer
from farthing.protocol.listing import Listing, parse_listing
from farthing.protocol.money import format_units
from farthing.protocol.rating import Rating, line_document, parse_card, rate
from farthing.protocol.records import Record
from farthing.protocol.replay.blocks import captured, placed, posted, reserved, workload_of
from farthing.protocol.replay.keys import PLATFORM
from farthing.protocol.replay.reading import (
    JsonObject,
    changes,
    fact,
    integer,
    member,
    only,
    quantities,
    require,
    same,
    same_postings,
    text_fact,
    units,
)
from farthing.protocol.replay.shares import partner_of, payers
from farthing.protocol.replay.story import Offer, Story
from farthing.protocol.signatures import InvalidSignature, KeyOf, Typ, verify_detached
from farthing.protocol.terms import parse_terms

__all__ = ["follow_agreement", "follow_capture", "follow_hold", "follow_publication"]

T = TypeVar("T")


def follow_publication(story: Story, record: Record) -> None:
    """The vendor's signature on the listing, and the card and terms that it names by hash."""
    document, card, terms = (fact(record, name) for name in ("listing", "rate_card", "terms"))
    vendor_id = record.by.principal_id
    signature = text_fact(record, "signature")
    _check_signature(record, document, signature, story.keys.keys_of(vendor_id, Typ.LISTING))
    listing = parse_listing(document)
    offer = Offer(
        listing=listing,
        card=parse_card(card),
        terms=parse_terms(terms),
        output_schema_sha256=document_sha256(dict(listing.output_schema)),
    )
    require(listing.vendor_id == vendor_id, record, "the listing is of another vendor")
    named = (listing.rate_card_sha256, listing.terms_sha256)
    given = (offer.card.card_sha256, document_sha256(terms))
    require(named == given, record, "the listing names another card or other terms")
    (change,) = changes(record, "listing")
    same(
        record,
        "listing",
        only(change, "listing_id", record),
        listing_id=listing.listing_id,
        vendor_id=vendor_id,
        version=listing.version,
        state="active",
        asset=offer.card.asset,
        primary_tag=listing.primary_tag,
        tags=_tags(listing),
        listing_sha256=listing.listing_sha256,
        rate_card_sha256=listing.rate_card_sha256,
        terms_sha256=listing.terms_sha256,
        output_schema_sha256=offer.output_schema_sha256,
        seq=record.seq,
    )
    same_postings(record, [])
    story.offer = offer
    story.proved.append(
        f"{vendor_id} signed version {listing.version} of listing {listing.listing_id}, which "
        "names this rate card and these terms by hash"
    )


def follow_agreement(story: Story, record: Record) -> None:
    """The platform's signature on the quote, the buyer's on its acceptance, and what they bind."""
    offer = story.the_offer()
    buyer_id = record.by.principal_id
    quote = _given(
        record,
        read_quote(
            fact(record, "quote"), text_fact(record, "quote_signature"), _only_key(story.quote_key)
        ),
    )
    acceptance = _given(
        record,
        read_acceptance(
            fact(record, "acceptance"),
            text_fact(record, "acceptance_signature"),
            story.keys.keys_of(buyer_id, Typ.ACCEPTANCE),
        ),
    )
    _fits(record, check_acceptance(acceptance, quote))
    _fits(record, check_price(quote, offer.card))
    _quote_fits(story, record, quote)
    (change,) = changes(record, "agreement")
    agreement = only(change, "agreement_id", record)
    same(
        record,
        "agreement",
        agreement,
        agreement_id=record.new_id("agr"),
        status="in_force",
        buyer_id=buyer_id,
        operator_id=quote.operator_id,
        vendor_id=quote.vendor_id,
        listing_id=quote.listing_id,
        listing_version=quote.listing_version,
        listing_sha256=quote.listing_sha256,
        rate_card_sha256=quote.rate_card_sha256,
        terms_sha256=quote.terms_sha256,
        output_schema_sha256=offer.output_schema_sha256,
        tags=_tags(offer.listing),
        asset=quote.asset,
        delivery_deadline_s=offer.terms.delivery.deadline_s,
        dispute_window_s=offer.terms.dispute.window_s,
        evidence_window_s=offer.terms.dispute.evidence_window_s,
        accepted_at_us=record.at_us,
        quote_sha256=quote.sha256,
        acceptance_sha256=acceptance.sha256,
        seq=record.seq,
    )
    partner_of(agreement)
    same_postings(record, [])
    story.quote, story.agreement = quote, agreement
    price = f"{format_units(quote.total_units, quote.asset)} {quote.asset}"
    story.proved.append(
        f"{quote.platform} signed quote {quote.quote_id} at {price}, which the rate card gives "
        "for its workload again"
    )
    story.proved.append(
        f"{buyer_id}, for {quote.operator_id}, signed its acceptance of exactly this quote, "
        f"listing, rate card and terms: agreement {change.id}"
    )


def follow_hold(story: Story, record: Record) -> None:
    """The hold's amount is the card's price of its workload at its position."""
    agreement = story.the_agreement()
    (change,) = changes(record, "hold")
    hold = only(change, "hold_id", record)
    workload = workload_of(record.asked)
    rating = _rated(story, record, hold, workload)
    asked = record.asked
    same(record, "asked", asked, agreement_id=agreement["agreement_id"])
    same(record, "hold", hold, **placed(record, agreement, workload, rating.total_units))
    is_called = record.operation == "call_service"
    require(hold.get("on_answer", False) is is_called, record, "it is captured otherwise")
    require(record.by.principal_id == agreement["buyer_id"], record, "another than the buyer holds")
    _moved(story, record, reserved(hold, payers(hold), Movement.PENDING))
    _counted(record, hold, rating.total_units)
    story.hold = hold
    story.proved.append(
        f"hold {change.id} set {_amount(hold, 'amount_units')} aside, the card's price of the "
        "most that could be used"
    )


def follow_capture(story: Story, record: Record) -> None:
    """The vendor's signed delivery record, rated from the hold's position, posted to the unit."""
    hold, agreement = story.the_hold(), story.the_agreement()
    vendor_id = member(hold, "vendor_id")
    delivery = _delivered(story, record, vendor_id)
    _delivery_fits(record, delivery, hold, agreement)
    rating = _rated(story, record, hold, delivery.usage)
    charged_units, held_units = rating.total_units, units(hold, "amount_units")
    require(charged_units <= held_units, record, "more is captured than was held")
    require(record.at_us < integer(hold, "expires_at_us"), record, "the hold had expired")
    held, made, advanced = changes(record, "hold", "charge", "position")
    charge = only(made, "charge_id", record)
    require(advanced.id == agreement["agreement_id"], record, "another position advances")
    require(_advances(advanced.after, rating), record, "the position falls short of the usage")
    expected: JsonObject = {**hold, "charge_id": made.id, "status": "captured"}
    require(held.after == expected, record, "more of the hold changes than its end")
    expected_charge = captured(
        record,
        hold,
        agreement,
        amount_units=charged_units,
        usage=delivery.usage,
        result_sha256=delivery.result_sha256,
    )
    for name in sorted(charge.keys() | expected_charge.keys()):
        follows = charge.get(name) == expected_charge.get(name)
        require(follows, record, f"charge.{name} does not follow")
    voided = reserved(hold, payers(hold), Movement.VOID)
    _moved(story, record, [*voided, *posted(charge)])
    _counted(record, hold, charged_units - held_units)
    story.charge = charge
    story.proved.append(
        f"{vendor_id} signed the delivery record for {held.id}: result {delivery.result_sha256}"
    )
    story.proved.append(
        f"charge {made.id} of {_amount(charge, 'amount_units')} is what the card gives for "
        f"the signed usage from the hold's position, {_amount(charge, 'fee_units')} of it the "
        "platform's fee; the rest of the hold was given back"
    )


def _check_signature(record: Record, listing: JsonObject, signature: str, key_of: KeyOf) -> None:
    try:
        verify_detached(signature, Typ.LISTING, canonical_bytes(listing), key_of)
    except InvalidSignature as error:
        text = f"record {record.seq} ({record.operation}): the listing's signature: {error.reason}"
        raise Unverified(text) from error


def _quote_fits(story: Story, record: Record, quote: QuoteDocument) -> None:
    listing = story.the_offer().listing
    found = (
        (quote.buyer_id, record.by.principal_id),
        (quote.operator_id, story.keys.organisation_of(record.by.principal_id)),
        (quote.vendor_id, listing.vendor_id),
        (quote.listing_id, listing.listing_id),
        (quote.listing_version, listing.version),
        (quote.listing_sha256, listing.listing_sha256),
        (quote.rate_card_sha256, listing.rate_card_sha256),
        (quote.terms_sha256, listing.terms_sha256),
    )
    require(all(one == other for one, other in found), record, "the quote is of another offer")
    require(record.at_us < quote.expires_at_us, record, "the quote had expired")


def _delivered(story: Story, record: Record, vendor_id: str) -> DeliveryRecord:
    """What the vendor signed; it captures itself, or the platform does for an answer it took."""
    hold = story.the_hold()
    same(record, "asked", record.asked, hold_id=hold["hold_id"])
    is_called = record.operation == "accept_answer"
    require(hold.get("on_answer", False) is is_called, record, "it is captured otherwise")
    captor = PLATFORM if is_called else vendor_id
    require(record.by.principal_id == captor, record, "another than the payee captures")
    delivery = _given(
        record,
        read_delivery(
            fact(record, "delivery"),
            text_fact(record, "delivery_signature"),
            story.keys.keys_of(vendor_id, Typ.DELIVERY),
        ),
    )
    if is_called:
        same(record, "asked", record.asked, result_sha256=delivery.result_sha256)
    return delivery


def _delivery_fits(
    record: Record, delivery: DeliveryRecord, hold: JsonObject, agreement: JsonObject
) -> None:
    signed = delivery.document()
    for name in ("hold_id", "agreement_id", "vendor_id", "args_sha256"):
        require(signed[name] == hold[name], record, f"the delivery's {name} is not the hold's")
    for name in ("listing_id", "output_schema_sha256"):
        bound = signed[name] == agreement[name]
        require(bound, record, f"the delivery's {name} is not the agreement's")


def _tags(listing: Listing) -> list[Json]:
    """The primary tag first, as the engine keeps them."""
    return [listing.primary_tag, *(tag for tag in listing.tags if tag != listing.primary_tag)]


def _rated(story: Story, record: Record, hold: JsonObject, usage: Mapping[str, int]) -> Rating:
    rating = rate(story.the_offer().card, quantities(hold["position"]), usage)
    lines: list[Json] = [line_document(line) for line in rating.lines]
    require(record.decided == {"lines": lines}, record, "the card gives other lines")
    return rating


def _advances(position: JsonObject, rating: Rating) -> bool:
    """Whether a position is at least the capture's: others may have come between."""
    reached = quantities(position)
    return all(reached.get(m, 0) >= quantity for m, quantity in rating.position_after.items())


def _moved(story: Story, record: Record, expected: list[Transfer]) -> None:
    """Require these transfers, and note them."""
    same_postings(record, expected)
    story.moved += expected


def _counted(record: Record, hold: JsonObject, amount_units: int) -> None:
    found = [(count.grant_id, count.day, count.units) for count in record.counted]
    expected = [(hold["grant_id"], hold["day"], amount_units)] if amount_units else []
    require(found == expected, record, "the authority grant is charged otherwise")


def _amount(document: JsonObject, name: str) -> str:
    asset = member(document, "asset")
    return f"{format_units(units(document, name), asset)} {asset}"


def _only_key(key: PublicKey) -> KeyOf:
    return lambda thumbprint: key if key.thumbprint == thumbprint else None


def _given(record: Record, read: T | Refusal) -> T:
    if isinstance(read, Refusal):
        text = f"record {record.seq} ({record.operation}): {read.path}: {read.message}"
        raise Unverified(text)
    return read


def _fits(record: Record, refusal: Refusal | None) -> None:
    require(refusal is None, record, "" if refusal is None else f"{refusal.path} does not fit")
