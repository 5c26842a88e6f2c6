"""Usage reported to the platform: batches made once, signed, sent until they are answered.

Boundary: what has happened and is in the spool, on its way to settlement. A batch is on disk before
it is sent, and sent again it is the same; one of a session is out at a time, for the platform rates
events in their order. Source: spec/metering.md, spec/payments-mcp.md.
"""

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple, TypeAlias, cast

from farthing.clients.commits import Commits
from farthing.clients.usage_spool import (
    BatchState,
    KeptBatch,
    KeptCall,
    KeptSession,
    PutBack,
    Rejected,
    Row,
    Settled,
    UsageSpool,
)
from farthing.clients.vendors import Vendor
from farthing.protocol.batches import sign_batch
from farthing.protocol.canonical import Json, sha256_hex
from farthing.protocol.errors import Code, Refused, Unreachable, Unverified
from farthing.protocol.ids import SessionId
from farthing.protocol.messages.sessions import UsageReport
from farthing.protocol.money import INT64_MAX
from farthing.protocol.signatures import read_header
from farthing.protocol.times import SECOND_US, parse_time
from farthing.protocol.usage import (
    BATCH_BYTES_MAX,
    BILLED,
    REPORT_WINDOW_US,
    UsageEvent,
    UsageFault,
    batch_bytes,
    read_batch,
)

__all__ = ["DEARER", "Drained", "Metered", "Reporter", "Signed", "UsageQueue"]

log = logging.getLogger(__name__)

_EVENTS_MAX: Final = 500
_EVERY_S: Final = 1.0
_BACKOFF_S: Final = 0.25
_BACKOFF_S_MAX: Final = 60.0
_CLOSING_S: Final = 5.0
# What may pass, and for how long after the session's end: another clock gets there while reports
# are taken, a better voucher comes with a call.
_MAY_PASS_US: Final[dict[str, int]] = {
    UsageFault.IN_FUTURE: REPORT_WINDOW_US,
    UsageFault.BEYOND_VOUCHER: 0,
}
# What the next call would meet too. All but the end may be lifted: it is asked again then.
_STOPS: Final = frozenset({UsageFault.AFTER_END, UsageFault.FROZEN, UsageFault.OVER_ALLOWANCE})
# The desk had held the call against these, so it costs more than the desk knows: others have moved
# the agreement's position, by a session or a hold.
DEARER: Final = frozenset({
    UsageFault.BEYOND_VOUCHER, UsageFault.OVER_CAP, UsageFault.OVER_PER_CALL,
})  # fmt: skip
_STOP_US: Final = 30 * SECOND_US
_GOES_ON: Final[dict[str, Json]] = {"by": "", "until_us": "0"}


class Signed(NamedTuple):
    """A signed voucher, and what it covers: calls up to a number, at most so much altogether."""

    token: str = ""
    seq: int = 0
    units: int = 0


class Metered(NamedTuple):
    """An event in its place among those of its session, and what it is billed at."""

    place: int
    event: UsageEvent
    units: int


class UsageQueue:
    """What is to be reported of one session.

    Args:
        session_id: Which session.
        ends_at_us: When it ends; what no signature covers by then is reported without.
        place: That of its last event.
        reported_units: What the calls in its batches cost.
        voucher: The payer's best signature.
    """

    def __init__(
        self,
        session_id: str,
        ends_at_us: int,
        *,
        place: int = 0,
        reported_units: int = 0,
        voucher: Signed = Signed(),  # noqa: B008 - a value
    ) -> None:
        self.session_id = session_id
        self.ends_at_us = ends_at_us
        self.place = place
        self.reported_units = reported_units
        self.voucher = voucher
        self.events: deque[Metered] = deque()
        self._lowest_seq = INT64_MAX
        self.waiting: deque[KeptBatch] = deque()
        self.is_full = asyncio.Event()
        self.pause_s = 0.0
        self.stopped_by = ""
        self._stopped_until_us = 0
        self.doubted_at_us = 0
        # As of when the platform has said that the session is open, and until when it takes what
        # was done, once its buyer has closed it.
        self.heard_at_us = 0
        self.closes_at_us = 0

    def unsettled(self) -> Iterator[Mapping[str, int]]:
        """The use of each call that was delivered and that settlement has not answered."""
        for batch in self.waiting:
            columns = read_batch(batch.text.encode(), SessionId(self.session_id))
            yield from (columns.usage_of(place) for place in columns.billed)
        for each in self.events:
            if each.event.outcome in BILLED:
                yield each.event.usage

    def document(self) -> dict[str, Json]:
        """What the spool keeps of it beside its events and batches, for `restore`."""
        token, seq, units = self.voucher
        return {
            "voucher": {"token": token, "seq": seq, "units": str(units)},
            "place": self.place,
            "stopped": {"by": self.stopped_by, "until_us": str(self._stopped_until_us)},
        }

    @classmethod
    def restore(cls, kept: KeptSession, spool: UsageSpool) -> "UsageQueue":
        """What is still to be reported of a session, as the spool has it; it blocks."""
        calls = spool.unreported(kept.session_id)
        voucher = cast("dict[str, Json]", kept.document["voucher"])
        counts = cast("dict[str, str]", kept.document["counts"])
        # A spool of 0.1.0 has no such member.
        stopped = cast("dict[str, str]", kept.document.get("stopped", _GOES_ON))
        places = [call.place for call in calls]
        queue = cls(
            kept.session_id,
            kept.ends_at_us,
            # An event that is put in another place leaves the session's own row as it was.
            place=max(int(str(kept.document["place"])), spool.last_place(kept.session_id), *places),
            reported_units=int(counts["spent_units"]) - sum(call.amount_units for call in calls),
            voucher=Signed(
                str(voucher["token"]), int(str(voucher["seq"])), int(str(voucher["units"]))
            ),
        )
        queue.stop(stopped["by"], int(stopped["until_us"]))
        queue.waiting.extend(spool.waiting(kept.session_id))
        for call in calls:
            queue.add(Metered(call.place, call.event, call.amount_units))
        return queue

    def stop(self, reason: str, until_us: int) -> None:
        """Settlement takes no more of this session, for now or for ever."""
        self.stopped_by, self._stopped_until_us = reason, until_us

    def is_stopped(self, now_us: int) -> bool:
        """Whether work done now would not be paid for, as far as is known."""
        return now_us < self._stopped_until_us

    def heard(self, asked_at_us: int, closes_at: str) -> None:
        """Settlement takes usage of this session, as of when it was asked."""
        # The clock's latest word: it may have been set back since it was asked last.
        self.heard_at_us = asked_at_us
        if closes_at:
            # What was done until now is taken; the buyer asks for no more.
            self.stop("closing", INT64_MAX)
            self.closes_at_us = parse_time(closes_at)

    def next_place(self) -> int:
        """The place of one more event."""
        self.place += 1
        return self.place

    def add(self, metered: Metered) -> None:
        """One more event, in its place."""
        self.events.append(metered)
        self._lowest_seq = min(self._lowest_seq, metered.event.seq)
        if len(self.events) >= _EVENTS_MAX:
            self.is_full.set()

    def due(self, now_us: int) -> list[Metered]:
        """The next events that a batch takes: what the voucher covers; at the end all.

        One whose number no signature covers holds back none behind it: its payer may never sign.
        """
        found: list[Metered] = []
        units, is_over = self.reported_units, now_us >= self.ends_at_us
        if not is_over and self._lowest_seq > self.voucher.seq:
            return found
        for each in self.events:
            if not is_over and each.event.seq > self.voucher.seq:
                continue
            units += each.units
            if len(found) == _EVENTS_MAX or not (is_over or units <= self.voucher.units):
                break
            found.append(each)
        return found

    def take(self, metered: list[Metered]) -> list[Metered]:
        """These are in a batch now; gives those in new places, where some were overtaken."""
        overtaken: list[Metered] = []
        for each in metered:
            self.reported_units += each.units
            while (first := self.events.popleft()) is not each:
                overtaken.append(first)
        self._lowest_seq = min(
            (each.event.seq for each in (*overtaken, *self.events)), default=INT64_MAX
        )
        moved = self.put_first(overtaken) if overtaken else []
        if len(self.events) < _EVENTS_MAX:
            self.is_full.clear()
        return moved

    def put_first(self, metered: Iterable[Metered]) -> list[Metered]:
        """Have these before all others, in places that no batch has taken; gives all of them.

        Settlement's window is over the calls in the order in which they ended: behind a later one
        with a number far above, or without an earlier one, a call would be out of it.
        """
        moved = [each._replace(place=self.next_place()) for each in (*metered, *self.events)]
        self.events.clear()
        for each in moved:
            self.add(each)
        return moved


Drained: TypeAlias = Callable[[UsageQueue, BaseException | None], None]
"""Told that all of a queue that can be reported now is, or why no more is tried."""


class Reporter:
    """Reports one vendor's usage.

    Args:
        vendor: Signs and sends.
        spool: Remembers.
        commits: Writes it.
        drained: Told of each queue.
    """

    def __init__(
        self, vendor: Vendor, spool: UsageSpool, commits: Commits[Row], drained: Drained
    ) -> None:
        self._drained = drained
        self._vendor = vendor
        self._spool = spool
        self._commits = commits
        self._last_batch = spool.last_batch()
        self._clock = vendor.connection.clock
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def wake(self, queue: UsageQueue) -> None:
        """Have reported what a queue holds, soon."""
        if queue.session_id in self._tasks:
            return
        if queue.waiting or queue.due(self._clock()):
            task = asyncio.create_task(self._drain(queue))
            self._tasks[queue.session_id] = task
            task.add_done_callback(lambda _: self._ended(queue))

    def is_at(self, queue: UsageQueue) -> bool:
        """Whether a queue is being reported."""
        return queue.session_id in self._tasks

    async def halt(self, queues: Iterable[UsageQueue]) -> None:
        """Stop reporting these; what was sent and not answered is sent again as it is."""
        tasks = [self._tasks[each.session_id] for each in queues if self.is_at(each)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self, queues: list[UsageQueue]) -> None:
        """Report what can be reported within a moment; the rest waits in the spool."""
        await self.halt(queues)
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSING_S):
                await asyncio.gather(*map(self._flush, queues), return_exceptions=True)

    async def _drain(self, queue: UsageQueue) -> None:
        wait_s = _BACKOFF_S
        while queue.waiting or queue.due(self._clock()):
            try:
                if not queue.waiting:
                    await self._until_full(queue)
                asked_s = await self._step(queue)
            except (OSError, sqlite3.Error, Unverified) as error:
                # A disk that is full, an answer of another form: neither is for ever.
                log.error("usage of %s waits: %r", queue.session_id, error)  # noqa: TRY400 - in full
                asked_s = 0
            if asked_s is not None:
                await self._vendor.connection.sleep(max(wait_s, min(asked_s, _BACKOFF_S_MAX)))
                wait_s = min(wait_s * 2, _BACKOFF_S_MAX)
                continue
            wait_s = _BACKOFF_S
            if queue.pause_s:
                await self._vendor.connection.sleep(queue.pause_s)

    async def _step(self, queue: UsageQueue) -> int | None:
        """Make a batch where none waits, and send the first; gives what `_send` does."""
        if not queue.waiting:
            await self._make(queue)
        return await self._send(queue)

    async def _flush(self, queue: UsageQueue) -> None:
        while queue.waiting or queue.due(self._clock()):
            if await self._step(queue) is not None or queue.pause_s:
                return

    async def _until_full(self, queue: UsageQueue) -> None:
        waits: tuple[Coroutine[Any, Any, object], ...] = (queue.is_full.wait(), self._pause())
        tasks = [asyncio.create_task(each) for each in waits]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def _pause(self) -> None:
        await self._vendor.connection.sleep(_EVERY_S)

    async def _make(self, queue: UsageQueue) -> None:
        """Make the next batch, and have it on disk."""
        if not (metered := queue.due(self._clock())):
            return
        while len(text := _text(queue.session_id, metered)) > BATCH_BYTES_MAX:
            metered = metered[: len(metered) // 2]
        self._last_batch += 1
        queue.waiting.append(self._signed(
            self._last_batch,
            queue.session_id,
            text.decode(),
            queue.voucher.token,
            (metered[0].place, metered[-1].place),
        ))  # fmt: skip
        # In one commit with the batch, which takes every place up to its last event's.
        self._note_places(queue, queue.take(metered))
        await self._commits.kept()

    def _signed(
        self, number: int, session_id: str, text: str, voucher: str, places: tuple[int, int]
    ) -> KeptBatch:
        """A batch under the vendor's key of now, to be on disk with the next commit."""
        signer = self._vendor.signer
        first, place = places
        batch = KeptBatch(
            number=number,
            session_id=session_id,
            text=text,
            signature=sign_batch(signer, session_id, text.encode()),
            voucher=voucher,
            # The same text is another report where settlement could not take it at first.
            key=f"usage-{sha256_hex(f'{number} {signer.thumbprint} {text}'.encode())}",
            first=first,
            place=place,
            at_us=self._clock(),
        )
        self._commits.note(batch)
        return batch

    async def _send(self, queue: UsageQueue) -> int | None:
        """Send the first batch that waits.

        Returns:
            None where it is answered for good, else how many seconds to wait at least.
        """
        batch = queue.waiting[0]
        # What is sent is on disk, also where writing it failed at first.
        await self._commits.kept()
        asked_at_us = self._clock()
        try:
            report = await self._vendor.report_usage(
                batch.session_id, batch.text, batch.signature, batch.voucher, key=batch.key
            )
        except Unreachable as error:
            log.warning("usage of %s waits: %s", batch.session_id, error)
            return 0
        except Refused as refused:
            if not refused.code.remembered:
                log.warning("usage of %s waits: %s", batch.session_id, refused)
                return refused.refusal.retry_after_s
            if refused.code is Code.SIGNATURE_INVALID and self._is_of_an_older_key(batch):
                places = batch.first, batch.place
                queue.waiting[0] = self._signed(
                    batch.number, batch.session_id, batch.text, batch.voucher, places
                )
                return 0
            self._refused(batch, refused.code)
            self._stop(queue, refused.code, for_ever=refused.code is Code.SESSION_CLOSED)
        else:
            await self._taken(queue, batch, report)
            queue.heard(asked_at_us, report.closes_at)
        queue.waiting.popleft()
        await self._commits.kept()
        return None

    def _is_of_an_older_key(self, batch: KeptBatch) -> bool:
        return read_header(batch.signature).kid != self._vendor.signer.thumbprint

    async def _taken(self, queue: UsageQueue, batch: KeptBatch, report: UsageReport) -> None:
        early: set[int] = set()
        for event in report.rejected:
            seq, session_id = int(event.id), batch.session_id
            if event.reason in DEARER and self._clock() < queue.ends_at_us:
                self._stop(queue, event.reason, for_ever=False)
            passes_us = _MAY_PASS_US.get(event.reason)
            if event.reason == UsageFault.OUT_OF_WINDOW and early:
                # Behind a call that is reported again it may be in the window then.
                passes_us = REPORT_WINDOW_US
            if passes_us is not None and self._clock() < queue.ends_at_us + passes_us:
                log.info("call %s of %s is reported again: %s", seq, session_id, event.reason)
                early.add(seq)
                continue
            log.warning("call %s of %s is not billed: %s", seq, session_id, event.reason)
            if event.reason == UsageFault.OVER_ALLOWANCE:
                queue.doubted_at_us = self._clock()
            if event.reason in _STOPS:
                self._stop(queue, event.reason, for_ever=event.reason == UsageFault.AFTER_END)
            self._commits.note(Rejected(session_id=session_id, seq=seq, reason=event.reason))
        queue.pause_s = min(queue.pause_s * 2 or _EVERY_S, _BACKOFF_S_MAX) if early else 0
        if early:
            calls = await asyncio.to_thread(self._spool.reported, batch.number)
            self._put_back(queue, [call for call in calls if call.seq in early])
        self._commits.note(
            Settled(
                number=batch.number,
                state=BatchState.TAKEN,
                at_us=self._clock(),
                charge_id=report.charge_id,
            )
        )

    def _stop(self, queue: UsageQueue, reason: str, *, for_ever: bool) -> None:
        queue.stop(str(reason), INT64_MAX if for_ever else self._clock() + _STOP_US)

    def _put_back(self, queue: UsageQueue, calls: list[KeptCall]) -> None:
        """Have calls reported once more, in another batch."""
        queue.reported_units -= sum(call.amount_units for call in calls)
        again = [Metered(call.place, call.event, call.amount_units) for call in calls]
        self._note_places(queue, queue.put_first(again))

    def _note_places(self, queue: UsageQueue, moved: list[Metered]) -> None:
        self._commits.note(*(
            PutBack(session_id=queue.session_id, seq=each.event.seq, place=each.place)
            for each in moved
        ))  # fmt: skip

    def _refused(self, batch: KeptBatch, code: Code) -> None:
        log.error("a whole batch of %s is not taken: %s", batch.session_id, code.value)
        self._commits.note(
            Settled(
                number=batch.number,
                state=BatchState.REFUSED,
                at_us=self._clock(),
                reason=code.value,
            )
        )

    def _ended(self, queue: UsageQueue) -> None:
        task = self._tasks.pop(queue.session_id)
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            log.error("usage of %s stays in the spool: %r", queue.session_id, error)
        else:
            # An event may have come between the task's last look and its end.
            self.wake(queue)
        if not self.is_at(queue):
            self._drained(queue, error)


def _text(session_id: str, metered: list[Metered]) -> bytes:
    return batch_bytes(session_id, [each.event for each in metered])
