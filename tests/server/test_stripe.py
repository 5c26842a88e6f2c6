"""Money in and out by Stripe, over a local fake of its API: signed, once, and with no card data."""

import asyncio
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from farthing.clients.operators import Operator
from farthing.clients.vendors import Vendor
from farthing.protocol.errors import Code, Refused
from farthing.protocol.ledger import AccountKind
from farthing.protocol.wire import Money
from farthing.server.adapters.stripe import StripeProcessor
from farthing.server.app import build
from farthing.server.settings import InvalidSetting, Settings
from tests.patience import patiently, until
from tests.server.banking import KEY, Bank, opened, settings_of
from tests.server.fake_stripe import (
    SECRET,
    TOP_UP,
    refund_event,
    session_event,
    signature,
    transfer_event,
)
from tests.server.listening import held
from tests.serving import serving

FIVE = Money(amount="5", asset="USD")
DOLLAR = 10**9
CENT = Money(amount="0.01", asset="USD")

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bank(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bank]:
    async with held(opened(tmp_path_factory.mktemp("stripe"))) as bank:
        yield bank


async def test_a_top_up_is_paid_at_checkout_and_posted_by_the_signed_event(bank: Bank) -> None:
    before = await bank.prepaid()
    top_up = await bank.shop.operator.create_top_up(FIVE, processor="stripe")
    assert top_up.url.startswith("https://checkout.stripe.com/")
    path, form, headers = bank.fake.asked[-1]
    assert path == "/v1/checkout/sessions"
    assert form["line_items[0][price_data][unit_amount]"] == "500"
    assert form["line_items[0][price_data][currency]"] == "usd"
    assert headers["idempotency-key"] == top_up.top_up_id == form["metadata[payment_id]"]
    assert await bank.prepaid() == before
    assert await bank.send(session_event(top_up.top_up_id)) == 204
    assert await bank.prepaid() == before + 5 * 10**9
    records = await bank.records()
    for again in ("checkout.session.completed", "checkout.session.expired"):
        assert await bank.send(session_event(top_up.top_up_id, again)) == 204
    assert await bank.prepaid() == before + 5 * 10**9
    assert await bank.records() == records


async def test_the_treasurer_sees_what_was_paid_twice(bank: Bank) -> None:
    organisation_id = bank.shop.operator.connection.principal
    top_up = await bank.shop.operator.create_top_up(FIVE, processor="stripe")
    before = await bank.prepaid()
    first = session_event(top_up.top_up_id)
    second = first.replace(b"cs_", b"cs_again_")
    assert second != first
    for body in (first, second):
        assert await bank.send(body) == 204
    records = await bank.records()
    for body in (first, second):
        assert await bank.send(body) == 204
    assert await bank.records() == records
    (again, *_) = (await bank.server.treasurer.top_ups(organisation_id)).top_ups

    assert again.top_up_id != top_up.top_up_id
    assert (again.status, again.amount) == ("pending", FIVE)
    assert again.reference.startswith("cs_again_")
    assert await bank.prepaid() == before + 5 * 10**9


async def test_the_same_ask_again_opens_the_same_session(bank: Bank) -> None:
    key = bank.shop.operator.connection.new_key()
    bank.fake.broken = True
    with pytest.raises(Refused) as refused, capture_logs() as lines:
        await bank.shop.operator.create_top_up(FIVE, processor="stripe", key=key)
    bank.fake.broken = False
    (failed,) = [line for line in lines if line["event"] == "processor_failed"]
    assert failed["why"] == "InvalidRequestError"
    assert refused.value.code is Code.PROCESSOR_FAILED
    first = await bank.shop.operator.create_top_up(FIVE, processor="stripe", key=key)
    second = await bank.shop.operator.create_top_up(FIVE, processor="stripe", key=key)

    assert first == second


async def test_a_session_of_which_nothing_is_said_is_not_begun(bank: Bank) -> None:
    key = bank.shop.operator.connection.new_key()
    bank.fake.odd = True
    with pytest.raises(Refused) as refused:
        await bank.shop.operator.create_top_up(FIVE, processor="stripe", key=key)
    bank.fake.odd = False
    again = await bank.shop.operator.create_top_up(FIVE, processor="stripe", key=key)

    assert refused.value.code is Code.PROCESSOR_FAILED
    assert again.url.startswith("https://checkout.stripe.com/")


@pytest.mark.parametrize(
    ("kind", "changed", "paid"),
    [
        ("checkout.session.completed", {"payment_status": "unpaid"}, 0),
        ("checkout.session.async_payment_succeeded", {}, 5),
        ("checkout.session.async_payment_failed", {"payment_status": "unpaid"}, 0),
        ("checkout.session.expired", {"payment_status": "unpaid"}, 0),
        ("checkout.session.completed", {"amount_total": 499}, 0),
        ("checkout.session.completed", {"currency": "eur"}, 0),
        ("checkout.session.completed", {"metadata": {}}, 0),
        ("checkout.session.completed", {"metadata": None}, 0),
        ("checkout.session.completed", {"amount_total": "500"}, 0),
        ("customer.created", {}, 0),
    ],
)
async def test_only_what_says_paid_of_the_very_amount_is_posted(
    bank: Bank, kind: str, changed: dict[str, Any], paid: int
) -> None:
    top_up = await bank.shop.operator.create_top_up(FIVE, processor="stripe")
    before = await bank.prepaid()

    assert await bank.send(session_event(top_up.top_up_id, kind, **changed)) == 204
    assert await bank.prepaid() == before + paid * 10**9


async def test_an_event_that_is_not_stripes_or_not_of_now_is_refused(bank: Bank) -> None:
    top_up = await bank.shop.operator.create_top_up(FIVE, processor="stripe")
    body = session_event(top_up.top_up_id)
    before, records = await bank.prepaid(), await bank.records()
    late = int(time.time()) - 301
    foreign = f"t={int(time.time())},v1=\xe9"
    for signed in ("", "t=1,v1=00", foreign, signature(body, secret="whsec_other"),
                   signature(body, at_s=late), signature(body + b" ")):  # fmt: skip
        assert await bank.send(body, signed) == 400
    assert await bank.send(b"{", signature(b"{")) == 400
    assert await bank.send(b"[]", signature(b"[]")) == 204
    assert await bank.send(b"\xff", "t=1,v1=00") == 400
    large = b" " * (256 * 1024 + 1)
    assert await bank.send(large, signature(large)) == 413
    assert (await bank.prepaid(), await bank.records()) == (before, records)


async def test_an_event_of_something_that_is_not_there_is_acknowledged(bank: Bank) -> None:
    records = await bank.records()
    manual = await bank.shop.operator.create_top_up(FIVE)
    for payment_id in (f"top_{'0' * 26}", "hld_x", "", manual.top_up_id):
        assert await bank.send(session_event(payment_id)) == 204
    assert await bank.records() == records + 1


@pytest.mark.parametrize(
    ("kind", "outside", "why"),
    [
        ("checkout.session.completed", {"account": "acct_1Vendor"}, "of another account"),
        ("checkout.session.completed", {"livemode": True}, "of the other mode"),
        ("checkout.session.renamed", {}, "of another kind"),
        ("checkout.session.completed", {"data": None}, "TypeError"),
    ],
)
async def test_an_event_that_names_a_payment_and_is_not_taken_is_told_in_the_log(
    bank: Bank, kind: str, outside: dict[str, Any], why: str
) -> None:
    top_up = await bank.shop.operator.create_top_up(FIVE, processor="stripe")
    before, records = await bank.prepaid(), await bank.records()
    event = {**json.loads(session_event(top_up.top_up_id, kind)), **outside}
    with capture_logs() as lines:
        assert await bank.send(json.dumps(event).encode()) == 204
    assert (await bank.prepaid(), await bank.records()) == (before, records)
    (told,) = [line for line in lines if line["event"] == "event_not_taken"]
    assert told["event_id"] == event["id"]
    assert why in told["why"]


async def test_money_that_left_is_never_taken_for_money_that_came(bank: Bank) -> None:
    top_up = await bank.shop.operator.create_top_up(FIVE, processor="stripe")
    before, records = await bank.prepaid(), await bank.records()
    assert await bank.send(transfer_event(top_up.top_up_id, 500)) == 204

    assert (await bank.prepaid(), await bank.records()) == (before, records)


async def test_who_has_one_key_at_two_platforms_of_one_account_pays_each(
    bank: Bank, tmp_path: Path
) -> None:
    key = bank.shop.operator.connection.new_key()
    async with opened(tmp_path, public_url="https://other.example") as other:
        top_up, same = [
            await each.shop.operator.create_top_up(FIVE, processor="stripe", key=key)
            for each in (bank, other)
        ]
        assert same.top_up_id == top_up.top_up_id
        form = bank.fake.asked[-1][1]
        assert form["metadata[platform]"] == form["payment_intent_data[metadata][platform]"]
        metadata = {name: form[f"metadata[{name}]"] for name in ("payment_id", "platform")}
        paid = session_event(top_up.top_up_id, metadata=metadata)
        refund = refund_event(top_up.top_up_id, 500, metadata=metadata)
        asked = len(other.fake.asked)
        assert [await other.send(body) for body in (paid, refund)] == [204, 204]
        (told,) = (await other.shop.operator.top_ups()).top_ups
        assert (told.status, len(other.fake.asked)) == ("pending", asked)
    assert await bank.send(paid) == 204
    (told, *_) = (await bank.shop.operator.top_ups()).top_ups
    assert told.status == "posted"


async def test_a_live_key_takes_no_test_money() -> None:
    processor = StripeProcessor(key="rk_live_x", webhook_secret=SECRET, return_url="", platform="")
    body = session_event(f"top_{'0' * 26}")
    live = body.replace(b'"livemode": false', b'"livemode": true')

    assert await processor.event(body, {"stripe-signature": signature(body)}) is None
    assert await processor.event(live, {"stripe-signature": signature(live)}) is not None


async def test_an_event_that_comes_while_the_engine_is_away_is_to_be_sent_again(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as bank:
        top_up = await bank.shop.operator.create_top_up(FIVE, processor="stripe")
        await bank.server.service.market.engine.close()  # type: ignore[attr-defined]

        assert await bank.send(session_event(top_up.top_up_id)) == 503


async def test_yen_have_no_places_at_stripe(bank: Bank) -> None:
    top_up = await bank.shop.operator.create_top_up(
        Money(amount="700", asset="JPY"), processor="stripe"
    )
    _, form, _ = bank.fake.asked[-1]
    paid = session_event(top_up.top_up_id, amount_total=700, currency="jpy")
    assert await bank.send(paid) == 204
    (first, *_) = (await bank.shop.operator.top_ups()).top_ups

    assert form["line_items[0][price_data][unit_amount]"] == "700"
    assert (first.top_up_id, first.status) == (top_up.top_up_id, "posted")


async def test_amounts_that_stripe_cannot_move_are_refused_before_anything_is_written(
    bank: Bank,
) -> None:
    records = await bank.records()
    for amount, asset in (("0.001", "USD"), ("1", "XTS"), ("1000000", "USD"), ("0.5", "JPY")):
        money = Money(amount=amount, asset=asset)
        with pytest.raises(Refused) as refused:
            await bank.shop.operator.create_top_up(money, processor="stripe")
        assert refused.value.code is Code.INVALID_AMOUNT
        assert "stripe takes no such amount" in refused.value.refusal.message
    assert await bank.records() == records


async def test_a_payout_is_sent_once_by_the_treasurer_and_posted_by_the_event(bank: Bank) -> None:
    vendor, payable = bank.shop.vendor, AccountKind.VENDOR_PAYABLE
    before = await bank.earned()
    with pytest.raises(Refused, match="stripe knows no such destination") as refused:
        await vendor.request_payout(CENT, processor="stripe", destination="elsewhere")
    assert (refused.value.code, refused.value.refusal.path) == (
        Code.INVALID_ARGUMENT,
        "destination",
    )
    payout = await vendor.request_payout(CENT, processor="stripe", destination="acct_1Vendor")
    treasurer = bank.server.treasurer
    key = treasurer.connection.new_key()
    asked = len(bank.fake.asked)
    sent = await treasurer.send_payout(payout.payout_id, key=key)
    assert sent == await treasurer.send_payout(payout.payout_id, key=key)
    assert sent.status == "sent"
    assert {headers["idempotency-key"] for _, _, headers in bank.fake.asked[asked:]} == {
        payout.payout_id
    }
    assert bank.fake.asked[-1][1]["destination"] == "acct_1Vendor"
    with pytest.raises(Refused, match="by the key that it was sent with"):
        await treasurer.send_payout(payout.payout_id)
    # Stripe forgets an idempotency key in time: what was sent long ago is not asked for again.
    bank.server.clock.ahead_us += 13 * 3_600 * 10**6
    asked = len(bank.fake.asked)
    with pytest.raises(Refused, match="too long ago"):
        await treasurer.send_payout(payout.payout_id, key=key)
    assert len(bank.fake.asked) == asked
    assert await bank.send(transfer_event(payout.payout_id, 1)) == 204
    assert await bank.units(vendor.vendor_id, payable) == before - 10**7
    (listed,) = (await vendor.payouts()).payouts
    assert (listed.status, listed.reference) == ("paid", "tr_1Px")
    # Another transfer for it moves nothing here, and is told.
    again = transfer_event(payout.payout_id, 1).replace(b"tr_1Px", b"tr_2Px")
    with capture_logs() as lines:
        assert await bank.send(again) == 204
    assert "paid_again" in {line["event"] for line in lines}
    assert await bank.units(vendor.vendor_id, payable) == before - 10**7
    # What comes back of it is the vendor's again, once.
    for _ in range(2):
        assert await bank.send(transfer_event(payout.payout_id, 1, back=1)) == 204
        assert await bank.units(vendor.vendor_id, payable) == before
    # Nor is what is decided.
    assert sent == await treasurer.send_payout(payout.payout_id, key=key)
    assert len(bank.fake.asked) == asked


async def test_who_was_frozen_meanwhile_is_not_paid_by_a_retry(bank: Bank) -> None:
    vendor, treasurer, admin = bank.shop.vendor, bank.server.treasurer, bank.server.admin
    await bank.earned()
    payout = await vendor.request_payout(CENT, processor="stripe", destination="acct_1Vendor")
    key = treasurer.connection.new_key()
    bank.fake.broken = True
    with pytest.raises(Refused) as unanswered:
        await treasurer.send_payout(payout.payout_id, key=key)
    bank.fake.broken = False
    await admin.freeze(vendor.vendor_id, "fraud?")
    asked = len(bank.fake.asked)
    with pytest.raises(Refused) as frozen:
        await treasurer.send_payout(payout.payout_id, key=key)
    assert len(bank.fake.asked) == asked
    await admin.unfreeze(vendor.vendor_id, "no fraud")
    await treasurer.send_payout(payout.payout_id, key=key)

    assert (unanswered.value.code, frozen.value.code) == (Code.PROCESSOR_FAILED, Code.FROZEN)
    # It is the vendor that is frozen, and not who is told so.
    assert "paid out" in frozen.value.refusal.message
    assert len(bank.fake.asked) == asked + 1


async def test_a_retry_of_a_paid_top_up_opens_no_other_session(bank: Bank) -> None:
    key = bank.shop.operator.connection.new_key()
    top_up = await bank.shop.operator.create_top_up(FIVE, processor="stripe", key=key)
    assert await bank.send(session_event(top_up.top_up_id)) == 204
    asked = len(bank.fake.asked)

    again = await bank.shop.operator.create_top_up(FIVE, processor="stripe", key=key)

    assert (again.top_up_id, again.url) == (top_up.top_up_id, "")
    assert len(bank.fake.asked) == asked


async def test_no_secret_is_in_any_log_or_record(
    bank: Bank, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        top_up = await bank.shop.operator.create_top_up(FIVE, processor="stripe")
        body = session_event(top_up.top_up_id)
        await bank.send(body, "t=1,v1=00")
        await bank.send(body)
    said = caplog.text + "".join(capfd.readouterr())

    assert KEY not in said
    assert SECRET not in said
    assert KEY not in repr(bank.server.service.market.processors)


async def test_a_stripe_that_does_not_answer_holds_up_nobody_else(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with serving(tmp_path / "data", **settings_of(tmp_path, url)) as server:
            operator = Operator(await server.organisation("operator", "Operator One"))
            # More than the loop has threads, whatever the machine, and than may wait for Stripe.
            asked = [
                asyncio.create_task(operator.create_top_up(FIVE, processor="stripe"))
                for _ in range(80)
            ]
            first, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            async with patiently():
                assert await asyncio.to_thread(str, "another")
            for each in asked:
                each.cancel()
            ended = await asyncio.gather(*asked, return_exceptions=True)

    refused = [each for each in ended if isinstance(each, Refused)]
    assert first
    assert {each.code for each in refused} == {Code.OVERLOADED}


async def test_operators_that_top_up_without_end_leave_places_to_others(bank: Bank) -> None:
    *greedy, other = [
        Operator(await bank.server.organisation("operator", f"Operator Stripe {number}"))
        for number in range(6)
    ]
    waited: list[float] = []

    async def at_once(seconds: float) -> None:
        waited.append(seconds)

    for each in greedy:
        each.connection.sleep = at_once
    bank.fake.answering[TOP_UP] = threading.Event()
    try:
        many = [
            asyncio.create_task(each.create_top_up(FIVE, processor="stripe"))
            for each in greedy
            for _ in range(12)
        ]
        # Half of the places are taken by several of one operator, and two by one of another.
        await until(lambda: sum(each.done() for each in many) == 60 - 22)
        one = asyncio.create_task(other.create_top_up(FIVE, processor="stripe"))
        while not (one.done() or (await other.top_ups()).top_ups):
            pass
    finally:
        bank.fake.answering.pop(TOP_UP).set()
        ended = await asyncio.gather(*many, return_exceptions=True)

    assert (await one).url.startswith("https://checkout.stripe.com/")
    refused = [each.refusal for each in ended if isinstance(each, Refused)]
    assert {(each.code, each.retry_after_s) for each in refused} == {(Code.OVERLOADED, 1)}
    assert set(waited) == {1}


async def test_without_stripe_nobody_is_sent_there(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as server:
        operator = Operator(await server.organisation("operator", "Operator One"))
        vendor = Vendor(await server.organisation("vendor", "Vendor One"))
        assert (await server.http.post("/webhooks/stripe", content=b"{}")).status_code == 404
        for call in (operator.create_top_up, vendor.request_payout):
            with pytest.raises(Refused) as refused:
                await call(FIVE, processor="stripe")
            assert refused.value.refusal.path == "processor"


async def test_a_payout_does_not_stand_as_sent_where_its_processor_is_not_used(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as bank:
        await bank.earned()
        vendor = bank.shop.vendor
        payout = await vendor.request_payout(CENT, processor="stripe", destination="acct_1Vendor")
    async with serving(tmp_path / "data") as server:
        server.clock.ahead_us += 86_400 * 10**6
        treasurer = server.treasurer
        with pytest.raises(Refused) as refused:
            await treasurer.send_payout(payout.payout_id)
        (listed,) = (await treasurer.payouts(vendor.vendor_id)).payouts

    assert (refused.value.code, refused.value.refusal.path) == (Code.INVALID_ARGUMENT, "payout_id")
    assert listed.status == "requested"


@pytest.mark.parametrize("spoilt", ["missing", "empty", "binary", "alone"])
async def test_a_secret_that_is_none_stops_the_start(tmp_path: Path, spoilt: str) -> None:
    given = settings_of(tmp_path, "")
    if spoilt == "missing":
        (tmp_path / "secret").unlink()
    elif spoilt == "alone":
        given["stripe_webhook_secret_file"] = ""
    else:
        (tmp_path / "secret").write_bytes(b"" if spoilt == "empty" else b"\xff\x00")
    with pytest.raises(InvalidSetting):
        build(Settings(data_dir=tmp_path / "data", **given), port=8321)


async def test_without_the_library_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "farthing.server.adapters.stripe")
    monkeypatch.setitem(sys.modules, "stripe", None)

    with pytest.raises(InvalidSetting, match=r"pip install 'farthing\[stripe\]'"):
        build(Settings(data_dir=tmp_path / "data", **settings_of(tmp_path, "")), port=8321)
