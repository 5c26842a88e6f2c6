"""All spend sessions at one vendor's: each found, opened, or taken up again from the spool.

Boundary: which desk, what it starts from, and which leave memory for it. What happens at one is
`session_desk`; what is reported without one, `parted`. Source: spec/sessions.md,
spec/payments-mcp.md.
"""

import asyncio
import logging
import sqlite3
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Final, cast
from weakref import WeakValueDictionary

from farthing.clients.allowance_watch import AllowanceWatch
from farthing.clients.commits import Commits
from farthing.clients.flights import Load
from farthing.clients.parted import Parted
from farthing.clients.reporter import Reporter, UsageQueue
from farthing.clients.session_desk import SessionDesk, Tools
from farthing.clients.usage_spool import KeptCall, KeptSession, Row, UsageSpool
from farthing.clients.vendors import Vendor
from farthing.protocol.canonical import Json
from farthing.protocol.errors import Code, Refused, refuse
from farthing.protocol.proofs import Entitlement
from farthing.protocol.rating import START, Position, RateCard, compile_card
from farthing.protocol.rating.running import Running
from farthing.protocol.sequences import WINDOW, Window
from farthing.protocol.times import SECOND_US
from farthing.protocol.vouchers import VoucherDesk
from farthing.protocol.wire import quantities_of

__all__ = ["DESKS_MAX", "UNSIGNED_CALLS_MAX", "SessionDesks"]

log = logging.getLogger(__name__)

CardOf = Callable[[Entitlement], Awaitable[RateCard]]

UNSIGNED_CALLS_MAX: Final = 64
"""How many calls' worth a vendor lets run unsigned: the entitlement's bound is its buyer's wish."""
DESKS_MAX: Final = 4096
"""How many sessions have a desk in memory at once; the others' desks are in the spool."""
_IDLE_US: Final = 600 * SECOND_US
# Whoever leaves calls unsigned for so long, in any of its latest sessions, is trusted no more.
_OWING_US: Final = 60 * SECOND_US
_LATEST_MAX: Final = 64
_SWEEP_US: Final = 10 * SECOND_US
# Those that leave together share a commit.
_LEAVE_SHARE: Final = 64


class SessionDesks:
    """The desks of one vendor's process.

    Args:
        vendor: Signs, reports and asks.
        spool: Remembers.
        card_of: Gives the rate card that a session is rated under.
        unsigned_calls_max: How many calls' worth may run in a session that nothing signed covers.
        desks_max: How many desks may be in memory.
    """

    def __init__(
        self,
        vendor: Vendor,
        spool: UsageSpool,
        card_of: CardOf,
        *,
        unsigned_calls_max: int = UNSIGNED_CALLS_MAX,
        desks_max: int = DESKS_MAX,
    ) -> None:
        self._unsigned_calls_max = unsigned_calls_max
        self._desks_max = desks_max
        self._spool = spool
        self._card_of = card_of
        self._clock = vendor.connection.clock
        self._commits = Commits[Row](spool.write)
        # One session at a time is taken in or let go.
        self._turn = asyncio.Lock()
        self._parted = Parted(spool, self._commits, self._clock, self._turn)
        self._reporter = Reporter(vendor, spool, self._commits, self._parted.drained)
        self._tools = Tools(
            vendor=vendor,
            spool=spool,
            commits=self._commits,
            reporter=self._reporter,
            load=Load(),
        )
        # The one that was used last is the last.
        self._desks: OrderedDict[str, SessionDesk] = OrderedDict()
        self._opening: dict[str, asyncio.Task[SessionDesk]] = {}
        # By agreement, for as long as a desk has one.
        self._allowances: WeakValueDictionary[str, AllowanceWatch] = WeakValueDictionary()
        self._swept_us = -_SWEEP_US

    @property
    def working(self) -> int:
        """How many calls are being worked for."""
        return self._tools.load.calls

    async def open(self) -> None:
        """Go on reporting what is not settled."""
        await self._parted.open(self._reporter)

    def find(self, entitlement: Entitlement) -> SessionDesk | None:
        """The desk of the session that a checked entitlement is of, where it is open here."""
        session_id = entitlement.session_id or ""
        desk = self._desks.get(session_id)
        if desk is not None:
            self._desks.move_to_end(session_id)
            desk.used_at_us = self._clock()
            desk.extend(entitlement)
        return desk

    async def at(self, entitlement: Entitlement) -> SessionDesk:
        """The desk of the session that a checked entitlement is of.

        Raises:
            Refused: Its rate card, or where it is rated from, cannot be asked now; `overloaded`:
                every desk that there may be has a call that runs.
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
        await self._parted.close()
        await asyncio.gather(*(each.close() for each in list(self._allowances.values())))
        await asyncio.gather(*(desk.close() for desk in self._desks.values()))
        queues = [desk.queue for desk in self._desks.values()]
        await self._reporter.close([*queues, *self._parted.queues])
        await self._commits.kept()

    async def _open(self, session_id: str, entitlement: Entitlement) -> SessionDesk:
        self._parted.look()
        allowance = self._allowance(entitlement.agreement_id)
        await allowance.look()
        card = await self._card_of(entitlement)
        kept = await asyncio.to_thread(self._spool.session, session_id)
        position = await self._position(entitlement, card) if kept is None else START
        owes = kept is None and await asyncio.to_thread(self._owes, entitlement.buyer_id)
        async with self._turn:
            await self._make_room()
            kept = await asyncio.to_thread(self._spool.session, session_id)
            if kept is None:
                if owes:
                    entitlement = replace(entitlement, unsigned_units=0)
                desk = self._new(session_id, entitlement, Running(card, position), allowance)
            else:
                desk = await asyncio.to_thread(self._again, kept, entitlement, card, allowance)
                for call in await asyncio.to_thread(self._spool.unfinished, session_id):
                    await desk.give_up(call)
            await self._parted.give(session_id)
            self._desks[session_id] = desk
        self._reporter.wake(desk.queue)
        return desk

    async def _make_room(self) -> None:
        """Let desks leave that are over or long idle, and as many more as room is needed for."""
        now_us = self._clock()
        leaving: list[SessionDesk] = []
        if not 0 <= now_us - self._swept_us < _SWEEP_US:
            self._swept_us = now_us
            leaving = [desk for desk in self._desks.values() if _is_over(desk, now_us)]
        if len(self._desks) - len(leaving) >= self._desks_max:
            idle = [desk for desk in self._desks.values() if not desk.working]
            # Rather those of which nothing is out than the ones longest idle.
            idle.sort(key=lambda desk: self._reporter.is_at(desk.queue))
            leaving += islice(idle, max(self._desks_max // _LEAVE_SHARE, 1))
        if leaving:
            await self._leave({desk.session_id: desk for desk in leaving})
        if len(self._desks) >= self._desks_max:
            text = "Every session that this vendor has room for has calls that run."
            raise Refused(refuse(Code.OVERLOADED, message=text, retry_after_s=1))

    async def _leave(self, leaving: Mapping[str, SessionDesk]) -> None:
        """Let desks leave memory, but for those that are used in the meantime."""
        changes = {session_id: desk.changes for session_id, desk in leaving.items()}
        await self._reporter.halt(desk.queue for desk in leaving.values())
        for desk in leaving.values():
            if desk.changes or desk.queue.stopped_by:
                self._commits.draft(desk.row)
        is_kept = True
        try:
            await self._commits.kept()
        except (OSError, sqlite3.Error) as error:
            log.error("desks are not on disk, and stay: %r", error)  # noqa: TRY400 - said in full
            is_kept = False
        for session_id, desk in leaving.items():
            is_same = desk.changes == changes[session_id] and not desk.working
            if is_kept and is_same and not self._reporter.is_at(desk.queue):
                desk.has_left = True
                del self._desks[session_id]
                await self._parted.park(desk.queue)
            else:
                self._reporter.wake(desk.queue)
        self._parted.look()

    def _owes(self, payer: str) -> bool:
        """Whether a payer has left calls that were made under MACs without a signature."""
        before_us = self._clock() - _OWING_US
        latest = self._spool.sessions_of(payer, before_us, _LATEST_MAX)
        return any(_is_unsigned(each.document["counts"]) for each in latest)

    def _new(
        self,
        session_id: str,
        entitlement: Entitlement,
        running: Running,
        allowance: AllowanceWatch,
    ) -> SessionDesk:
        queue = UsageQueue(session_id, entitlement.expires_at_us)
        counts = VoucherDesk(
            cap_units=entitlement.cap_units,
            per_call_units=entitlement.per_call_units,
            unsigned_units=min(
                entitlement.unsigned_units, self._unsigned_calls_max * entitlement.per_call_units
            ),
        )
        return SessionDesk(
            entitlement, counts, running, queue, allowance, mac_key=b"", tools=self._tools
        )

    def _allowance(self, agreement_id: str) -> AllowanceWatch:
        def unsettled() -> Iterator[Mapping[str, int]]:
            for desk in self._desks.values():
                if desk.entitlement.agreement_id == agreement_id:
                    yield from desk.queue.unsettled()

        watch = self._allowances.get(agreement_id)
        if watch is None:
            ask = partial(self._tools.vendor.allowance, agreement_id)
            watch = AllowanceWatch(ask, unsettled, self._clock)
            self._allowances[agreement_id] = watch
        return watch

    def _again(
        self,
        kept: KeptSession,
        entitlement: Entitlement,
        card: RateCard,
        allowance: AllowanceWatch,
    ) -> SessionDesk:
        quantities = cast("dict[str, str]", kept.document["position"])
        position = {meter: int(quantity) for meter, quantity in quantities.items()}
        numbers = self._spool.numbers(kept.session_id)
        counts = _settled(kept.document["counts"], numbers)
        desk = SessionDesk(
            entitlement,
            VoucherDesk.from_document(counts),
            Running(card, position),
            self._parted.find(kept.session_id) or UsageQueue.restore(kept, self._spool),
            allowance,
            mac_key=bytes.fromhex(str(kept.document["mac_key"])),
            tools=self._tools,
        )
        desk.changed_at_us = kept.at_us
        return desk

    async def _position(self, entitlement: Entitlement, card: RateCard) -> Position:
        # What came before changes no amount.
        if compile_card(card).is_flat:
            return START
        agreement = await self._tools.vendor.agreement(entitlement.agreement_id)
        return quantities_of(agreement.position)


def _is_over(desk: SessionDesk, now_us: int) -> bool:
    """Whether a desk has nothing to do in memory: its session is over, or has long been idle."""
    is_past = now_us >= min(desk.entitlement.expires_at_us, desk.used_at_us + _IDLE_US)
    return is_past and not desk.working


def _is_unsigned(document: Json) -> bool:
    counts = cast("dict[str, Json]", document)
    later = cast("dict[str, str]", counts["unsigned"])
    return any(map(int, later.values())) or int(str(counts["spent_units"])) > int(
        str(counts["best_units"])
    )


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
