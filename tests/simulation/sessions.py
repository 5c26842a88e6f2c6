"""Spend sessions in a simulated market: opened, spent in batches of all kinds, topped up, ended.

Boundary: makes commands as the doors would. Whether they may be done is for others to say.
"""

from dataclasses import dataclass
from random import Random
from typing import Any, Final

from farthing.protocol.batches import events_in, sign_batch
from farthing.protocol.canonical import Json, sha256_hex
from farthing.protocol.errors import Code, refuse
from farthing.protocol.ids import AgreementId, SessionId
from farthing.protocol.keys import PrivateKey
from farthing.protocol.merkle import root_of
from farthing.protocol.messages import sessions
from farthing.protocol.proofs import Voucher, voucher_jwt
from farthing.protocol.rating import parse_card, rate
from farthing.protocol.times import DAY_US, SECOND_US
from farthing.protocol.usage import UsageEvent, UsageOutcome, batch_bytes, read_batch
from farthing.protocol.wire import money
from farthing.settlement.engine.commands import Command
from farthing.settlement.engine.usage import Reported
from tests.simulation.cards import UNKNOWN, some_of
from tests.simulation.parties import ARGS, BODY, Party
from tests.simulation.treasury import Treasury

__all__ = ["Spending"]

_FAILURES: Final = tuple(each for each in UsageOutcome if each is not UsageOutcome.SUCCEEDED)
_NEVER_US: Final = 2 * DAY_US


@dataclass(slots=True)
class Spending(Treasury):
    """A crowd with money that spends it in sessions."""

    def open_session(self) -> Command | None:
        """A cap for many calls, mostly under an agreement in force."""
        agreement = self._any("agreement")
        if agreement is None:
            return None
        return self._opened(agreement, trusted=self.chance.random() < 0.35)

    def _opened(self, agreement: dict[str, Any], *, trusted: bool) -> Command:
        asset = agreement["asset"] if self.chance.random() < 0.97 else "EUR"
        # At times just what some calls cost, or a unit less.
        card = self._card_of(agreement)
        used = some_of(self.chance, card, self.chance.choice((1, 3, 9)))
        exact = rate(parse_card(card), {}, used).total_units
        less = max(1, exact - self.chance.randrange(2))
        per_call = self.chance.choice((10**5, 10**6, 10**7, 10**8, 10**9, less, less))
        cap = per_call * self.chance.choice((1, 2, 5, 30, 200))
        unsigned = per_call * self.chance.choice((1, 1, 3, 20)) if trusted else 0
        final: Any = self.chance.choice(("refuse", "top_up", "request_approval"))
        low = self.chance.random() < 0.3
        ask = sessions.OpenSession(
            agreement_id=agreement["agreement_id"],
            cap=money(cap, asset),
            per_call=money(per_call, agreement["asset"]),
            expires_in_s=self.chance.choice((1, 20, 60, 3_600, 3_600, 86_400)),
            low_water=money(cap // 3, agreement["asset"]) if low else None,
            unsigned=money(unsigned, agreement["asset"]) if unsigned else None,
            final_action=final,
            idempotency_key=self._id(),
        )
        buyer = self._of(self.buyers, agreement["buyer_id"])
        return self._ask(buyer.caller(), sessions.OPEN_SESSION, ask)

    def top_up_session(self) -> Command | None:
        """More for a session, open or not."""
        session = self._any("session", waiting=0.8)
        if session is None:
            return None
        asset = session["asset"] if self.chance.random() < 0.95 else "EUR"
        ask = sessions.TopUpSession(
            session_id=session["session_id"],
            amount=money(self.chance.choice((1, 10**6, 10**8)), asset),
            idempotency_key=self._id(),
        )
        buyer = self._of(self.buyers, session["buyer_id"])
        return self._ask(buyer.caller(), sessions.TOP_UP_SESSION, ask)

    def close_session(self) -> Command | None:
        """An end of a session, by any of the three."""
        session = self._any("session", waiting=0.8)
        if session is None:
            return None
        party = self.chance.choice(
            (
                self._of(self.buyers, session["buyer_id"]),
                self._of(self.operators, session["operator_id"]),
                self._of(self.vendors, session["vendor_id"]),
            )
        )
        ask = sessions.CloseSession(session_id=session["session_id"], idempotency_key=self._id())
        return self._ask(party.caller(), sessions.CLOSE_SESSION, ask)

    def report(self) -> Command | None:
        """A batch: new calls, or some that were reported before, whole, in part or together."""
        session = self._any("session", waiting=0.9)
        if session is None:
            return self.open_session()
        return self.report_of(session)

    def report_of(self, session: dict[str, Any]) -> Command | None:
        """A batch of a session, of any kind."""
        vendor = self._of(self.vendors, session["vendor_id"])
        seqs = self._numbers(session)
        data = self._before(session) or batch_bytes(
            session["session_id"], [self._event(session, seq) for seq in seqs]
        )
        return self._reported(session, vendor, data, self._voucher(session, max(seqs)))

    def _reported(
        self, session: dict[str, Any], vendor: Party, data: bytes, voucher: Voucher
    ) -> Command:
        """A batch under a voucher, mostly signed and found as it should be."""
        key = self._hand(vendor)
        if self.chance.random() < 0.05:
            # One of its own that may be out of force, or another's.
            key = self.chance.choice((*vendor.keys, self.chance.choice(self.vendors).keys[0]))
        facts: dict[str, Json] = {
            "usage": data.decode(),
            "usage_root": root_of(events_in(data)).hex(),
            "usage_signature": sign_batch(key, session["session_id"], data),
            "voucher": self._signed_by_payer(session, voucher),
        }
        ask = sessions.ReportUsage(
            session_id=session["session_id"],
            batch=data.decode(),
            batch_signature=str(facts["usage_signature"]),
            voucher=str(facts["voucher"]),
            idempotency_key=self._id(),
        )
        body, is_sound = self._found(session, key, data, voucher)
        return self._ask(
            vendor.caller(self._hand(vendor)),
            sessions.REPORT_USAGE,
            ask,
            body=body,
            facts=facts if is_sound else None,
        )

    def _numbers(self, session: dict[str, Any]) -> list[int]:
        """Mostly the next ones, in any order; now and then gaps, repeats, and what is far off."""
        top, count = session["top"], self.chance.choice((1, 1, 2, 3, 5, 8, 21))
        first = top + 1
        match self.chance.choice(("next", "next", "next", "gaps", "behind", "far", "far", "again")):
            case "next":
                seqs = list(range(first, first + count))
            case "gaps":
                seqs = self.chance.sample(range(first, first + 3 * count), count)
            case "behind":
                seqs = [max(1, top - self.chance.randrange(20)) for _ in range(count)]
            case "far":
                near = (top - 1024, top - 1023, top + 1024, top + 1025)
                seqs = [max(1, self.chance.choice(near)), *range(first, first + count)]
            case _:
                seqs = [self.chance.randint(1, first + 1) for _ in range(count)]
        if self.chance.random() < 0.5:
            self.chance.shuffle(seqs)
        return seqs

    def _before(self, session: dict[str, Any]) -> bytes:
        """Now and then a batch that was reported before."""
        if self.chance.random() < 0.9:
            return b""
        told = [
            record["facts"]["usage"]
            for record in self.books.records
            if record["operation"] == "report_usage"
            and "refused" not in record
            and record["asked"]["session_id"] == session["session_id"]
        ]
        return self.chance.choice(told).encode() if told else b""

    def _event(self, session: dict[str, Any], seq: int) -> UsageEvent:
        """What a call used follows from its number: it is the same in whatever batch it comes."""
        drawn = Random(f"{session['session_id']} {seq}")
        card = self._card_of(session)
        usage = some_of(drawn, card, drawn.choice((0, 1, 1, 2, 3, 9, 40)))
        if drawn.random() < 0.04:
            usage = drawn.choice(({}, {UNKNOWN: 2}, {"page": 1, UNKNOWN: 0}, {"page": 10**15}))
        is_done = drawn.random() < 0.88
        return UsageEvent(
            seq=seq,
            at_us=self._time(session),
            usage=usage,
            outcome=UsageOutcome.SUCCEEDED if is_done else drawn.choice(_FAILURES),
            args_sha256=ARGS,
            result_sha256=BODY if is_done else "",
        )

    def _card_of(self, thing: dict[str, Any]) -> dict[str, Any]:
        """The rate card of an agreement, or of a session under one."""
        return self.books.documents[thing["rate_card_sha256"]]

    def _time(self, session: dict[str, Any]) -> int:
        """Mostly within the session's time, now and then at one of its edges."""
        opened_us = int(session["opened_at_us"])
        end_us = int(session.get("ended_at_us") or session["expires_at_us"])
        if self.chance.random() < 0.85:
            return max(opened_us, min(self.now_us, end_us))
        frozen_us = self.books.frozen_at_us.get(session["buyer_id"], self.now_us)
        edges = (
            *(opened_us - 5 * SECOND_US, end_us, self.now_us + 5 * SECOND_US, frozen_us),
            *(opened_us - _NEVER_US, self.now_us + _NEVER_US, int(session["expires_at_us"])),
        )
        return self.chance.choice(edges) + self.chance.choice((-1, 0, 0, 1))

    def _voucher(self, session: dict[str, Any], seq: int) -> Voucher:
        """Mostly one that covers all; now and then a stale one, or one for more than there is."""
        cap_units, spent_units = int(session["cap_units"]), int(session["spent_units"])
        sums = (
            *(cap_units, cap_units, cap_units, spent_units, cap_units + 1),
            *(int(session["max_cum_units"]), self.chance.randint(spent_units, cap_units)),
        )
        is_stale = self.chance.random() < 0.15
        return Voucher(
            agreement_id=AgreementId(session["agreement_id"]),
            session_id=SessionId(session["session_id"]),
            args_sha256=ARGS,
            seq=max(1, seq - self.chance.randrange(4)) if is_stale else seq,
            max_cum_units=self.chance.choice(sums),
            ack="",
        )

    def _signed_by_payer(self, session: dict[str, Any], voucher: Voucher) -> str:
        key = next(
            key
            for party in self.buyers
            for key in party.keys
            if key.thumbprint == session["payer_thumbprint"]
        )
        return voucher_jwt(key, voucher, now_us=self.now_us, jti="voucher", lifetime_s=60)

    def _found(
        self, session: dict[str, Any], key: PrivateKey, data: bytes, voucher: Voucher
    ) -> tuple[Reported, bool]:
        """The batch as the platform finds it, and whether nothing is wrong with it."""
        found = {"session_id": session["session_id"], "batch_sha256": sha256_hex(data)}
        if self.chance.random() < 0.03:
            fault = refuse(Code.USAGE_INVALID, path="batch")
            return Reported(**found, key_thumbprint=key.thumbprint, fault=fault), False
        columns = read_batch(data, SessionId(session["session_id"]))
        if self.chance.random() < 0.03:
            forged = refuse(Code.SIGNATURE_INVALID, path="voucher")
            return Reported(**found, events=len(columns.seqs), fault=forged), False
        return Reported(
            **found,
            events=len(columns.seqs),
            columns=columns,
            key_thumbprint=key.thumbprint,
            voucher_seq=voucher.seq,
            max_cum_units=voucher.max_cum_units,
        ), True
