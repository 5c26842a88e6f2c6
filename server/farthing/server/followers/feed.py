"""The journal's end, followed for those who watch: who is woken by a record, and whose stream ends.

Boundary: the engine's port in, watchers out. What changed, a watcher's owner reads like every other
caller. Watchers are bounded in number. Source: spec/statements.md.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, cast

import structlog

from farthing.identity.callers import Caller
from farthing.protocol.errors import Code, FarthingError, Refused, refuse
from farthing.protocol.ledger import split_account
from farthing.protocol.records import Record
from farthing.settlement.engine.commands import Committed
from farthing.settlement.engine.questions import FiguresNow, KeyOf
from farthing.settlement.port import Engine

__all__ = ["AGAIN_S", "Feed", "Watcher"]

log = structlog.get_logger(__name__)

_STREAMS_MAX: Final = 1000
_PER_CALLER_MAX: Final = 8
_PER_OWNER_MAX: Final = 64
# How long before a feed that lost the engine, or a stream that could not catch up, tries again.
AGAIN_S: Final = 1.0
# A stream reads again no sooner than this after it has read: what happens meanwhile is one reading.
_PAUSE_S: Final = 0.05


@dataclass(slots=True, eq=False)
class Watcher:
    """An open stream: woken when an account of its owner moved, closed when its key ends.

    Args:
        caller: whose stream.
        woken: set when there is something to read.
        touched: the accounts that moved since it was last emptied; all of one owner, so bounded.
        closed: whether the stream must end.
    """

    caller: Caller
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    touched: set[str] = field(default_factory=set)
    closed: bool = False

    @property
    def owner(self) -> str:
        """Whose accounts are watched."""
        return self.caller.organisation_id

    def close(self) -> None:
        """Let the stream end."""
        self.closed = True
        self.woken.set()

    async def wait(self, seconds: float) -> bool:
        """Wait for something to happen, and say whether it did; a moment passes between two."""
        await asyncio.sleep(0 if self.closed else _PAUSE_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.woken.wait()
        happened = self.woken.is_set()
        if not self.closed:
            self.woken.clear()
        return happened


class Feed:
    """Follows the journal's end for whoever watches, once for all of this process's streams.

    Args:
        engine: whose journal.
        streams_max: how many streams may be open at once.
        per_caller_max: how many of one principal.
        per_owner_max: how many of one organisation with all of its agents.
        again_s: how long before the engine is asked again where it was away.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        streams_max: int = _STREAMS_MAX,
        per_caller_max: int = _PER_CALLER_MAX,
        per_owner_max: int = _PER_OWNER_MAX,
        again_s: float = AGAIN_S,
    ) -> None:
        self._engine = engine
        self._streams_max = streams_max
        self._per_caller_max = per_caller_max
        self._per_owner_max = per_owner_max
        self._again_s = again_s
        self._watchers: set[Watcher] = set()
        self._by_owner: dict[str, set[Watcher]] = {}
        self._callers: Counter[str] = Counter()
        self._following: asyncio.Task[None] | None = None
        self._open = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Streams can be opened until the block ends, which ends those that are open."""
        self._open = True
        try:
            yield
        finally:
            self.close()
            if (following := self._following) is not None:
                following.cancel()
                await asyncio.wait({following})

    def close(self) -> None:
        """Open no more streams, and let the open ones end."""
        self._open = False
        for watcher in self._watchers:
            watcher.close()

    @contextmanager
    def watch(self, caller: Caller) -> Iterator[Watcher]:
        """Watch the accounts of a caller's organisation.

        Raises:
            Refused: `rate_limited` beyond those of the caller or its organisation, `overloaded`
                beyond those of all.
        """
        if not self._open:
            raise Refused(refuse(Code.UNAVAILABLE))
        if self._callers[caller.principal_id] >= self._per_caller_max:
            text = f"{self._per_caller_max} streams of yours are open."
            raise Refused(refuse(Code.RATE_LIMITED, message=text, retry_after_s=int(AGAIN_S)))
        of_owner = len(self._by_owner.get(caller.organisation_id, ()))
        if of_owner >= self._per_owner_max:
            text = f"{self._per_owner_max} streams of your organisation are open."
            raise Refused(refuse(Code.RATE_LIMITED, message=text, retry_after_s=int(AGAIN_S)))
        if len(self._watchers) >= self._streams_max:
            raise Refused(refuse(Code.OVERLOADED, retry_after_s=int(AGAIN_S)))
        watcher = Watcher(caller)
        self._watchers.add(watcher)
        self._by_owner.setdefault(watcher.owner, set()).add(watcher)
        self._callers[caller.principal_id] += 1
        if self._following is None or self._following.done():
            self._following = asyncio.create_task(self._follow())
        try:
            yield watcher
        finally:
            self._forget(watcher)

    def _forget(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)
        self._by_owner[watcher.owner].discard(watcher)
        if not self._by_owner[watcher.owner]:
            del self._by_owner[watcher.owner]
        self._callers[watcher.caller.principal_id] -= 1
        if not self._callers[watcher.caller.principal_id]:
            del self._callers[watcher.caller.principal_id]

    async def _follow(self) -> None:
        try:
            await self._tell_all()
        except (FarthingError, AssertionError):
            log.critical("feed_stops", exc_info=True)
        finally:
            # Who still watches would be told nothing any more, not even that its key has ended.
            if self._following is asyncio.current_task():
                for watcher in self._watchers:
                    watcher.close()

    async def _tell_all(self) -> None:
        """Tell of every record from now on; returns when the engine has ended."""
        seq = -1
        while self._open:
            try:
                if seq < 0:
                    figures = await self._engine.ask(FiguresNow())
                    await self._check_keys()
                    seq = figures.seq
                # What happened before, each watcher finds by reading.
                for watcher in self._watchers:
                    watcher.woken.set()
                following = cast("AsyncGenerator[Committed, None]", self._engine.follow(seq))
                async with aclosing(following):
                    async for committed in following:
                        # Who goes leaves the question for the next record to the one who comes:
                        # each that is given up stays with the engine until there is one.
                        if not self._watchers:
                            self._following = None
                            return
                        seq = committed.seq
                        self._tell(committed.record)
                return
            except Refused as refused:
                log.warning("feed_interrupted", code=refused.code.value)
                await asyncio.sleep(self._again_s)

    async def _check_keys(self) -> None:
        """Close those whose key ended between their own check and the first record followed."""
        for watcher in tuple(self._watchers):
            facts = await self._engine.ask(KeyOf(thumbprint=watcher.caller.key_thumbprint))
            if facts is None or facts.status != "active":
                watcher.close()

    def _tell(self, record: Record) -> None:
        for name in {name for each in record.moved for name in (each.debit, each.credit)}:
            for watcher in self._by_owner.get(split_account(name)[0], ()):
                watcher.touched.add(name)
                watcher.woken.set()
        ended = {
            change.id
            for change in record.changed
            if change.noun == "key" and change.after.get("status") != "active"
        }
        if ended:
            for watcher in self._watchers:
                if watcher.caller.key_thumbprint in ended:
                    watcher.close()
