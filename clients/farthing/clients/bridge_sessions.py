"""Spend sessions through the bridge: opened within the ceiling, called through, closed.

Boundary: one bridge's sessions. A session counts against the ceiling once, with its cap; what is
called through it counts no more. Source: spec/bridge.md.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from farthing.clients.bridge_tools import CalledInSession, CallInSession
from farthing.clients.buyers import Buyer
from farthing.clients.ceiling import Ceiling
from farthing.clients.clock import Clock
from farthing.clients.documents import usage_of
from farthing.clients.sessions import SpendSession
from farthing.protocol.errors import Refused
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
from farthing.protocol.wire import Money, money

__all__ = ["BridgeSessions"]

log = logging.getLogger(__name__)


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
        self._open: dict[str, SpendSession] = {}
        self._opening = asyncio.Lock()

    async def open(self, ask: OpenSession) -> Session:
        """Set money aside; the cap is counted before."""
        buyer = await self._buyer()
        # The id is made of the key, so that the same session is counted once however it is asked.
        principal, key = buyer.connection.principal, ask.idempotency_key
        counted = derive_id("ses", principal, OPEN_SESSION.name, key)
        before = self._ceiling.reserve(counted, ask.cap, self._clock())
        try:
            return await buyer.connection.call(OPEN_SESSION, ask)
        except Refused:
            self._settle(counted, before)
            raise

    async def top_up(self, ask: TopUpSession) -> Session:
        """Set more aside; the amount is counted before."""
        buyer = await self._buyer()
        topped_up = f"{TOP_UP_SESSION.name} {ask.idempotency_key}"
        before = self._ceiling.reserve(topped_up, ask.amount, self._clock())
        try:
            opened = self._open.get(ask.session_id)
            if opened is not None:
                session = await opened.top_up(ask.amount, key=ask.idempotency_key)
            else:
                session = await buyer.connection.call(TOP_UP_SESSION, ask)
        except Refused:
            self._settle(topped_up, before)
            raise
        self._settle(ask.session_id, session.cap)
        self._settle(topped_up, money(0, ask.amount.asset))
        return session

    async def close(self, ask: CloseSession) -> Session:
        """Close a session; from then on it counts with what it may have cost."""
        buyer = await self._buyer()
        opened = self._open.get(ask.session_id)
        if opened is None:
            return await buyer.connection.call(CLOSE_SESSION, ask)
        session = await opened.close(key=ask.idempotency_key)
        left = opened.left
        owed_units = max(left.spent.units + left.reserved.units, session.spent.units)
        self._settle(ask.session_id, money(owed_units, session.cap.asset))
        return session

    async def call(self, ask: CallInSession, signed: list[dict[str, object]]) -> CalledInSession:
        """Call the vendor's tool through a session; its book is opened with the first call.

        Args:
            ask: Which, and with what.
            signed: What was signed on the way, when it is over.
        """
        async with self._opening:
            opened = self._open.get(ask.session_id)
            if opened is None:
                buyer = await self._buyer()
                opened = self._open[ask.session_id] = await buyer.resume_session(ask.session_id)
        answer = await opened.call(ask.arguments, again=ask.again)
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
            signed=tuple(signed),
        )

    async def aclose(self) -> None:
        """Keep every book and close its file, all at once: a dead vendor keeps no other waiting."""
        ended = await asyncio.gather(
            *(opened.aclose() for opened in self._open.values()), return_exceptions=True
        )
        for session_id, fault in zip(self._open, ended, strict=True):
            if fault is not None:
                log.error("session %s is not closed as it should be: %r", session_id, fault)
        self._open.clear()

    def _settle(self, key: str, amount: Money) -> None:
        self._ceiling.settle(key, amount, self._clock())
