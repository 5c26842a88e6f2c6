"""A spend session made by the real engine, and reports of it signed by real keys."""

from dataclasses import dataclass, replace
from typing import Any

from farthing.identity.callers import Caller
from farthing.protocol.batches import events_in, sign_batch
from farthing.protocol.canonical import Json, sha256_hex
from farthing.protocol.ids import AgreementId, SessionId
from farthing.protocol.merkle import root_of
from farthing.protocol.messages.sessions import (
    CLOSE_SESSION,
    OPEN_SESSION,
    REPORT_USAGE,
    TOP_UP_SESSION,
    CloseSession,
    OpenSession,
    ReportUsage,
    TopUpSession,
)
from farthing.protocol.proofs import Voucher, voucher_jwt
from farthing.protocol.records import Record
from farthing.protocol.usage import UsageEvent, UsageOutcome, batch_bytes, read_batch
from farthing.protocol.wire import money
from farthing.settlement.engine.usage import Reported
from tests.construction import Trade, vendor_key

__all__ = ["PAGE_UNITS", "Metered", "events"]

PAGE_UNITS = 2_000_000


def events(
    first: int,
    *pages: int,
    at_us: int,
    outcome: UsageOutcome = UsageOutcome.SUCCEEDED,
) -> list[UsageEvent]:
    """Calls numbered from `first`, one for each number of pages."""
    done = outcome is UsageOutcome.SUCCEEDED
    return [
        UsageEvent(
            seq=first + place,
            at_us=at_us,
            usage={"page": each},
            outcome=outcome,
            args_sha256="a" * 64,
            result_sha256="b" * 64 if done else "",
        )
        for place, each in enumerate(pages)
    ]


@dataclass(slots=True)
class Metered:
    """A trade with one session."""

    trade: Trade
    session_id: str

    @classmethod
    def opened(
        cls,
        trade: Trade,
        *,
        cap: int = 40 * PAGE_UNITS,
        per_call: int = 10 * PAGE_UNITS,
        **ask: Any,
    ) -> "Metered":
        """Open a session that must be allowed."""
        body = OpenSession(
            agreement_id=trade.agreement_id,
            cap=money(cap, "USD"),
            per_call=money(per_call, "USD"),
            idempotency_key=trade.room.key(),
            **ask,
        )
        record = trade.room.done(trade.agent, OPEN_SESSION, body)
        return cls(trade, record.changed[0].id)

    def voucher(self, seq: int, max_cum: int) -> str:
        """What the buyer signs."""
        voucher = Voucher(
            agreement_id=AgreementId(self.trade.agreement_id),
            session_id=SessionId(self.session_id),
            args_sha256="a" * 64,
            seq=seq,
            max_cum_units=max_cum,
            ack="",
        )
        now_us = self.trade.room.now_us
        return voucher_jwt(
            vendor_key(self.trade.agent), voucher, now_us=now_us, jti="v", lifetime_s=60
        )

    def report(self, listed: list[UsageEvent], **how: Any) -> Record:
        """Report calls under a voucher; it must be taken."""
        record: Record = self.send(listed, **how)
        assert record.refused is None, record.refused
        return record

    def send(
        self,
        listed: list[UsageEvent],
        *,
        seq: int = 1000,
        max_cum: int = 10**9,
        by: Caller | None = None,
        key: str = "",
        **found: Any,
    ) -> Any:
        """Report calls under a voucher; gives whatever the engine decides.

        Args:
            listed: the calls.
            seq: the voucher's number.
            max_cum: its sum.
            by: who reports.
            key: the idempotency key.
            found: what the platform is made to find otherwise than it is.
        """
        room, vendor = self.trade.room, by or self.trade.vendor
        data = batch_bytes(self.session_id, listed)
        signature = sign_batch(vendor_key(vendor), self.session_id, data)
        voucher = self.voucher(seq, max_cum)
        ask = ReportUsage(
            session_id=self.session_id,
            batch=data.decode(),
            batch_signature=signature,
            voucher=voucher,
            idempotency_key=key or room.key(),
        )
        body = Reported(
            session_id=self.session_id,
            batch_sha256=sha256_hex(data),
            events=len(listed),
            columns=read_batch(data, SessionId(self.session_id)),
            key_thumbprint=vendor.key_thumbprint,
            voucher_seq=seq,
            max_cum_units=max_cum,
        )
        body = replace(body, **found)
        facts: dict[str, Json] = {
            "usage": data.decode(),
            "usage_root": root_of(events_in(data)).hex(),
            "usage_signature": signature,
            "voucher": voucher,
        }
        return room.submit(vendor, REPORT_USAGE, ask, body=body, facts=facts)

    def top_up(self, units: int) -> Record:
        """Raise the cap."""
        ask = TopUpSession(
            session_id=self.session_id,
            amount=money(units, "USD"),
            idempotency_key=self.trade.room.key(),
        )
        return self.trade.room.done(self.trade.agent, TOP_UP_SESSION, ask)

    def close(self, by: Caller) -> Record:
        """End it."""
        ask = CloseSession(session_id=self.session_id, idempotency_key=self.trade.room.key())
        return self.trade.room.done(by, CLOSE_SESSION, ask)
