"""A spend session from its buyer's side, against the law alone: a vendor's desk and no platform."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from farthing.clients.callbooks import SessionInUse, Stage
from farthing.clients.documents import arguments_sha256, result_sha256
from farthing.clients.services import VendorCaller
from farthing.clients.session_answers import AnswerFault, CallFailed, CallLost, WrongAnswer
from farthing.clients.sessions import SpendSession
from farthing.clients.spenders import Spender
from farthing.clients.tools import ToolResult
from farthing.clients.transport import Connection
from farthing.protocol import base64url
from farthing.protocol.canonical import Json, sha256_hex
from farthing.protocol.errors import (
    Code,
    NextAction,
    Refusal,
    Refused,
    Unreachable,
    Unverified,
    refuse,
)
from farthing.protocol.ids import derive_id
from farthing.protocol.keys import PrivateKey
from farthing.protocol.listing import Listing, parse_listing
from farthing.protocol.messages.agreements import Agreement
from farthing.protocol.messages.sessions import (
    CLOSE_SESSION,
    GET_SESSION,
    OPEN_SESSION,
    TOP_UP_SESSION,
    Session,
)
from farthing.protocol.proofs import (
    Entitlement,
    Voucher,
    check_entitlement,
    check_voucher,
    entitlement_jwt,
    voucher_jwt,
)
from farthing.protocol.rating import RateCard, parse_card
from farthing.protocol.rating.running import Running
from farthing.protocol.times import SECOND_US, format_time
from farthing.protocol.vouchers import VoucherDesk, ack_after, check_mac
from farthing.protocol.wire import Money, money
from farthing.protocol.x402 import PAYMENT_RESPONSE, Presented, Used, used
from tests.papers import GRADUATED, card_document, listing_document, terms_document

PLATFORM = "https://market.example"
PLATFORM_KEY = PrivateKey.from_seed(bytes(range(32)))
PAYER = PrivateKey.from_seed(bytes(32))
VENDOR_ID = derive_id("org", "vendor")
AGREEMENT_ID = derive_id("agr", "one")
FLAT: tuple[dict[str, Json], ...] = ({"amount": "0.002", "per_quantity": "1"},)
PAGE_UNITS = 2_000_000


def usd(amount: str) -> Money:
    return Money(amount=amount, asset="USD")


@dataclass
class Clock:
    now_us: int = 1_795_176_000 * SECOND_US

    def __call__(self) -> int:
        return self.now_us


@dataclass
class Platform:
    """Keeps one session, as the platform's answers show it; stands where a connection does."""

    clock: Clock
    session: Session | None = None
    listing_id: str = ""
    asked: list[str] = field(default_factory=list)

    def new_key(self) -> str:
        return f"key-number-{len(self.asked)}"

    def entropy(self, count: int) -> bytes:
        return bytes(count)

    async def call(self, operation: Any, ask: Any) -> Session:
        self.asked.append(operation.name)
        match operation:
            case _ if operation is OPEN_SESSION:
                if self.session is None:
                    self.session = self.opened(ask)
                return self.session
            case _ if operation is TOP_UP_SESSION:
                cap = self.now.cap.units + ask.amount.units
                self.session = self.entitled(
                    replace(self.now, cap=money(cap, "USD"), remaining=money(cap, "USD"))
                )
            case _ if operation is CLOSE_SESSION:
                self.session = replace(self.now, status="closing", entitlement="")
            case _:
                assert operation is GET_SESSION
        return self.now

    @property
    def now(self) -> Session:
        assert self.session is not None
        return self.session

    def opened(self, ask: Any) -> Session:
        expires_us = self.clock() + ask.expires_in_s * SECOND_US
        return self.entitled(
            Session(
                session_id=derive_id("ses", ask.idempotency_key),
                agreement_id=ask.agreement_id,
                status="open",
                cap=ask.cap,
                per_call=ask.per_call,
                spent=usd("0"),
                remaining=ask.cap,
                calls=0,
                rejected=0,
                top_seq=0,
                voucher_seq=0,
                max_cum=usd("0"),
                low_water=ask.low_water,
                final_action=ask.final_action,
                unsigned=ask.unsigned,
                opened_at=format_time(self.clock()),
                expires_at=format_time(expires_us),
                closes_at="",
                rate_card_sha256="c" * 64,
            )
        )

    def entitled(self, session: Session) -> Session:
        entitlement = Entitlement(
            session_id=session.session_id,  # type: ignore[arg-type]
            agreement_id=session.agreement_id,  # type: ignore[arg-type]
            listing_id=self.listing_id,  # type: ignore[arg-type]
            vendor_id=VENDOR_ID,  # type: ignore[arg-type]
            buyer_id=derive_id("agt", "one"),  # type: ignore[arg-type]
            payer_jwk=PAYER.public.jwk(),
            cap_units=session.cap.units,
            asset="USD",
            card_sha256="c" * 64,
            expires_at_us=self.clock() + 3600 * SECOND_US,
            issuer=PLATFORM,
            per_call_units=session.per_call.units,
            unsigned_units=session.unsigned.units if session.unsigned else 0,
        )
        return replace(
            session, entitlement=entitlement_jwt(PLATFORM_KEY, entitlement, self.clock())
        )


@dataclass
class Vendor:
    """A vendor that takes what the law takes; a test makes it lie, fail or go away."""

    clock: Clock
    running: Running
    desk: VoucherDesk | None = None
    kept: dict[int, tuple[str, ToolResult]] = field(default_factory=dict)
    vouchers: list[Voucher] = field(default_factory=list)
    macs: int = 0
    runs: int = 0
    key: bytes = b""
    lose_answers: int = 0
    refusal: Refusal | None = None
    lie: Mapping[str, Any] = field(default_factory=dict)
    result: Any = None
    hold_back: asyncio.Event | None = None
    full_house: int = 1
    working: asyncio.Event = field(default_factory=asyncio.Event)

    def sign(self, voucher: Voucher) -> str:
        return voucher_jwt(
            PAYER, voucher, now_us=self.clock(), jti=f"j{len(self.vouchers)}", lifetime_s=300
        )

    async def exchange(
        self,
        listing: Listing,
        agreement: Agreement,
        amount_units: int,
        arguments: Mapping[str, object],
        present: Callable[[], Presented],
    ) -> ToolResult:
        del listing, agreement, amount_units
        presented, args_sha256 = present(), arguments_sha256(arguments)
        entitlement = check_entitlement(
            presented.entitlement,
            key_of={PLATFORM_KEY.thumbprint: PLATFORM_KEY.public}.get,
            vendor_id=VENDOR_ID,
            now_us=self.clock(),
        )
        voucher = self.voucher(presented, entitlement, args_sha256)
        desk = self.desk = self.desk or VoucherDesk(
            cap_units=entitlement.cap_units,
            per_call_units=entitlement.per_call_units,
            unsigned_units=entitlement.unsigned_units,
        )
        desk.cap_units = entitlement.cap_units
        if len(self.vouchers) >= self.full_house:
            self.working.set()
        if self.hold_back is not None:
            await self.hold_back.wait()
        if voucher.seq in self.kept:
            if presented.voucher:
                desk.note(voucher)
            kept_sha256, result = self.kept[voucher.seq]
            assert kept_sha256 == args_sha256
            return self.answered(result)
        if refusal := desk.admit(voucher, signed=bool(presented.voucher)):
            raise Refused(refusal)
        await asyncio.sleep(0)
        if self.refusal is not None:
            desk.drop(voucher.seq)
            raise Refused(self.refusal)
        self.runs += 1
        result = self.worked(voucher, str(arguments["pdf"]).split("|"))
        self.kept[voucher.seq] = args_sha256, result
        return self.answered(result)

    def voucher(self, presented: Presented, entitlement: Entitlement, args_sha256: str) -> Voucher:
        if presented.mac:
            if not self.key:
                raise Refused(refuse(Code.PROOF_INVALID, path="mac"))
            self.macs += 1
            return check_mac(
                presented.mac,
                key=self.key,
                entitlement=entitlement,
                args_sha256=args_sha256,
                now_us=self.clock(),
            )
        voucher = check_voucher(
            presented.voucher,
            entitlement=entitlement,
            args_sha256=args_sha256,
            now_us=self.clock(),
        )
        self.vouchers.append(voucher)
        if presented.mac_key:
            self.key = base64url.decode(presented.mac_key)
            assert sha256_hex(self.key) == voucher.mac_sha256
        return voucher

    def worked(self, voucher: Voucher, pages: list[str]) -> ToolResult:
        assert self.desk is not None
        usage = {"page": len(pages)}
        units = self.running.price(usage)
        self.running.take()
        self.desk.settle(voucher.seq, units)
        result = self.result or {"pages": pages}
        call = Used(
            session_id=str(voucher.session_id),
            seq=voucher.seq,
            usage=usage,
            amount_units=units,
            spent_units=self.desk.spent_units,
            result_sha256=result_sha256(result),
        )
        said = used(replace(call, **self.lie), payer=PAYER.thumbprint, platform=PLATFORM)
        return ToolResult(
            structured=result, text="", is_error=False, meta={PAYMENT_RESPONSE: cast("Any", said)}
        )

    def answered(self, result: ToolResult) -> ToolResult:
        if self.lose_answers:
            self.lose_answers -= 1
            raise Unreachable("the answer is lost")
        return result


class Buyer(Spender):
    def __init__(self, folder: Path, tiers: tuple[dict[str, Json], ...]) -> None:
        self.clock = Clock()
        card = card_document(tiers)
        listing = listing_document(VENDOR_ID, card, terms_document())
        self._listing = parse_listing(listing)
        self._card = parse_card(card)
        self.platform = Platform(self.clock, listing_id=self._listing.listing_id)
        self.vendor = Vendor(self.clock, Running(self._card, {}))
        self.connection = cast("Connection", self.platform)
        self.vendor_caller = cast("VendorCaller", self.vendor)
        self.folder = folder

    @property
    def books(self) -> Path:
        return self.folder / "sessions"

    async def agreement(self, agreement_id: str) -> Agreement:
        return Agreement(
            agreement_id=agreement_id,
            status="in_force",
            buyer_id="",
            operator_id="",
            vendor_id=VENDOR_ID,
            listing_id=self._listing.listing_id,
            listing_version=1,
            listing_sha256="1" * 64,
            rate_card_sha256="c" * 64,
            terms_sha256="3" * 64,
            asset="USD",
            accepted_at="",
            quote_sha256="",
            acceptance_sha256="",
        )

    async def listing(self, sha256: str) -> Listing:
        del sha256
        return self._listing

    async def card(self, sha256: str) -> RateCard:
        del sha256
        return self._card

    async def opened(self, **more: Any) -> SpendSession:
        terms: dict[str, Any] = {"cap": usd("0.1"), "per_call": usd("0.01"), **more}
        return await self.open_session(AGREEMENT_ID, key="the-one-session-key", **terms)


@pytest.fixture
def buyer(tmp_path: Path) -> Buyer:
    return Buyer(tmp_path, FLAT)


def pdf(pages: int) -> dict[str, object]:
    return {"pdf": "|" * (pages - 1)}


async def test_many_calls_run_at_once_and_each_costs_what_the_card_gives(buyer: Buyer) -> None:
    async with buyer.session(AGREEMENT_ID, cap=usd("0.64"), per_call=usd("0.01")) as session:
        buyer.vendor.hold_back = asyncio.Event()
        calls = [asyncio.create_task(session.call(pdf(1 + n % 3))) for n in range(64)]
        buyer.vendor.full_house = 64
        await buyer.vendor.working.wait()
        buyer.vendor.hold_back.set()
        answers = await asyncio.gather(*calls)

    assert [each.amount.units for each in answers] == [(1 + n % 3) * PAGE_UNITS for n in range(64)]
    assert sorted(each.seq for each in answers) == list(range(1, 65))
    assert max(each.spent.units for each in answers) == sum(each.amount.units for each in answers)
    assert buyer.platform.asked == ["open_session", "close_session"]


async def test_what_cannot_be_covered_waits_for_what_may_leave_room(buyer: Buyer) -> None:
    async with buyer.session(AGREEMENT_ID, cap=usd("0.03"), per_call=usd("0.01")) as session:
        await asyncio.gather(*(session.call(pdf(1)) for _ in range(10)))

        assert session.left.spent == usd("0.02")


@pytest.mark.parametrize(
    ("final_action", "way_on"),
    [
        ("refuse", NextAction.REDUCE),
        ("top_up", NextAction.TOP_UP),
        ("request_approval", NextAction.REQUEST_APPROVAL),
    ],
)
async def test_a_cap_that_is_reached_says_what_its_opener_wanted_then(
    buyer: Buyer, final_action: Any, way_on: NextAction
) -> None:
    session = await buyer.opened(
        cap=usd("0.012"), per_call=usd("0.006"), low_water=usd("0.006"), final_action=final_action
    )
    assert not session.left.low
    await session.call(pdf(3))
    assert session.left.low
    assert session.left.final_action == final_action
    await session.call(pdf(2))

    with pytest.raises(Refused) as caught:
        await session.call(pdf(1))

    assert caught.value.code is Code.LOCAL_LIMIT_EXCEEDED
    assert caught.value.refusal.next_action is way_on
    assert buyer.vendor.runs == 2
    await session.aclose()


async def test_after_a_top_up_calls_go_on_with_the_new_entitlement(buyer: Buyer) -> None:
    session = await buyer.opened(cap=usd("0.006"), per_call=usd("0.006"))
    await session.call(pdf(3))
    with pytest.raises(Refused):
        await session.call(pdf(3))

    await session.top_up(usd("0.006"))
    answer = await session.call(pdf(3))

    assert answer.spent == usd("0.012")
    assert buyer.vendor.vouchers[-1].max_cum_units == 12_000_000
    await session.aclose()


async def test_an_answer_that_was_lost_is_asked_for_again_and_done_once(buyer: Buyer) -> None:
    session = await buyer.opened()
    await session.call(pdf(1))
    buyer.vendor.lose_answers = 1
    with pytest.raises(CallLost) as lost:
        await session.call(pdf(2))
    assert session.left.reserved == usd("0.01")
    other = await session.call(pdf(3))

    with pytest.raises(Refused) as caught:
        await session.call(pdf(3), again=lost.value.seq)
    answer = await session.call(pdf(2), again=lost.value.seq)
    once_more = await session.call(pdf(2), again=lost.value.seq)

    assert caught.value.refusal.path == "arguments"
    assert (lost.value.seq, other.seq, answer.seq) == (2, 3, 2)
    assert answer == replace(once_more, spent=answer.spent)
    assert buyer.vendor.runs == 3
    assert session.left.spent == usd("0.012")
    assert session.left.reserved == usd("0")
    await session.aclose()


async def test_a_restart_goes_on_and_never_gives_a_number_twice(buyer: Buyer) -> None:
    session = await buyer.opened()
    await session.call(pdf(1))
    buyer.vendor.lose_answers = 1
    with pytest.raises(CallLost):
        await session.call(pdf(2))
    # As a process that is killed: nothing is closed but the file's lock.
    session._file.close()  # noqa: SLF001 - nobody else lets go of it without writing

    resumed = await buyer.resume_session(session.session_id)
    cut_off = await resumed.calls(Stage.ASKED)
    again = await resumed.call(pdf(2), again=cut_off[0].seq)
    new = await resumed.call(pdf(3))

    assert [each.seq for each in cut_off] == [2]
    assert (again.seq, new.seq) == (2, 3)
    assert new.spent == usd("0.012")
    await resumed.aclose()


async def test_the_same_key_opens_the_same_session_with_its_book(buyer: Buyer) -> None:
    session = await buyer.opened()
    await session.call(pdf(1))
    with pytest.raises(SessionInUse):
        await buyer.opened()
    await session.aclose()

    again = await buyer.opened()

    assert (await again.call(pdf(1))).seq == 2
    await again.aclose()


async def test_calls_of_which_there_is_no_book_here_are_not_gone_on_with(
    buyer: Buyer, tmp_path: Path
) -> None:
    session = await buyer.opened()
    await session.aclose()
    buyer.platform.session = replace(buyer.platform.now, top_seq=7, voucher_seq=7)
    buyer.folder = tmp_path / "elsewhere"

    with pytest.raises(Unverified, match="not from here"):
        await buyer.resume_session(session.session_id)


async def test_the_acknowledgements_are_the_chain_of_the_last_voucher(buyer: Buyer) -> None:
    session = await buyer.opened()
    await asyncio.gather(*(session.call(pdf(1 + n)) for n in range(3)))
    answered = sorted(await session.calls(Stage.ANSWERED), key=lambda each: each.place)
    await session.call(pdf(1))

    ack = ""
    for each in answered:
        ack = ack_after(ack, each.seq, each.units, each.result_sha256)

    assert [each.place for each in answered] == [1, 2, 3]
    assert buyer.vendor.vouchers[-1].ack == ack
    await session.aclose()


async def test_a_vendor_that_fails_is_not_paid_and_leaves_the_money_free(buyer: Buyer) -> None:
    session = await buyer.opened()
    buyer.vendor.refusal = refuse(Code.VENDOR_FAILED)
    with pytest.raises(CallFailed) as failed:
        await session.call(pdf(1))
    buyer.vendor.refusal = None

    with pytest.raises(Refused) as caught:
        await session.call(pdf(1), again=failed.value.seq)
    answer = await session.call(pdf(1))

    assert failed.value.code is Code.VENDOR_FAILED
    assert caught.value.refusal.path == "again"
    assert (answer.seq, answer.spent) == (2, usd("0.002"))
    await session.aclose()


@pytest.mark.parametrize(
    ("lie", "fault", "spent"),
    [
        ({"amount_units": PAGE_UNITS + 1}, AnswerFault.AMOUNT, "0.002"),
        ({"amount_units": 0}, AnswerFault.AMOUNT, "0.002"),
        ({"amount_units": 20_000_000, "usage": {"page": 10}}, AnswerFault.AMOUNT, "0"),
        ({"usage": {"word": 1}}, AnswerFault.USAGE, "0"),
        ({"result_sha256": "f" * 64}, AnswerFault.DIGEST, "0"),
        ({"seq": 9}, AnswerFault.NOT_STATED, "0"),
        ({"session_id": "ses_x"}, AnswerFault.NOT_STATED, "0"),
    ],
)
async def test_what_does_not_hold_is_an_error_and_is_kept(
    buyer: Buyer, lie: dict[str, Any], fault: AnswerFault, spent: str
) -> None:
    session = await buyer.opened()
    buyer.vendor.lie = lie

    with pytest.raises(WrongAnswer) as wrong:
        await session.call(pdf(1))

    assert wrong.value.fault is fault
    (kept,) = await session.calls()
    assert (kept.seq, kept.fault) == (1, fault.value)
    assert session.left.spent == usd(spent)
    # What may still be billed stays reserved.
    assert session.left.reserved == usd("0" if spent != "0" else "0.01")
    await session.aclose()


async def test_a_wrong_amount_comes_with_what_was_delivered(buyer: Buyer) -> None:
    session = await buyer.opened()
    buyer.vendor.lie = {"amount_units": PAGE_UNITS + 1}

    with pytest.raises(WrongAnswer, match=r"0\.002000001 USD, the card gives 0\.002") as wrong:
        await session.call(pdf(1))

    assert wrong.value.answer is not None
    assert wrong.value.answer.result == {"pages": [""]}
    (kept,) = await session.calls(Stage.ANSWERED)
    assert (kept.units, kept.said_units) == (PAGE_UNITS, PAGE_UNITS + 1)
    await session.aclose()


async def test_a_result_that_is_not_as_sold_is_not_acknowledged(buyer: Buyer) -> None:
    session = await buyer.opened()
    buyer.vendor.result = {"pages": 3}

    with pytest.raises(WrongAnswer) as wrong:
        await session.call(pdf(1))

    assert wrong.value.fault is AnswerFault.SCHEMA
    buyer.vendor.result = None
    await session.call(pdf(1))
    assert buyer.vendor.vouchers[-1].ack == ""
    await session.aclose()


async def test_tiers_are_crossed_in_the_vendor_s_order_and_the_sum_is_judged(
    tmp_path: Path,
) -> None:
    buyer = Buyer(tmp_path, GRADUATED)
    session = await buyer.opened(cap=usd("1"), per_call=usd("0.04"))
    # The vendor works the first call off last: the amounts are those of its own order.
    buyer.vendor.hold_back = asyncio.Event()
    first = asyncio.create_task(session.call(pdf(8)))
    await buyer.vendor.working.wait()
    held, buyer.vendor.hold_back = buyer.vendor.hold_back, None
    second = await session.call(pdf(8))
    held.set()
    first_answer = await first

    assert second.amount.units + first_answer.amount.units == 29_000_000
    assert await session.calls() == await session.calls(Stage.ANSWERED)
    assert not any(each.fault for each in await session.calls())

    buyer.vendor.lie = {"amount_units": 1}
    with pytest.raises(WrongAnswer) as wrong:
        await session.call(pdf(1))
    assert wrong.value.fault is AnswerFault.AMOUNT
    await session.aclose()


async def test_arguments_that_do_not_fit_take_no_number(buyer: Buyer) -> None:
    session = await buyer.opened()
    with pytest.raises(Refused) as caught:
        await session.call({"pdf": 7})

    assert caught.value.refusal.path == "arguments.pdf"
    assert await session.calls() == ()
    await session.aclose()


async def test_no_call_is_made_after_the_session_s_time(buyer: Buyer) -> None:
    session = await buyer.opened(expires_in_s=60)
    await session.call(pdf(1))
    buyer.clock.now_us += 60 * SECOND_US

    with pytest.raises(Refused) as caught:
        await session.call(pdf(1))

    assert caught.value.code is Code.SESSION_CLOSED
    assert buyer.vendor.runs == 1
    await session.aclose()


async def test_what_breaks_the_block_off_is_heard_and_the_session_is_closed(buyer: Buyer) -> None:
    with pytest.raises(ZeroDivisionError):
        async with buyer.session(AGREEMENT_ID, cap=usd("0.1"), per_call=usd("0.01")):
            raise ZeroDivisionError

    assert buyer.platform.asked[-1] == "close_session"


async def test_one_signature_covers_many_calls_by_mac_up_to_the_bound(buyer: Buyer) -> None:
    async with buyer.session(
        AGREEMENT_ID, cap=usd("0.5"), per_call=usd("0.002"), unsigned=usd("0.02")
    ) as session:
        for _ in range(21):
            await session.call(pdf(1))
            assert buyer.vendor.desk is not None
            assert buyer.vendor.desk.exposed_units <= 20_000_000

        assert buyer.vendor.runs == 21
        assert len(buyer.vendor.vouchers) <= 3
        assert buyer.vendor.macs >= 18
    # At the end everything is signed for, with no work done for it.
    assert buyer.vendor.runs == 21
    desk = buyer.vendor.desk
    assert desk is not None
    assert desk.covers(21)


async def test_a_vendor_that_forgot_the_key_is_given_a_signature(buyer: Buyer) -> None:
    session = await buyer.opened(unsigned=usd("0.05"))
    await session.call(pdf(1))
    await session.call(pdf(1))
    assert buyer.vendor.macs == 1
    buyer.vendor.key = b""

    answer = await session.call(pdf(1))

    assert answer.spent == usd("0.006")
    assert len(buyer.vendor.vouchers) == 2
    await session.call(pdf(1))
    assert buyer.vendor.macs == 2
    await session.aclose()
