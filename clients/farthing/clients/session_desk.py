"""One spend session at its vendor's: each call runs once, many at a time, none beyond what is owed.

Boundary: calls whose payment was checked (`entitlements`). What is owed is counted by the law's
`VoucherDesk`, an answer is given when call and event are in the spool, and `reporter` takes the
event from there. Source: spec/sessions.md, spec/payments-mcp.md.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, NamedTuple

from msgspec import structs

from farthing.clients.allowance_watch import AllowanceWatch, Judge
from farthing.clients.commits import Commits
from farthing.clients.deliveries import Produced, Undeliverable
from farthing.clients.entitlements import Vouched
from farthing.clients.flights import Flight, Load
from farthing.clients.reporter import DEARER, Metered, Reporter, Signed, UsageQueue
from farthing.clients.usage_spool import KeptCall, KeptSession, Row, UsageSpool
from farthing.clients.vendors import Vendor
from farthing.protocol.canonical import Json, sha256_hex
from farthing.protocol.errors import Code, Refusal, Refused, Unreachable, Unverified, refuse
from farthing.protocol.money import INT64_MAX, format_units
from farthing.protocol.proofs import Entitlement
from farthing.protocol.rating import RatingError
from farthing.protocol.rating.running import Running
from farthing.protocol.times import SECOND_US
from farthing.protocol.usage import REPORT_WINDOW_US, SKEW_US, UsageFault, UsageOutcome
from farthing.protocol.vouchers import VoucherDesk
from farthing.protocol.x402 import PAYMENT

__all__ = ["CallWork", "SessionDesk", "Tools"]

log = logging.getLogger(__name__)

# Of the time in which settlement takes reports after a session's end, the last minute is for them.
_TO_REPORT_US: Final = 60 * SECOND_US
_AFTER_END_US: Final = REPORT_WINDOW_US - _TO_REPORT_US
# A buyer that closes leaves as long to report: for half of it the platform's last word is good
# enough to begin a call, and what takes longer than half of that is asked about on its way.
_HEARD_US: Final = REPORT_WINDOW_US // 2
_WATCH_S: Final = _HEARD_US / SECOND_US / 2
_FAILED: Final = refuse(Code.VENDOR_FAILED)
# Why settlement takes no more, by the word it said; every other is the session's end.
_STOPPED: Final[dict[str, Code]] = {
    UsageFault.FROZEN: Code.FROZEN,
    UsageFault.OVER_ALLOWANCE: Code.ALLOWANCE_EXCEEDED,
    **dict.fromkeys(DEARER, Code.CAPTURE_EXCEEDS_HOLD),
}
_ENDED: Final = frozenset({"closed", "closing", "expired", Code.SESSION_CLOSED})
_BUYERS_FAULT: Final = frozenset({
    Code.ALLOWANCE_EXCEEDED, Code.CAPTURE_EXCEEDS_HOLD, Code.INVALID_ARGUMENT,
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What the desks of one vendor share."""

    vendor: Vendor
    spool: UsageSpool
    commits: Commits[Row]
    reporter: Reporter
    load: Load


class CallWork(NamedTuple):
    """A call that waits to be done.

    Args:
        vouched: Its payment, checked.
        args_sha256: The digest of its arguments.
        repeatable: Whether it may be done again after it was interrupted.
        deadline_s: How long it may take.
        check_room: Raises `Refused` where no more work can be taken now.
        run: Does it, told who judges what it will use, where that is known before; raises
            `Undeliverable` where it fails as foreseen.
    """

    vouched: Vouched
    args_sha256: str
    repeatable: bool
    deadline_s: int
    check_room: Callable[[], None]
    run: Callable[[Judge], Awaitable[Produced]]


class SessionDesk:
    """The desk. Once it `has_left` memory it takes no call: the spool has it, as of `changes`.

    Args:
        entitlement: What the platform said about the session.
        counts: What is owed.
        running: What calls cost from here on.
        queue: What is to be reported.
        allowance: What is left of the agreement's.
        mac_key: The key that the payer handed over last; empty where it did not.
        tools: What it writes and reports with.
    """

    def __init__(
        self,
        entitlement: Entitlement,
        counts: VoucherDesk,
        running: Running,
        queue: UsageQueue,
        allowance: AllowanceWatch,
        *,
        mac_key: bytes,
        tools: Tools,
    ) -> None:
        assert entitlement.session_id is not None, "a session's entitlement"
        self.session_id = entitlement.session_id
        self.entitlement = entitlement
        self.queue = queue
        self.mac_key = mac_key
        self._counts = counts
        self._running = running
        self._allowance = allowance
        self._tools = tools
        self._clock = tools.vendor.connection.clock
        self._flights: dict[int, Flight] = {}
        self._is_closing = False
        self._asking: asyncio.Task[None] | None = None
        queue.heard_at_us = max(queue.heard_at_us, entitlement.issued_at_us)
        self.used_at_us = self.changed_at_us = self._clock()
        self.changes = 0
        self.has_left = False

    @property
    def working(self) -> int:
        """How many calls are being worked for."""
        return len(self._flights)

    def extend(self, entitlement: Entitlement) -> None:
        """The platform says more: the session is open still, or was topped up."""
        # Where the clock was set back, this says nothing of how long ago that was.
        if self.queue.heard_at_us < entitlement.issued_at_us <= self._clock() + SKEW_US:
            self.queue.heard_at_us = entitlement.issued_at_us
        if entitlement.cap_units > self._counts.cap_units:
            self.entitlement = entitlement
            self._counts.cap_units = entitlement.cap_units
            self._changed()

    async def obtain(self, work: CallWork) -> KeptCall:
        """The ended call, however often it is asked for; it goes on when the caller goes away.

        Raises:
            Refused: `proof_invalid`: this payment does not cover this call, or another call has
                its number; `overloaded`.
        """
        seq = work.vouched.voucher.seq
        await self._allowance.look(self.queue.doubted_at_us)
        self._check_here()
        self._hear(work.vouched)
        flight = self._flights.get(seq)
        if flight is None:
            # The window knows every number that was taken: one that was not is looked up nowhere.
            if (fault := self._counts.window.fault(seq)) is not None:
                kept = await self._kept(seq, fault)
                if kept is not None:
                    _check_same(kept.args_sha256, work)
                    return kept
            await self._know_open(_HEARD_US)
            flight = self._flights.get(seq)
        if flight is None:
            self._admit(work)
            flight = self._flights[seq] = Flight(work.args_sha256)
            self._tools.load.add(flight)
            flight.task = asyncio.create_task(self._carry_out(work, flight))
        _check_same(flight.args_sha256, work)
        return await flight.landed()

    async def close(self) -> None:
        """Stop what is being worked for; nothing is billed for it."""
        self._is_closing = True
        tasks = [flight.task for flight in self._flights.values() if flight.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # What had not begun has nothing to be written; the rest lands with the next commit.
        for flight in self._flights.values():
            if not flight.has_ended:
                flight.cut_off()
                self._tools.load.remove(flight)

    def row(self) -> KeptSession:
        """The desk as it stands, for the spool."""
        document: dict[str, Json] = {
            "asset": self.entitlement.asset,
            "counts": self._counts.document(),
            "position": {meter: str(each) for meter, each in self._running.position.items()},
            "mac_key": self.mac_key.hex(),
            **self.queue.document(),
        }
        return KeptSession(
            session_id=self.session_id,
            payer=self.entitlement.buyer_id,
            ends_at_us=self.entitlement.expires_at_us,
            at_us=self.changed_at_us,
            document=document,
        )

    async def give_up(self, call: KeptCall) -> None:
        """End a call that was interrupted and may not be done twice."""
        text = "The work was interrupted and may not be done twice; nothing is charged."
        refusal = refuse(Code.VENDOR_FAILED, message=text)
        self._failed(call, refusal, UsageOutcome.FAILED_VENDOR)
        await self._tools.commits.kept()

    def _hear(self, vouched: Vouched) -> None:
        if vouched.mac_key and vouched.mac_key != self.mac_key:
            self.mac_key = vouched.mac_key
            self._changed()
        voucher = vouched.voucher
        if vouched.token and self._counts.note(voucher):
            self.queue.voucher = Signed(vouched.token, voucher.seq, voucher.max_cum_units)
            self._changed()
            self._tools.reporter.wake(self.queue)

    def _changed(self) -> None:
        self.changes += 1
        self.changed_at_us = self._clock()
        self._tools.commits.draft(self.row)

    def _check_here(self) -> None:
        if self.has_left:
            raise Refused(refuse(Code.OVERLOADED, retry_after_s=1))

    async def _know_open(self, age_us: int) -> None:
        """Ask whether the session is open, where the platform last said so too long ago.

        An entitlement does not say that its session was closed since, and what settlement takes no
        more is worked for in vain.
        """
        now_us = self._clock()
        heard_us = now_us - self.queue.heard_at_us
        if self.queue.is_stopped(now_us) or -SKEW_US <= heard_us < age_us:
            return
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
        try:
            await asyncio.shield(self._asking)
        except (Refused, Unreachable, Unverified) as error:
            text = "Whether the session is open cannot be asked now."
            raise Refused(refuse(Code.UNAVAILABLE, message=text, retry_after_s=1)) from error

    async def _ask(self) -> None:
        asked_at_us = self._clock()
        try:
            session = await self._tools.vendor.session_status(self.session_id)
        finally:
            self._asking = None
        if session.status in {"open", "closing"}:
            self.queue.heard(asked_at_us, session.closes_at)
        else:
            self.queue.stop(session.status, INT64_MAX)

    async def _watch(self, flight: Flight) -> None:
        """See that a call that takes long ends while settlement still takes it."""
        while self.queue.stopped_by not in _ENDED:
            await asyncio.sleep(_WATCH_S)
            with suppress(Refused):
                await self._know_open(int(_WATCH_S * SECOND_US))
        left_us = self.queue.closes_at_us - _TO_REPORT_US - self._clock()
        await asyncio.sleep(max(left_us, 0) / SECOND_US)
        flight.expire()

    async def _kept(self, seq: int, fault: UsageFault) -> KeptCall | None:
        kept = await asyncio.to_thread(self._tools.spool.call, self.session_id, seq)
        if kept is None and fault is not UsageFault.DUPLICATE:
            return None
        if kept is not None and kept.outcome is not None:
            return kept
        # It could not be written when it ended.
        try:
            await self._tools.commits.kept()
        except (OSError, sqlite3.Error) as error:
            raise _not_kept() from error
        kept = await asyncio.to_thread(self._tools.spool.call, self.session_id, seq)
        if kept is None or kept.outcome is None:
            raise _not_kept()
        return kept

    def _admit(self, work: CallWork) -> None:
        voucher = work.vouched.voucher
        self._check_here()
        work.check_room()
        if self.queue.is_stopped(self._clock()):
            reason = self.queue.stopped_by
            code = _STOPPED.get(reason, Code.SESSION_CLOSED)
            text = f"Settlement takes no more of this session: {reason}."
            raise Refused(refuse(code, message=text))
        if (refusal := self._allowance.spent()) is not None:
            raise Refused(refusal)
        refusal = self._counts.admit(voucher, signed=bool(work.vouched.token))
        if refusal is not None:
            which = "voucher" if work.vouched.token else "mac"
            raise Refused(replace(refusal, path=f"{PAYMENT}.payload.{which}.{refusal.path}"))
        self.changes += 1

    async def _carry_out(self, work: CallWork, flight: Flight) -> None:
        # Settlement takes nothing from before the session: a clock that was set back would say so.
        at_us = max(self._clock(), self.entitlement.issued_at_us)
        refusal, outcome = _FAILED, UsageOutcome.FAILED_VENDOR
        left_s = (self.entitlement.expires_at_us + _AFTER_END_US - at_us) / SECOND_US
        most_s = min(work.deadline_s, left_s)
        flight.ends_s = asyncio.get_running_loop().time() + most_s
        watch = asyncio.create_task(self._watch(flight)) if most_s > _WATCH_S else None
        try:
            if not work.repeatable:
                self._tools.commits.note(self._call(work, at_us))
                await self._tools.commits.kept()
            self._delivered(work, at_us, await self._work(work, flight))
        except Undeliverable as failed:
            refusal = failed.refusal
            if refusal.code in _BUYERS_FAULT:
                outcome = UsageOutcome.FAILED_BUYER
        except (TimeoutError, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and not flight.is_late:
                raise
            text = "The work took longer than the terms allow."
            refusal = refuse(Code.VENDOR_FAILED, message=text)
            outcome = UsageOutcome.TIMED_OUT
        finally:
            self._allowance.free(flight)
            if watch is not None:
                watch.cancel()
            # Whatever else the tool raised goes on its way, but the call has ended.
            if not flight.has_ended:
                self._failed(self._call(work, at_us), refusal, outcome)

    async def _work(self, work: CallWork, flight: Flight) -> Produced:
        produced = await work.run(partial(self._allowance.reserve, flight))
        if (beyond := await self._allowance.use(flight, produced.usage)) is not None:
            raise Undeliverable(beyond)
        return produced

    def _delivered(self, work: CallWork, at_us: int, produced: Produced) -> None:
        try:
            units = self._running.price(produced.usage)
        except RatingError as error:
            text = f"The session's rate card has no price for this: {error}."
            refusal = refuse(Code.VENDOR_FAILED, message=text)
            self._failed(self._call(work, at_us), refusal, UsageOutcome.FAILED_VENDOR)
            return
        if units > self._counts.per_call_units:
            call = self._call(work, at_us)
            self._failed(call, self._too_dear(units), UsageOutcome.FAILED_BUYER)
            return
        seq = work.vouched.voucher.seq
        self._running.take()
        self._counts.settle(seq, units)
        self._ended(
            KeptCall(
                session_id=self.session_id,
                seq=seq,
                args_sha256=work.args_sha256,
                at_us=at_us,
                place=self.queue.next_place(),
                outcome=UsageOutcome.SUCCEEDED,
                usage=produced.usage,
                amount_units=units,
                spent_units=self._counts.spent_units,
                result_sha256=sha256_hex(produced.result),
                result=produced.result,
                content=produced.content,
            )
        )

    def _failed(self, call: KeptCall, refusal: Refusal, outcome: UsageOutcome) -> None:
        self._counts.drop(call.seq)
        self._ended(
            structs.replace(
                call,
                place=self.queue.next_place(),
                outcome=outcome,
                refusal=refusal.document(),
            )
        )

    def _call(self, work: CallWork, at_us: int) -> KeptCall:
        """A call that was taken and has not ended."""
        return KeptCall(
            session_id=self.session_id,
            seq=work.vouched.voucher.seq,
            args_sha256=work.args_sha256,
            at_us=at_us,
        )

    def _ended(self, call: KeptCall) -> None:
        """Have a call and its event written; whoever waits for it is told when they are."""
        if (flight := self._flights.get(call.seq)) is not None:
            flight.has_ended = True
        self.queue.add(Metered(call.place, call.event, call.amount_units))
        self._tools.commits.note(call)
        self._changed()
        self._tools.commits.then(partial(self._landed, call))

    def _landed(self, call: KeptCall, fault: BaseException | None) -> None:
        if isinstance(fault, OSError | sqlite3.Error):
            log.error("call %s of %s is not on disk yet: %r", call.seq, self.session_id, fault)
            fault = _not_kept()
        if (flight := self._flights.pop(call.seq, None)) is not None:
            self._tools.load.remove(flight)
            flight.land(call, fault)
        # What is not on disk yet goes there with its batch.
        if not isinstance(fault, asyncio.CancelledError) and not self._is_closing:
            self._tools.reporter.wake(self.queue)

    def _too_dear(self, units: int) -> Refusal:
        asset = self.entitlement.asset
        return refuse(
            Code.CAPTURE_EXCEEDS_HOLD,
            path="per_call",
            required=format_units(units, asset),
            remaining=format_units(self._counts.per_call_units, asset),
            asset=asset,
            message="The usage costs more than the session lets one call cost.",
        )


def _not_kept() -> Refused:
    text = "The work is done, but not kept yet; ask again for its result."
    return Refused(refuse(Code.UNAVAILABLE, message=text, retry_after_s=1))


def _check_same(args_sha256: str, work: CallWork) -> None:
    if args_sha256 != work.args_sha256:
        raise Refused(refuse(Code.PROOF_INVALID, path="arguments"))
