"""Spend sessions through the bridge: opened within the ceiling, called through, closed.

Boundary: one bridge's sessions. A session counts against the ceiling once, with its cap; what is
called through it counts no more. Source: spec/bridge.md.
"""

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from typing import Final

from farthing.clients.bridge_tools import CalledInSession, CallInSession
from farthing.clients.buyers import Buyer
from farthing.clients.callbooks import SessionInUse
from farthing.clients.ceiling import Ceiling
from farthing.clients.clock import Clock
from farthing.clients.session_answers import CallFailed
from farthing.clients.sessions import SpendSession
from farthing.clients.spenders import book_path
from farthing.protocol.errors import Code, Refused
from farthing.protocol.ids import derive_id
from farthing.protocol.messages.sessions import (
    CLOSE_SESSION,
    OPEN_SESSION,
    TOP_UP_SESSION,
    CloseSession,
    OpenSession,
    Session,
    TopUpSession,
)
from farthing.protocol.wire import Money, money, usage_of

__all__ = ["BridgeSessions"]

log = logging.getLogger(__name__)

_BOOKS_MAX: Final = 64
_LOST_MAX: Final = 32


class BridgeSessions:
    """The sessions of one bridge.

    Args:
        buyer: Gives the agent.
        ceiling: What may be spent from this machine.
        clock: The clock.
    """

    def __init__(
        self, buyer: Callable[[], Awaitable[Buyer]], ceiling: Ceiling, clock: Clock
    ) -> None:
        self._buyer = buyer
        self._ceiling = ceiling
        self._clock = clock
        # Those whose book is open; the one that was used last is the last.
        self._open: OrderedDict[str, SpendSession] = OrderedDict()
        self._users: Counter[str] = Counter()
        self._opening = asyncio.Lock()

    async def open(self, ask: OpenSession) -> Session:
        """Set money aside; the cap is counted before."""
        buyer = await self._buyer()
        # The id is made of the key, so that the same session is counted once however it is asked.
        principal, key = buyer.connection.principal, ask.idempotency_key
        counted = derive_id("ses", principal, OPEN_SESSION.name, key)
        before = self._ceiling.reserve(counted, ask.cap, self._clock())
        members = {each.name: getattr(ask, each.name) for each in fields(ask)}
        members["key"] = members.pop("idempotency_key")
        try:
            async with self._opening:
                if counted in self._open:
                    return await buyer.connection.call(OPEN_SESSION, ask)
                opened = await buyer.open_session(**members)
                await self._keep(opened)
                return opened.session
        except Refused:
            self._settle(counted, before)
            raise

    async def top_up(self, ask: TopUpSession) -> Session:
        """Set more aside; the amount is counted before."""
        buyer = await self._buyer()
        topped_up = f"{TOP_UP_SESSION.name} {ask.idempotency_key}"
        before = self._ceiling.reserve(topped_up, ask.amount, self._clock())
        try:
            if not self._has_book(buyer, ask.session_id):
                return await buyer.connection.call(TOP_UP_SESSION, ask)
            async with self._used(ask.session_id) as opened:
                session = await opened.top_up(ask.amount, key=ask.idempotency_key)
        except Refused:
            self._settle(topped_up, before)
            raise
        self._settle(ask.session_id, opened.asked)
        self._settle(topped_up, money(0, ask.amount.asset))
        return session

    async def close(self, ask: CloseSession) -> Session:
        """Close a session; from then on it counts with what it may have cost."""
        buyer = await self._buyer()
        if not self._has_book(buyer, ask.session_id):
            return await buyer.connection.call(CLOSE_SESSION, ask)
        try:
            async with self._used(ask.session_id) as opened:
                session = await opened.close(key=ask.idempotency_key)
        except SessionInUse:
            # What it came to is for the process to say that has its book.
            return await buyer.connection.call(CLOSE_SESSION, ask)
        async with self._opening:
            if not self._users[ask.session_id]:
                await self._let_go(ask.session_id)
        owed_units = max(opened.asked.units, session.spent.units)
        self._settle(ask.session_id, money(owed_units, session.cap.asset))
        return session

    async def call(self, ask: CallInSession, signed: list[dict[str, object]]) -> CalledInSession:
        """Call the vendor's tool through a session.

        Args:
            ask: Which, and with what.
            signed: What was signed on the way, when it is over.
        """
        async with self._used(ask.session_id) as opened:
            try:
                answer = await opened.call(ask.arguments, again=ask.again)
            except CallFailed:
                raise
            except Refused as refused:
                lost = opened.left.lost[:_LOST_MAX]
                is_over = refused.code is Code.SESSION_CLOSED
                if not lost or not (is_over or refused.refusal.path in {"cap", "again"}):
                    raise
                numbers = ", ".join(map(str, lost))
                text = (
                    f"{refused.refusal.message} Without an answer, to be asked for with `again` and"
                )
                text = f"{text} their own arguments, are calls {numbers}."
                raise Refused(replace(refused.refusal, message=text)) from refused
        left = opened.left
        return CalledInSession(
            untrusted_result=answer.result,
            session_id=answer.session_id,
            seq=answer.seq,
            usage=usage_of(answer.usage),
            amount=answer.amount,
            spent=left.spent,
            reserved=left.reserved,
            remaining=left.remaining,
            low=left.low,
            final_action=left.final_action,
            lost=left.lost[:_LOST_MAX],
            signed=tuple(signed),
        )

    async def aclose(self) -> None:
        """Keep every book and close its file, all at once: a dead vendor keeps no other waiting."""
        await asyncio.gather(*map(self._let_go, [*self._open]))

    @asynccontextmanager
    async def _used(self, session_id: str) -> AsyncIterator[SpendSession]:
        """A session whose book is open here, for as long as it is used."""
        if session_id not in self._open:
            async with self._opening:
                if session_id not in self._open:
                    await self._keep(await (await self._buyer()).resume_session(session_id))
        self._open.move_to_end(session_id)
        self._users[session_id] += 1
        try:
            yield self._open[session_id]
        finally:
            self._users -= Counter({session_id: 1})

    async def _keep(self, opened: SpendSession) -> None:
        """Have a book stay open, and others close where those are too many."""
        above = len(self._open) + 1 - _BOOKS_MAX
        idle = [each for each in self._open if not self._users[each]]
        for session_id in idle[: max(above, 0)]:
            await self._let_go(session_id)
        self._open[opened.session_id] = opened

    async def _let_go(self, session_id: str) -> None:
        opened = self._open.pop(session_id, None)
        if opened is not None:
            (fault,) = await asyncio.gather(opened.aclose(), return_exceptions=True)
            if fault is not None:
                log.error("session %s is not closed as it should be: %r", session_id, fault)

    def _has_book(self, buyer: Buyer, session_id: str) -> bool:
        return session_id in self._open or book_path(buyer.books, session_id).exists()

    def _settle(self, key: str, amount: Money) -> None:
        self._ceiling.settle(key, amount, self._clock())
