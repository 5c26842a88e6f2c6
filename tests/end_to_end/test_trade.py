"""One trade through a real door: what each side is told, and what asking alone leaves behind."""

import base64
from pathlib import Path
from typing import Any

import pytest

from farthing.clients.documents import result_bytes, result_sha256
from farthing.clients.vendors import Offer
from farthing.protocol.contracts import DeliveryRecord
from farthing.protocol.errors import Code, Refused
from farthing.protocol.messages.accounts import FUND_ACCOUNT, FundAccount
from farthing.protocol.messages.agreements import Agreement
from farthing.protocol.messages.authority import CHECK_AUTHORITY, CheckAuthority
from farthing.protocol.messages.holds import Charge, Hold
from farthing.protocol.messages.operations import OPERATIONS
from farthing.protocol.wire import Money, Role, money
from farthing.settlement.engine.questions import AllAccounts, FiguresNow, Lookup
from farthing.settlement.engine.things import Agreement as Bound
from farthing.settlement.engine.things import Hold as Placed
from tests.papers import card_document, listing_document, signing_key, terms_document
from tests.serving import Serving, Shop, serving

WORK = {"pages": ["One page.", "Another."]}


async def agreed(shop: Shop) -> Agreement:
    return await shop.buyer.accept(await shop.buyer.quote(shop.listing_id, {"page": 2}))


async def held(shop: Shop, agreement: Agreement) -> Hold:
    return (await shop.buyer.hold(agreement.agreement_id, {"page": 2}, {"pdf": "x"})).answer


async def captured(shop: Shop, hold: Hold, **changes: Any) -> Charge:
    market = shop.serving.service.market
    bound = await market.ask(Lookup(noun="agreement", id=hold.agreement_id))
    placed = await market.ask(Lookup(noun="hold", id=hold.hold_id))
    assert isinstance(bound, Bound)
    assert isinstance(placed, Placed)
    members: dict[str, Any] = {
        "hold_id": hold.hold_id,
        "agreement_id": bound.agreement_id,
        "vendor_id": bound.vendor_id,
        "listing_id": bound.listing_id,
        "args_sha256": placed.args_sha256,
        "result_sha256": result_sha256(WORK),
        "output_schema_sha256": bound.output_schema_sha256,
        "usage": {"page": 2},
        "delivered_at_us": shop.serving.clock(),
    }
    return (await shop.vendor.capture(DeliveryRecord(**{**members, **changes}))).answer


async def books(server: Serving) -> object:
    market = server.service.market
    accounts = (await market.ask(AllAccounts())).accounts
    return (await market.ask(FiguresNow())).seq, {name: repr(a) for name, a in accounts.items()}


async def test_quote_agreement_hold_and_charge_agree_and_need_no_human(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        quote = await shop.buyer.quote(shop.listing_id, {"page": 2})
        agreement = await shop.buyer.accept(quote)
        hold = await held(shop, agreement)
        charge = await captured(shop, hold)

        assert agreement.quote_sha256 == quote.document_sha256
        assert quote.total == hold.amount == charge.amount == Money(amount="0.004", asset="USD")
        assert charge.released == Money(amount="0", asset="USD")


async def test_a_charge_opens_down_to_its_lines_and_postings(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        charge = await captured(shop, await held(shop, await agreed(shop)))

        explained = await shop.buyer.explain(charge.charge_id)

        posted = [each for each in explained.postings if each["movement"] == "post"]
        traced = sum(int(str(line["units"])) for line in explained.trace)
        assert sum(int(str(each["units"])) for each in posted) == charge.amount.units == traced
        assert [line["rule_id"] for line in explained.trace] == ["page"]
        assert all(line["card_sha256"] == explained.rate_card_sha256 for line in explained.trace)


async def test_a_quote_under_an_agreement_is_in_its_asset_whatever_is_offered_since(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        agreement = await agreed(shop)
        card, terms = card_document(asset="JPY", version=2), terms_document()
        listing = listing_document(shop.vendor.vendor_id, card, terms)
        listing |= {"listing_id": shop.listing_id, "version": 2}
        await shop.vendor.publish(Offer(listing=listing, rate_card=card, terms=terms))

        quote = await shop.buyer.quote(
            shop.listing_id, {"page": 2}, agreement_id=agreement.agreement_id
        )
        hold = await held(shop, agreement)

        assert (quote.total, quote.allowed) == (hold.amount, True)


async def test_who_lost_a_reply_is_told_what_became_of_the_call(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server, per_call="0.005")
        agreement = await agreed(shop)
        done = await shop.buyer.hold(agreement.agreement_id, {"page": 2}, {}, key="d" * 16)
        with pytest.raises(Refused):
            await shop.buyer.hold(agreement.agreement_id, {"page": 9}, {}, key="r" * 16)

        outcomes = {
            key: await shop.buyer.outcome("place_hold", key * 16) for key in ("d", "r", "u")
        }
        foreign = await shop.vendor.connection.call(
            OPERATIONS["get_outcome"],
            OPERATIONS["get_outcome"].ask(operation="place_hold", key="d" * 16),
        )

        assert {key: each.outcome for key, each in outcomes.items()} == {
            "d": "done",
            "r": "refused",
            "u": "unknown",
        }
        assert outcomes["d"].answer is not None
        assert outcomes["d"].answer["hold_id"] == done.answer.hold_id
        assert outcomes["r"].refusal is not None
        assert outcomes["r"].refusal["code"] == Code.PER_CALL_LIMIT_EXCEEDED.value
        assert foreign.outcome == "unknown"


async def test_a_repeated_call_is_charged_once_and_told_so(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        agreement = await agreed(shop)
        first = await shop.buyer.hold(agreement.agreement_id, {"page": 2}, {}, key="k" * 16)
        before = await books(server)

        again = await shop.buyer.hold(agreement.agreement_id, {"page": 2}, {}, key="k" * 16)
        with pytest.raises(Refused) as other:
            await shop.buyer.hold(agreement.agreement_id, {"page": 3}, {}, key="k" * 16)

        assert (first.replayed, again.replayed) == (False, True)
        assert again.answer == first.answer
        assert (other.value.code, other.value.refusal.path) == (
            Code.IDEMPOTENCY_CONFLICT,
            "workload",
        )
        assert await books(server) == before


async def test_asking_whether_it_would_be_allowed_consumes_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server, balance="0.003", per_call="0.001", per_day="0.002")
        agreement = await agreed(shop)
        before = await books(server)
        ask = CheckAuthority(listing_id=shop.listing_id, amount=money(4_000_000, "USD"))

        checked = await shop.buyer.connection.call(CHECK_AUTHORITY, ask)
        quote = await shop.buyer.quote(shop.listing_id, {"page": 2})
        after = await books(server)
        with pytest.raises(Refused) as refused:
            await held(shop, agreement)

        assert not checked.allowed
        assert not quote.allowed
        assert checked.reasons == quote.reasons
        assert checked.reasons == tuple(code.value for code in refused.value.refusal.reasons)
        assert after == before


async def test_a_preview_of_a_dispute_files_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        charge = await captured(shop, await held(shop, await agreed(shop)))
        before = await books(server)

        owed = await shop.buyer.preview_dispute(charge.charge_id, "not_delivered")
        right = await shop.buyer.preview_dispute(charge.charge_id, "calculation_error")

        assert (owed.outcome, right.outcome) == ("needs_evidence", "reject")
        assert await books(server) == before


async def test_a_vendor_that_wins_with_the_work_has_handed_it_over(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        charge = await captured(shop, await held(shop, await agreed(shop)))
        dispute = await shop.buyer.dispute(charge.charge_id, "not_delivered")

        await shop.vendor.submit_evidence(dispute.dispute_id, result_bytes(WORK))
        told = await shop.buyer.dispute_status(dispute.dispute_id)
        own = await shop.vendor.dispute_status(dispute.dispute_id)

        assert (told.status, told.outcome) == ("decided", "reject")
        assert base64.b64decode(told.redelivery) == result_bytes(WORK)
        assert own.redelivery == ""


async def test_a_vendor_without_the_work_is_reversed_and_hands_nothing_over(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        charge = await captured(shop, await held(shop, await agreed(shop)), result_sha256="b" * 64)
        dispute = await shop.buyer.dispute(charge.charge_id, "not_delivered")

        await shop.vendor.submit_evidence(dispute.dispute_id, result_bytes(WORK))
        told = await shop.buyer.dispute_status(dispute.dispute_id)

        assert (told.status, told.outcome, told.credit) == ("decided", "credit", charge.amount)
        assert told.redelivery == ""


async def test_only_the_treasurer_credits_an_account(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        operator_id = shop.operator.connection.principal
        before = await books(server)
        ask = FundAccount(
            organisation_id=operator_id,
            amount=money(1, "USD"),
            reference="test",
            idempotency_key="k" * 16,
        )
        callers = (shop.operator, shop.buyer, shop.vendor, server.admin)

        for caller in callers:
            with pytest.raises(Refused) as refused:
                await caller.connection.call(FUND_ACCOUNT, ask)
            assert refused.value.code is Code.NOT_PERMITTED
        assert await books(server) == before


async def test_each_operation_answers_its_roles_alone(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        before = await books(server)
        strangers = {
            Role.BUYER: (shop.buyer.connection, Code.NOT_PERMITTED),
            Role.OPERATOR: (shop.operator.connection, Code.NOT_PERMITTED),
            Role.VENDOR: (shop.vendor.connection, Code.NOT_PERMITTED),
            Role.TREASURER: (server.staff(Role.TREASURER), Code.NOT_PERMITTED),
            Role.ADMIN: (server.staff(Role.ADMIN), Code.NOT_PERMITTED),
            Role.NEWCOMER: (server.connect(signing_key("Nobody")), Code.UNKNOWN_KEY),
            Role.ANYONE: (server.connect(), Code.UNAUTHENTICATED),
        }
        for operation in OPERATIONS.values():
            if operation.public:
                continue
            for role, (connection, code) in strangers.items():
                # A registered key may ask what became of its own registration.
                if role in operation.roles or (
                    Role.NEWCOMER in operation.roles and role is not Role.ANYONE
                ):
                    continue
                with pytest.raises(Refused) as refused:
                    await connection.send_raw(operation.name, {}, repeatable=False)
                assert refused.value.code is code, (operation.name, role)
        assert await books(server) == before
