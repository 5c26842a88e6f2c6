"""Opening and resuming spend sessions: what a buyer does before and after their calls.

Boundary: the buyer's asks about sessions, and where their books lie. The calls made through one are
`sessions`. Source: spec/sessions.md.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Literal, cast

from farthing.clients.callbooks import CallBook, asked_units
from farthing.clients.maclane import MacLane
from farthing.clients.recounts import Recount
from farthing.clients.services import VendorCaller
from farthing.clients.session_answers import terms_of
from farthing.clients.sessions import SpendSession, Trade
from farthing.clients.transport import Connection
from farthing.protocol.canonical import Json
from farthing.protocol.errors import Refused, Unreachable, Unverified
from farthing.protocol.ids import AgreementId, SessionId
from farthing.protocol.listing import Listing
from farthing.protocol.messages.agreements import Agreement
from farthing.protocol.messages.sessions import (
    GET_SESSION,
    LIST_SESSIONS,
    OPEN_SESSION,
    GetSession,
    ListSessions,
    OpenSession,
    Session,
    Sessions,
)
from farthing.protocol.rating import RateCard
from farthing.protocol.vouchers import MAC_KEY_BYTES, SpendBook
from farthing.protocol.wire import Money, quantities_of

__all__ = ["FinalAction", "Spender", "book_path"]

FinalAction = Literal["refuse", "top_up", "request_approval"]
_LIFE_S: Final = 3600


class Spender(ABC):
    """What a buyer does with spend sessions."""

    connection: Connection
    vendor_caller: VendorCaller

    @property
    @abstractmethod
    def books(self) -> Path:
        """The folder of its sessions' books."""

    @abstractmethod
    async def agreement(self, agreement_id: str) -> Agreement:
        """An agreement and its rating position."""

    @abstractmethod
    async def listing(self, sha256: str) -> Listing:
        """A listing version by its hash."""

    @abstractmethod
    async def card(self, sha256: str) -> RateCard:
        """A rate card by its hash."""

    async def open_session(
        self,
        agreement_id: str,
        *,
        cap: Money,
        per_call: Money,
        expires_in_s: int = _LIFE_S,
        low_water: Money | None = None,
        final_action: FinalAction = "refuse",
        unsigned: Money | None = None,
        key: str = "",
    ) -> SpendSession:
        """Set money aside for many calls; `SpendSession.aclose` keeps it for another process.

        Args:
            agreement_id: Under which agreement.
            cap: All that may be spent.
            per_call: The most that one call may cost.
            expires_in_s: How long calls can be made, at most a day.
            low_water: At or below it `left.low` says so.
            final_action: What is to be done when the cap is reached.
            unsigned: How far the vendor may trust MACs beyond the last signature; None for never.
            key: Idempotency key. The same key again is the same session and goes on with its book.

        Raises:
            Refused: No authority, no balance, the agreement has ended, and so on.
            SessionInUse: Another process calls through it.
            Unverified: The session is not what was asked for: its vouchers would sign for more.
        """
        agreement = await self.agreement(agreement_id)
        reply = await self.connection.send(
            OPEN_SESSION,
            OpenSession(
                agreement_id=agreement_id,
                cap=cap,
                per_call=per_call,
                expires_in_s=expires_in_s,
                low_water=low_water,
                final_action=final_action,
                unsigned=unsigned,
                idempotency_key=key or self.connection.new_key(),
            ),
        )
        session = reply.answer
        asked = (agreement_id, per_call, agreement.rate_card_sha256, cap.asset)
        is_asked = session.cap == cap and terms_of(session) == asked
        if reply.replayed:
            # The answer is that of the opening; it may have been topped up since, or closed.
            session = await self.session_status(session.session_id)
        if not is_asked or terms_of(session) != asked:
            raise Unverified(f"{session.session_id} is not the session that was asked for")
        return await self._with_book(session, agreement, cap)

    async def resume_session(self, session_id: str) -> SpendSession:
        """Go on with a session, after a restart too.

        No more of it is spent than was asked for, as its book has it; where there is none yet, than
        the platform says is set aside.

        Raises:
            Refused: `not_found`.
            SessionInUse: As `open_session`.
            Unverified: Calls were made that no book here has, or it is another session.
        """
        session = await self.session_status(session_id)
        if session.session_id != session_id:
            raise Unverified(f"{session.session_id} is not {session_id}")
        terms_of(session)
        agreement = await self.agreement(session.agreement_id)
        return await self._with_book(session, agreement, session.cap)

    @asynccontextmanager
    async def session(
        self,
        agreement_id: str,
        *,
        cap: Money,
        per_call: Money,
        expires_in_s: int = _LIFE_S,
        low_water: Money | None = None,
        final_action: FinalAction = "refuse",
        unsigned: Money | None = None,
        key: str = "",
    ) -> AsyncIterator[SpendSession]:
        """A session for the length of a block, closed at its end; as `open_session`."""
        opening = self.open_session(
            agreement_id,
            cap=cap,
            per_call=per_call,
            expires_in_s=expires_in_s,
            low_water=low_water,
            final_action=final_action,
            unsigned=unsigned,
            key=key,
        )
        is_whole = False
        async with aclosing(await opening) as opened:
            try:
                yield opened
                is_whole = True
            finally:
                # What broke the block off is what its caller must hear of.
                with suppress(*(() if is_whole else (Refused, Unreachable))):
                    await opened.close()

    async def session_status(self, session_id: str) -> Session:
        """The platform's view of a session."""
        return await self.connection.call(GET_SESSION, GetSession(session_id=session_id))

    async def sessions(self, limit: int = 50, cursor: str = "") -> Sessions:
        """The buyer's sessions, newest first; `cursor` is where a page ended."""
        return await self.connection.call(LIST_SESSIONS, ListSessions(limit=limit, cursor=cursor))

    async def _with_book(self, session: Session, agreement: Agreement, cap: Money) -> SpendSession:
        trade = Trade(
            agreement=agreement,
            listing=await self.listing(agreement.listing_sha256),
            card=await self.card(session.rate_card_sha256),
        )
        file = await asyncio.to_thread(CallBook, book_path(self.books, session.session_id))
        with ExitStack() as unless_opened:
            unless_opened.callback(file.close)
            kept = await asyncio.to_thread(file.document)
            opened = self._opened(session, trade, file, kept, cap.units)
            if kept is None:
                await opened.ask()
            unless_opened.pop_all()
        return opened

    def _opened(
        self,
        session: Session,
        trade: Trade,
        file: CallBook,
        kept: Mapping[str, Json] | None,
        asked: int,
    ) -> SpendSession:
        agreement_id = AgreementId(session.agreement_id)
        known_seq = max(session.voucher_seq, session.top_seq)
        if kept is None:
            if known_seq:
                raise Unverified(f"calls were made through {session.session_id}, not from here")
            position = quantities_of(trade.agreement.position)
            book = SpendBook(
                agreement_id=agreement_id,
                session_id=SessionId(session.session_id),
                cap_units=session.cap.units,
                per_call_units=session.per_call.units,
            )
            kept = {"drift": "0", "entitlement": ""}
        else:
            asked = asked_units(kept)
            quantities = cast("dict[str, str]", kept["position"])
            position = {meter: int(quantity) for meter, quantity in quantities.items()}
            book = SpendBook.from_document(kept["book"])
            if known_seq > book.seq:
                # It would give out numbers again that it has forgotten, and get their old answers.
                text = f"later calls were made through {session.session_id} than the book here has"
                raise Unverified(text)
            card_sha256 = kept.get("card_sha256", session.rate_card_sha256)
            if (book.agreement_id, card_sha256) != (agreement_id, session.rate_card_sha256):
                raise Unverified(f"{session.session_id} is not under the terms of the book here")
        book.cap_units = min(session.cap.units, asked)
        return SpendSession(
            session,
            trade,
            recount=Recount(trade.card, position, int(str(kept["drift"]))),
            book=book,
            asked_units=asked,
            file=file,
            caller=self.vendor_caller,
            connection=self.connection,
            entitlement=session.entitlement or str(kept["entitlement"]),
            lane=MacLane(
                self.connection.entropy(MAC_KEY_BYTES),
                session.unsigned.units if session.unsigned else 0,
            ),
        )


def book_path(books: Path, session_id: str) -> Path:
    """The file of a session's book."""
    return books / f"{session_id}.sqlite"
