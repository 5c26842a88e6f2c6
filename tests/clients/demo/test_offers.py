"""What the demo's vendors publish is sound, and is what their servers do."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farthing.catalog.lint import lint
from farthing.catalog.vocabulary import load
from farthing.clients.demo.offers import OFFERS, offer
from farthing.clients.demo.vendors import SHOPS
from farthing.clients.demo.worker import Worker
from farthing.clients.paid import Seller
from farthing.clients.transport import Connection
from farthing.clients.vendors import Vendor
from farthing.protocol.ids import derive_id
from farthing.protocol.messages.operations import OPERATIONS
from farthing.protocol.platform_keys import PlatformKeys
from tests.papers import signing_key

VENDOR_ID = derive_id("org", "a vendor of the demo")
URL = "http://127.0.0.1:9/mcp"


@pytest.mark.parametrize("name", OFFERS)
def test_every_offer_passes_the_publish_report_with_no_finding(name: str) -> None:
    made = offer(name, VENDOR_ID, URL)

    report = lint(
        made.listing,
        made.rate_card,
        made.terms,
        vocabulary=load(),
        tool_names=OPERATIONS.keys(),
    )

    assert report.publishable
    assert report.findings == ()


@pytest.mark.parametrize("shop", SHOPS)
async def test_a_listing_has_the_schemas_of_the_tool_that_is_served(
    tmp_path: Path, shop: str
) -> None:
    connection = Connection(
        "http://127.0.0.1:9", signer=signing_key("Vendor One"), principal=VENDOR_ID
    )
    async with connection:
        seller = Seller(
            Vendor(connection),
            platform_keys=PlatformKeys(),
            spool=tmp_path / "spool.sqlite",
            offer=lambda name: offer(name, VENDOR_ID, URL),
        )
        tools = await SHOPS[shop](seller, Worker(deadline_s=1)).list_tools()

    for tool in tools:
        (advert,) = (tool.meta or {}).values()
        made = next(
            each
            for each in (offer(name, VENDOR_ID, URL) for name in OFFERS)
            if each.listing["listing_id"] == advert["listing_id"]
        )
        listing: dict[str, Any] = dict(made.listing)
        assert listing["interface"]["tool"] == tool.name
        assert listing["interface"]["url"] == URL
        assert advert["listing_sha256"] == made.sha256
        assert set(members(listing["input_schema"])) == set(members(tool.input_schema))
        assert set(members(listing["output_schema"])) == set(members(sold(tool.output_schema)))


def sold(advertised: dict[str, Any] | None) -> dict[str, Any]:
    """What a tool gives when it is paid for, of all that it may answer."""
    assert advertised is not None
    if "anyOf" not in advertised:  # the tool that takes the money by hand
        return advertised
    name = advertised["anyOf"][0]["$ref"].rpartition("/")[2]
    return {**advertised["$defs"][name], "$defs": advertised["$defs"]}


def members(
    schema: dict[str, Any], path: str = "", root: dict[str, Any] | None = None
) -> Iterator[tuple[str, str, bool]]:
    """Every member that a schema has: where, of which type, and whether it must be there."""
    root = root or schema
    for name, found in schema.get("properties", {}).items():
        each = found
        if "$ref" in each:
            each = root["$defs"][each["$ref"].rpartition("/")[2]]
        here = f"{path}.{name}"
        yield here, each["type"], name in schema.get("required", [])
        yield from members(each, here, root)
        items = each.get("items", {})
        if "$ref" in items:
            items = root["$defs"][items["$ref"].rpartition("/")[2]]
        if items:
            yield f"{here}[]", items["type"], True
            yield from members(items, f"{here}[]", root)
