"""What a vendor says is compared with what the platform recorded, and it is not called anywhere."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from farthing.clients.buyers import Buyer
from farthing.clients.documents import Offer
from farthing.clients.services import NotDelivered, ServiceFailed, VendorCaller, fault
from farthing.clients.transport import Connection
from farthing.protocol.canonical import Json, document_sha256
from farthing.protocol.errors import Code, Refused, refuse
from farthing.protocol.keys import PrivateKey
from farthing.protocol.listing import parse_listing
from farthing.protocol.times import SECOND_US
from tests.clients.trading import trading, usd
from tests.papers import signing_key

PDF = {"pdf": "one|two"}


async def test_a_vendor_that_charges_and_says_it_failed_is_found_out(tmp_path: Path) -> None:
    async with trading(tmp_path) as market:
        market.routes.false_reply = (
            b'{"jsonrpc":"2.0","id":1,"result":{"isError":true,"content":[],"structuredContent":'
            b'{"code":"vendor_failed","message":"sorry"}}}'
        )

        with pytest.raises(NotDelivered) as found:
            await market.buyer.call_service(market.listing_id, PDF, {"page": 3})

        assert found.value.purchase is None
        dispute = await market.buyer.dispute(found.value.charge_id, "not_delivered")
        assert dispute.held == usd("0.004")


async def test_a_vendor_that_answers_without_capturing_has_not_delivered(tmp_path: Path) -> None:
    async with trading(tmp_path, open_shop=False) as market:
        market.routes.vendor = httpx2.MockTransport(lambda _: httpx2.Response(200))
        market.routes.false_reply = (
            b'{"jsonrpc":"2.0","id":1,"result":{"content":[],"structuredContent":{"pages":["x"]}}}'
        )

        with pytest.raises(ServiceFailed) as failed:
            await market.buyer.call_service(market.listing_id, PDF, {"page": 3})

        assert failed.value.code is Code.VENDOR_FAILED


async def test_who_has_a_call_made_waits_no_longer_than_was_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def on_its_way(*_: object) -> None:
        raise Refused(refuse(Code.UNAVAILABLE, retry_after_s=1_000_000))

    monkeypatch.setattr(Connection, "send", on_its_way)
    key, clock = signing_key("Agent One"), lambda: int(sum(slept) * SECOND_US)
    async with Connection("http://127.0.0.1:1", signer=key, clock=clock, sleep=sleep) as connection:
        with pytest.raises(Refused):
            await Buyer(connection).have_called("agr_x", {}, {"page": 1}, wait_s=30)

    assert slept == [30]


async def test_every_difference_between_result_record_and_charge_is_a_fault(
    tmp_path: Path,
) -> None:
    async with trading(tmp_path) as market:
        good = await market.buyer.call_service(market.listing_id, PDF, {"page": 3})
        listing = parse_listing(dict(market.offer.listing))
    judged: dict[str, Any] = {
        "listing": listing,
        "arguments": PDF,
        "output_schema_sha256": document_sha256(listing.output_schema),
    }

    def delivery(**changed: str) -> Any:
        return replace(good, delivery={**good.delivery, **changed})

    assert fault(good, **judged) == ""
    for bad in (
        replace(good, result={"pages": ["other"]}),
        replace(good, result={"pages": [None]}),
        replace(good, charge=replace(good.charge, result_sha256="f" * 64)),
        delivery(result_sha256="f" * 64),
        delivery(hold_id=good.hold_id[:-1] + ("0" if good.hold_id[-1] != "0" else "1")),
        delivery(args_sha256="f" * 64),
        delivery(output_schema_sha256="f" * 64),
        delivery(more="x"),
    ):
        assert fault(bad, **judged) != ""
    narrow = replace(listing, output_schema={"type": "object", "required": ["words"]})
    assert "schema" in fault(good, **(judged | {"listing": narrow}))


@pytest.mark.parametrize(
    ("platform", "vendor", "is_called"),
    [
        ("http://127.0.0.1:8321", "http://127.0.0.1:9000/mcp", True),
        ("http://localhost:8321", "http://[::1]:9000/mcp", True),
        ("https://market.example", "https://vendor.example/mcp", True),
        ("https://market.example", "http://vendor.example/mcp", False),
        ("https://market.example", "http://127.0.0.1:9000/mcp", False),
        ("https://market.example", "https://localhost/mcp", False),
        ("http://127.0.0.1:8321", "http://vendor.example/mcp", False),
        ("https://market.example", "https://999.1.1.1/mcp", False),
        ("https://market.example", "https://[1::2", False),
    ],
)
async def test_a_payment_goes_in_clear_only_where_it_does_not_leave_the_machine(
    platform: str, vendor: str, *, is_called: bool
) -> None:
    caller = VendorCaller(
        httpx2.AsyncClient(),
        PrivateKey.from_seed(bytes(32)),
        platform=platform,
        timeout_s=1,
        clock=lambda: 0,
        entropy=bytes,
        on_sign=lambda *_: None,
    )

    if is_called:
        caller.check_url(vendor)
    else:
        with pytest.raises(Refused):
            caller.check_url(vendor)


async def test_a_new_version_changes_nothing_for_an_agreement_on_the_old_one(
    tmp_path: Path,
) -> None:
    async with trading(tmp_path) as market:
        first = await market.buyer.call_service(market.listing_id, PDF, {"page": 3})
        schema: dict[str, Json] = {
            "type": "object",
            "properties": {"pages": {"type": "array", "items": {"type": "string"}}},
            "required": ["pages"],
            "additionalProperties": False,
        }
        dearer: dict[str, Json] = dict(market.offer.rate_card)
        dimension: Any = dearer["dimensions"][0]  # type: ignore[index]
        dearer |= {
            "version": 2,
            "dimensions": [
                {
                    **dimension,
                    "model": "per_unit",
                    "tiers": [{"amount": "0.1", "per_quantity": "1"}],
                }
            ],
        }
        market.offer = Offer.bind(
            {**market.offer.listing, "version": 2, "output_schema": schema},
            dearer,
            market.offer.terms,
        )
        await market.vendor.publish(market.offer)
        await market.close_shop()
        market.meter = {"page": lambda pdf: pdf.count("|") + 1}
        await market.open_shop()

        old = await market.buyer.buy(
            await market.buyer.agreement(first.agreement_id), PDF, {"page": 3}
        )
        new = await Buyer(market.buyer.connection).call_service(market.listing_id, PDF, {"page": 3})

        assert old.charge.amount == usd("0.004")
        assert new.charge.amount == usd("0.2")
