"""All spend sessions at one vendor's: each found, opened, or taken up again after a restart.

Boundary: which desk, and what it starts from. What happens at it is `session_desk`.
Source: spec/sessions.md, spec/payments-mcp.md.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, cast

from farthing.clients.commits import Commits
from farthing.clients.reporter import Metered, Reporter, Signed, UsageQueue
from farthing.clients.session_desk import Load, SessionDesk, Tools
from farthing.clients.usage_spool import KeptCall, KeptSession, Row, UsageSpool
from farthing.clients.vendors import Vendor
from farthing.protocol.canonical import Json
from farthing.protocol.proofs import Entitlement
from farthing.protocol.rating import START, Position, RateCard, compile_card
from farthing.protocol.rating.running import Running
from farthing.protocol.sequences import WINDOW, Window
from farthing.protocol.times import DAY_US
from farthing.protocol.usage import REPORT_WINDOW_US
from farthing.protocol.vouchers import VoucherDesk

__all__ = ["UNSIGNED_CALLS_MAX", "SessionDesks"]

CardOf = Callable[[Entitlement], Awaitable[RateCard]]

UNSIGNED_CALLS_MAX: Final = 64
"""How many calls' worth a vendor lets run unsigned: the entitlement's bound is its buyer's wish."""
_KEEP_US: Final = 31 * DAY_US


class SessionDesks:
    """The desks of one vendor's process.

    Args:
        vendor: Signs, reports and asks.
        spool: Remembers.
        card_of: Gives the rate card that a session is rated under.
        unsigned_calls_max: How many calls' worth may run in a session that nothing signed covers.
    """

    def __init__(
        self,
        vendor: Vendor,
        spool: UsageSpool,
        card_of: CardOf,
        *,
        unsigned_calls_max: int = UNSIGNED_CALLS_MAX,
    ) -> None:
        self._unsigned_calls_max = unsigned_calls_max
        self._spool = spool
        self._card_of = card_of
        self._clock = vendor.connection.clock
        self._commits = Commits[Row](spool.write)
        self._reporter = Reporter(vendor, spool, self._commits)
        self._tools = Tools(
            vendor=vendor,
            spool=spool,
            commits=self._commits,
            reporter=self._reporter,
            load=Load(),
        )
        self._desks: dict[str, SessionDesk] = {}
        self._queues: dict[str, UsageQueue] = {}
        self._opening: dict[str, asyncio.Task[SessionDesk]] = {}

    @property
    def working(self) -> int:
        """How many calls are being worked for."""
        return self._tools.load.calls

    async def open(self) -> None:
        """Forget what is long settled, and go on reporting what is not."""
        await asyncio.to_thread(self._spool.forget, self._clock() - _KEEP_US)
        for session_id in await asyncio.to_thread(self._spool.undrained):
            kept = await asyncio.to_thread(self._spool.session, session_id)
            if kept is not None:
                self._reporter.wake(await asyncio.to_thread(self._queue, kept))

    def find(self, entitlement: Entitlement) -> SessionDesk | None:
        """The desk of the session that a checked entitlement is of, where it is open here."""
        desk = self._desks.get(entitlement.session_id or "")
        if desk is not None:
            desk.extend(entitlement)
        return desk

    async def at(self, entitlement: Entitlement) -> SessionDesk:
        """The desk of the session that a checked entitlement is of.

        Raises:
            Refused: Its rate card, or where it is rated from, cannot be asked now.
        """
        session_id = entitlement.session_id
        assert session_id is not None, "a session's entitlement"
        if (desk := self.find(entitlement)) is not None:
            return desk
        opening = self._opening.get(session_id)
        if opening is None:
            opening = asyncio.create_task(self._open(session_id, entitlement))
            self._opening[session_id] = opening
            opening.add_done_callback(lambda _: self._opening.pop(session_id))
        desk = await asyncio.shield(opening)
        desk.extend(entitlement)
        return desk

    async def kept(self, session_id: str, seq: int) -> KeptCall | None:
        """A call by its number."""
        return await asyncio.to_thread(self._spool.call, session_id, seq)

    async def rejected(self, limit: int) -> list[KeptCall]:
        """The calls whose events settlement did not take, newest first."""
        return await asyncio.to_thread(self._spool.rejected, limit)

    async def close(self) -> None:
        """Stop the work, report for a moment, and leave the rest in the spool."""
        await asyncio.gather(*(desk.close() for desk in self._desks.values()))
        await self._reporter.close(list(self._queues.values()))
        await self._commits.kept()

    async def _open(self, session_id: str, entitlement: Entitlement) -> SessionDesk:
        self._sweep()
        card = await self._card_of(entitlement)
        kept = await asyncio.to_thread(self._spool.session, session_id)
        if kept is None:
            position = await self._position(entitlement, card)
            desk = self._new(session_id, entitlement, Running(card, position))
        else:
            desk = await asyncio.to_thread(self._again, kept, entitlement, card)
            for call in await asyncio.to_thread(self._spool.unfinished, session_id):
                await desk.give_up(call)
        self._desks[session_id] = desk
        return desk

    def _new(self, session_id: str, entitlement: Entitlement, running: Running) -> SessionDesk:
        queue = UsageQueue(session_id, entitlement.expires_at_us)
        self._queues[session_id] = queue
        counts = VoucherDesk(
            cap_units=entitlement.cap_units,
            per_call_units=entitlement.per_call_units,
            unsigned_units=min(
                entitlement.unsigned_units, self._unsigned_calls_max * entitlement.per_call_units
            ),
        )
        return SessionDesk(entitlement, counts, running, queue, mac_key=b"", tools=self._tools)

    def _again(self, kept: KeptSession, entitlement: Entitlement, card: RateCard) -> SessionDesk:
        quantities = cast("dict[str, str]", kept.document["position"])
        position = {meter: int(quantity) for meter, quantity in quantities.items()}
        numbers = self._spool.numbers(kept.session_id)
        counts = _settled(kept.document["counts"], numbers)
        return SessionDesk(
            entitlement,
            VoucherDesk.from_document(counts),
            Running(card, position),
            self._queues.get(kept.session_id) or self._queue(kept),
            mac_key=bytes.fromhex(str(kept.document["mac_key"])),
            tools=self._tools,
        )

    def _queue(self, kept: KeptSession) -> UsageQueue:
        """What is still to be reported of a session, as the spool has it."""
        calls = self._spool.unreported(kept.session_id)
        voucher = cast("dict[str, Json]", kept.document["voucher"])
        counts = cast("dict[str, str]", kept.document["counts"])
        queue = UsageQueue(
            kept.session_id,
            kept.ends_at_us,
            place=max(int(str(kept.document["place"])), *(call.place for call in calls), 0),
            reported_units=int(counts["spent_units"]) - sum(call.amount_units for call in calls),
            voucher=Signed(
                str(voucher["token"]), int(str(voucher["seq"])), int(str(voucher["units"]))
            ),
        )
        queue.waiting.extend(self._spool.waiting(kept.session_id))
        for call in calls:
            queue.add(Metered(call.place, call.event, call.amount_units))
        self._queues[kept.session_id] = queue
        return queue

    async def _position(self, entitlement: Entitlement, card: RateCard) -> Position:
        # Where every unit has one whole price, what came before changes no amount.
        if all(
            len(each.tiers) == 1 and each.denominator == 1
            for each in compile_card(card).by_meter.values()
        ):
            return START
        agreement = await self._tools.vendor.agreement(entitlement.agreement_id)
        return {each.meter: int(each.quantity) for each in agreement.position}

    def _sweep(self) -> None:
        """Report the rest of the sessions that are over, and let go those that are reported."""
        now_us = self._clock()
        for queue in list(self._queues.values()):
            if now_us < queue.ends_at_us:
                continue
            self._reporter.wake(queue)
            desk = self._desks.get(queue.session_id)
            is_done = not queue.events and not queue.waiting and not (desk and desk.working)
            if is_done and now_us >= queue.ends_at_us + REPORT_WINDOW_US:
                self._queues.pop(queue.session_id)
                self._desks.pop(queue.session_id, None)


def _settled(document: Json, numbers: Mapping[int, int]) -> dict[str, Json]:
    """The counts as they are when all that ran has ended: only what is in the spool was taken."""
    counts = cast("dict[str, Json]", document)
    top = max(numbers, default=0)
    seen = sum(1 << (top - seq) for seq in numbers if 0 <= top - seq < WINDOW)
    unsigned = cast("dict[str, str]", counts["unsigned"])
    return counts | {
        "top": top,
        "seen": Window(top, seen).text,
        "ended_top": top,
        "in_flight": [],
        "unsigned": {seq: str(numbers[int(seq)]) for seq in unsigned if int(seq) in numbers},
    }
