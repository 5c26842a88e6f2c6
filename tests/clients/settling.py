"""A vendor's counter against the law alone: a payer who signs, and settlement as the law has it."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import httpx2

from farthing.clients.counter import Counter, Sold, Unpaid
from farthing.clients.deliveries import Produced
from farthing.clients.documents import Offer, arguments_sha256
from farthing.clients.session_desks import DESKS_MAX
from farthing.clients.spool import Spool
from farthing.clients.transport import Connection
from farthing.clients.usage_spool import KeptBatch
from farthing.clients.vendors import Vendor
from farthing.clients.wares import Cap, Ware
from farthing.protocol import base64url
from farthing.protocol.batches import verify_batch
from farthing.protocol.canonical import Json, document_sha256, sha256_hex
from farthing.protocol.errors import Refusal, Refused, Unreachable
from farthing.protocol.ids import AgreementId, ListingId, SessionId, derive_id
from farthing.protocol.keys import PrivateKey
from farthing.protocol.messages.agreements import Agreement
from farthing.protocol.messages.allowances import AllowanceLimits, AllowanceUse, MeterUse
from farthing.protocol.messages.sessions import RejectedEvent, Session, UsageReport
from farthing.protocol.platform_keys import PlatformKeys
from farthing.protocol.proofs import (
    Entitlement,
    Voucher,
    entitlement_jwt,
    read_voucher,
    voucher_jwt,
)
from farthing.protocol.rating import parse_card
from farthing.protocol.rating.running import Running
from farthing.protocol.sequences import Window
from farthing.protocol.shapes import Shape
from farthing.protocol.times import SECOND_US
from farthing.protocol.usage import Columns, read_batch
from farthing.protocol.vouchers import SpendBook, mac_token
from farthing.protocol.wire import Usage, money
from farthing.protocol.x402 import Presented, Used, payment, read_used
from tests.papers import card_document, listing_document, signing_key, terms_document
from tests.patience import patiently

__all__ = [
    "FLAT",
    "JOURNAL_KEY",
    "PAGE_UNITS",
    "PLATFORM",
    "PLATFORM_KEY",
    "Clock",
    "Desk",
    "Payer",
    "Settlement",
    "Shop",
    "kept_batch",
    "shop",
]

PLATFORM = "https://market.example"
PLATFORM_KEY = PrivateKey.from_seed(bytes(range(32)))
JOURNAL_KEY = PrivateKey.from_seed(bytes(range(1, 33)))
PAYER = PrivateKey.from_seed(bytes(32))
VENDOR_ID = derive_id("org", "vendor")
AGREEMENT_ID = AgreementId(derive_id("agr", "one"))
BUYER_ID = derive_id("agt", "one")
FLAT: tuple[dict[str, Json], ...] = ({"amount": "0.002", "per_quantity": "1"},)
PAGE_UNITS = 2_000_000
MAC_KEY = bytes(range(32))


@dataclass
class Clock:
    now_us: int = 1_795_176_000 * SECOND_US

    def __call__(self) -> int:
        return self.now_us


class Settlement(Vendor):
    """The vendor's side of a platform that bills by the law, and remembers what it was sent."""

    def __init__(self, connection: Connection, offer: Offer, payer: PrivateKey) -> None:
        super().__init__(connection)
        self.offer = offer
        self.payer = payer
        self.published: dict[str, object] = {}
        self.is_down = False
        self.lose_answers = 0
        self.refusals: list[Refusal] = []
        self.reject: dict[int, str] = {}
        self.closes_at = ""
        self.status = "open"
        self.limits: AllowanceLimits | None = None
        self.allowances_asked = 0
        self.used: dict[tuple[str, int], int] = {}
        self.sent: list[tuple[str, str, str, str]] = []
        self.billed: dict[tuple[str, int], int] = {}
        self.answers: dict[str, UsageReport] = {}
        self.was_asked = asyncio.Event()
        self.reported = asyncio.Event()
        self._windows: dict[str, Window] = {}
        self._running: dict[str, Running] = {}

    async def agreement(self, agreement_id: str) -> Agreement:
        if self.is_down:
            raise Unreachable("nobody listens")
        words = ("status", "buyer_id", "operator_id", "vendor_id", "accepted_at")
        digests = ("rate_card_sha256", "terms_sha256", "quote_sha256", "acceptance_sha256")
        return Agreement(
            agreement_id=agreement_id,
            listing_id=str(self.offer.listing["listing_id"]),
            listing_version=1,
            listing_sha256=self.offer.sha256,
            asset="USD",
            position=(Usage(meter="page", quantity="0"),),
            **dict.fromkeys((*words, *digests), ""),
        )

    async def allowance(self, agreement_id: str) -> AllowanceUse:
        self.allowances_asked += 1
        if self.is_down:
            raise Unreachable("nobody listens")
        used = sum(self.used.values())
        return AllowanceUse(
            agreement_id=agreement_id,
            status="in_force" if self.limits else "none",
            meters=tuple(
                MeterUse(
                    meter="page",
                    period="agreement",
                    limit=each.quantity,
                    used=str(used),
                    held="0",
                    remaining=str(int(each.quantity) - used),
                )
                for each in (self.limits.in_all if self.limits else ())
            ),
            in_force=self.limits,
        )

    def allow(self, pages: int, *, enforcement: Literal["refuse", "report"] = "refuse") -> None:
        """Put an allowance in force, of so many pages in all."""
        self.limits = AllowanceLimits(
            allowance_id="alw",
            per_day=(),
            in_all=(Usage(meter="page", quantity=str(pages)),),
            enforcement=enforcement,
            expires_at="",
            proposed_by="",
            proposed_at="",
        )

    async def document(self, sha256: str) -> dict[str, object]:
        assert document_sha256(self.published) == sha256  # type: ignore[arg-type]
        return self.published

    async def session_status(self, session_id: str) -> Session:
        none = money(0, "USD")
        return Session(
            session_id=session_id,
            agreement_id=AGREEMENT_ID,
            status=self.status,
            cap=none,
            per_call=none,
            spent=none,
            remaining=none,
            calls=0,
            rejected=0,
            top_seq=0,
            voucher_seq=0,
            max_cum=none,
            final_action="refuse",
            opened_at="",
            expires_at="",
            closes_at=self.closes_at,
            rate_card_sha256="",
        )

    async def report_usage(
        self, session_id: str, batch: str, signature: str, voucher: str, *, key: str
    ) -> UsageReport:
        self.was_asked.set()
        if self.is_down:
            raise Unreachable("nobody listens")
        self.sent.append((batch, signature, voucher, key))
        if self.refusals:
            raise Refused(self.refusals.pop(0))
        if key not in self.answers:
            self.answers[key] = self._report(session_id, batch, signature, voucher)
        if self.lose_answers:
            self.lose_answers -= 1
            raise Unreachable("the answer is lost")
        self.reported.set()
        return self.answers[key]

    def _report(self, session_id: str, batch: str, signature: str, voucher: str) -> UsageReport:
        signer = self.signer
        data, keys = batch.encode(), {signer.thumbprint: signer.public}
        verify_batch(signature, session_id, data, keys.get)
        columns = read_batch(data, SessionId(session_id))
        best = read_voucher(voucher, self.payer.public, AGREEMENT_ID)
        assert best.session_id == session_id
        rejected = [
            RejectedEvent(id=str(seq), reason=reason)
            for place, seq in enumerate(columns.seqs)
            if (reason := self._judged(session_id, columns, place, best))
        ]
        spent = money(self._spent_units(session_id), "USD")
        return UsageReport(
            session_id=session_id,
            charge_id=derive_id("chg", batch),
            amount=spent,
            accepted=len(columns.seqs) - len(rejected),
            billed=len(columns.seqs) - len(rejected),
            rejected=tuple(rejected),
            spent=spent,
            remaining=spent,
            max_cum=money(best.max_cum_units, "USD"),
            low=False,
            closes_at=self.closes_at,
            seq=len(self.sent),
        )

    def _spent_units(self, session_id: str) -> int:
        return sum(units for (each, _), units in self.billed.items() if each == session_id)

    def _judged(self, session_id: str, columns: Columns, place: int, best: Voucher) -> str:
        seq = columns.seqs[place]
        before = self._windows.get(session_id, Window())
        window = before.take(seq)
        if window is None:
            return str(before.fault(seq))
        if seq in self.reject:
            return self.reject[seq]
        if seq > best.seq:
            return "beyond_voucher"
        self._windows[session_id] = window
        if columns.is_billed(place):
            card = parse_card(dict(self.offer.rate_card))
            running = self._running.setdefault(session_id, Running(card, {}))
            pages = columns.usage_of(place)["page"]
            most = int(self.limits.in_all[0].quantity) if self.limits else None
            if most is not None and sum(self.used.values()) + pages > most:
                return "over_allowance"
            self.used[session_id, seq] = pages
            units = running.price(columns.usage_of(place))
            if self._spent_units(session_id) + units > best.max_cum_units:
                return "beyond_voucher"
            running.take()
            self.billed[session_id, seq] = units
        return ""


@dataclass
class Desk:
    """What a test does to the vendor's work, and what it did."""

    runs: int = 0
    working: int = 0
    fail: Exception | None = None
    full_house: int = 1
    is_full: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event | None = None

    async def read(self, pdf: str) -> dict[str, Any]:
        self.runs += 1
        self.working += 1
        if self.working >= self.full_house:
            self.is_full.set()
        try:
            if self.go is not None:
                await self.go.wait()
            if self.fail is not None:
                raise self.fail
        finally:
            self.working -= 1
        return {"pages": pdf.split("|")}


@dataclass
class Payer:
    """A buyer's session: its entitlement, its book, its MAC key."""

    clock: Clock
    entitlement: Entitlement
    book: SpendBook
    signer: PrivateKey = PAYER
    platform_key: PrivateKey = PLATFORM_KEY
    names: int = 0

    def voucher(self, arguments: Mapping[str, Any]) -> Voucher:
        voucher = self.book.next(arguments_sha256(arguments))
        assert isinstance(voucher, Voucher)
        return voucher

    def sign(self, voucher: Voucher) -> str:
        self.names += 1
        return voucher_jwt(
            self.signer, voucher, now_us=self.clock(), jti=f"j{self.names}", lifetime_s=300
        )

    def token(self) -> str:
        return entitlement_jwt(self.platform_key, self.entitlement, self.clock())

    def signed(self, voucher: Voucher, *, mac_key: bytes = b"") -> Presented:
        if mac_key and voucher.mac_sha256 is None:
            voucher = replace(voucher, mac_sha256=sha256_hex(mac_key))
        return Presented(
            entitlement=self.token(),
            voucher=self.sign(voucher),
            mac_key=base64url.encode(mac_key) if mac_key else "",
        )

    def maced(self, voucher: Voucher, key: bytes = MAC_KEY) -> Presented:
        assert voucher.session_id is not None
        mac = mac_token(
            key, voucher.session_id, voucher.seq, voucher.args_sha256, voucher.max_cum_units
        )
        return Presented(entitlement=self.token(), mac=mac)

    def answered(self, sold: Sold) -> Used:
        """Acknowledge what came."""
        said = read_used(sold.response)
        assert said is not None
        self.book.answered(said.seq, said.amount_units, said.result_sha256)
        return said


@dataclass
class Shop:
    """One vendor with one service; its process can be stopped and started on the same spool."""

    spool: Path
    settlement: Settlement
    offer: Offer
    clock: Clock
    desk: Desk = field(default_factory=Desk)
    waited_s: list[float] = field(default_factory=list)
    desks_max: int = DESKS_MAX
    counter: Counter = field(init=False)
    file: Spool = field(init=False)

    async def open(self) -> None:
        self.file = Spool(self.spool)
        keys = PlatformKeys.of(platform=[PLATFORM_KEY.public], journal=[JOURNAL_KEY.public])
        self.counter = Counter(self.settlement, keys, self.file, desks_max=self.desks_max)
        await self.counter.open()

    async def crash(self) -> None:
        """End as kill -9 would: nothing is told, nothing is written any more."""
        self.file.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def payer(
        self, name: str = "one", *, cap: int = 1000, per_call: int = 2, unsigned: int = 0
    ) -> Payer:
        """A session, its amounts in pages."""
        session_id = SessionId(derive_id("ses", name))
        entitlement = Entitlement(
            session_id=session_id,
            agreement_id=AGREEMENT_ID,
            listing_id=ListingId(str(self.offer.listing["listing_id"])),
            vendor_id=VENDOR_ID,  # type: ignore[arg-type]
            buyer_id=BUYER_ID,  # type: ignore[arg-type]
            payer_jwk=PAYER.public.jwk(),
            cap_units=cap * PAGE_UNITS,
            asset="USD",
            card_sha256=str(self.offer.listing["rate_card_sha256"]),
            expires_at_us=self.clock() + 600 * SECOND_US,
            issuer=PLATFORM,
            per_call_units=per_call * PAGE_UNITS,
            unsigned_units=unsigned * PAGE_UNITS,
        )
        book = SpendBook(
            AGREEMENT_ID, session_id, entitlement.cap_units, entitlement.per_call_units
        )
        return Payer(self.clock, entitlement, book)

    @property
    def ware(self) -> Ware:
        meter = {"page": lambda result: len(result["pages"])}
        return Ware(self.offer, meter, inspect.signature(self.desk.read))

    async def sell(
        self, presented: Presented | None, arguments: Mapping[str, Any], ware: Ware | None = None
    ) -> Sold | Unpaid | Refusal:
        """Call the service with a payment."""
        ware = ware or self.ware
        price = ware.price("extract_text", PLATFORM)
        paid = payment(price, presented) if presented else None

        async def run(shape: Shape, cap: Cap) -> Produced:
            await ware.check_cap(arguments, cap)
            value = await self.desk.read(arguments["pdf"])
            return await ware.produced(shape, value, arguments, value, b"[]")

        return await self.counter.sell(ware, arguments, paid, run)

    async def call(self, payer: Payer, arguments: Mapping[str, Any]) -> Sold | Unpaid | Refusal:
        """One call under a signed voucher, acknowledged where it was answered."""
        outcome = await self.sell(payer.signed(payer.voucher(arguments)), arguments)
        if isinstance(outcome, Sold):
            payer.answered(outcome)
        return outcome

    async def settled(self, events: int) -> None:
        """Wait until so many events have been billed."""
        async with patiently():
            while len(self.settlement.billed) < events:
                self.settlement.reported.clear()
                await self.settlement.reported.wait()


@asynccontextmanager
async def shop(
    folder: Path,
    *,
    listing: Mapping[str, Json] | None = None,
    tiers: tuple[dict[str, Json], ...] = FLAT,
    desks_max: int = DESKS_MAX,
) -> AsyncIterator[Shop]:
    """A vendor's counter, open, that sells pages at 0.002 USD."""
    clock, card, terms = Clock(), card_document(tiers=tiers), terms_document()
    document = listing_document(VENDOR_ID, card, terms) | {
        "limits": {"input_bytes_max": 1000, "concurrency_max": 100}
    }
    offer = Offer.bind(document | dict(listing or {}), card, terms)
    waited_s: list[float] = []

    async def wait(seconds: float) -> None:
        waited_s.append(seconds)
        await asyncio.sleep(0)

    async with httpx2.AsyncClient() as http:
        connection = Connection(
            PLATFORM,
            signer=signing_key("Vendor One"),
            principal=VENDOR_ID,
            http=http,
            clock=clock,
            sleep=wait,
        )
        market = Shop(
            folder / "spool.sqlite",
            Settlement(connection, offer, PAYER),
            offer,
            clock,
            waited_s=waited_s,
            desks_max=desks_max,
        )
        await market.open()
        try:
            yield market
        finally:
            await market.counter.close()


def kept_batch(session_id: str, number: int, first: int, place: int) -> KeptBatch:
    """A batch as a spool keeps it, of the events from one place to another."""
    return KeptBatch(
        number=number,
        session_id=session_id,
        text="[]",
        signature="s",
        voucher="v",
        key="k",
        first=first,
        place=place,
        at_us=number,
    )
