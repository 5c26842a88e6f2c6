"""A tool made payable, against the real server: paid once for work done once, or not at all."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mcp.server import MCPServer
from mcp.server.mcpserver import Context

from farthing.clients.documents import Offer, arguments_sha256, result_sha256
from farthing.clients.paid import Seller
from farthing.clients.services import NotDelivered, ServiceFailed, ServiceLost
from farthing.clients.spool import Spool
from farthing.clients.tools import Endpoint
from farthing.clients.vendors import Vendor
from farthing.protocol.canonical import Json
from farthing.protocol.contracts import DeliveryRecord
from farthing.protocol.errors import Code, Refused, Unverified
from farthing.protocol.evidence import verify
from farthing.protocol.wire import EXTENSION
from tests.clients.trading import VENDOR_URL, PageTexts, Trading, trading, usd

PDF = {"pdf": "one|two"}


async def available(market: Trading) -> str:
    return (await market.buyer.balance()).accounts[0].available.amount


async def buy(market: Trading, **more: Any) -> Any:
    return await market.buyer.call_service(market.listing_id, PDF, {"page": 3}, **more)


async def test_a_call_is_quoted_agreed_held_delivered_and_paid(tmp_path: Path) -> None:
    async with trading(tmp_path) as market:
        purchase = await buy(market, max_total=usd("0.006"))

        assert purchase.result == {"pages": ["one", "two"]}
        assert purchase.charge.amount == usd("0.004")
        assert purchase.charge.released == usd("0.002")
        assert purchase.charge.result_sha256 == result_sha256(purchase.result)
        assert purchase.receipt.seq == purchase.charge.seq
        assert DeliveryRecord.from_document(dict(purchase.delivery)).usage == {"page": 2}
        assert await available(market) == "0.996"
        assert market.desk.runs == 1


async def test_a_second_call_under_an_agreement_goes_on_from_its_position(tmp_path: Path) -> None:
    async with trading(tmp_path) as market:
        first = await market.buyer.call_service(market.listing_id, {"pdf": "|" * 9}, {"page": 10})
        second = await buy(market, agreement_id=first.agreement_id, max_total=usd("0.0045"))

        assert first.charge.amount == usd("0.02")
        assert second.charge.amount == usd("0.003")
        assert second.agreement_id == first.agreement_id


async def test_calls_one_after_another_share_an_agreement_and_its_graduated_prices(
    tmp_path: Path,
) -> None:
    async with trading(tmp_path) as market:
        first = await market.buyer.call_service(market.listing_id, {"pdf": "|" * 9}, {"page": 10})
        second = await buy(market, key="purchase-number-two", max_total=usd("0.0045"))
        again = await buy(market, key="purchase-number-two", max_total=usd("0.0045"))

        assert second.agreement_id == again.agreement_id == first.agreement_id
        assert second.charge.amount == usd("0.003")
        assert again.charge.charge_id == second.charge.charge_id
        assert market.desk.runs == 2


async def test_an_agreement_that_ended_or_binds_to_an_older_listing_is_not_taken(
    tmp_path: Path,
) -> None:
    async with trading(tmp_path) as market:
        first = await buy(market, key="purchase-number-one")
        await market.vendor.terminate(first.agreement_id, "a new price")
        second = await buy(market, key="purchase-number-two")
        newer = Offer.bind(
            {**market.offer.listing, "version": 2}, market.offer.rate_card, market.offer.terms
        )
        await market.vendor.publish(newer)
        third = await buy(market, key="purchase-number-three")
        again = await buy(market, key="purchase-number-two")

        agreement_ids = [each.agreement_id for each in (first, second, third)]
        assert len(set(agreement_ids)) == 3
        assert third.charge.amount == usd("0.004")
        assert again.charge.charge_id == second.charge.charge_id
        assert again.agreement_id == second.agreement_id


@pytest.mark.parametrize(
    ("arguments", "path"),
    [({"pdf": 1}, "arguments.pdf"), ({}, "arguments.pdf"), (PDF | {"x": 1}, "arguments.x")],
)
async def test_arguments_that_do_not_fit_the_listing_are_refused_before_anything(
    tmp_path: Path, arguments: dict[str, Any], path: str
) -> None:
    schema: dict[str, Json] = {
        "type": "object",
        "properties": {"pdf": {"type": "string"}},
        "required": ["pdf"],
        "additionalProperties": False,
    }
    async with trading(tmp_path, listing={"input_schema": schema}) as market:
        with pytest.raises(Refused) as unsigned:
            await market.buyer.call_service(market.listing_id, arguments, {"page": 3})
        assert await available(market) == "1"
        agreement_id = (await buy(market)).agreement_id
        with pytest.raises(Refused) as unheld:
            await market.buyer.call_service(
                market.listing_id, arguments, {"page": 3}, agreement_id=agreement_id
            )

        for refused in (unsigned.value, unheld.value):
            assert (refused.code, refused.refusal.path) == (Code.INVALID_ARGUMENT, path)
            assert ("missing" in refused.refusal.message) is (not arguments)
        assert await available(market) == "0.996"


async def test_a_quote_above_the_callers_maximum_agrees_to_nothing(tmp_path: Path) -> None:
    async with trading(tmp_path) as market:
        with pytest.raises(Refused) as refused:
            await buy(market, max_total=usd("0.0059"))

        assert refused.value.code is Code.LOCAL_LIMIT_EXCEEDED
        assert (refused.value.refusal.required, refused.value.refusal.remaining) == (
            "0.006",
            "0.0059",
        )
        assert await available(market) == "1"


async def test_a_lost_reply_is_asked_for_again_and_nothing_is_done_twice(tmp_path: Path) -> None:
    async with trading(tmp_path) as market:
        market.routes.lose_replies = 2

        purchase = await buy(market)

        assert purchase.result == {"pages": ["one", "two"]}
        assert market.desk.runs == 1
        assert await available(market) == "0.996"


async def test_a_purchase_repeated_under_its_key_is_the_same_purchase(tmp_path: Path) -> None:
    async with trading(tmp_path) as market:
        first = await buy(market, key="purchase-number-one")
        # Past the hold's end and the entitlement's: the result is there, and paid for.
        market.serving.clock.ahead_us += 90_000_000

        again = await buy(market, key="purchase-number-one")

        assert again.charge.charge_id == first.charge.charge_id
        assert again.result == first.result
        assert market.desk.runs == 1
        assert await available(market) == "0.996"


async def test_a_purchase_that_was_refused_stays_refused_under_its_key(tmp_path: Path) -> None:
    async with trading(tmp_path) as market:
        agent_id = market.buyer.connection.principal
        await market.operator.freeze(agent_id, "odd purchases")
        with pytest.raises(Refused) as first:
            await buy(market, key="purchase-number-one")
        await market.operator.unfreeze(agent_id, "explained")

        with pytest.raises(Refused) as again:
            await buy(market, key="purchase-number-one")

        assert first.value.code is again.value.code is Code.FROZEN
        assert (await buy(market, key="purchase-number-two")).result


async def test_many_who_ask_for_one_hold_at_once_get_one_piece_of_work(tmp_path: Path) -> None:
    async with trading(tmp_path) as market:
        market.desk.slow = True
        agreement = await market.buyer.accept(
            await market.buyer.quote(market.listing_id, {"page": 3})
        )
        calls = [
            asyncio.create_task(
                market.buyer.buy(agreement, PDF, {"page": 3}, key="purchase-number-one")
            )
            for _ in range(5)
        ]
        await market.desk.started.wait()
        market.desk.go.set()
        purchases = await asyncio.gather(*calls)

        assert {each.charge.charge_id for each in purchases} == {purchases[0].charge.charge_id}
        assert market.desk.runs == 1


async def test_work_goes_on_when_its_caller_goes_away(tmp_path: Path) -> None:
    async with trading(tmp_path) as market:
        market.desk.slow = True
        call = asyncio.create_task(buy(market, key="purchase-number-one"))
        await market.desk.started.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        market.desk.go.set()

        purchase = await buy(market, key="purchase-number-one")

        assert purchase.result == {"pages": ["one", "two"]}
        assert market.desk.runs == 1


async def test_a_tool_that_fails_charges_nothing_and_frees_the_money_at_once(
    tmp_path: Path,
) -> None:
    async with trading(tmp_path) as market:
        market.desk.fail = "the PDF is encrypted"

        with pytest.raises(ServiceFailed) as failed:
            await buy(market)

        assert failed.value.code is Code.VENDOR_FAILED
        assert "encrypted" in failed.value.refusal.message
        assert (await market.buyer.hold_status(failed.value.hold_id)).status == "released"
        assert await available(market) == "1"


async def test_a_tool_that_crashes_tells_nothing_of_its_inside(tmp_path: Path) -> None:
    async with trading(tmp_path) as market:
        market.desk.crash = True

        with pytest.raises(ServiceFailed) as failed:
            await buy(market)

        assert failed.value.code is Code.VENDOR_FAILED
        assert "inside" not in failed.value.refusal.message
        assert (await market.buyer.hold_status(failed.value.hold_id)).status == "released"


async def test_a_hold_whose_work_failed_is_not_worked_for_again(tmp_path: Path) -> None:
    async with trading(tmp_path) as market:
        market.desk.fail = "no text"
        with pytest.raises(ServiceFailed):
            await buy(market, key="purchase-number-one")
        market.desk.fail = ""

        with pytest.raises(ServiceFailed) as failed:
            await buy(market, key="purchase-number-one")

        assert failed.value.code is Code.VENDOR_FAILED
        assert market.desk.runs == 1


async def test_more_than_was_held_is_not_captured_and_not_given(tmp_path: Path) -> None:
    async with trading(tmp_path) as market:
        with pytest.raises(ServiceFailed) as failed:
            await market.buyer.call_service(market.listing_id, PDF, {"page": 1})

        assert failed.value.code is Code.CAPTURE_EXCEEDS_HOLD
        assert "larger workload" in failed.value.refusal.message
        assert await available(market) == "1"


async def test_what_is_known_to_cost_too_much_is_refused_before_the_work(tmp_path: Path) -> None:
    async with trading(tmp_path, meter={"page": lambda pdf: pdf.count("|") + 1}) as market:
        with pytest.raises(ServiceFailed) as failed:
            await market.buyer.call_service(market.listing_id, PDF, {"page": 1})

        assert failed.value.code is Code.CAPTURE_EXCEEDS_HOLD
        assert market.desk.runs == 0
        assert await available(market) == "1"


async def test_a_call_without_payment_is_told_what_to_pay_and_where(tmp_path: Path) -> None:
    async with trading(tmp_path) as market:
        endpoint = Endpoint(market.buyer.connection.http, f"{VENDOR_URL}/mcp", timeout_s=5)

        result = await endpoint.call_tool("extract_text", PDF)

        assert result.is_error
        required: Any = result.structured
        assert (required["x402Version"], required["error"]) == (2, "unauthenticated")
        assert required["resource"] == {"url": "mcp://tool/extract_text"}
        (accepts,) = required["accepts"]
        assert (accepts["scheme"], accepts["amount"], accepts["asset"]) == (
            "upto",
            "2000000",
            "USD",
        )
        assert accepts["payTo"] == market.vendor.vendor_id
        assert accepts["extra"]["scale"] == 9
        assert accepts["extra"]["listing_id"] == market.listing_id
        assert accepts["extra"]["amountIs"] == "minimum"
        assert required["extensions"][EXTENSION]["code"] == "unauthenticated"
        assert market.desk.runs == 0


async def test_the_arguments_that_were_held_for_are_the_only_ones_worked_on(
    tmp_path: Path,
) -> None:
    async with trading(tmp_path) as market:
        agreement = await market.buyer.accept(
            await market.buyer.quote(market.listing_id, {"page": 3})
        )
        key = "purchase-number-one"
        await market.buyer.hold(
            agreement.agreement_id, {"page": 3}, {"pdf": "x"}, key=f"{key}-hold"
        )

        with pytest.raises(Refused) as refused:
            await market.buyer.buy(agreement, PDF, {"page": 3}, key=key)

        assert (refused.value.code, refused.value.refusal.path) == (
            Code.IDEMPOTENCY_CONFLICT,
            "args_sha256",
        )
        assert market.desk.runs == 0


async def test_arguments_that_have_no_digest_are_refused_before_anything(tmp_path: Path) -> None:
    async with trading(tmp_path) as market:
        with pytest.raises(Refused) as refused:
            await market.buyer.call_service(
                market.listing_id, {"pdf": "x", "scale": 0.5}, {"page": 1}
            )

        assert (refused.value.code, refused.value.refusal.path) == (
            Code.INVALID_ARGUMENT,
            "arguments",
        )
        assert await available(market) == "1"


async def test_a_vendor_that_is_away_costs_nothing_but_time(tmp_path: Path) -> None:
    async with trading(tmp_path, open_shop=False) as market:
        with pytest.raises(ServiceLost) as lost:
            await buy(market)

        assert (await market.buyer.hold_status(lost.value.hold_id)).status == "open"
        assert await available(market) == "0.994"


async def test_work_done_while_the_platform_is_away_is_captured_after_a_restart(
    tmp_path: Path,
) -> None:
    async with trading(tmp_path) as market:
        market.desk.slow = True
        call = asyncio.create_task(buy(market, key="purchase-number-one"))
        await market.desk.started.wait()
        market.vendors_routes.platform_is_down = True
        market.desk.go.set()
        with pytest.raises(ServiceFailed) as failed:
            await call
        assert failed.value.code is Code.UNAVAILABLE
        await market.close_shop()
        market.vendors_routes.platform_is_down = False

        await market.open_shop()

        assert (await market.buyer.hold_status(failed.value.hold_id)).status == "captured"
        purchase = await buy(market, key="purchase-number-one")
        assert purchase.result == {"pages": ["one", "two"]}
        assert market.desk.runs == 1
        assert await available(market) == "0.996"


async def test_work_done_while_the_platform_is_away_is_captured_when_it_is_back(
    tmp_path: Path,
) -> None:
    async with trading(tmp_path) as market:
        market.desk.slow = True
        call = asyncio.create_task(buy(market))
        await market.desk.started.wait()
        market.vendors_routes.platform_is_down = True
        market.desk.go.set()
        with pytest.raises(ServiceFailed) as failed:
            await call
        market.vendors_routes.platform_is_down = False
        await market.vendors_routes.captured.wait()

        assert (await market.buyer.hold_status(failed.value.hold_id)).status == "captured"
        assert await available(market) == "0.996"


async def test_an_answer_to_a_capture_that_nobody_understands_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with trading(tmp_path) as market:
        capture, odd = Vendor.capture_signed, [Unverified("the answer of capture_hold: seq")] * 2

        async def answered(vendor: Vendor, *given: Any, **named: Any) -> Any:
            reply = await capture(vendor, *given, **named)
            if odd:
                raise odd.pop()
            return reply

        monkeypatch.setattr(Vendor, "capture_signed", answered)
        purchase = await buy(market)

        assert purchase.result == {"pages": ["one", "two"]}
        assert not odd
        assert market.desk.runs == 1
        assert await available(market) == "0.996"


@pytest.mark.parametrize("repeatable", [True, False])
async def test_interrupted_work_is_done_again_only_where_that_does_no_harm(
    tmp_path: Path, *, repeatable: bool
) -> None:
    listing: dict[str, Json] = {"idempotent": repeatable, "side_effects": True}
    async with trading(tmp_path, listing=listing, open_shop=False) as market:
        agreement = await market.buyer.accept(
            await market.buyer.quote(market.listing_id, {"page": 3})
        )
        held = await market.buyer.hold(
            agreement.agreement_id, {"page": 3}, PDF, key="purchase-number-one-hold"
        )
        spool = Spool(market.spool)
        spool.begin(
            held.answer.hold_id,
            arguments_sha256(PDF),
            agreement_id=agreement.agreement_id,
            payer=market.buyer.connection.principal,
            deadline_us=0,
            now_us=0,
        )
        spool.close()
        await market.open_shop()

        outcome = await asyncio.gather(
            market.buyer.buy(agreement, PDF, {"page": 3}, key="purchase-number-one"),
            return_exceptions=True,
        )

        assert isinstance(outcome[0], ServiceFailed) is not repeatable
        assert market.desk.runs == repeatable
        status = (await market.buyer.hold_status(held.answer.hold_id)).status
        assert status == ("captured" if repeatable else "released")


async def test_only_one_process_works_from_a_spool(tmp_path: Path) -> None:
    async with trading(tmp_path) as market:
        with pytest.raises(RuntimeError):
            Spool(market.spool)


async def test_a_dispute_is_answered_with_the_body_that_was_kept(tmp_path: Path) -> None:
    async with trading(tmp_path) as market:
        purchase = await buy(market)
        dispute = await market.buyer.dispute(purchase.charge.charge_id, "not_delivered")
        assert dispute.status == "needs_evidence"
        assert market.seller is not None

        ruling = await market.seller.answer_dispute(dispute.dispute_id)

        assert (ruling.status, ruling.outcome) == ("decided", "reject")


async def test_a_vendor_that_lies_about_its_result_is_found_out(tmp_path: Path) -> None:
    async with trading(tmp_path) as market:
        await buy(market, key="purchase-number-one")
        await market.close_shop()
        with closing(sqlite3.connect(market.spool)) as spool, spool:
            spool.execute("UPDATE work SET result = ?", (b'{"pages":["other"]}',))
        await market.open_shop()

        with pytest.raises(NotDelivered) as found:
            await buy(market, key="purchase-number-one")

        assert found.value.charge_id
        assert found.value.purchase is not None
        assert found.value.purchase.result == {"pages": ["other"]}


async def test_an_evidence_pack_of_a_purchase_verifies_offline(tmp_path: Path) -> None:
    async with trading(tmp_path) as market:
        purchase = await buy(market)
        pack = tmp_path / "charge.zip"
        await market.buyer.save_evidence(purchase.charge.charge_id, pack)
        keys = frozenset((await market.buyer.platform_keys()).journal)

    assert verify(pack.read_bytes(), keys).verified


async def test_sync_tools_and_tools_with_a_context_can_be_paid_for(tmp_path: Path) -> None:
    def register(mcp: MCPServer[Any], seller: Seller) -> None:
        @mcp.tool()
        @seller.paid(listing="pdf-text", meter={"page": 1})
        def extract_text(pdf: str, ctx: Context) -> PageTexts:
            assert ctx.request_id
            return PageTexts(pages=[pdf])

    async with trading(tmp_path, open_shop=False) as market:
        await market.open_shop(register)
        purchase = await buy(market)

        assert purchase.result == {"pages": ["one|two"]}
        assert purchase.charge.amount == usd("0.002")
