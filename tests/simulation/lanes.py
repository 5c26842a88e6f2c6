"""Honest calls of sessions that are paid by MACs: both sides' own books, reports of what is due.

Boundary: the buyer's and the vendor's law are the real ones; what they must come to is judged here
by sums of its own. Where every unit has one whole price, settlement may turn nothing away for its
sum or its number: the calls are signed for before they are reported. Source: spec/sessions.md#macs.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from random import Random
from typing import Final

from farthing.clients.maclane import MacLane
from farthing.protocol.batches import events_in
from farthing.protocol.claims import ProofError
from farthing.protocol.errors import Refusal
from farthing.protocol.ids import AgreementId, ListingId, OrganisationId, PrincipalId, SessionId
from farthing.protocol.proofs import Entitlement, Voucher
from farthing.protocol.usage import UsageEvent, UsageOutcome, batch_bytes
from farthing.protocol.vouchers import SpendBook, VoucherDesk, check_mac, mac_token
from farthing.settlement.engine.commands import Command
from tests.construction import ISSUER
from tests.simulation.auditor import Json, need
from tests.simulation.cards import is_plain, some_of
from tests.simulation.parties import ARGS, BODY
from tests.simulation.prices import price
from tests.simulation.sessions import Spending

__all__ = ["Laning"]

# What may become of an honest call at settlement: none of it is for its number or its sum.
_MAY: Final = frozenset(
    {"after_end", "before_session", "duplicate", "frozen", "in_future", "over_allowance"}
)
_AGAIN: Final = frozenset({"in_future"})


@dataclass(slots=True)
class Lane:
    """One session as its two sides have it."""

    session: Json
    book: SpendBook
    desk: VoucherDesk
    macs: MacLane
    key: bytes
    best: Voucher | None = None
    running: dict[int, int] = field(default_factory=dict)
    ended: dict[int, UsageEvent] = field(default_factory=dict)
    units: dict[int, int] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)
    by_mac: int = 0

    @classmethod
    def begun(cls, session: Json) -> "Lane":
        """The lane of a session through which nobody has called."""
        session_id, unsigned_units = session["session_id"], int(session["unsigned_units"])
        cap_units, per_call_units = int(session["cap_units"]), int(session["per_call_units"])
        key = sha256(session_id.encode()).digest()
        book = SpendBook(
            AgreementId(session["agreement_id"]), SessionId(session_id), cap_units, per_call_units
        )
        desk = VoucherDesk(
            cap_units=cap_units, per_call_units=per_call_units, unsigned_units=unsigned_units
        )
        return cls(session, book, desk, MacLane(key, unsigned_units), key)

    @property
    def session_id(self) -> SessionId:
        return SessionId(self.session["session_id"])

    @property
    def per_call_units(self) -> int:
        return self.desk.per_call_units

    def raised(self, cap_units: int) -> None:
        """More was set aside."""
        self.book.cap_units = self.desk.cap_units = cap_units

    def sign(self, voucher: Voucher) -> Voucher:
        """The buyer signs, and the vendor takes note."""
        signed = self.macs.to_sign(voucher)
        need(signed.max_cum_units <= self.book.cap_units, "a buyer signs for more than its cap")
        if self.desk.note(signed):
            before = self.best
            need(
                before is None or before.max_cum_units <= signed.max_cum_units,
                "what a buyer signs falls",
            )
            self.best = signed
        self.macs.arrived(signed.seq)
        return signed

    def settled(self, seq: int, event: UsageEvent, units: int) -> None:
        """A call came to its end, and is billed so much."""
        self.ended[seq], self.units[seq] = event, units

    def bounded(self) -> None:
        """The vendor can lose no more than it was told that it may."""
        best_seq = self.best.seq if self.best else 0
        best_units = self.best.max_cum_units if self.best else 0
        most = {**self.units, **dict.fromkeys(self.running, self.per_call_units)}
        later = sum(units for seq, units in most.items() if seq > best_seq)
        lost = max(later, sum(most.values()) - best_units)
        need(lost <= self.desk.unsigned_units, f"a vendor may lose {lost} to MACs")


@dataclass(slots=True)
class Laning(Spending):
    """A crowd that also spends by MACs, in sessions that nobody else calls through."""

    lanes: dict[str, Lane] = field(default_factory=dict)
    witnessed: int = 0

    def call_by_mac(self) -> Command | None:
        """Calls of an honest session, or a new one for them."""
        live = [each for each in self.books.waiting["session"].values() if self._is_honest(each)]
        if live and self.chance.random() < 0.85:
            return self._called_by_mac(self.chance.choice(live))
        agreements = self.books.things["agreement"].values()
        plain = [each for each in agreements if is_plain(self._card_of(each))]
        return self._opened(self.chance.choice(plain), trusted=True) if plain else None

    def report_of(self, session: Json) -> Command | None:
        """Any batch, but of an honest session an honest one."""
        if self._is_honest(session):
            return self._called_by_mac(session)
        return Spending.report_of(self, session)

    def _is_honest(self, session: Json) -> bool:
        return int(session["unsigned_units"]) > 0 and is_plain(self._card_of(session))

    def _called_by_mac(self, session: Json) -> Command | None:
        """Some calls, in any order of their ends; then what is due of them."""
        lane = self.lanes.setdefault(session["session_id"], Lane.begun(session))
        lane.raised(int(session["cap_units"]))
        if session["status"] == "open" and self.now_us < session["expires_at_us"]:
            for _ in range(self.chance.choice((1, 3, 8, 20))):
                self._call(lane)
                if self.chance.random() < 0.5:
                    self._finish(lane)
        while lane.running and self.chance.random() < 0.8:
            self._finish(lane)
        return self._due(session, lane)

    def _call(self, lane: Lane) -> None:
        asked = lane.book.next(ARGS)
        if isinstance(asked, Refusal):
            return
        lane.macs.began(asked.seq, lane.per_call_units)
        token = lane.macs.mac(asked)
        if not token and lane.best is not None and self.chance.random() < 0.5:
            # A buyer that counts too little: it is for the vendor to ask for a signature.
            cum_units = asked.max_cum_units
            token = mac_token(lane.key, lane.session_id, asked.seq, ARGS, cum_units)
        refusal: Refusal | None = None
        if token:
            entitlement = self._entitlement(lane)
            check = partial(check_mac, key=lane.key, entitlement=entitlement, now_us=self.now_us)
            refusal = lane.desk.admit(check(token, args_sha256=ARGS), signed=False)
            lane.by_mac += refusal is None
            self._forge(token, check)
        if not token or (refusal is not None and refusal.path == "signature"):
            refusal = lane.desk.admit(lane.sign(asked))
        need(refusal is None, f"an honest call is turned away: {refusal}")
        lane.running[asked.seq] = self.now_us
        lane.bounded()

    def _forge(self, token: str, check: Callable[..., Voucher]) -> None:
        """A MAC is for its own number, sum and arguments."""
        seq, units, mac = token.split(".")
        args, text = self.chance.choice(
            (
                (BODY, token),
                (ARGS, f"{int(seq) + 1}.{units}.{mac}"),
                (ARGS, f"{seq}.{int(units) + 1}.{mac}"),
            )
        )
        try:
            check(text, args_sha256=args)
        except ProofError:
            return
        need(holds=False, says="a MAC is taken for another call")

    def _entitlement(self, lane: Lane) -> Entitlement:
        session = lane.session
        return Entitlement(
            session_id=lane.session_id,
            agreement_id=AgreementId(session["agreement_id"]),
            listing_id=ListingId(
                self.books.things["agreement"][session["agreement_id"]]["listing_id"]
            ),
            vendor_id=OrganisationId(session["vendor_id"]),
            buyer_id=PrincipalId(session["buyer_id"]),
            payer_jwk={},
            cap_units=lane.desk.cap_units,
            asset=session["asset"],
            card_sha256=session["rate_card_sha256"],
            expires_at_us=session["expires_at_us"],
            issuer=ISSUER,
            per_call_units=lane.per_call_units,
            unsigned_units=lane.desk.unsigned_units,
        )

    def _finish(self, lane: Lane) -> None:
        """One of the calls that run comes to its end; now and then its answer is lost."""
        if not lane.running:
            return
        seq = self.chance.choice(sorted(lane.running))
        at_us = lane.running.pop(seq)
        drawn = Random(f"{lane.session['session_id']} {seq}")
        card = self._card_of(lane.session)
        usage = some_of(drawn, card, drawn.choice((0, 1, 1, 2, 3)))
        units = price(card, {}, usage)
        is_done = units <= lane.per_call_units and drawn.random() < 0.9
        outcome = UsageOutcome.SUCCEEDED if is_done else UsageOutcome.FAILED_VENDOR
        event = UsageEvent(
            seq=seq,
            at_us=at_us,
            usage=usage,
            outcome=outcome,
            args_sha256=ARGS,
            result_sha256=BODY if is_done else "",
        )
        is_lost = self.chance.random() < 0.05
        if is_done:
            lane.desk.settle(seq, units)
            if not is_lost:
                lane.book.answered(seq, units, BODY)
                lane.macs.ended(seq, units)
        else:
            lane.desk.drop(seq)
            if not is_lost:
                lane.book.failed(seq)
                lane.macs.ended(seq, 0)
        lane.settled(seq, event, units if is_done else 0)
        lane.bounded()

    def _due(self, session: Json, lane: Lane) -> Command | None:
        """A report of calls that are signed for, in any order; a signature where there are none."""
        if lane.book.seq and self.chance.random() < 0.3:
            lane.sign(lane.book.again(lane.book.seq, ARGS))
        taken = self.books.calls[session["session_id"]].keys() | lane.gone
        due = [seq for seq in lane.ended if seq not in taken and lane.desk.covers(seq)]
        if not due or lane.best is None:
            return None
        seqs = self.chance.sample(due, self.chance.randint(1, min(21, len(due))))
        data = batch_bytes(session["session_id"], [lane.ended[seq] for seq in seqs])
        need(len(events_in(data)) == len(seqs), "a batch of other calls")
        vendor = self._of(self.vendors, session["vendor_id"])
        return self._reported(session, vendor, data, lane.best)

    def heal(self) -> None:
        """As everybody's, and what became of honest calls is looked at."""
        Spending.heal(self)
        for record in self.books.records[self.witnessed :]:
            lane = self.lanes.get(record["asked"].get("session_id", ""))
            if lane is not None and record["operation"] == "report_usage" and "decided" in record:
                self._witness(lane, record)
        self.witnessed = self.books.seq

    def _witness(self, lane: Lane, record: Json) -> None:
        for _, reason, seq in record["decided"]["rejected"]:
            need(reason in _MAY, f"an honest call {seq} is {reason}")
            lane.gone |= {seq} if reason not in _AGAIN else set()
        for seq, units in self.books.calls[lane.session["session_id"]].items():
            need(lane.units[seq] == units, f"call {seq} is billed {units}, not {lane.units[seq]}")
