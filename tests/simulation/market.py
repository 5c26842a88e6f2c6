"""What a simulated market asks: commands drawn by chance, made to intersect.

Boundary: makes commands as the doors would. Whether they may be done is for others to say.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from farthing.protocol.canonical import Json, document_sha256
from farthing.protocol.contracts import Acceptance as AcceptanceDocument
from farthing.protocol.contracts import QuoteDocument
from farthing.protocol.ids import derive_id
from farthing.protocol.messages import (
    agents,
    agreements,
    authority,
    charges,
    disputes,
    holds,
)
from farthing.protocol.messages import listings as offers
from farthing.protocol.rating import parse_card, rate
from farthing.protocol.signatures import Typ
from farthing.protocol.times import DAY_US, SECOND_US, format_time
from farthing.protocol.wire import Operation, Role, money
from farthing.settlement.engine.agreements import Acceptance
from farthing.settlement.engine.commands import Command, Kept
from farthing.settlement.engine.disputes import Examined
from tests.construction import ISSUER, publishing
from tests.papers import listing_document, public_jwk, signing_key, terms_document
from tests.simulation.calling import Calling
from tests.simulation.cards import drawn_card, some_of
from tests.simulation.parties import ARGS, ASSETS, BODY, Party, signed

__all__ = ["Market"]

TAGS: Final = ("documents.text.extract", "images.resize", "documents.convert")


@dataclass(slots=True)
class Market(Calling):
    """A crowd with money that trades."""

    def settlers(self) -> list[list[Command]]:
        """The first parties, in batches that need one another."""
        newcomers, approvals, rest = [], [], []
        for number in range(self.chance.randint(1, 2)):
            newcomers += [self.enrol("operator"), self.enrol("vendor")]
            newcomers += [self.register(self.operators[number]) for _ in range(2)]
        newcomers.append(self.enrol("vendor"))
        houses = (*self.operators, *self.vendors)
        approvals += [self._approve(self.admin, party) for party in houses]
        approvals += [self._approve(self._operator_of(each), each) for each in self.buyers]
        for party in self.operators:
            for asset in ASSETS:
                rest += self.paid_in(party, asset, self.chance.randint(10**6, 10**9))
        for party in self.buyers:
            for asset in ("USD", "JPY", "XTS"):
                rest.append(self.grant(party, asset, 10**9, 10**9))
        if self.chance.random() < 0.5:
            rest.append(self.partner())
        rest += [self.publish(vendor, 0) for vendor in self.vendors]
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

    # What they ask

    def newcomer(self) -> Command | None:
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

    def grant_any(self) -> Command | None:
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
        return self.grant(buyer, self._asset(), per_call, per_day, **limits)

    def grant(
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

    def publish_any(self) -> Command:
        return self.publish(self.chance.choice(self.vendors), self.chance.randrange(2))

    def publish(self, vendor: Party, which: int) -> Command:
        name = f"Offer {which}"
        listing_id = derive_id("lst", vendor.principal_id, name)
        known = self.books.things["listing"].get(listing_id, {"version": 0, "asset": ""})
        version = known["version"] + (1 if self.chance.random() < 0.95 else 2)
        card = drawn_card(self.chance, known["asset"] or self._asset())
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

    def withdraw(self) -> Command | None:
        found = self._any("listing")
        if found is None:
            return None
        ask = offers.WithdrawListing(
            listing_id=found["listing_id"], reason="enough", idempotency_key=self._id()
        )
        vendor = self._of(self.vendors, found["vendor_id"])
        return self._ask(vendor.caller(), offers.WITHDRAW_LISTING, ask)

    def accept(self) -> Command | None:
        listing = self._any("listing")
        if listing is None:
            return None
        buyer = self.chance.choice(self.buyers)
        priced = self.books.documents[listing["rate_card_sha256"]]
        workload = some_of(self.chance, priced, 1)
        rating = rate(parse_card(priced), {}, workload)
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
            workload=workload,
            position={},
            total_units=rating.total_units,
            lines=rating.lines,
            issued_at_us=self.now_us,
            expires_at_us=self.now_us + expires_in_us,
        )
        acceptance = AcceptanceDocument.of(quote, accepted_at_us=self.now_us, nonce="0" * 32)
        papers, accepted = quote.document(), acceptance.document()
        facts: dict[str, Json] = {
            "acceptance": accepted,
            "acceptance_signature": signed(buyer.keys[-1], Typ.ACCEPTANCE, accepted),
            "quote": papers,
            "quote_signature": signed(signing_key("simulated platform"), Typ.QUOTE, papers),
        }
        ask = agreements.AcceptTerms(**facts, idempotency_key=self._id())  # type: ignore[arg-type]
        body = Acceptance(
            ask=ask,
            quote=quote,
            quote_sha256=document_sha256(papers),
            acceptance_sha256=document_sha256(accepted),
        )
        return self._ask(buyer.caller(), agreements.ACCEPT_TERMS, ask, body=body, facts=facts)

    def terminate(self) -> Command | None:
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

    def place_or_accept(self) -> Command | None:
        return self.place() if self.books.things["agreement"] else self.accept()

    def release(self) -> Command | None:
        hold = self._any("hold", waiting=0.8)
        if hold is None:
            return None
        ask = holds.ReleaseHold(hold_id=hold["hold_id"], idempotency_key=self._id())
        vendor = self._of(self.vendors, hold["vendor_id"])
        return self._ask(vendor.caller(self._hand(vendor)), holds.RELEASE_HOLD, ask)

    def refund(self) -> Command | None:
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

    def dispute(self) -> Command | None:
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

    def evidence(self) -> Command | None:
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

    def freeze(self) -> Command:
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
        thaw = self.chance.random() < (0.8 if self._frozen(party) else 0.2)
        ask = (agents.Unfreeze if thaw else agents.Freeze)(
            principal_id=party.principal_id, reason="because", idempotency_key=self._id()
        )
        operation: Operation[Any, Any] = agents.UNFREEZE if thaw else agents.FREEZE
        return self._ask(self.chance.choice(by).caller(), operation, ask)

    def rotate(self) -> Command:
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
        facts["possession"] = signed(new, Typ.ROTATION, claims)
        command = self._ask(party.caller(), agents.ROTATE_KEY, ask, facts=facts)
        # The party takes the new key at once; if the rotation failed, `heal` goes back to the old.
        party.keys.append(new)
        return command

    def revoke(self) -> Command | None:
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


_DRAW_WEIGHTS: Final[dict[Callable[[Market], Command | None], int]] = {
    Market.place_or_accept: 30,
    Market.capture: 18,
    Market.report: 26,
    Market.correct: 6,
    Market.call_by_mac: 10,
    Market.open_session: 9,
    Market.top_up_session: 3,
    Market.close_session: 3,
    Market.propose: 2,
    Market.approve: 5,
    Market.accept: 7,
    Market.refund: 8,
    Market.dispute: 8,
    Market.release: 5,
    Market.evidence: 5,
    Market.fund_any: 4,
    Market.grant_any: 6,
    Market.credit: 3,
    Market.grace: 2,
    Market.partner: 3,
    Market.top_up: 5,
    Market.payout: 13,
    Market.word: 8,
    Market.event: 5,
    Market.back: 7,
    Market.take_out: 3,
    Market.close: 1,
    Market.publish_any: 2,
    Market.freeze: 4,
    Market.rotate: 3,
    Market.machine: 4,
    Market.revoke: 1,
    Market.newcomer: 4,
    Market.withdraw: 1,
    Market.terminate: 1,
}
_DRAWS: Final = list(_DRAW_WEIGHTS)
_WEIGHTS: Final = list(_DRAW_WEIGHTS.values())
