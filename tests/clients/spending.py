"""A buyer's session against the law alone: a vendor's desk, and a platform that keeps one session.

The vendor takes what the law takes; a test makes it lie, fail, or go away.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from farthing.clients.documents import arguments_sha256, result_sha256
from farthing.clients.services import VendorCaller
from farthing.clients.sessions import SpendSession
from farthing.clients.spenders import Spender
from farthing.clients.tools import ToolResult
from farthing.clients.transport import Connection, Reply
from farthing.protocol import base64url
from farthing.protocol.canonical import Json, sha256_hex
from farthing.protocol.errors import (
    Code,
    Refusal,
    Refused,
    Unreachable,
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
from farthing.protocol.vouchers import VoucherDesk, check_mac
from farthing.protocol.wire import Money, money
from farthing.protocol.x402 import PAYMENT_RESPONSE, Presented, Used, used
from tests.papers import card_document, listing_document, terms_document

__all__ = ["AGREEMENT_ID", "FLAT", "PAGE_UNITS", "StandInBuyer", "pdf", "usd"]

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
    first: Session | None = None
    listing_id: str = ""
    asked: list[str] = field(default_factory=list)

    def new_key(self) -> str:
        return f"key-number-{len(self.asked)}"

    def entropy(self, count: int) -> bytes:
        return bytes(count)

    async def send(self, operation: Any, ask: Any) -> Reply[Session]:
        """The answer of the opening is that of then, whenever it is given again."""
        if self.first is not None:
            return Reply(answer=self.first, replayed=True)
        self.first = await self.call(operation, ask)
        return Reply(answer=self.first)

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
class StandInVendor:
    """A vendor that takes what the law takes; a test makes it lie, fail or go away."""

    clock: Clock
    running: Running
    desk: VoucherDesk | None = None
    kept: dict[int, tuple[str, ToolResult]] = field(default_factory=dict)
    vouchers: list[Voucher] = field(default_factory=list)
    macs: int = 0
    runs: int = 0
    out: int = 0
    working_max: int = 0
    key: bytes = b""
    lose_answers: int = 0
    refusal: Refusal | None = None
    lie: Mapping[str, Any] = field(default_factory=dict)
    result: Any = None
    hold_back: asyncio.Event | None = None
    late: dict[int, asyncio.Event] = field(default_factory=dict)
    worked_off: asyncio.Event = field(default_factory=asyncio.Event)
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
        self.out += 1
        self.working_max = max(self.working_max, self.out)
        try:
            return await self.taken(arguments, present)
        finally:
            self.out -= 1

    async def taken(
        self, arguments: Mapping[str, object], present: Callable[[], Presented]
    ) -> ToolResult:
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
        self.worked_off.set()
        if voucher.seq in self.late:
            await self.late[voucher.seq].wait()
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
        said = used(call._replace(**self.lie), payer=PAYER.thumbprint, platform=PLATFORM)
        return ToolResult(
            structured=result, text="", is_error=False, meta={PAYMENT_RESPONSE: cast("Any", said)}
        )

    def answered(self, result: ToolResult) -> ToolResult:
        if self.lose_answers:
            self.lose_answers -= 1
            raise Unreachable("the answer is lost")
        return result


class StandInBuyer(Spender):
    """A buyer whose platform and vendor stand in this process."""

    def __init__(self, folder: Path, tiers: tuple[dict[str, Json], ...]) -> None:
        self.clock = Clock()
        card = card_document(tiers)
        listing = listing_document(VENDOR_ID, card, terms_document())
        listing["limits"] = {"input_bytes_max": 1000, "concurrency_max": 64}
        self._listing = parse_listing(listing)
        self._card = parse_card(card)
        self.platform = Platform(self.clock, listing_id=self._listing.listing_id)
        self.vendor = StandInVendor(self.clock, Running(self._card, {}))
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


def pdf(pages: int) -> dict[str, object]:
    return {"pdf": "|" * (pages - 1)}
