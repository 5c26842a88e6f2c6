"""The single writer: the engine behind its port, on a thread of its own.

Boundary: asyncio ends here. Callers queue; the thread takes whatever is queued, steps, and tells
everybody at once. No timer: the last batch's fsync is the next one's batching window.
Source: spec/journal.md.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from threading import Lock, Thread
from typing import Generic, TypeVar, cast

from farthing.protocol.errors import FarthingError, Refused
from farthing.protocol.keys import PublicKey, Signer
from farthing.settlement.engine.commands import Command, Committed, Outcome, Question
from farthing.settlement.journal.inbox import AnyAsked, Follower, Inbox, Work, deliver
from farthing.settlement.journal.index import Index
from farthing.settlement.journal.machine import Machine
from farthing.settlement.journal.stepper import Limits, RowsOf, Stepper, no_rows, unavailable
from farthing.settlement.journal.store import Store

__all__ = ["Limits", "Writer"]

logger = logging.getLogger(__name__)

State = TypeVar("State")
Answer = TypeVar("Answer")


class Writer(Generic[State]):
    """`settlement.port.Engine` in this process.

    Args:
        store: where the journal lies; the writer acquires and closes it.
        machine: the engine's functions.
        signer: the platform's Ed25519 key for tree heads.
        origin: the name of the log in its signed heads.
        now_us: the clock.
        rows: the projection rows of a record, pure; written in the record's transaction.
        earlier_keys: platform keys that signed heads before `signer` did.
        limits: bounds.
        index: where the keys of what memory lets go of are kept; in memory where none is given.
    """

    def __init__(
        self,
        store: Store,
        machine: Machine[State],
        *,
        signer: Signer,
        origin: str,
        now_us: Callable[[], int],
        rows: RowsOf = no_rows,
        earlier_keys: Sequence[PublicKey] = (),
        limits: Limits | None = None,
        index: Index | None = None,
    ) -> None:
        self._limits = Limits() if limits is None else limits
        self._stepper = Stepper(
            store,
            machine,
            signer=signer,
            origin=origin,
            now_us=now_us,
            rows=rows,
            earlier_keys=earlier_keys,
            limits=self._limits,
            index=index,
        )
        self._inbox = Inbox(self._limits.queue_max)
        self._followers: set[Follower] = set()
        self._followers_lock = Lock()
        self._thread: Thread | None = None
        # Who is being served: they are told even if the step fails.
        self._taken: tuple[AnyAsked, ...] = ()
        self._ended = False
        self._failed = False

    @property
    def healthy(self) -> bool:
        """Whether the writer runs and takes commands."""
        return self._inbox.is_open

    @property
    def restored_at_us(self) -> int:
        """When the storage was restored from a backup, 0 if never. Known once started.

        Proofs that were burnt after the backup are forgotten, so a door refuses what was signed
        before this.
        """
        return self._stepper.restored_at_us

    def start(self) -> None:
        """Take the storage, recover, and begin to take commands. Blocks while it recovers.

        Raises:
            DatabaseInUse: another engine has the storage.
            Unverified: the journal does not verify.
            Unreadable: storage cannot be read.
        """
        assert self._thread is None, "a writer is started once"
        self._stepper.open()
        self._inbox.open()
        self._thread = Thread(target=self._run, name="farthing-writer", daemon=True)
        self._thread.start()

    async def open(self) -> None:
        """Start, as a remote engine is opened."""
        self.start()

    async def close(self) -> None:
        """Do what is queued, then give the storage free. What comes later is refused."""
        self._inbox.close()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    async def submit(self, command: Command) -> Outcome:
        """Decide a command, make it durable, then tell (`settlement.port.Engine.submit`)."""
        return cast("Outcome", await self._inbox.put(command))

    async def ask(self, question: Question[Answer]) -> Answer:
        """Answer a question from state that is durable."""
        return cast("Answer", await self._inbox.put(question))

    async def follow(self, after_seq: int) -> AsyncGenerator[Committed, None]:
        """All records after `after_seq`, then each new one once it is durable.

        Ends when the writer is closed.

        Raises:
            Refused: `UNAVAILABLE`: the writer has stopped for a fault.
        """
        follower = Follower(asyncio.get_running_loop(), asyncio.Event())
        with self._followers_lock:
            self._followers.add(follower)
        try:
            seq = after_seq
            while True:
                # Read before the page, so that a last batch is not missed.
                ended = self._ended
                follower.event.clear()
                page = self._stepper.recent.after(seq, self._limits.page_max)
                if page is None:
                    page = await asyncio.to_thread(self._stepper.stored_page, seq)
                for committed in page:
                    seq = committed.seq
                    yield committed
                if not page:
                    if ended:
                        break
                    await follower.event.wait()
        finally:
            with self._followers_lock:
                self._followers.discard(follower)
        if self._failed:
            raise Refused(unavailable())

    def _run(self) -> None:
        self._failed = True
        try:
            while (
                work := self._inbox.take(self._limits.batch_max, self._stepper.due_in_us)
            ) is not None:
                self._step(work)
            self._failed = False
        except (FarthingError, AssertionError):
            logger.critical("the writer stops; nothing more is taken", exc_info=True)
        finally:
            left = [*self._taken, *self._inbox.shut()]
            self._stepper.close()
            self._ended = True
            deliver(((asked, Refused(unavailable())) for asked in left), self._everybody())

    def _step(self, work: Work) -> None:
        self._taken = (*work.questions, *work.commands)
        deliver([(asked, self._stepper.answer(asked.what)) for asked in work.questions])
        last_seq = self._stepper.recent.last_seq
        replies = self._stepper.step([asked.what for asked in work.commands])
        told = [(work.commands.popleft(), reply) for reply in replies]
        self._inbox.put_back(work.commands)
        moved = self._stepper.recent.last_seq != last_seq
        deliver(told, self._everybody() if moved else ())
        self._taken = ()

    def _everybody(self) -> tuple[Follower, ...]:
        with self._followers_lock:
            return tuple(self._followers)
