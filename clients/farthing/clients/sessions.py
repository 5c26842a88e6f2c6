"""A spend session as its buyer uses it: many calls at once over money set aside before.

Boundary: one open session and its calls. Each call has a number that is never used again and a
voucher; what the vendor says it used is priced again here. Opening and resuming is `spenders`.
Source: spec/sessions.md, spec/payments-mcp.md.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from farthing.clients.callbooks import CallBook, Called, CallState, Document
from farthing.clients.commits import Commits
from farthing.clients.documents import arguments_sha256
from farthing.clients.maclane import MacLane
from farthing.clients.purchases import check_arguments
from farthing.clients.recounts import Recount
from farthing.clients.services import VendorCaller
from farthing.clients.session_answers import (
    Answer,
    AnswerFault,
    CallFailed,
    CallLost,
    Left,
    WrongAnswer,
    fault_of,
    terms_of,
)
from farthing.clients.tools import ToolResult
from farthing.clients.transport import Connection
from farthing.protocol.errors import (
    Code,
    NextAction,
    Refusal,
    Refused,
    Unreachable,
    Unverified,
    refuse,
)
from farthing.protocol.listing import Listing
from farthing.protocol.messages.agreements import Agreement
from farthing.protocol.messages.sessions import (
    CLOSE_SESSION,
    GET_SESSION,
    TOP_UP_SESSION,
    CloseSession,
    GetSession,
    Session,
    TopUpSession,
)
from farthing.protocol.proofs import Voucher
from farthing.protocol.rating import RateCard, RatingError
from farthing.protocol.times import parse_time
from farthing.protocol.vouchers import SpendBook
from farthing.protocol.wire import Money, money
from farthing.protocol.x402 import PAYMENT_RESPONSE, Presented, Used, read_used

__all__ = ["SpendSession", "Trade"]

# Who closes waits no longer, whoever hangs: for the vendor to take a signature, for the platform.
_SIGNING_S: Final = 5.0
_CLOSING_S: Final = 30.0
_WAY_ON: Final = {
    "refuse": NextAction.REDUCE,
    "top_up": NextAction.TOP_UP,
    "request_approval": NextAction.REQUEST_APPROVAL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trade:
    """What a session's calls are made under: the agreement, and what it binds to."""

    agreement: Agreement
    listing: Listing
    card: RateCard


class SpendSession:
    """An open session. Any number of calls may run at once.

    Args:
        session: As the platform gave it.
        trade: What its calls are made under.
        recount: The buyer's own count.
        book: The numbers and sums of the vouchers.
        asked_units: All that was asked to be set aside: whatever is answered, no more is spent.
        file: Where all of that is kept; `aclose` closes it.
        caller: Calls the vendor's tool and signs.
        connection: The buyer's way to the platform.
        entitlement: What the vendor may believe.
        lane: Says which calls are signed, and which have a MAC.
    """

    def __init__(
        self,
        session: Session,
        trade: Trade,
        *,
        recount: Recount,
        book: SpendBook,
        asked_units: int,
        file: CallBook,
        caller: VendorCaller,
        connection: Connection,
        entitlement: str,
        lane: MacLane,
    ) -> None:
        self.session = session
        self._trade = trade
        self._recount = recount
        self._book = book
        self._asked_units = asked_units
        self._topped_up: set[str] = set()
        self._file = file
        self._caller = caller
        self._connection = connection
        self._entitlement = entitlement
        self._lane = lane
        self._commits: Commits[Called | Document] = Commits(file.write)
        # Calls that are out now. In flight to the book is also what was lost, cut off or disputed.
        self._flying: set[int] = set()
        self._disputed = file.disputed()
        self._places = file.answered()
        # The highest number that was answered; its arguments where it was paid for by MAC.
        self._last: tuple[Voucher, Mapping[str, object] | None] | None = None
        self._landed = asyncio.Event()
        # The vendor turns away what is beyond this.
        self._room = asyncio.Semaphore(trade.listing.limits.concurrency_max)

    @property
    def session_id(self) -> str:
        """The session's id."""
        return self.session.session_id

    @property
    def asked(self) -> Money:
        """All that was asked to be set aside; once it is closed, what may have been spent."""
        return money(self._asked_units, self.session.cap.asset)

    @property
    def left(self) -> Left:
        """Where the session stands by the buyer's own book."""
        asset = self.session.cap.asset
        owed_units = self._book.owed_units
        left_units = max(self._book.cap_units - owed_units, 0)
        low_water = self.session.low_water
        return Left(
            spent=money(self._book.spent_units, asset),
            reserved=money(owed_units - self._book.spent_units, asset),
            remaining=money(left_units, asset),
            low=low_water is not None and left_units <= low_water.units,
            final_action=self.session.final_action,
            lost=tuple(sorted(self._book.in_flight - self._flying - self._disputed)),
        )

    async def calls(self, *states: CallState) -> tuple[Called, ...]:
        """The session's calls by number, all or those of some states.

        Those that were answered, by `place`, are the chain that a voucher's `ack` is of.
        """
        await self._commits.kept()
        found = await asyncio.to_thread(self._file.calls)
        return tuple(each for each in found if not states or each.state in states)

    async def call(self, arguments: Mapping[str, object], *, again: int = 0) -> Answer:
        """Call the vendor's tool once.

        Where the cap does not cover another call it waits for those that are out, and refuses when
        there are none.

        Args:
            arguments: The tool's arguments; no fractions and no null, since they are digested.
            again: The number of a call that was lost; with the same arguments it is asked for
                again, and neither done nor paid for twice. The session may be over by then.

        Raises:
            Refused: `session_closed`; `local_limit_exceeded` with the session's final action as
                the way on; the arguments do not fit, or are not those of `again`.
            CallFailed: The vendor did not deliver; nothing is billed.
            CallLost: No answer; the money stays reserved until it is asked for again.
            WrongAnswer: What came does not hold.
        """
        check_arguments(self._trade.listing, arguments)
        args_sha256 = arguments_sha256(arguments)
        async with self._room:
            voucher = await (
                self._repeated(again, args_sha256) if again else self._next(args_sha256)
            )
            return await self._called(voucher, arguments)

    async def _called(self, voucher: Voucher, arguments: Mapping[str, object]) -> Answer:
        seq = voucher.seq
        try:
            result = await self._exchange(voucher, arguments)
            return await self._judged(voucher, result)
        except Unreachable as error:
            raise CallLost(str(error), seq) from error
        except Refused as refused:
            if refused.code.retryable:
                raise CallLost(str(refused), seq) from refused
            self._failed(voucher)
            raise CallFailed(refused.refusal, seq) from refused
        finally:
            self._land(seq)

    async def top_up(self, amount: Money, *, key: str = "") -> Session:
        """Set more money aside; calls go on with the new entitlement.

        Raises:
            Refused: As for opening.
            Unverified: The answer is of other terms.
        """
        key = key or self._connection.new_key()
        ask = TopUpSession(session_id=self.session_id, amount=amount, idempotency_key=key)
        if amount.asset != self.session.cap.asset:
            raise Refused(refuse(Code.ASSET_MISMATCH, path="amount.asset"))
        more_units = 0 if key in self._topped_up else amount.units
        self._topped_up.add(key)
        await self.ask(more_units)
        try:
            return await self._take(await self._connection.call(TOP_UP_SESSION, ask))
        except Refused:
            if more_units:
                self._topped_up.discard(key)
                await self.ask(-more_units)
            raise

    async def ask(self, more_units: int = 0) -> None:
        """Have it on disk that so much more is asked for, before the platform hears of it."""
        self._asked_units += more_units
        self._commits.draft(self._document)
        await self._commits.kept()

    async def refresh(self) -> Session:
        """The platform's view: what is billed so far, and by which voucher."""
        ask = GetSession(session_id=self.session_id)
        return await self._take(await self._connection.call(GET_SESSION, ask))

    async def close(self, *, key: str = "") -> Session:
        """Close the session: what the vendor did before it knew is billed, the rest given back.

        The vendor is first given a signature for what runs on MACs alone.

        Raises:
            Refused: It is not closed.
            Unreachable: Whether it is closed is not known; it ends by itself.
            Unverified: It is open still, in the platform's words.
        """
        await self._sign_up()
        key = key or f"close-{self.session_id}"
        ask = CloseSession(session_id=self.session_id, idempotency_key=key)
        try:
            async with asyncio.timeout(_CLOSING_S):
                session = await self._connection.call(CLOSE_SESSION, ask)
        except TimeoutError:
            raise Unreachable(f"{self.session_id} is not known to be closed") from None
        if session.status == "open":
            raise Unverified(f"{self.session_id} was to be closed and is not")
        session = await self._take(session)
        # Whoever says later that it is open gets no more out of it.
        self._book.cap_units = min(self._book.cap_units, self._book.owed_units)
        await self.ask(self._book.cap_units - self._asked_units)
        return session

    async def aclose(self) -> None:
        """Keep the book and close its file; the session itself stays as it is.

        The vendor is first given a signature for what runs on MACs alone: whoever goes on with the
        session knows nothing of it, and what was out when it was closed has landed since.
        """
        try:
            await self._commits.kept()
            await self._sign_up()
        finally:
            await asyncio.to_thread(self._file.close)

    def _check_open(self) -> None:
        is_over = self._connection.clock() >= parse_time(self.session.expires_at)
        if is_over or self.session.status != "open":
            raise Refused(refuse(Code.SESSION_CLOSED, path="session_id"))

    async def _next(self, args_sha256: str) -> Voucher:
        self._check_open()
        while isinstance(voucher := self._book.next(args_sha256), Refusal):
            if not self._flying:
                # The cap is reached: what the session's opener said is to be done then.
                raise Refused(replace(voucher, next_action=_WAY_ON[self.session.final_action]))
            await self._landed.wait()
            self._check_open()
        self._flying.add(voucher.seq)
        self._lane.began(voucher.seq, self._book.per_call_units)
        self._note(voucher, CallState.ASKED)
        is_kept = False
        try:
            # The number is on disk before anybody else knows it.
            await self._commits.kept()
            is_kept = True
        finally:
            if not is_kept:
                self._failed(voucher)
                self._land(voucher.seq)
        return voucher

    async def _repeated(self, seq: int, args_sha256: str) -> Voucher:
        await self._commits.kept()
        called = await asyncio.to_thread(self._file.find, seq)
        if called is None or called.state is CallState.FAILED or seq in self._flying:
            raise Refused(refuse(Code.INVALID_ARGUMENT, path="again"))
        if called.args_sha256 != args_sha256:
            raise Refused(refuse(Code.INVALID_ARGUMENT, path="arguments"))
        self._flying.add(seq)
        return self._book.again(seq, args_sha256)

    async def _exchange(self, voucher: Voucher, arguments: Mapping[str, object]) -> ToolResult:
        by_mac: list[bool] = []

        def present(mac: str) -> Presented:
            by_mac.append(bool(mac))
            if mac:
                return Presented(entitlement=self._entitlement, mac=mac)
            return Presented(
                entitlement=self._entitlement,
                voucher=self._caller.sign(self._lane.to_sign(voucher)),
                mac_key=self._lane.handed_over,
            )

        exchange = partial(
            self._caller.exchange,
            self._trade.listing,
            self._trade.agreement,
            self._book.per_call_units,
            arguments,
        )
        try:
            result = await exchange(lambda: present(self._lane.mac(voucher)))
        except Refused as refused:
            if by_mac[-1:] != [True] or refused.code is not Code.PROOF_INVALID:
                raise
            # A vendor that was started again may not know the key any more, or trusts no further.
            result = await exchange(lambda: present(""))
        if not by_mac[-1]:
            self._lane.arrived(voucher.seq)
        if self._last is None or self._last[0].seq < voucher.seq:
            self._last = voucher, (arguments if by_mac[-1] else None)
        return result

    async def _judged(self, voucher: Voucher, result: ToolResult) -> Answer:
        seq, used = voucher.seq, read_used(result.meta.get(PAYMENT_RESPONSE))
        if used is None or (used.session_id, used.seq) != (self.session_id, seq):
            self._dispute(voucher, AnswerFault.NOT_STATED)
            text = "the vendor answered without saying what the call used"
            raise WrongAnswer(text, AnswerFault.NOT_STATED, seq, None)
        before = None
        if seq not in self._book.in_flight:
            before = await asyncio.to_thread(self._file.find, seq)
        expected = before.result_sha256 if before else used.result_sha256
        if found := fault_of(result.structured, expected, self._trade.listing.output_schema):
            fault, why = found
            self._dispute(voucher, fault, used)
            raise WrongAnswer(why, fault, seq, None)
        if before is not None:
            return self._answer(used, before.units, result)
        return self._counted(voucher, used, result)

    def _counted(self, voucher: Voucher, used: Used, result: ToolResult) -> Answer:
        """An answer that came for the first time: priced here, acknowledged, noted."""
        seq = voucher.seq
        try:
            units, is_right = self._recount.count(
                used.usage, used.amount_units, alone=self._book.in_flight == {seq}
            )
            self._book.answered(seq, units, used.result_sha256)
        except RatingError as error:
            self._dispute(voucher, AnswerFault.USAGE, used)
            text = f"the card has no price for what call {seq} used: {error}"
            raise WrongAnswer(text, AnswerFault.USAGE, seq, None) from None
        except ValueError:
            self._dispute(voucher, AnswerFault.AMOUNT, used)
            text = f"call {seq} used more than a call may cost"
            raise WrongAnswer(text, AnswerFault.AMOUNT, seq, None) from None
        self._lane.ended(seq, units)
        self._places += 1
        self._note(
            voucher,
            CallState.ANSWERED,
            used,
            units=units,
            place=self._places,
            fault="" if is_right else AnswerFault.AMOUNT,
        )
        answer = self._answer(used, units, result)
        if not is_right:
            asked, asset = used.amount_units, answer.amount.asset
            text = f"call {seq}: the vendor says {money(asked, asset).amount} {asset}"
            text = f"{text}, the card gives {answer.amount.amount}"
            raise WrongAnswer(text, AnswerFault.AMOUNT, seq, answer)
        return answer

    def _answer(self, used: Used, units: int, result: ToolResult) -> Answer:
        asset = self.session.cap.asset
        return Answer(
            result=result.structured,
            text=result.text,
            content=result.content,
            session_id=self.session_id,
            seq=used.seq,
            usage=used.usage,
            amount=money(units, asset),
            spent=money(self._book.spent_units, asset),
            result_sha256=used.result_sha256,
        )

    def _failed(self, voucher: Voucher) -> None:
        if voucher.seq in self._book.in_flight:
            self._book.failed(voucher.seq)
            self._lane.ended(voucher.seq, 0)
            self._note(voucher, CallState.FAILED)

    def _dispute(self, voucher: Voucher, fault: AnswerFault, used: Used | None = None) -> None:
        # Its money stays reserved: the vendor may bill it.
        if voucher.seq in self._book.in_flight:
            self._disputed.add(voucher.seq)
            self._note(voucher, CallState.DISPUTED, used, fault=fault)

    def _note(
        self,
        voucher: Voucher,
        state: CallState,
        used: Used | None = None,
        *,
        units: int = 0,
        place: int = 0,
        fault: str = "",
    ) -> None:
        self._commits.note(
            Called(
                seq=voucher.seq,
                args_sha256=voucher.args_sha256,
                state=state,
                place=place,
                usage=used.usage if used else {},
                units=units,
                said_units=used.amount_units if used else 0,
                result_sha256=used.result_sha256 if used else "",
                fault=str(fault),
            )
        )
        self._commits.draft(self._document)

    async def _sign_up(self) -> None:
        """Ask for the last call again under a signature over all that is owed.

        The vendor gives the kept answer, and holds a voucher for what ran on MACs.
        """
        asked, arguments = self._last or (None, None)
        if asked is None or arguments is None or not self._lane.is_ahead:
            return
        self._lane.lost()
        with suppress(Refused, Unreachable, TimeoutError):
            async with asyncio.timeout(_SIGNING_S):
                await self._exchange(self._book.again(asked.seq, asked.args_sha256), arguments)

    async def _take(self, session: Session) -> Session:
        if terms_of(session) != terms_of(self.session):
            raise Unverified(f"{self.session_id} has other terms than it was opened with")
        if session.cap.units < self._book.cap_units:
            # An answer that a later one has overtaken: what is set aside never falls.
            return session
        self.session = session
        self._entitlement = session.entitlement or self._entitlement
        self._book.cap_units = max(self._book.cap_units, min(session.cap.units, self._asked_units))
        self._wake()
        self._commits.draft(self._document)
        await self._commits.kept()
        return session

    def _land(self, seq: int) -> None:
        self._flying.discard(seq)
        self._lane.landed(seq)
        self._wake()

    def _wake(self) -> None:
        self._landed.set()
        self._landed = asyncio.Event()

    def _document(self) -> Document:
        return {
            "book": self._book.document(),
            "position": {meter: str(each) for meter, each in self._recount.position.items()},
            "drift": str(self._recount.drift_units),
            "entitlement": self._entitlement,
            "asset": self.session.cap.asset,
            "asked": str(self._asked_units),
            "card_sha256": self.session.rate_card_sha256,
        }
