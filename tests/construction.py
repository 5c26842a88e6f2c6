"""The one way to build a test market: real keys, real documents, the real engine in memory.

`Room` drives `decide` and `evolve` with no I/O. Every seed is fixed, so that a failure replays.
"""

from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Literal

from farthing.identity.callers import Assurance, Caller
from farthing.protocol.canonical import Json, canonical_bytes, document_sha256, sha256_hex
from farthing.protocol.contracts import Acceptance as AcceptanceDocument
from farthing.protocol.contracts import DeliveryRecord, QuoteDocument
from farthing.protocol.errors import Refusal
from farthing.protocol.ids import derive_id
from farthing.protocol.keys import PrivateKey
from farthing.protocol.listing import parse_listing
from farthing.protocol.messages.accounts import FUND_ACCOUNT, FundAccount
from farthing.protocol.messages.agents import (
    APPROVE_REGISTRATION,
    ENROL_ORGANISATION,
    REGISTER_AGENT,
    ApproveRegistration,
    EnrolOrganisation,
    RegisterAgent,
)
from farthing.protocol.messages.agreements import ACCEPT_TERMS, AcceptTerms
from farthing.protocol.messages.authority import SET_AUTHORITY, SetAuthority
from farthing.protocol.messages.holds import CAPTURE_HOLD, PLACE_HOLD, CaptureHold, PlaceHold
from farthing.protocol.messages.listings import PUBLISH_LISTING, PublishListing
from farthing.protocol.rating import parse_card, rate
from farthing.protocol.records import GENESIS as FIRST_PREV
from farthing.protocol.records import Record, line_of, parse_record, record_bytes
from farthing.protocol.signatures import Typ, sign_detached
from farthing.protocol.times import SECOND_US
from farthing.protocol.wire import Operation, Role, Usage, money
from farthing.server.market import command_of
from farthing.settlement.engine.agreements import Acceptance
from farthing.settlement.engine.commands import PLATFORM, Command, Seen, platform_command
from farthing.settlement.engine.decide import decide
from farthing.settlement.engine.due import due
from farthing.settlement.engine.genesis import GENESIS, Genesis, StaffKey
from farthing.settlement.engine.holds import Capture
from farthing.settlement.engine.listings import Publishing
from farthing.settlement.engine.principals import Named
from farthing.settlement.engine.state import State, evolve
from tests.papers import (
    card_document,
    listing_document,
    public_jwk,
    signing_key,
    terms_document,
)

__all__ = ["EPOCH_US", "Room", "Trade"]

# 2026-11-20T12:00:00Z
EPOCH_US = 1_795_176_000 * SECOND_US
ISSUER = "http://127.0.0.1:8321"


@dataclass(slots=True)
class Room:
    """The engine in memory, with a clock that a test moves."""

    fee_ppm: int = 25_000
    open_enrolment: bool = False
    now_us: int = EPOCH_US
    state: State = field(default_factory=State)
    journal: list[bytes] = field(default_factory=list)
    keys: Any = field(default_factory=lambda: count(1))
    # What it was told, and when: another engine that is told the same writes the same journal.
    tape: list[tuple[int, Command]] = field(default_factory=list)

    def __post_init__(self) -> None:
        staff = tuple(
            StaffKey(role=role, thumbprint=key.public.thumbprint, jwk=key.public.jwk())
            for role in (Role.ADMIN, Role.TREASURER)
            for key in [signing_key(role.value)]
        )
        body = Genesis(staff=staff, fee_ppm=self.fee_ppm, open_enrolment=self.open_enrolment)
        self.run(platform_command(GENESIS, body))

    def run(self, command: Command) -> Record | Refusal | Seen:
        """Decide a command and, where it leaves a record, apply the record as read from bytes."""
        self.tape.append((self.now_us, command))
        decision = decide(self.state, command, self.now_us)
        if isinstance(decision, Record):
            prev = sha256_hex(line_of(self.journal[-1])) if self.journal else FIRST_PREV
            data = record_bytes(decision, prev)
            evolve(self.state, parse_record(data)[0])
            self.journal.append(data)
        return decision

    def submit(
        self,
        caller: Caller,
        operation: Operation[Any, Any],
        ask: object,
        **planned: Any,
    ) -> Record | Refusal | Seen:
        """Submit an ask with a proof of its own."""
        proven = replace(
            caller,
            proof_jti=f"jti-{next(self.keys)}",
            proof_expires_at_us=self.now_us + 30 * SECOND_US,
        )
        return self.run(command_of(proven, operation, ask, **planned))

    def done(
        self,
        caller: Caller,
        operation: Operation[Any, Any],
        ask: object,
        **planned: Any,
    ) -> Record:
        """Submit an ask that must succeed."""
        record = self.submit(caller, operation, ask, **planned)
        assert isinstance(record, Record), record
        assert record.refusal is None, record.refusal
        return record

    def key(self) -> str:
        """A fresh idempotency key."""
        return f"key-{next(self.keys):016d}"

    def advance(self, seconds: int) -> list[Record]:
        """Let time pass, and let the platform do what is due."""
        self.now_us += seconds * SECOND_US
        records = []
        while (command := due(self.state, self.now_us)) is not None:
            record = self.run(command)
            assert isinstance(record, Record)
            records.append(record)
        return records

    def staff(self, role: Role) -> Caller:
        """The admin or the treasurer."""
        thumbprint = signing_key(role.value).public.thumbprint
        return Caller(
            principal_id=derive_id("stf", thumbprint),
            organisation_id=PLATFORM,
            role=role,
            assurance=Assurance.SIGNED_BODY,
            key_thumbprint=thumbprint,
        )

    def organisation(self, kind: Literal["operator", "vendor"], name: str) -> Caller:
        """Enrol and approve an organisation."""
        key = signing_key(name)
        caller = Caller(
            role=Role.NEWCOMER,
            assurance=Assurance.SIGNED_BODY,
            key_thumbprint=key.public.thumbprint,
        )
        ask = EnrolOrganisation(
            kind=kind, name=name, key=public_jwk(key), idempotency_key=self.key()
        )
        body = Named(ask=ask, name_sha256=sha256_hex(name.encode()))
        self.done(caller, ENROL_ORGANISATION, ask, body=body)
        principal_id = derive_id("org", key.public.thumbprint)
        self._approve(self.staff(Role.ADMIN), principal_id)
        return replace(
            caller, principal_id=principal_id, organisation_id=principal_id, role=Role(kind)
        )

    def agent(self, operator: Caller, name: str, *, approve: bool = True) -> Caller:
        """Register an agent and let its operator approve it."""
        key = signing_key(name)
        caller = Caller(
            role=Role.NEWCOMER,
            assurance=Assurance.SIGNED_BODY,
            key_thumbprint=key.public.thumbprint,
        )
        ask = RegisterAgent(
            operator_id=operator.principal_id,
            name=name,
            key=public_jwk(key),
            idempotency_key=self.key(),
        )
        body = Named(ask=ask, name_sha256=sha256_hex(name.encode()))
        self.done(caller, REGISTER_AGENT, ask, body=body)
        principal_id = derive_id("agt", key.public.thumbprint)
        if approve:
            self._approve(operator, principal_id)
        return replace(
            caller,
            principal_id=principal_id,
            organisation_id=operator.principal_id,
            role=Role.BUYER,
        )

    def fund(
        self, operator: Caller, units: int, asset: str = "USD", reference: str = "test"
    ) -> Record:
        """Credit an operator from outside."""
        ask = FundAccount(
            organisation_id=operator.principal_id,
            amount=money(units, asset),
            reference=reference,
            idempotency_key=self.key(),
        )
        return self.done(self.staff(Role.TREASURER), FUND_ACCOUNT, ask)

    def grant(
        self,
        operator: Caller,
        agent: Caller,
        per_call: int,
        per_day: int,
        **limits: Any,
    ) -> Record:
        """Let an agent spend, amounts in units of USD."""
        ask = SetAuthority(
            agent_id=agent.principal_id,
            per_call_max=money(per_call, "USD"),
            per_day_max=money(per_day, "USD"),
            idempotency_key=self.key(),
            **limits,
        )
        return self.done(operator, SET_AUTHORITY, ask)

    def publish(
        self,
        vendor: Caller,
        *,
        card: dict[str, Json] | None = None,
        terms: dict[str, Json] | None = None,
        name: str = "Text of PDF pages",
        version: int = 1,
    ) -> str:
        """Publish a listing; gives its id."""
        card = card or card_document()
        terms = terms or terms_document()
        listing = listing_document(vendor.principal_id, card, terms, name=name, version=version)
        ask, body, facts = publishing(vendor_key(vendor), listing, card, terms, self.key())
        self.done(vendor, PUBLISH_LISTING, ask, body=body, facts=facts)
        return body.listing.listing_id

    def agree(self, agent: Caller, listing_id: str) -> str:
        """Quote and accept; gives the agreement's id."""
        record = self.done(agent, ACCEPT_TERMS, **self.acceptance(agent, listing_id))
        return record.changed[0].id

    def acceptance(self, agent: Caller, listing_id: str) -> dict[str, Any]:
        """What `submit` takes to accept a listing's terms."""
        listing = self.state.listings[listing_id]
        card = self.state.cards[listing.rate_card_sha256]
        workload = {"page": 1}
        rating = rate(card, {}, workload)
        quote = QuoteDocument(
            quote_id=derive_id("qte", str(next(self.keys))),  # type: ignore[arg-type]
            platform=ISSUER,
            buyer_id=agent.principal_id,  # type: ignore[arg-type]
            operator_id=agent.organisation_id,  # type: ignore[arg-type]
            vendor_id=listing.vendor_id,  # type: ignore[arg-type]
            listing_id=listing_id,  # type: ignore[arg-type]
            listing_version=listing.version,
            listing_sha256=listing.listing_sha256,
            rate_card_sha256=listing.rate_card_sha256,
            terms_sha256=listing.terms_sha256,
            asset=listing.asset,
            workload=workload,
            position={},
            total_units=rating.total_units,
            lines=rating.lines,
            issued_at_us=self.now_us,
            expires_at_us=self.now_us + 300 * SECOND_US,
        )
        acceptance = AcceptanceDocument.of(quote, accepted_at_us=self.now_us, nonce="0" * 32)
        quote_document, acceptance_document = quote.document(), acceptance.document()
        quote_signature = sign_detached(
            signing_key("platform"), Typ.QUOTE, canonical_bytes(quote_document)
        )
        acceptance_signature = sign_detached(
            vendor_key(agent), Typ.ACCEPTANCE, canonical_bytes(acceptance_document)
        )
        ask = AcceptTerms(
            quote=dict(quote_document),
            quote_signature=quote_signature,
            acceptance=dict(acceptance_document),
            acceptance_signature=acceptance_signature,
            idempotency_key=self.key(),
        )
        body = Acceptance(
            ask=ask,
            quote=quote,
            quote_sha256=quote.sha256,
            acceptance_sha256=acceptance.sha256,
        )
        facts: dict[str, Json] = {
            "acceptance": acceptance_document,
            "acceptance_signature": acceptance_signature,
            "quote": quote_document,
            "quote_signature": quote_signature,
        }
        return {"ask": ask, "body": body, "facts": facts}

    def hold(self, agent: Caller, agreement_id: str, pages: int, key: str = "") -> Any:
        """Ask for a hold; gives whatever the engine decides."""
        ask = PlaceHold(
            agreement_id=agreement_id,
            workload=(Usage(meter="page", quantity=str(pages)),),
            args_sha256="a" * 64,
            idempotency_key=key or self.key(),
        )
        return self.submit(agent, PLACE_HOLD, ask)

    def capture(
        self,
        vendor: Caller,
        hold_id: str,
        pages: int,
        key: str = "",
        *,
        signed_by: str = "",
        **other: Any,
    ) -> Any:
        """Capture a hold for a number of pages; gives whatever the engine decides."""
        hold = self.state.holds.get(hold_id)
        agreement = self.state.agreements[hold.agreement_id] if hold else None
        delivery = DeliveryRecord(
            hold_id=hold_id,  # type: ignore[arg-type]
            agreement_id=agreement.agreement_id if agreement else "",  # type: ignore[arg-type]
            vendor_id=vendor.principal_id,  # type: ignore[arg-type]
            listing_id=agreement.listing_id if agreement else "",  # type: ignore[arg-type]
            args_sha256="a" * 64,
            result_sha256=other.pop("result_sha256", "b" * 64),
            output_schema_sha256=agreement.output_schema_sha256 if agreement else "",
            usage={"page": pages},
            delivered_at_us=self.now_us,
        )
        delivery = replace(delivery, **other)
        document = delivery.document()
        signature = sign_detached(vendor_key(vendor), Typ.DELIVERY, canonical_bytes(document))
        ask = CaptureHold(
            hold_id=hold_id,
            delivery=dict(document),
            delivery_signature=signature,
            idempotency_key=key or self.key(),
        )
        facts: dict[str, Json] = {"delivery": document, "delivery_signature": signature}
        body = Capture(ask=ask, delivery=delivery, key_thumbprint=signed_by)
        return self.submit(vendor, CAPTURE_HOLD, ask, body=body, facts=facts)

    def _approve(self, by: Caller, principal_id: str) -> None:
        ask = ApproveRegistration(principal_id=principal_id, idempotency_key=self.key())
        self.done(by, APPROVE_REGISTRATION, ask)


@dataclass(slots=True)
class Trade:
    """A market with one of everything, ready for a hold."""

    room: Room
    operator: Caller
    agent: Caller
    vendor: Caller
    listing_id: str
    agreement_id: str

    @classmethod
    def opened(
        cls,
        *,
        funds: int = 10**9,
        per_call: int = 10**9,
        per_day: int = 10**9,
        **room: Any,
    ) -> "Trade":
        """Enrol, approve, fund, grant, publish and agree; amounts in units of USD."""
        market = Room(**room)
        operator = market.organisation("operator", "Operator One")
        agent = market.agent(operator, "Agent One")
        vendor = market.organisation("vendor", "Vendor One")
        if funds:
            market.fund(operator, funds)
        market.grant(operator, agent, per_call, per_day)
        listing_id = market.publish(vendor)
        return cls(market, operator, agent, vendor, listing_id, market.agree(agent, listing_id))

    def held(self, pages: int) -> str:
        """Place a hold that must succeed; gives its id."""
        record = self.room.hold(self.agent, self.agreement_id, pages)
        assert isinstance(record, Record), record
        assert record.refusal is None, record.refusal
        return record.changed[0].id

    def captured(self, pages: int) -> str:
        """Hold and capture; gives the charge's id."""
        record = self.room.capture(self.vendor, self.held(pages), pages)
        assert isinstance(record, Record), record
        assert record.refusal is None, record.refusal
        return record.changed[1].id

    def balance(self, owner: Caller | str, kind: str) -> int:
        """The available units of an account."""
        name = f"{owner if isinstance(owner, str) else owner.organisation_id}:{kind}:USD"
        account = self.room.state.accounts.get(name)
        return account.available_units if account else 0


def vendor_key(caller: Caller) -> PrivateKey:
    """The private key of a caller that a room made."""
    return _BY_THUMBPRINT[caller.key_thumbprint]


def publishing(
    key: PrivateKey,
    listing: dict[str, Json],
    card: dict[str, Json],
    terms: dict[str, Json],
    idempotency_key: str,
) -> tuple[PublishListing, Publishing, dict[str, Json]]:
    """The ask, the planned body and the facts of a publication."""
    signature = sign_detached(key, Typ.LISTING, canonical_bytes(listing))
    ask = PublishListing(
        listing=dict(listing),
        rate_card=dict(card),
        terms=dict(terms),
        signature=signature,
        idempotency_key=idempotency_key,
    )
    parsed = parse_listing(listing)
    body = Publishing(
        ask=ask,
        listing=parsed,
        asset=parse_card(card).asset,
        listing_sha256=document_sha256(listing),
        output_schema_sha256=document_sha256(listing["output_schema"]),
    )
    facts: dict[str, Json] = {
        "listing": listing,
        "rate_card": card,
        "signature": signature,
        "terms": terms,
    }
    return ask, body, facts


class _Keys(dict[str, PrivateKey]):
    """Test keys by thumbprint, made as they are asked for."""

    def __missing__(self, thumbprint: str) -> PrivateKey:
        for name in ("Operator", "Agent", "Vendor"):
            for number in ("One", "Two", "Three"):
                key = signing_key(f"{name} {number}")
                self[key.public.thumbprint] = key
        return self[thumbprint] if thumbprint in self else signing_key(thumbprint)


_BY_THUMBPRINT = _Keys()
