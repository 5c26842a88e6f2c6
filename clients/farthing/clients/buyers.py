"""A buyer's agent: search, quote, accept, hold, call the vendor's own tool, keep the proof.

Boundary: the buyer's side of a trade and its checks. It believes the platform's signed documents,
never a vendor's word: a price is computed again, a result is compared with the digest charged for.
Source: spec/contracts.md, spec/payments-mcp.md.
"""

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any, Final

from farthing.clients.allowances import Limiting
from farthing.clients.countings import booked
from farthing.clients.delegated import Delegating
from farthing.clients.documents import arguments_sha256, sign_acceptance
from farthing.clients.home import Home
from farthing.clients.publications import published
from farthing.clients.purchases import (
    check_arguments,
    check_charge,
    check_hold,
    check_total,
    is_of_what_is_offered,
    newest_in_force,
)
from farthing.clients.reconciling import Reconciling
from farthing.clients.services import (
    Answered,
    NotDelivered,
    Purchase,
    ServiceFailed,
    ServiceLost,
    VendorCaller,
    fault,
)
from farthing.clients.spenders import Spender
from farthing.clients.statements import AccountHolder
from farthing.clients.transport import Connection, Reply
from farthing.protocol import base64url
from farthing.protocol.canonical import Json, document_sha256
from farthing.protocol.contracts import Acceptance, QuoteDocument, check_price, read_quote
from farthing.protocol.documents import DocumentError
from farthing.protocol.errors import Code, Refusal, Refused, Unreachable, Unverified, refuse
from farthing.protocol.ids import derive_id
from farthing.protocol.keys import Signer
from farthing.protocol.listing import Listing, parse_listing
from farthing.protocol.messages.agreements import (
    ACCEPT_TERMS,
    GET_AGREEMENT,
    GET_QUOTE,
    LIST_AGREEMENTS,
    AcceptTerms,
    Agreement,
    GetAgreement,
    GetQuote,
    ListAgreements,
    Quote,
)
from farthing.protocol.messages.authority import GET_AUTHORITY, Authority, GetAuthority
from farthing.protocol.messages.catalog import SEARCH_CATALOG, SearchAnswer, SearchCatalog
from farthing.protocol.messages.holds import (
    GET_HOLD,
    PLACE_HOLD,
    GetHold,
    Hold,
    HoldView,
    PlaceHold,
)
from farthing.protocol.messages.reconciliation import AcknowledgedSession
from farthing.protocol.messages.trails import GET_OUTCOME, GetOutcome, OutcomeView
from farthing.protocol.platform_keys import PlatformKeys
from farthing.protocol.rating import CardError, RateCard, parse_card
from farthing.protocol.wire import Money, Operation, Role, money, usage_of

__all__ = ["Buyer"]

_NONCE_BYTES: Final = 16
_DOCUMENTS_KEPT: Final = 256

Quantities = Mapping[str, int]
OnSign = Callable[[str, Mapping[str, object]], None]
Approve = Callable[[Money], Awaitable[None]]


def _nobody_told(kind: str, document: Mapping[str, object]) -> None:
    del kind, document


class Buyer(Spender, Delegating, AccountHolder, Reconciling, Limiting):
    """An agent that buys.

    Args:
        connection, platform_keys: As `Pinning`; the connection is the agent's.
        books: Where the books of its spend sessions lie; without one they go with the process.
        vendor_timeout_s: How long one attempt of a vendor's tool may take.
        on_sign: Told of every document that is signed for somebody to judge, by kind and members.
    """

    role = Role.BUYER

    def __init__(
        self,
        connection: Connection,
        *,
        platform_keys: PlatformKeys | None = None,
        books: Path | None = None,
        vendor_timeout_s: float = 120,
        on_sign: OnSign = _nobody_told,
    ) -> None:
        super().__init__(connection, platform_keys=platform_keys)
        self._on_sign = on_sign
        self._documents: dict[str, dict[str, Json]] = {}
        self._books = books
        self.vendor_caller = VendorCaller(
            connection.http,
            self._signer,
            platform=connection.url,
            timeout_s=vendor_timeout_s,
            clock=connection.clock,
            entropy=connection.entropy,
            sleep=connection.sleep,
            on_sign=on_sign,
        )

    @classmethod
    def _kept_in(cls, home: Home) -> dict[str, Any]:
        return {"books": home.books_path}

    async def search(self, ask: SearchCatalog) -> SearchAnswer:
        """Find services for a need, a workload and limits."""
        return await self.connection.call(SEARCH_CATALOG, ask)

    async def quote(
        self, listing_id: str, workload: Quantities, *, agreement_id: str = ""
    ) -> Quote:
        """An exact price that the platform stands by, verified and computed again.

        Raises:
            Unverified: The quote is not signed by the platform, not of what was asked, or not
                what the rate card gives.
        """
        quote = await self.connection.call(
            GET_QUOTE,
            GetQuote(
                listing_id=listing_id,
                workload=usage_of(workload),
                agreement_id=agreement_id or None,
            ),
        )
        document = await self._read_quote(quote)
        asked = (listing_id, dict(workload), agreement_id)
        got = (document.listing_id, dict(document.workload), document.agreement_id or "")
        if got != asked or document.buyer_id != self.connection.principal:
            raise Unverified("the quote is not of what was asked")
        return quote

    async def accept(self, quote: Quote, *, key: str = "") -> Agreement:
        """Accept a quote by signature.

        Args:
            quote: As `quote` gave it.
            key: Idempotency key; the same for a call whose reply was lost.

        Raises:
            Refused: `terms_changed`, `quote_expired`, no authority, and so on.
            Unverified: As `quote`.
        """
        document = await self._read_quote(quote)
        acceptance = Acceptance.of(
            document,
            accepted_at_us=self.connection.clock(),
            nonce=base64url.encode(self.connection.entropy(_NONCE_BYTES)),
        )
        signed = sign_acceptance(self._signer, acceptance)
        self._on_sign("acceptance", signed.document)
        agreement = await self.connection.call(
            ACCEPT_TERMS,
            AcceptTerms(
                quote=quote.document,
                quote_signature=quote.signature,
                acceptance=signed.document,
                acceptance_signature=signed.signature,
                idempotency_key=key or self.connection.new_key(),
            ),
        )
        if agreement.listing_sha256 != document.listing_sha256:
            raise Unverified("the agreement is not of the listing that was accepted")
        return agreement

    async def hold(
        self,
        agreement_id: str,
        workload: Quantities,
        arguments: Mapping[str, object],
        *,
        expires_in_s: int = 0,
        key: str = "",
    ) -> Reply[Hold]:
        """Set money aside for one call with exactly these arguments.

        Raises:
            Refused: No authority, no balance, and so on; `invalid_argument` where the arguments
                have no digest.
            Unverified: It is not the hold that this key places.
        """
        ask = PlaceHold(
            agreement_id=agreement_id,
            workload=usage_of(workload),
            args_sha256=arguments_sha256(arguments),
            expires_in_s=expires_in_s,
            idempotency_key=key or self.connection.new_key(),
        )
        held = await self.connection.send(PLACE_HOLD, ask)
        made_of = (self.connection.principal, PLACE_HOLD.name, ask.idempotency_key)
        if held.answer.hold_id != derive_id("hld", *made_of):
            raise Unverified("the answer of place_hold is of another hold_id")
        return held

    async def call_service(
        self,
        listing_id: str,
        arguments: Mapping[str, object],
        workload: Quantities,
        *,
        agreement_id: str = "",
        max_total: Money | None = None,
        approve: Approve | None = None,
        key: str = "",
    ) -> Purchase:
        """Buy one call: agree if need be, hold, call the vendor, check, keep proof.

        Args:
            listing_id: Whose tool.
            arguments: The tool's arguments; no fractions and no null, since they are digested.
            workload: The most that may be used, by meter.
            agreement_id: Buy under this agreement; without one the newest in force is taken that
                binds to what is offered now, and where there is none a new one is made.
            max_total: Refuse before anything is agreed if the quote is above it.
            approve: Told what the call may cost: the quote's total before anything is agreed, and
                the hold's amount before the vendor is called. Whatever it raises ends the call.
            key: Names the purchase. Called again with the same key after a lost reply, what was
                done is not done again.

        Raises:
            Refused: The platform said no, the quote is above `max_total`, or the arguments do not
                fit the listing's input schema.
            ServiceFailed: The vendor did not deliver; nothing is charged.
            ServiceLost: The vendor did not answer, or the platform does not say what was charged;
                the hold is there, `get_hold` knows more.
            NotDelivered: It was charged for something else than what came: dispute it.
        """

        async def judge(quote: Quote) -> None:
            check_total(quote, max_total)
            if approve is not None:
                await approve(quote.total)

        is_judged = max_total is not None or approve is not None
        agreement = await self._agreement(
            listing_id,
            arguments,
            workload,
            agreement_id,
            judge=judge if is_judged else None,
            key=key,
        )
        return await self.buy(
            agreement, arguments, workload, max_total=max_total, approve=approve, key=key
        )

    async def buy(
        self,
        agreement: Agreement,
        arguments: Mapping[str, object],
        workload: Quantities,
        *,
        expires_in_s: int = 0,
        max_total: Money | None = None,
        approve: Approve | None = None,
        key: str = "",
    ) -> Purchase:
        """Buy one call under an agreement; raises as `call_service`.

        `expires_in_s` is how long the vendor has; by default, as long as the terms give it. A hold
        above `max_total`, as where a period ended since the quote, or one that `approve` refuses,
        is not called with.
        """
        listing = await self.listing(agreement.listing_sha256)
        check_arguments(listing, arguments)
        held = await self.hold(
            agreement.agreement_id,
            workload,
            arguments,
            expires_in_s=expires_in_s,
            key=f"{key}-hold" if key else "",
        )
        if approve is not None:
            try:
                await approve(held.answer.amount)
            except Refused as refused:
                raise ServiceFailed(refused.refusal, held.answer.hold_id) from refused
        check_hold(held.answer, agreement.agreement_id, max_total)
        try:
            answered = await self.vendor_caller.call(listing, agreement, held.answer, arguments)
        except (ServiceFailed, Unreachable) as error:
            # The vendor's word is not the platform's: it may have captured all the same.
            with _held(held.answer):
                view = await self.hold_status(held.answer.hold_id)
            if view.charge_id:
                raise NotDelivered(f"charged, and yet: {error}", view.charge_id) from error
            if isinstance(error, Unreachable):
                raise ServiceLost(str(error), view.hold_id) from error
            raise
        with _held(held.answer):
            purchase = await self._purchase(agreement, held.answer, answered)
        if found := fault(
            purchase,
            listing=listing,
            arguments=arguments,
            output_schema_sha256=document_sha256(listing.output_schema),
        ):
            raise NotDelivered(found, purchase.charge.charge_id, purchase)
        return purchase

    async def agreement(self, agreement_id: str) -> Agreement:
        """An agreement and its rating position."""
        return await self.connection.call(GET_AGREEMENT, GetAgreement(agreement_id=agreement_id))

    async def hold_status(self, hold_id: str) -> HoldView:
        """What became of a hold."""
        return await self.connection.call(GET_HOLD, GetHold(hold_id=hold_id))

    async def outcome(self, operation: str, key: str) -> OutcomeView:
        """What became of a call whose reply was lost."""
        return await self.connection.call(GET_OUTCOME, GetOutcome(operation=operation, key=key))

    async def authority(self) -> Authority:
        """What the agent may spend, and what remains today."""
        return await self.connection.call(GET_AUTHORITY, GetAuthority())

    @cached_property
    def books(self) -> Path:
        """The folder of its sessions' books, made for this process where none was named."""
        if self._books is not None:
            return self._books
        folder = Path(mkdtemp(prefix="farthing-books-"))
        weakref.finalize(self, rmtree, folder, ignore_errors=True)
        return folder

    async def own_lists(self, agreement_id: str) -> tuple[AcknowledgedSession, ...]:
        """What its books acknowledge of an agreement's sessions."""
        return await asyncio.to_thread(booked, self.books, agreement_id)

    async def document(self, sha256: str) -> dict[str, Json]:
        """A published document; its bytes are those of the hash.

        Raises:
            Unverified: The platform gave another.
        """
        if sha256 not in self._documents:
            document = await published(self.connection, sha256)
            if len(self._documents) >= _DOCUMENTS_KEPT:
                self._documents.pop(next(iter(self._documents)))
            self._documents[sha256] = document
        return self._documents[sha256]

    async def listing(self, sha256: str) -> Listing:
        """A published listing version, read strictly; raises as `document`."""
        try:
            return parse_listing(await self.document(sha256))
        except DocumentError as error:
            raise Unverified(f"the listing is none: {error}") from None

    async def card(self, sha256: str) -> RateCard:
        """A published rate card, read strictly; raises as `document`."""
        try:
            return parse_card(await self.document(sha256))
        except CardError as error:
            raise Unverified(f"the rate card is none: {error}") from None

    @property
    def _signer(self) -> Signer:
        if self.connection.signer is None:
            raise ValueError("a buyer needs a key")
        return self.connection.signer

    async def _agreement(
        self,
        listing_id: str,
        arguments: Mapping[str, object],
        workload: Quantities,
        agreement_id: str,
        *,
        judge: Callable[[Quote], Awaitable[None]] | None,
        key: str,
    ) -> Agreement:
        accept_key = f"{key}-accept" if key else ""
        agreement = await self.agreement(agreement_id) if agreement_id else None
        if key and not agreement_id:
            # What is held already was judged then, and stays under the agreement it was held by.
            if held := await self._made(PLACE_HOLD, f"{key}-hold"):
                return held
            agreement = await self._made(ACCEPT_TERMS, accept_key)
        if agreement is not None and agreement.listing_id != listing_id:
            raise Refused(refuse(Code.NOT_FOUND, path="agreement_id"))
        if agreement is not None and judge is None:
            return agreement
        if agreement is None:
            agreement, quote = await self._on_offer(listing_id, workload)
        else:
            quote = await self.quote(listing_id, workload, agreement_id=agreement.agreement_id)
        sha256 = agreement.listing_sha256 if agreement else str(quote.document["listing_sha256"])
        check_arguments(await self.listing(sha256), arguments)
        if judge is not None:
            await judge(quote)
        return agreement or await self.accept(quote, key=accept_key)

    async def _on_offer(
        self, listing_id: str, workload: Quantities
    ) -> tuple[Agreement | None, Quote]:
        """The agreement that binds to what is offered now, if there is one, and what it costs."""
        mine = await self.connection.call(LIST_AGREEMENTS, ListAgreements(listing_id=listing_id))
        if agreement := newest_in_force(mine.agreements, listing_id):
            quote = await self.quote(listing_id, workload, agreement_id=agreement.agreement_id)
            if is_of_what_is_offered(agreement, quote):
                return agreement, quote
        return None, await self.quote(listing_id, workload)

    async def _made(self, operation: Operation[Any, Any], key: str) -> Agreement | None:
        """The agreement that a call under a key made, or held by."""
        # A new acceptance has another nonce and time, so that it could not replay the first.
        outcome = await self.outcome(operation.name, key)
        if outcome.refusal is not None:
            raise Refused(Refusal.from_document(outcome.refusal))
        if outcome.answer is None:
            return None
        return await self.agreement(str(outcome.answer["agreement_id"]))

    async def _read_quote(self, quote: Quote) -> QuoteDocument:
        keys = await self.platform_keys()
        await keys.meet(quote.signature)
        document = read_quote(quote.document, quote.signature, keys.platform.get)
        if isinstance(document, Refusal):
            raise Unverified(f"the quote: {document.message} ({document.path})")
        shown = (quote.document_sha256, quote.total, quote.listing_id)
        signed = (document.sha256, money(document.total_units, document.asset), document.listing_id)
        if shown != signed or document.platform != self.connection.url:
            raise Unverified("the quote shows something else than what is signed")
        card = await self.card(document.rate_card_sha256)
        if refusal := check_price(document, card):
            raise Unverified(f"the quote is not what the card gives: {refusal.path}")
        return document

    async def _purchase(self, agreement: Agreement, hold: Hold, answered: Answered) -> Purchase:
        # A hold has one charge, whatever the vendor calls it.
        charge_id = derive_id("chg", hold.hold_id)
        explanation, (receipt, record) = await asyncio.gather(
            self.explain(charge_id), self.proven_receipt(charge_id)
        )
        charge = explanation.charge
        check_charge(charge, hold.hold_id, record)
        return Purchase.of(
            answered, charge, receipt, agreement_id=agreement.agreement_id, hold_id=hold.hold_id
        )


@contextmanager
def _held(hold: Hold) -> Iterator[None]:
    """What the platform refuses to tell about a hold that is placed does not say it is not."""
    try:
        yield
    except Refused as refused:
        raise ServiceLost(f"What became of the hold: {refused}", hold.hold_id) from refused
