"""A session at its vendor's: each call once, none beyond what is signed for, all reported."""

import asyncio
import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from farthing.clients.counter import Sold, Unpaid
from farthing.clients.deliveries import Undeliverable
from farthing.clients.documents import Offer, arguments_sha256, result_sha256
from farthing.clients.wares import Ware
from farthing.protocol.errors import Code, Refusal, refuse
from farthing.protocol.keys import PrivateKey
from farthing.protocol.times import SECOND_US
from farthing.protocol.x402 import PAYMENT, Presented, read_used
from tests.clients.settling import MAC_KEY, PAGE_UNITS, Shop, shop
from tests.papers import card_document
from tests.patience import patiently

PDF = {"pdf": "one|two"}
OTHER = {"pdf": "three"}
PLEASE = {"pdf": "one"}


def refused(outcome: Sold | Unpaid | Refusal) -> tuple[Code, str]:
    assert isinstance(outcome, Unpaid)
    return outcome.refusal.code, outcome.refusal.path.removeprefix(f"{PAYMENT}.payload.")


def failed(outcome: Sold | Unpaid | Refusal) -> Code:
    assert isinstance(outcome, Refusal)
    return outcome.code


def given(outcome: Sold | Unpaid | Refusal) -> Any:
    assert isinstance(outcome, Sold), outcome
    return orjson.loads(outcome.result)


def events(market: Shop) -> list[Any]:
    return [event for batch, *_ in market.settlement.sent for event in orjson.loads(batch)]


async def test_a_call_is_done_metered_priced_and_reported_under_a_signature(tmp_path: Path) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer()
        sold = await market.call(payer, PDF)
        await market.settled(1)

        assert given(sold) == {"pages": ["one", "two"]}
        assert isinstance(sold, Sold)
        said = read_used(sold.response)
        assert said is not None
        assert (said.seq, said.usage, said.amount_units) == (1, {"page": 2}, 2 * PAGE_UNITS)
        assert said.result_sha256 == result_sha256({"pages": ["one", "two"]})
        (event,) = events(market)
        assert (event["id"], event["data"]["usage"]) == ("1", {"page": "2"})
        assert market.settlement.billed == {(said.session_id, 1): 2 * PAGE_UNITS}


async def test_many_calls_of_one_session_run_at_once_and_share_their_commits(
    tmp_path: Path,
) -> None:
    async with shop(tmp_path) as market:
        market.desk.full_house, market.desk.go = 64, asyncio.Event()
        payer = market.payer()
        calls = [asyncio.create_task(market.call(payer, {"pdf": f"{n}"})) for n in range(64)]
        async with patiently():
            await market.desk.is_full.wait()
        assert market.desk.working == 64
        writes: list[None] = []
        write = market.file.file.write
        market.file.file.write = lambda steps: writes.append(write(steps))  # type: ignore[method-assign]
        market.desk.go.set()
        outcomes = await asyncio.gather(*calls)
        await market.settled(64)

        assert [given(each) for each in outcomes] == [{"pages": [f"{n}"]} for n in range(64)]
        assert payer.book.spent_units == sum(market.settlement.billed.values()) == 64 * PAGE_UNITS
        assert len(writes) < 16


async def test_a_call_that_is_asked_for_again_is_given_again_and_not_done_again(
    tmp_path: Path,
) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer()
        payment = payer.signed(payer.voucher(PDF))
        first = await market.sell(payment, PDF)
        again = await market.sell(payment, PDF)
        await market.counter.close()
        await market.open()
        after_a_restart = await market.sell(payment, PDF)
        market.clock.now_us += 700 * SECOND_US
        late = payer.signed(payer.book.again(1, arguments_sha256(PDF)))
        after_its_end = await market.sell(replace(late, entitlement=payment.entitlement), PDF)

        assert first == again == after_a_restart == after_its_end
        assert given(first) == {"pages": ["one", "two"]}
        assert market.desk.runs == 1
        assert market.settlement.billed == {(payer.book.session_id, 1): 2 * PAGE_UNITS}


@pytest.mark.parametrize("number", ["9" * 5000, "\u0663", "9" * 20])
async def test_a_payment_with_a_number_that_is_none_is_refused_after_the_end_too(
    tmp_path: Path, number: str
) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer()
        sent = replace(payer.maced(payer.voucher(PDF)), mac=f"{number}.1.x")
        market.clock.now_us += 700 * SECOND_US

        outcome = await market.sell(sent, PDF)

        assert refused(outcome) == (Code.SESSION_CLOSED, "entitlement")


async def test_a_number_is_for_one_call_alone(tmp_path: Path) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer()
        voucher = payer.voucher(PDF)
        market.desk.go = asyncio.Event()
        racing = [asyncio.create_task(market.sell(payer.signed(voucher), PDF)) for _ in range(5)]
        async with patiently():
            await market.desk.is_full.wait()
        other = replace(voucher, args_sha256=arguments_sha256(OTHER))
        in_flight = await market.sell(payer.signed(other), OTHER)
        market.desk.go.set()
        outcomes = await asyncio.gather(*racing)
        landed = await market.sell(payer.signed(other), OTHER)

        assert len({orjson.dumps(given(each)) for each in outcomes}) == 1
        assert refused(in_flight) == refused(landed) == (Code.PROOF_INVALID, "arguments")
        assert market.desk.runs == 1


@pytest.mark.parametrize(
    ("changed", "path"),
    [
        ({"platform_key": PrivateKey.from_seed(b"f" * 32)}, "entitlement"),
        ({"signer": PrivateKey.from_seed(b"f" * 32)}, "voucher"),
    ],
)
async def test_a_forged_key_buys_nothing(
    tmp_path: Path, changed: dict[str, Any], path: str
) -> None:
    async with shop(tmp_path) as market:
        payer = replace(market.payer(), **changed)

        outcome = await market.sell(payer.signed(payer.voucher(PDF)), PDF)

        assert refused(outcome) == (Code.PROOF_INVALID, path)
        assert market.desk.runs == 0


@pytest.mark.parametrize(
    ("claims", "path"),
    [
        ({"issuer": "https://other.example"}, "entitlement"),
        ({"vendor_id": "org_06e2p0z4wnh0m4y6hxwkq4g9tr"}, "entitlement"),
        ({"listing_id": "lst_06e2p0z4wnh0m4y6hxwkq4g9tr"}, "entitlement.listing_id"),
        ({"session_id": "ses_06e2p0z4wnh0m4y6hxwkq4g9tr"}, "voucher"),
        ({"agreement_id": "agr_06e2p0z4wnh0m4y6hxwkq4g9tr"}, "voucher"),
    ],
)
async def test_what_was_set_aside_for_something_else_buys_nothing(
    tmp_path: Path, claims: dict[str, Any], path: str
) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer()
        payer.entitlement = replace(payer.entitlement, **claims)

        outcome = await market.sell(payer.signed(payer.voucher(PDF)), PDF)

        assert refused(outcome) == (Code.PROOF_INVALID, path)
        assert market.desk.runs == 0


async def test_a_session_pays_for_its_own_listing_alone_and_for_the_arguments_signed(
    tmp_path: Path,
) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer()
        other = Offer.bind(
            {**market.offer.listing, "listing_id": "lst_06e2p0z4wnh0m4y6hxwkq4g9tr"},
            market.offer.rate_card,
            market.offer.terms,
        )
        elsewhere = Ware(other, {"page": 1}, inspect.signature(market.desk.read))
        assert given(await market.call(payer, PDF))
        payment = payer.signed(payer.voucher(PDF))

        resource = await market.sell(payment, PDF, elsewhere)
        arguments = await market.sell(payment, OTHER)

        assert refused(resource) == (Code.PROOF_INVALID, "entitlement.listing_id")
        assert refused(arguments) == (Code.PROOF_INVALID, "voucher")
        assert market.desk.runs == 1


async def test_nothing_runs_beyond_what_is_signed_for_or_set_aside(tmp_path: Path) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer(cap=3, per_call=2)
        assert given(await market.call(payer, PDF))
        voucher = replace(payer.book.again(1, arguments_sha256(PDF)), seq=2)
        overdraft = replace(voucher, max_cum_units=4 * PAGE_UNITS)

        stale = await market.sell(payer.signed(voucher), PDF)
        over = await market.sell(payer.signed(overdraft), PDF)

        assert refused(stale) == (Code.PROOF_INVALID, "voucher.max_cum_units")
        assert refused(over) == (Code.PROOF_INVALID, "voucher")
        assert market.desk.runs == 1


async def test_calls_at_once_cannot_share_one_signed_sum(tmp_path: Path) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer(cap=2, per_call=2)
        market.desk.go = asyncio.Event()
        first = payer.voucher(PDF)
        second = replace(first, seq=2)
        calls = [asyncio.create_task(market.sell(payer.signed(first), PDF))]
        async with patiently():
            await market.desk.is_full.wait()

        raced = await market.sell(payer.signed(second), PDF)
        market.desk.go.set()
        await asyncio.gather(*calls)

        assert refused(raced) == (Code.PROOF_INVALID, "voucher.max_cum_units")
        assert market.desk.runs == 1


async def test_after_a_top_up_there_is_room_again(tmp_path: Path) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer(cap=2, per_call=2)
        assert given(await market.call(payer, PDF))
        payer.book.cap_units = 4 * PAGE_UNITS
        payer.entitlement = replace(payer.entitlement, cap_units=4 * PAGE_UNITS)

        assert given(await market.call(payer, PDF))
        await market.settled(2)
        assert sum(market.settlement.billed.values()) == 4 * PAGE_UNITS


async def test_a_call_that_costs_more_than_one_may_is_not_given_and_not_billed(
    tmp_path: Path,
) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer(per_call=2)
        payment = payer.signed(payer.voucher({"pdf": "a|b|c"}))

        outcome = await market.sell(payment, {"pdf": "a|b|c"})
        again = await market.sell(payment, {"pdf": "a|b|c"})
        payer.book.failed(1)
        assert given(await market.call(payer, PDF))
        await market.settled(1)

        assert failed(outcome) is failed(again) is Code.CAPTURE_EXCEEDS_HOLD
        assert market.desk.runs == 2
        assert [each["data"]["outcome"] for each in events(market)] == ["failed_buyer", "succeeded"]


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (Undeliverable(refuse(Code.VENDOR_FAILED)), "failed_vendor"),
        (Undeliverable(refuse(Code.INVALID_ARGUMENT)), "failed_buyer"),
        (TimeoutError(), "timed_out"),
    ],
)
async def test_a_call_that_fails_is_counted_and_not_billed(
    tmp_path: Path, fault: Exception, outcome: str
) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer()
        market.desk.fail = fault
        payment = payer.signed(payer.voucher(PDF))
        first = await market.sell(payment, PDF)
        market.desk.fail = None
        again = await market.sell(payment, PDF)
        payer.book.failed(1)
        assert given(await market.call(payer, PDF))
        await market.settled(1)

        assert isinstance(first, Refusal)
        assert first == again
        assert [each["data"]["outcome"] for each in events(market)] == [outcome, "succeeded"]
        assert "result_sha256" not in events(market)[0]["data"]
        assert market.settlement.billed == {(payer.book.session_id, 2): 2 * PAGE_UNITS}


async def test_a_tool_that_crashes_is_heard_of_and_its_call_has_ended(tmp_path: Path) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer()
        market.desk.fail = RuntimeError("the inside of the vendor")
        payment = payer.signed(payer.voucher(PDF))

        with pytest.raises(RuntimeError):
            await market.sell(payment, PDF)
        again = await market.sell(payment, PDF)

        assert failed(again) is Code.VENDOR_FAILED
        assert market.desk.runs == 1


async def test_macs_run_as_far_as_was_agreed_and_are_reported_once_they_are_signed_for(
    tmp_path: Path,
) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer(per_call=1, unsigned=2)
        unknown = await market.sell(payer.maced(payer.voucher(PLEASE)), PLEASE)
        payer.book.failed(1)
        signed = await market.sell(payer.signed(payer.voucher(PLEASE), mac_key=MAC_KEY), PLEASE)
        assert isinstance(signed, Sold)
        payer.answered(signed)
        for _ in range(2):
            sold = await market.sell(payer.maced(payer.voucher(PLEASE)), PLEASE)
            assert isinstance(sold, Sold)
            payer.answered(sold)
        beyond = payer.voucher(PLEASE)
        too_far = await market.sell(payer.maced(beyond), PLEASE)
        forged = await market.sell(payer.maced(beyond, b"f" * 32), PLEASE)
        await market.settled(1)
        before = dict(market.settlement.billed)
        again = await market.sell(
            payer.signed(payer.book.again(4, arguments_sha256(PLEASE))), PLEASE
        )
        await market.settled(3)

        assert refused(unknown) == (Code.PROOF_INVALID, "mac")
        assert refused(forged) == (Code.PROOF_INVALID, "mac")
        assert refused(too_far) == (Code.PROOF_INVALID, "mac.signature")
        assert [seq for _, seq in before] == [2]
        assert given(again) == {"pages": ["one"]}
        assert [seq for _, seq in market.settlement.billed] == [2, 3, 4]
        assert market.desk.runs == 3


async def test_a_vendor_trusts_macs_no_further_than_it_wants_to(tmp_path: Path) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer(per_call=1, unsigned=1000)
        first = payer.signed(payer.voucher(PLEASE), mac_key=MAC_KEY)
        assert isinstance(await market.sell(first, PLEASE), Sold)
        outcome: Sold | Unpaid | Refusal = await market.sell(
            payer.maced(payer.voucher(PLEASE)), PLEASE
        )
        while isinstance(outcome, Sold) and market.desk.runs < 100:
            outcome = await market.sell(payer.maced(payer.voucher(PLEASE)), PLEASE)

        assert refused(outcome) == (Code.PROOF_INVALID, "mac.signature")
        assert market.desk.runs == 1 + 64


async def test_a_call_that_is_never_signed_for_holds_back_no_call_that_is(tmp_path: Path) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer(per_call=1, unsigned=1)
        voucher = payer.voucher(PLEASE)

        def numbered(seq: int, pages: int) -> Presented:
            covering = replace(voucher, seq=seq, max_cum_units=pages * PAGE_UNITS)
            return payer.signed(covering, mac_key=MAC_KEY)

        far = replace(voucher, seq=900, max_cum_units=2 * PAGE_UNITS)
        sent = [numbered(1, 1), payer.maced(far), numbered(2, 3), numbered(3, 4)]
        assert {type(await market.sell(each, PLEASE)) for each in sent} == {Sold}
        await market.settled(3)
        billed = [seq for _, seq in market.settlement.billed]
        await market.crash()
        await market.open()
        assert isinstance(await market.sell(numbered(901, 5), PLEASE), Sold)
        await market.settled(5)

        assert billed == [1, 2, 3]
        assert [seq for _, seq in market.settlement.billed] == [1, 2, 3, 900, 901]


async def test_a_mac_key_is_the_one_that_the_voucher_names(tmp_path: Path) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer(unsigned=2)
        voucher = replace(payer.voucher(PDF), mac_sha256="0" * 64)
        presented = payer.signed(voucher, mac_key=MAC_KEY)

        outcome = await market.sell(presented, PDF)

        assert refused(outcome) == (Code.PROOF_INVALID, "mac_key")
        assert market.desk.runs == 0


async def test_work_that_was_cut_off_is_done_again_only_where_that_does_no_harm(
    tmp_path: Path,
) -> None:
    for number, repeatable in enumerate((True, False)):
        listing: Any = {"idempotent": repeatable, "side_effects": True}
        async with shop(tmp_path / str(number), listing=listing) as market:
            payer = market.payer()
            market.desk.go = asyncio.Event()
            payment = payer.signed(payer.voucher(PDF))
            cut_off = asyncio.create_task(market.sell(payment, PDF))
            async with patiently():
                await market.desk.is_full.wait()
            await market.crash()
            assert cut_off.cancelled()
            market.desk.go.set()
            await market.open()

            outcome = await market.sell(payment, PDF)

            assert isinstance(outcome, Sold) is repeatable
            assert market.desk.runs == 1 + repeatable


async def test_a_session_that_is_over_buys_nothing_more(tmp_path: Path) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer()
        assert given(await market.call(payer, PDF))
        token = payer.token()
        market.clock.now_us += 600 * SECOND_US
        late = replace(payer.signed(payer.voucher(PDF)), entitlement=token)

        outcome = await market.sell(late, PDF)

        assert refused(outcome)[0] is Code.SESSION_CLOSED
        assert market.desk.runs == 1


async def test_more_calls_than_the_listing_allows_are_asked_to_wait(tmp_path: Path) -> None:
    limits: Any = {"limits": {"input_bytes_max": 1000, "concurrency_max": 1}}
    async with shop(tmp_path, listing=limits) as market:
        payer = market.payer()
        market.desk.go = asyncio.Event()
        call = asyncio.create_task(market.call(payer, PDF))
        async with patiently():
            await market.desk.is_full.wait()

        payment = payer.signed(payer.voucher(OTHER))
        waits = await market.sell(payment, OTHER)
        market.desk.go.set()
        await call
        later = await market.sell(payment, OTHER)

        assert refused(waits)[0] is Code.OVERLOADED
        assert given(later) == {"pages": ["three"]}


async def test_an_older_card_prices_what_was_agreed_under_it(tmp_path: Path) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer()
        newer = Offer.bind(
            {**market.offer.listing, "version": 2},
            card_document(tiers=({"amount": "0.003", "per_quantity": "1"},), version=2),
            market.offer.terms,
        )
        market.settlement.published = dict(market.offer.rate_card)
        meter = {"page": lambda result: len(result["pages"])}
        ware = Ware(newer, meter, inspect.signature(market.desk.read))
        ware.output_shapes[payer.entitlement.agreement_id] = ware.shape
        sold = await market.sell(payer.signed(payer.voucher(PDF)), PDF, ware)

        assert isinstance(sold, Sold)
        assert payer.answered(sold).amount_units == 2 * PAGE_UNITS
