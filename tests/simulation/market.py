"""Who lives in a simulated market, and what they ask: commands drawn by chance, made to intersect.

Boundary: looks at the auditor's books for what there is, draws from the chance it is handed, and
makes commands as the doors would. Whether they may be done is for others to say.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from random import Random
from typing import Any, Final

from msgspec import structs

from farthing.identity.callers import Assurance, Caller
from farthing.protocol.canonical import Json, canonical_bytes, document_sha256, sha256_hex
from farthing.protocol.contracts import Acceptance as AcceptanceDocument
from farthing.protocol.contracts import DeliveryRecord, QuoteDocument
from farthing.protocol.ids import derive_id
from farthing.protocol.keys import PrivateKey
from farthing.protocol.messages import accounts as money_in
from farthing.protocol.messages import agents, agreements, authority, charges, disputes, holds
from farthing.protocol.messages import listings as offers
from farthing.protocol.rating import parse_card, rate
from farthing.protocol.signatures import Typ, sign_detached
from farthing.protocol.times import DAY_US, SECOND_US, format_time
from farthing.protocol.wire import Operation, Role, Usage, money
from farthing.server.market import command_of
from farthing.settlement.engine.agreements import Acceptance
from farthing.settlement.engine.commands import PLATFORM, Command, Kept, platform_command
from farthing.settlement.engine.disputes import Examined
from farthing.settlement.engine.genesis import GENESIS, Genesis, StaffKey
from farthing.settlement.engine.holds import Capture
from farthing.settlement.engine.principals import Named
from tests.construction import ISSUER, publishing
from tests.papers import card_document, listing_document, public_jwk, signing_key, terms_document
from tests.simulation.auditor import Auditor

__all__ = ["Market"]

ASSETS: Final = ("USD", "USD", "JPY", "XTS")
TAGS: Final = ("documents.text.extract", "images.resize", "documents.convert")
TIERS: Final[tuple[tuple[dict[str, Json], ...], ...]] = (
    (
        {"up_to": "10", "amount": "0.002", "per_quantity": "1"},
        {"amount": "0.0015", "per_quantity": "1"},
    ),
    ({"amount": "0.0004", "per_quantity": "7"},),
    (
        {"up_to": "3", "amount": "0", "per_quantity": "1"},
        {"up_to": "20", "amount": "1.000001", "per_quantity": "3"},
        {"amount": "0.9", "per_quantity": "1"},
    ),
    ({"amount": "0.000001", "per_quantity": "3"},),
)
PROOF_US: Final = 30 * SECOND_US
ARGS: Final = "a" * 64
BODY: Final = "b" * 64


@cache
def _key(name: str) -> PrivateKey:
    return signing_key(f"simulated {name}")


@dataclass(slots=True)
class Party:
    """Somebody who signs. `keys` are all it ever had, the newest last."""

    principal_id: str
    organisation_id: str
    role: Role
    keys: list[PrivateKey]

    def caller(self, key: PrivateKey | None = None) -> Caller:
        return Caller(
            principal_id=self.principal_id,
            organisation_id=self.organisation_id,
            role=self.role,
            assurance=Assurance.SIGNED_BODY,
            key_thumbprint=(key or self.keys[-1]).thumbprint,
        )


@dataclass(slots=True)
class Market:
    """The parties of one life, and all that was ever sent."""

    books: Auditor
    fee_ppm: int = 25_000
    open_enrolment: bool = False
    chance: Random = field(default_factory=Random)
    now_us: int = 0
    step: str = ""
    drawn: int = 0
    admin: Party = field(init=False)
    treasurer: Party = field(init=False)
    operators: list[Party] = field(default_factory=list)
    vendors: list[Party] = field(default_factory=list)
    buyers: list[Party] = field(default_factory=list)
    sent: list[Command] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.admin, self.treasurer = (self._staff(role) for role in (Role.ADMIN, Role.TREASURER))

    def genesis(self) -> Command:
        """The first command."""
        staff = tuple(
            StaffKey(role=each.role, thumbprint=key.thumbprint, jwk=key.public.jwk())
            for each in (self.admin, self.treasurer)
            for key in each.keys
        )
        body = Genesis(staff=staff, fee_ppm=self.fee_ppm, open_enrolment=self.open_enrolment)
        return platform_command(GENESIS, body)

    def at(self, step: str, chance: Random, now_us: int) -> None:
        """Everything until the next call is drawn from this chance, at this time."""
        self.step, self.chance, self.drawn = step, chance, 0
        # Callers go by what the platform last said; after a clock was set back, few go by that.
        self.now_us = now_us if chance.random() < 0.1 else max(now_us, self.books.at_us)

    def settlers(self) -> list[list[Command]]:
        """The first parties, in batches that need one another."""
        newcomers, approvals, rest = [], [], []
        for number in range(self.chance.randint(1, 2)):
            newcomers += [self.enrol("operator"), self.enrol("vendor")]
            newcomers += [self.register(self.operators[number]) for _ in range(2)]
        newcomers.append(self.enrol("vendor"))
        for party in (*self.operators, *self.vendors):
            approvals.append(self._approve(self.admin, party))
        for party in self.buyers:
            approvals.append(self._approve(self._operator_of(party), party))
        for party in self.operators:
            rest += [
                self._fund(party, asset, self.chance.randint(10**6, 10**9)) for asset in ASSETS
            ]
        for party in self.buyers:
            for asset in ("USD", "JPY", "XTS"):
                rest.append(self._grant(party, asset, 10**9, 10**9))
        rest += [self._publish(vendor, 0) for vendor in self.vendors]
        return [newcomers, approvals, rest]

    def commands(self) -> list[Command]:
        """One batch of anything."""
        made: list[Command] = []
        for _ in range(self.chance.choice((1, 2, 3, 6, 12))):
            if self.sent and self.chance.random() < 0.15:
                made.append(self._again())
                continue
            (draw,) = self.chance.choices(_DRAWS, _WEIGHTS)
            command = draw(self)
            if command is not None:
                made.append(self._spoilt(command))
        if self.chance.random() < 0.1:
            self.chance.shuffle(made)
        return made

    # Who there is

    def _staff(self, role: Role) -> Party:
        key = _key(role.value)
        return Party(derive_id("stf", key.thumbprint), PLATFORM, role, [key])

    def enrol(self, kind: Any) -> Command:
        """A new organisation."""
        key = self._new_key()
        party_id = derive_id("org", key.thumbprint)
        party = Party(party_id, party_id, Role(kind), [key])
        (self.operators if kind == "operator" else self.vendors).append(party)
        ask = agents.EnrolOrganisation(
            kind=kind, name="Somebody", key=public_jwk(key), idempotency_key=self._id()
        )
        return self._named(key, agents.ENROL_ORGANISATION, ask)

    def register(self, operator: Party) -> Command:
        """A new agent of an operator."""
        key = self._new_key()
        party_id = derive_id("agt", key.thumbprint)
        self.buyers.append(Party(party_id, operator.principal_id, Role.BUYER, [key]))
        ask = agents.RegisterAgent(
            operator_id=operator.principal_id,
            name="Some agent",
            key=public_jwk(key),
            idempotency_key=self._id(),
        )
        return self._named(key, agents.REGISTER_AGENT, ask)

    def _named(self, key: PrivateKey, operation: Operation[Any, Any], ask: Any) -> Command:
        newcomer = Caller(
            role=Role.NEWCOMER,
            assurance=Assurance.SIGNED_BODY,
            key_thumbprint=key.thumbprint,
        )
        commitment = sha256_hex(key.thumbprint.encode())
        row = {"commitment": commitment, "salt": "salt", "value": ask.name}
        kept = (Kept(table="personal", row=row),)
        body = Named(ask=ask, name_sha256=commitment)
        return self._ask(newcomer, operation, ask, body=body, kept=kept)

    def _approve(self, by: Party, party: Party) -> Command:
        ask = agents.ApproveRegistration(
            principal_id=party.principal_id, idempotency_key=self._id()
        )
        return self._ask(by.caller(), agents.APPROVE_REGISTRATION, ask)

    def _operator_of(self, party: Party) -> Party:
        return next(each for each in self.operators if each.principal_id == party.organisation_id)

    def _of(self, parties: Sequence[Party], principal_id: str) -> Party:
        """A party by its id, now and then another one."""
        if self.chance.random() < 0.03:
            return self.chance.choice(parties)
        return next(each for each in parties if each.principal_id == principal_id)

    # What they ask

    def _newcomer(self) -> Command | None:
        choice = self.chance.random()
        pending = [
            each for each in self._everybody() if self._status(each.principal_id) == "pending"
        ]
        if pending and choice < 0.7:
            party = self.chance.choice(pending)
            by = self.admin if party.role is not Role.BUYER else self._operator_of(party)
            return self._approve(by, party)
        if len(self.operators) + len(self.vendors) + len(self.buyers) > 12:
            return None
        if choice < 0.8:
            return self.enrol(self.chance.choice(("operator", "vendor")))
        return self.register(self.chance.choice(self.operators))

    def _fund_any(self) -> Command:
        units = self.chance.choice((1, 999, 10**6, 10**9, 2**62))
        return self._fund(self.chance.choice(self.operators), self._asset(), units)

    def _fund(self, operator: Party, asset: str, units: int) -> Command:
        ask = money_in.FundAccount(
            organisation_id=operator.principal_id,
            amount=money(units, asset),
            reference="simulated",
            idempotency_key=self._id(),
        )
        return self._ask(self.treasurer.caller(), money_in.FUND_ACCOUNT, ask)

    def _grant_any(self) -> Command | None:
        buyer = self.chance.choice(self.buyers)
        if self.chance.random() < 0.15:
            revoke = authority.RevokeAuthority(
                agent_id=buyer.principal_id, asset=self._asset(), idempotency_key=self._id()
            )
            return self._ask(self._operator_of(buyer).caller(), authority.REVOKE_AUTHORITY, revoke)
        per_call = self.chance.choice((0, 10**6, 10**7, 10**9))
        per_day = self.chance.choice((10**6, 5 * 10**7, 10**9))
        limits: dict[str, Any] = {}
        if self.chance.random() < 0.2:
            where = self.chance.choice(("vendors_allow", "vendors_deny"))
            limits[where] = (self.chance.choice(self.vendors).principal_id,)
        if self.chance.random() < 0.2:
            where = self.chance.choice(("capabilities_allow", "capabilities_deny"))
            limits[where] = (self.chance.choice(("documents", "documents.text", "images")),)
        if self.chance.random() < 0.2:
            limits["expires_at"] = format_time(self.now_us + self.chance.choice((1, DAY_US)))
        return self._grant(buyer, self._asset(), per_call, per_day, **limits)

    def _grant(
        self, buyer: Party, asset: str, per_call: int, per_day: int, **limits: Any
    ) -> Command:
        ask = authority.SetAuthority(
            agent_id=buyer.principal_id,
            per_call_max=money(per_call, asset),
            per_day_max=money(per_day, asset),
            idempotency_key=self._id(),
            **limits,
        )
        return self._ask(self._operator_of(buyer).caller(), authority.SET_AUTHORITY, ask)

    def _publish_any(self) -> Command:
        return self._publish(self.chance.choice(self.vendors), self.chance.randrange(2))

    def _publish(self, vendor: Party, which: int) -> Command:
        name = f"Offer {which}"
        listing_id = derive_id("lst", vendor.principal_id, name)
        known = self.books.things["listing"].get(listing_id, {"version": 0, "asset": ""})
        version = known["version"] + (1 if self.chance.random() < 0.95 else 2)
        card = card_document(
            self.chance.choice(TIERS),
            asset=known["asset"] or self._asset(),
            version=self.chance.randint(1, 3),
        )
        terms = terms_document(
            dispute_window_s=self.chance.choice((30, 600, 86_400)),
            evidence_window_s=self.chance.choice((10, 60, 3_600)),
        )
        listing = listing_document(
            vendor.principal_id,
            card,
            terms,
            name=name,
            version=version,
            primary_tag=self.chance.choice(TAGS),
        )
        ask, body, facts = publishing(vendor.keys[-1], listing, card, terms, self._id())
        return self._ask(vendor.caller(), offers.PUBLISH_LISTING, ask, body=body, facts=facts)

    def _withdraw(self) -> Command | None:
        found = self._any("listing")
        if found is None:
            return None
        ask = offers.WithdrawListing(
            listing_id=found["listing_id"], reason="enough", idempotency_key=self._id()
        )
        vendor = self._of(self.vendors, found["vendor_id"])
        return self._ask(vendor.caller(), offers.WITHDRAW_LISTING, ask)

    def _accept(self) -> Command | None:
        listing = self._any("listing")
        if listing is None:
            return None
        buyer = self.chance.choice(self.buyers)
        card = parse_card(self.books.documents[listing["rate_card_sha256"]])
        rating = rate(card, {}, {"page": 1})
        expires_in_us = self.chance.choice((1, 300 * SECOND_US, 300 * SECOND_US))
        quote = QuoteDocument(
            quote_id=derive_id("qte", self._id()),  # type: ignore[arg-type]
            platform=ISSUER,
            buyer_id=buyer.principal_id,  # type: ignore[arg-type]
            operator_id=buyer.organisation_id,  # type: ignore[arg-type]
            vendor_id=listing["vendor_id"],
            listing_id=listing["listing_id"],
            listing_version=listing["version"],
            listing_sha256=listing["listing_sha256"],
            rate_card_sha256=listing["rate_card_sha256"],
            terms_sha256=listing["terms_sha256"],
            asset=listing["asset"],
            workload={"page": 1},
            position={},
            total_units=rating.total_units,
            lines=rating.lines,
            issued_at_us=self.now_us,
            expires_at_us=self.now_us + expires_in_us,
        )
        acceptance = AcceptanceDocument.of(quote, accepted_at_us=self.now_us, nonce="0" * 32)
        papers, signed = quote.document(), acceptance.document()
        facts: dict[str, Json] = {
            "acceptance": signed,
            "acceptance_signature": _signed(buyer.keys[-1], Typ.ACCEPTANCE, signed),
            "quote": papers,
            "quote_signature": _signed(_key("platform"), Typ.QUOTE, papers),
        }
        ask = agreements.AcceptTerms(**facts, idempotency_key=self._id())  # type: ignore[arg-type]
        body = Acceptance(
            ask=ask,
            quote=quote,
            quote_sha256=document_sha256(papers),
            acceptance_sha256=document_sha256(signed),
        )
        return self._ask(buyer.caller(), agreements.ACCEPT_TERMS, ask, body=body, facts=facts)

    def _terminate(self) -> Command | None:
        agreement = self._any("agreement")
        if agreement is None:
            return None
        by = self.chance.choice((self.buyers, self.operators, self.vendors))
        who = {id(self.buyers): "buyer_id", id(self.operators): "operator_id"}
        party = self._of(by, agreement[who.get(id(by), "vendor_id")])
        ask = agreements.TerminateAgreement(
            agreement_id=agreement["agreement_id"], reason="over", idempotency_key=self._id()
        )
        return self._ask(party.caller(), agreements.TERMINATE_AGREEMENT, ask)

    def _place(self) -> Command | None:
        agreement = self._any("agreement")
        if agreement is None:
            return self._accept()
        pages = self.chance.choice((0, 1, 2, 3, 9, 40, 1_000, 10**14))
        workload = [Usage(meter="page", quantity=str(pages))]
        if self.chance.random() < 0.05:
            workload.append(Usage(meter=self.chance.choice(("page", "word")), quantity="2"))
        ask = holds.PlaceHold(
            agreement_id=agreement["agreement_id"],
            workload=tuple(workload),
            args_sha256=ARGS,
            expires_in_s=self.chance.choice((0, 0, 1, 20, 10**6)),
            idempotency_key=self._id(),
        )
        buyer = self._of(self.buyers, agreement["buyer_id"])
        return self._ask(buyer.caller(), holds.PLACE_HOLD, ask)

    def _capture(self) -> Command | None:
        hold = self._any("hold", waiting=0.9)
        if hold is None:
            return None
        agreement = self.books.things["agreement"][hold["agreement_id"]]
        vendor = self._of(self.vendors, hold["vendor_id"])
        held = int(hold["workload"].get("page", 0))
        used = self.chance.choice((held, held, held // 2, 0, 1, held + 1))
        delivery = DeliveryRecord(
            hold_id=hold["hold_id"],
            agreement_id=hold["agreement_id"],
            vendor_id=hold["vendor_id"],
            listing_id=agreement["listing_id"],
            args_sha256=ARGS if self.chance.random() < 0.97 else BODY,
            result_sha256=BODY,
            output_schema_sha256=agreement["output_schema_sha256"],
            usage={"page": used},
            delivered_at_us=self.now_us,
        )
        document = delivery.document()
        facts: dict[str, Json] = {
            "delivery": document,
            "delivery_signature": _signed(vendor.keys[-1], Typ.DELIVERY, document),
        }
        ask = holds.CaptureHold(
            hold_id=hold["hold_id"],
            idempotency_key=self._id(),
            **facts,  # type: ignore[arg-type]
        )
        body = Capture(ask=ask, delivery=delivery)
        return self._ask(vendor.caller(), holds.CAPTURE_HOLD, ask, body=body, facts=facts)

    def _release(self) -> Command | None:
        hold = self._any("hold", waiting=0.8)
        if hold is None:
            return None
        ask = holds.ReleaseHold(hold_id=hold["hold_id"], idempotency_key=self._id())
        vendor = self._of(self.vendors, hold["vendor_id"])
        return self._ask(vendor.caller(), holds.RELEASE_HOLD, ask)

    def _refund(self) -> Command | None:
        charge = self._any("charge", waiting=0.6)
        if charge is None:
            return None
        left = int(charge["amount_units"]) - int(charge["refunded_units"])
        units = self.chance.choice((1, left, left // 3, left // 2, left + 1))
        asset = charge["asset"] if self.chance.random() < 0.97 else "EUR"
        ask = charges.RefundCharge(
            charge_id=charge["charge_id"], amount=money(units, asset), idempotency_key=self._id()
        )
        vendor = self._of(self.vendors, charge["vendor_id"])
        return self._ask(vendor.caller(), charges.REFUND_CHARGE, ask)

    def _dispute(self) -> Command | None:
        charge = self._any("charge", waiting=0.8)
        if charge is None:
            return None
        reason: Any = self.chance.choice(("not_delivered", "not_delivered", "calculation_error"))
        ask = disputes.InitiateDispute(
            charge_id=charge["charge_id"], reason=reason, idempotency_key=self._id()
        )
        if self.chance.random() < 0.5:
            party = self._of(self.buyers, charge["buyer_id"])
        else:
            party = self._of(self.operators, charge["operator_id"])
        return self._ask(party.caller(), disputes.INITIATE_DISPUTE, ask)

    def _evidence(self) -> Command | None:
        dispute = self._any("dispute", waiting=0.9)
        if dispute is None:
            return None
        ask = disputes.SubmitEvidence(
            dispute_id=dispute["dispute_id"], body="Ym9keQ==", idempotency_key=self._id()
        )
        body = Examined(
            ask=ask,
            body_sha256=self.chance.choice((BODY, BODY, ARGS)),
            schema_valid=self.chance.random() < 0.8,
        )
        vendor = self._of(self.vendors, dispute["vendor_id"])
        row = {"id": dispute["dispute_id"], "expires_at_us": self.now_us + DAY_US, "body": b"body"}
        kept = (Kept(table="kept_body", row=row),)
        return self._ask(vendor.caller(), disputes.SUBMIT_EVIDENCE, ask, body=body, kept=kept)

    def _freeze(self) -> Command:
        party = self.chance.choice(self._everybody())
        stopped = [each for each in self._everybody() if self._frozen(each)]
        if stopped and self.chance.random() < 0.8:
            # Nearly every freeze is lifted again: a frozen market does nothing.
            party = self.chance.choice(stopped)
        by = [self.admin]
        if party.role is Role.BUYER:
            by.append(self._operator_of(party))
        elif party.role is Role.OPERATOR:
            by.append(party)
        thaw = self._frozen(party) or self.chance.random() < 0.2
        ask = (agents.Unfreeze if thaw else agents.Freeze)(
            principal_id=party.principal_id, reason="because", idempotency_key=self._id()
        )
        operation: Operation[Any, Any] = agents.UNFREEZE if thaw else agents.FREEZE
        return self._ask(self.chance.choice(by).caller(), operation, ask)

    def _rotate(self) -> Command:
        party = self.chance.choice(self._everybody())
        old, new = party.keys[-1], self._new_key()
        ask = agents.RotateKey(
            key=public_jwk(new), possession="possession", idempotency_key=self._id()
        )
        facts: dict[str, Json] = {"new_thumbprint": new.thumbprint}
        claims: dict[str, Json] = {
            "old": old.thumbprint,
            "new": new.thumbprint,
            "principal": party.principal_id,
        }
        facts["possession"] = _signed(new, Typ.ROTATION, claims)
        command = self._ask(party.caller(), agents.ROTATE_KEY, ask, facts=facts)
        # The party takes the new key at once; if the rotation failed, `_heal` goes back to the old.
        party.keys.append(new)
        return command

    def _revoke(self) -> Command | None:
        party = self.chance.choice(self.buyers)
        keys = party.keys[:-1] if self.chance.random() < 0.9 else party.keys
        if not keys:
            return None
        ask = agents.RevokeKey(
            principal_id=party.principal_id,
            key_thumbprint=self.chance.choice(keys).thumbprint,
            idempotency_key=self._id(),
        )
        return self._ask(self._operator_of(party).caller(), agents.REVOKE_KEY, ask)

    # How it is sent

    def heal(self) -> None:
        """Everybody signs with the key that the books say is in force."""
        keys = self.books.things["key"]
        for party in self._everybody():
            in_force = [
                key for key in party.keys if keys.get(key.thumbprint, {}).get("status") == "active"
            ]
            if in_force and party.keys[-1] is not in_force[-1]:
                party.keys.remove(in_force[-1])
                party.keys.append(in_force[-1])

    def _again(self) -> Command:
        """Something sent before: as it was, or signed anew, or with another request."""
        newest = self.chance.random() < 0.6
        command = self.chance.choice(self.sent[-12:] if newest else self.sent)
        choice = self.chance.random()
        if choice < 0.2:
            return command
        by = replace(command.by, proof_jti=self._id(), proof_expires_at_us=self.now_us + PROOF_US)
        # A document in it was signed with the very key that the request is signed with.
        if by.principal_id and not command.facts:
            parties = (*self._everybody(), self.admin, self.treasurer)
            party = next(each for each in parties if each.principal_id == by.principal_id)
            by = replace(by, key_thumbprint=party.keys[-1].thumbprint)
        again = structs.replace(command, by=by)
        if choice > 0.9:
            args = {**command.args_sha256, "reference": sha256_hex(by.proof_jti.encode())}
            again = structs.replace(
                again, args_sha256=args, request_sha256=sha256_hex(by.proof_jti.encode())
            )
        return again

    def _spoilt(self, command: Command) -> Command:
        """Now and then a command that is late, or signed with a key that is no longer in force."""
        choice, by = self.chance.random(), command.by
        if choice < 0.02:
            by = replace(by, proof_expires_at_us=self.now_us - self.chance.randint(0, DAY_US))
        elif choice < 0.04 and not command.facts:
            for party in self._everybody():
                if party.principal_id == by.principal_id:
                    key = self.chance.choice(party.keys)
                    by = replace(by, key_thumbprint=key.thumbprint)
        return structs.replace(command, by=by) if by is not command.by else command

    def _ask(
        self, caller: Caller, operation: Operation[Any, Any], ask: object, **planned: Any
    ) -> Command:
        proven = replace(caller, proof_jti=self._id(), proof_expires_at_us=self.now_us + PROOF_US)
        return command_of(proven, operation, ask, **planned)

    def _id(self) -> str:
        self.drawn += 1
        return f"{self.step}-{self.drawn:04d}-simulated"

    def _new_key(self) -> PrivateKey:
        # Few names, so that keys are made once a process and not once a life.
        known = {key.thumbprint for each in self._everybody() for key in each.keys}
        number = len(known)
        while (key := _key(str(number))).thumbprint in known:
            number += 1
        return key

    def _everybody(self) -> tuple[Party, ...]:
        return (*self.operators, *self.vendors, *self.buyers)

    def _asset(self) -> str:
        return self.chance.choice(ASSETS)

    def _frozen(self, party: Party) -> bool:
        return bool(self.books.things["principal"].get(party.principal_id, {}).get("frozen_by"))

    def _status(self, principal_id: str) -> str:
        return str(self.books.things["principal"].get(principal_id, {}).get("status", ""))

    def _any(self, noun: str, *, waiting: float = 0) -> dict[str, Any] | None:
        """Some thing of a noun, as likely as said one that still waits."""
        if waiting and self.chance.random() < waiting:
            things = self.books.waiting[noun]
        else:
            things = self.books.things[noun]
        return self.chance.choice(list(things.values())) if things else None


def _signed(key: PrivateKey, typ: Typ, document: dict[str, Json]) -> str:
    return sign_detached(key, typ, canonical_bytes(document))


_DRAW_WEIGHTS: Final[dict[Callable[[Market], Command | None], int]] = {
    Market._place: 30,
    Market._capture: 18,
    Market._accept: 7,
    Market._refund: 8,
    Market._dispute: 8,
    Market._release: 5,
    Market._evidence: 5,
    Market._fund_any: 4,
    Market._grant_any: 6,
    Market._publish_any: 2,
    Market._freeze: 3,
    Market._rotate: 3,
    Market._revoke: 1,
    Market._newcomer: 4,
    Market._withdraw: 1,
    Market._terminate: 1,
}
_DRAWS: Final = list(_DRAW_WEIGHTS)
_WEIGHTS: Final = list(_DRAW_WEIGHTS.values())
