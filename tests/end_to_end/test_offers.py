"""What a vendor publishes and what everybody may read, through a real door."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

from farthing.clients.buyers import Buyer
from farthing.clients.operators import Operator
from farthing.clients.vendors import Offer, Vendor
from farthing.protocol.canonical import Json, canonical_bytes, document_sha256
from farthing.protocol.errors import Code, Refused
from farthing.protocol.messages.catalog import SEARCH_CATALOG, SearchCatalog
from farthing.protocol.messages.listings import (
    GET_DOCUMENT,
    GET_LISTING,
    LINT_LISTING,
    PUBLISH_LISTING,
    GetDocument,
    GetListing,
    LintListing,
    PublishListing,
)
from farthing.protocol.signatures import Typ, sign_detached
from farthing.protocol.wire import Usage
from farthing.settlement.engine.questions import FiguresNow
from tests.papers import card_document, listing_document, signing_key, terms_document
from tests.serving import Serving, Shop, serving


def offer(shop: Shop, *, version: int = 2, **changes: Any) -> Offer:
    card, terms = card_document(), terms_document()
    listing = listing_document(shop.vendor.vendor_id, card, terms, version=version)
    return Offer(listing={**listing, **changes}, rate_card=card, terms=terms)


async def seq(server: Serving) -> int:
    return (await server.service.market.ask(FiguresNow())).seq


async def test_linting_needs_no_credential_and_writes_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        before = await seq(server)
        defective = offer(shop, primary_tag="no.such.tag")

        report = await server.connect().call(
            LINT_LISTING,
            LintListing(
                listing=dict(defective.listing),
                rate_card=dict(defective.rate_card),
                terms=dict(defective.terms),
            ),
        )

        assert not report.publishable
        assert report.findings
        assert await seq(server) == before


async def test_a_listing_with_an_error_is_not_published(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        before = await seq(server)

        with pytest.raises(Refused) as refused:
            await shop.vendor.publish(offer(shop, primary_tag="no.such.tag"))

        assert refused.value.code is Code.LISTING_INVALID
        assert await seq(server) == before


@pytest.mark.parametrize("version", [1, 3])
async def test_a_version_that_is_not_the_next_is_stale(tmp_path: Path, version: int) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)

        with pytest.raises(Refused) as refused:
            await shop.vendor.publish(offer(shop, version=version))

        assert (refused.value.code, refused.value.refusal.required) == (Code.STALE, "2")


@pytest.mark.parametrize("lie", ["another_key", "another_kind", "another_listing"])
async def test_a_listing_is_published_by_its_vendors_signature_alone(
    tmp_path: Path, lie: str
) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        given = offer(shop)
        key = signing_key("Operator One") if lie == "another_key" else shop.vendor.signer
        typ = Typ.DELIVERY if lie == "another_kind" else Typ.LISTING
        signed = offer(shop, version=3) if lie == "another_listing" else given
        ask = PublishListing(
            listing=dict(given.listing),
            rate_card=dict(given.rate_card),
            terms=dict(given.terms),
            signature=sign_detached(key, typ, canonical_bytes(dict(signed.listing))),
            idempotency_key="k" * 16,
        )

        with pytest.raises(Refused) as refused:
            await shop.vendor.connection.call(PUBLISH_LISTING, ask)

        assert refused.value.code is Code.SIGNATURE_INVALID


async def test_every_document_ever_published_is_found_by_its_hash(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        anybody, second = server.connect(), offer(shop)
        first = await anybody.call(GET_LISTING, GetListing(listing_id=shop.listing_id))
        await shop.vendor.publish(second)

        for document in (first.listing, second.listing, first.rate_card, first.terms):
            sha256 = document_sha256(cast("Json", document))
            answer = await anybody.call(GET_DOCUMENT, GetDocument(sha256=sha256))
            assert answer.document == document


async def test_a_vendors_words_are_labelled_and_reach_no_tool(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        found = await server.connect().call(SEARCH_CATALOG, SearchCatalog(query="text of pdf"))
        tools = json.dumps([await shop.buyer.connection.tools(), await server.connect().tools()])

        assert [each.listing_id for each in found.results] == [shop.listing_id]
        assert found.results[0].vendor_text.untrusted is True
        assert found.results[0].vendor_text.name == "Text of PDF pages"
        assert "Text of PDF pages" not in tools


async def test_a_total_is_from_the_position_of_who_buys_and_of_nobody_elses(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        agreement = await shop.buyer.accept(await shop.buyer.quote(shop.listing_id, {"page": 10}))
        hold = await shop.buyer.hold(agreement.agreement_id, {"page": 10}, {"call": "one"})
        await shop.captured(agreement, hold.answer.hold_id, {"page": 10}, "b" * 64)
        ask = SearchCatalog(query="text of pdf", workload=(Usage(meter="page", quantity="1"),))

        totals = {}
        for each in (shop.buyer, shop.operator, shop.vendor):
            [found] = (await each.connection.call(SEARCH_CATALOG, ask)).results
            assert found.total is not None
            totals[type(each)] = found.total.amount

        # A vendor is party to the agreements of all its buyers.
        assert totals == {Buyer: "0.0015", Operator: "0.002", Vendor: "0.002"}


@pytest.mark.parametrize("moved", ["card", "terms", "listing"])
async def test_what_moved_since_the_quote_cannot_be_accepted(tmp_path: Path, moved: str) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        quote = await shop.buyer.quote(shop.listing_id, {"page": 2})
        card = card_document(version=2) if moved == "card" else card_document()
        terms = terms_document(dispute_window_s=900) if moved == "terms" else terms_document()
        listing = listing_document(shop.vendor.vendor_id, card, terms, version=2)
        await shop.vendor.publish(Offer(listing=listing, rate_card=card, terms=terms))

        with pytest.raises(Refused) as refused:
            await shop.buyer.accept(quote)

        assert refused.value.code is Code.TERMS_CHANGED
