"""From a paid call to a captured hold: the work is done once, kept, signed, captured, given again.

Boundary: one vendor's process. It decides nothing about a payment (`entitlements`) and nothing
about a tool (`paid`). Source: spec/payments-mcp.md.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, NamedTuple, cast

from farthing.clients.documents import sign_delivery
from farthing.clients.entitlements import Paid
from farthing.clients.spool import Entry, Spool, State
from farthing.clients.transport import Reply
from farthing.clients.vendors import Vendor, capture_key
from farthing.protocol.canonical import Json, sha256_hex
from farthing.protocol.contracts import DeliveryRecord
from farthing.protocol.errors import Code, Refusal, Refused, Unreachable, Unverified, refuse
from farthing.protocol.messages.holds import Charge
from farthing.protocol.signatures import read_header
from farthing.protocol.times import SECOND_US

__all__ = ["Deliveries", "Produced", "Undeliverable", "Work"]

log = logging.getLogger(__name__)

_BACKOFF_S: Final = 0.25
_BACKOFF_S_MAX: Final = 5.0
_SETTLED_AT_ONCE: Final = 16
_CLOSING_S: Final = 5.0
# What a spool raises that has no room, or cannot be written.
_UNWRITTEN: Final = (OSError, sqlite3.Error)
_CLOSED: Final = frozenset({Code.HOLD_RESOLVED, Code.HOLD_EXPIRED})


class Undeliverable(Exception):
    """The tool ended without a result that could be sold."""

    def __init__(self, refusal: Refusal) -> None:
        # A tool's words may have no bytes; they are written together with what others did.
        said = refusal.message.encode(errors="replace").decode()
        super().__init__(said)
        self.refusal = replace(refusal, message=said)


class Produced(NamedTuple):
    """What a tool made: the bytes that are digested, the blocks beside them, what was used."""

    result: bytes
    content: bytes
    usage: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A paid call that waits to be done.

    Args:
        paid: The checked payment.
        args_sha256: The digest of the arguments.
        output_schema_sha256: The schema the result is sold under.
        repeatable: Whether it may be done again after it was interrupted.
        run: Does it; raises `Undeliverable` where it fails as foreseen.
    """

    paid: Paid
    args_sha256: str
    output_schema_sha256: str
    repeatable: bool
    run: Callable[[], Awaitable[Produced]]


class Deliveries:
    """The vendor's desk: every hold passes it once, however often it is asked for.

    Args:
        vendor: Captures and releases.
        spool: Remembers.
    """

    def __init__(self, vendor: Vendor, spool: Spool) -> None:
        self._vendor = vendor
        self._spool = spool
        self._clock = vendor.connection.clock
        self._flights: dict[str, asyncio.Task[Entry | Refusal]] = {}
        self._later: dict[str, asyncio.Task[None]] = {}

    @property
    def working(self) -> int:
        """How many holds are being worked for."""
        return len(self._flights)

    async def find(self, hold_id: str) -> Entry | None:
        """What is known of a hold."""
        return await asyncio.to_thread(self._spool.find, hold_id)

    async def of_charge(self, charge_id: str) -> Entry | None:
        """The work that a charge is for."""
        return await asyncio.to_thread(self._spool.of_charge, charge_id)

    async def obtain(self, work: Work) -> Entry | Refusal:
        """The captured entry of a call, whoever asks and however often, or why there is none.

        Where the platform captures on the answer, it is given before it is captured.

        The work goes on when the caller goes away: it asks again and finds it done.
        """
        hold_id = work.paid.hold_id
        flight = self._flights.get(hold_id)
        if flight is None:
            flight = asyncio.create_task(self._obtain(work))
            self._flights[hold_id] = flight
            flight.add_done_callback(partial(self._landed, hold_id))
        return await asyncio.shield(flight)

    async def settle(self) -> None:
        """Capture what was delivered before a restart."""
        room = asyncio.Semaphore(_SETTLED_AT_ONCE)

        async def settle(entry: Entry) -> None:
            async with room:
                outcome = await self._capture(entry)
            code = outcome.code.value if isinstance(outcome, Refusal) else "captured"
            log.info("after restart, hold %s: %s", entry.hold_id, code)

        await asyncio.gather(*map(settle, await asyncio.to_thread(self._spool.uncaptured)))

    async def close(self) -> None:
        """Stop; what is delivered and not captured waits in the spool."""
        working: set[asyncio.Task[Any]] = {*self._flights.values(), *self._later.values()}
        # What had begun is given back first; where the platform hangs, it expires by itself.
        for _ in range(2):
            for task in working:
                task.cancel()
            if working:
                _, working = await asyncio.wait(working, timeout=_CLOSING_S)
        await asyncio.to_thread(self._spool.close)

    async def _obtain(self, work: Work) -> Entry | Refusal:
        hold_id = work.paid.hold_id
        entry = await self.find(hold_id)
        if entry is None:
            return await self._produce(work)
        if entry.args_sha256 != work.args_sha256:
            return refuse(Code.PROOF_INVALID, path="arguments")
        match entry.state:
            case State.CAPTURED:
                return entry
            case State.DELIVERED:
                return await self._paid(work, entry)
            case State.DROPPED:
                return Refusal.from_document(entry.refusal)
            case State.WORKING | State.INTERRUPTED if work.repeatable:
                return await self._produce(work)
            case State.WORKING | State.INTERRUPTED:
                text = "The work was interrupted and may not be done twice; nothing is charged."
                return await self._drop(hold_id, refuse(Code.VENDOR_FAILED, message=text))

    async def _produce(self, work: Work) -> Entry | Refusal:
        entitlement = work.paid.entitlement
        hold_id, now_us = work.paid.hold_id, self._clock()
        try:
            await asyncio.to_thread(
                self._spool.begin,
                hold_id,
                work.args_sha256,
                agreement_id=entitlement.agreement_id,
                payer=entitlement.buyer_id,
                deadline_us=entitlement.expires_at_us,
                now_us=now_us,
            )
        except _UNWRITTEN as error:
            return _unwritten(error)
        produced: Produced | None = None
        refusal = refuse(Code.VENDOR_FAILED)
        try:
            # Past the hold's end nothing can be captured: no work is worth doing any more.
            async with asyncio.timeout((entitlement.expires_at_us - now_us) / SECOND_US) as limit:
                produced = await work.run()
        except Undeliverable as failed:
            refusal = failed.refusal
        except TimeoutError:
            if not limit.expired():
                raise
            refusal = refuse(
                Code.VENDOR_FAILED, message="The work took longer than the hold lasts."
            )
        finally:
            # Whatever else the tool raised goes on its way, but first the buyer's money is free.
            if produced is None:
                await self._drop(hold_id, refusal)
        if produced is None:
            return refusal
        return await self._deliver(work, produced)

    async def _deliver(self, work: Work, produced: Produced) -> Entry | Refusal:
        entitlement, now_us = work.paid.entitlement, self._clock()
        hold_id = work.paid.hold_id
        delivery = DeliveryRecord(
            hold_id=hold_id,
            agreement_id=entitlement.agreement_id,
            vendor_id=entitlement.vendor_id,
            listing_id=entitlement.listing_id,
            args_sha256=work.args_sha256,
            result_sha256=sha256_hex(produced.result),
            output_schema_sha256=work.output_schema_sha256,
            usage=produced.usage,
            delivered_at_us=now_us,
        )
        signed = sign_delivery(self._vendor.signer, delivery)
        try:
            await asyncio.to_thread(
                self._spool.deliver,
                hold_id,
                result=produced.result,
                content=produced.content,
                delivery=signed.document,
                signature=signed.signature,
                now_us=now_us,
            )
        except _UNWRITTEN as error:
            log.error("the result for hold %s is not kept: %r", hold_id, error)  # noqa: TRY400
            text = "The result could not be kept; nothing is charged."
            return await self._drop(hold_id, refuse(Code.VENDOR_FAILED, message=text))
        entry = await self.find(hold_id)
        assert entry is not None
        return await self._paid(work, entry)

    async def _paid(self, work: Work, entry: Entry) -> Entry | Refusal:
        if not work.paid.entitlement.on_answer:
            return await self._capture(entry)
        self._capture_later(entry)
        return entry

    async def _capture(self, entry: Entry) -> Entry | Refusal:
        outcome = await self._capture_once(entry)
        if isinstance(outcome, Refusal) and outcome.code is Code.UNAVAILABLE:
            self._capture_later(entry)
        return outcome

    async def _capture_once(self, entry: Entry) -> Entry | Refusal:
        try:
            reply = await self._sent(entry)
        except (Unreachable, Unverified) as error:
            return _kept(str(error))
        except Refused as refused:
            if not refused.code.remembered:
                return _kept(str(refused))
            log.warning("hold %s is not captured: %s", entry.hold_id, refused)
            return await self._drop(
                entry.hold_id, refused.refusal, release=refused.code not in _CLOSED
            )
        try:
            return await self._captured(entry.hold_id, reply.answer)
        except _UNWRITTEN as error:
            return _unwritten(error)

    async def _sent(self, entry: Entry) -> Reply[Charge]:
        """Capture; what a key signed that has ended since is signed anew."""
        hold_id, delivery = entry.hold_id, dict(entry.delivery)
        try:
            return await self._vendor.capture_signed(hold_id, delivery, entry.signature)
        except Refused as refused:
            signer = self._vendor.signer
            is_of_this_key = read_header(entry.signature).kid == signer.thumbprint
            if refused.code is not Code.SIGNATURE_INVALID or is_of_this_key:
                raise
        record = DeliveryRecord.from_document(cast("Json", delivery))
        key = f"{capture_key(hold_id)}-{signer.thumbprint}"
        return await self._vendor.capture(record, key=key)

    async def _captured(self, hold_id: str, charge: Charge) -> Entry:
        await asyncio.to_thread(
            self._spool.capture,
            hold_id,
            charge_id=charge.charge_id,
            amount_units=charge.amount.units,
        )
        entry = await self.find(hold_id)
        assert entry is not None
        return entry

    async def _drop(self, hold_id: str, refusal: Refusal, *, release: bool = True) -> Refusal:
        try:
            await asyncio.to_thread(self._spool.drop, hold_id, refusal.document(), self._clock())
        except _UNWRITTEN as error:
            # What the buyer holds is freed all the same: who asks again can only be refused.
            log.error("that hold %s came to nothing is not kept: %r", hold_id, error)  # noqa: TRY400
        if release:
            try:
                await self._vendor.release(hold_id, refusal.code.value)
            except (Refused, Unreachable, Unverified) as error:
                # It expires by itself; the buyer waits a little longer for the money.
                log.warning("hold %s is not released: %s", hold_id, error)
        return refusal

    def _capture_later(self, entry: Entry) -> None:
        if entry.hold_id not in self._later:
            task = asyncio.create_task(self._go_on_capturing(entry))
            self._later[entry.hold_id] = task
            task.add_done_callback(lambda _: self._later.pop(entry.hold_id, None))

    async def _go_on_capturing(self, entry: Entry) -> None:
        wait_s, is_over = _BACKOFF_S, False
        # Once more when the hold has ended: then the platform knows what it came to.
        while not is_over:
            is_over = self._clock() >= entry.deadline_us
            await self._vendor.connection.sleep(wait_s)
            wait_s = min(wait_s * 2, _BACKOFF_S_MAX)
            outcome = await self._capture_once(entry)
            if not isinstance(outcome, Refusal) or outcome.code is not Code.UNAVAILABLE:
                return
        log.warning("hold %s ended before it could be captured", entry.hold_id)

    def _landed(self, hold_id: str, flight: asyncio.Task[Entry | Refusal]) -> None:
        del self._flights[hold_id]
        if not flight.cancelled() and (error := flight.exception()) is not None:
            log.warning("the work for hold %s failed: %r", hold_id, error)


def _kept(why: str) -> Refusal:
    log.warning("a delivery waits to be captured: %s", why)
    text = "The work is done and kept, but not captured yet; ask again for its result."
    return refuse(Code.UNAVAILABLE, message=text, retry_after_s=1)


def _unwritten(error: Exception) -> Refusal:
    log.error("the spool is not written: %r", error)
    text = "The vendor can keep nothing now; ask again, for the result too."
    return refuse(Code.UNAVAILABLE, message=text, retry_after_s=1)
