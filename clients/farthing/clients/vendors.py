"""A vendor: publishes signed listings, captures with signed delivery records, makes things right.

Boundary: the vendor's calls to the platform. Making a tool payable is `paid`.
Source: spec/contracts.md.
"""

import base64
from collections.abc import Mapping
from typing import Literal

from farthing.clients.allowances import Agreeing
from farthing.clients.charges import ChargeParty
from farthing.clients.documents import Offer, sign_correction, sign_delivery, sign_listing
from farthing.clients.operators import public_jwk
from farthing.clients.publications import published
from farthing.clients.reconciling import Reconciling
from farthing.clients.statements import AccountHolder
from farthing.clients.transport import Reply
from farthing.protocol.canonical import canonical_bytes
from farthing.protocol.contracts import DeliveryRecord
from farthing.protocol.keys import Signer
from farthing.protocol.messages.agents import ADD_KEY, AddKey, KeyState
from farthing.protocol.messages.agreements import (
    GET_AGREEMENT,
    TERMINATE_AGREEMENT,
    Agreement,
    GetAgreement,
    TerminateAgreement,
)
from farthing.protocol.messages.charges import REFUND_CHARGE, Refund, RefundCharge
from farthing.protocol.messages.corrections import CORRECT_USAGE, UsageCorrection
from farthing.protocol.messages.disputes import SUBMIT_EVIDENCE, Dispute, SubmitEvidence
from farthing.protocol.messages.holds import (
    CAPTURE_HOLD,
    GET_HOLD,
    RELEASE_HOLD,
    CaptureHold,
    Charge,
    GetHold,
    Hold,
    HoldView,
    ReleaseHold,
)
from farthing.protocol.messages.listings import (
    LINT_LISTING,
    PUBLISH_LISTING,
    WITHDRAW_LISTING,
    Document,
    LintListing,
    LintReport,
    Publication,
    PublishListing,
    WithdrawListing,
)
from farthing.protocol.messages.payments import (
    CANCEL_PAYOUT,
    LIST_PAYOUTS,
    REQUEST_PAYOUT,
    CancelPayout,
    ListPayouts,
    Payouts,
    PayoutView,
    ProcessorName,
    RequestPayout,
)
from farthing.protocol.messages.sessions import (
    CLOSE_SESSION,
    GET_SESSION,
    LIST_SESSIONS,
    REPORT_USAGE,
    CloseSession,
    GetSession,
    ListSessions,
    ReportUsage,
    Session,
    Sessions,
    UsageReport,
)
from farthing.protocol.messages.treasury import GET_PARTNER, GetPartner, PartnerView
from farthing.protocol.signatures import Typ, sign_detached
from farthing.protocol.wire import KeyPurpose, Money, Role

__all__ = ["Offer", "Vendor", "capture_key"]


class Vendor(AccountHolder, ChargeParty, Reconciling, Agreeing):
    """An organisation that sells.

    With a metering key it is for a serving machine: it reports, captures and releases, and the rest
    is `not_permitted`.
    """

    role = Role.VENDOR

    @property
    def vendor_id(self) -> str:
        """The vendor's id."""
        return self.connection.principal

    @property
    def signer(self) -> Signer:
        """The vendor's key, or its metering key."""
        if self.connection.signer is None:
            raise ValueError("a vendor needs a key")
        return self.connection.signer

    async def add_metering_key(self, new: Signer, *, key: str = "") -> KeyState:
        """Register a key that reports, captures and releases for the vendor, and does no more.

        Raises:
            Refused: `already_registered`; `not_permitted` where sixteen are in force.
        """
        purpose: Literal["metering"] = KeyPurpose.METERING.value
        shown = {"new": new.thumbprint, "principal": self.vendor_id, "purpose": purpose}
        return await self.connection.call(
            ADD_KEY,
            AddKey(
                key=public_jwk(new.public),
                purpose=purpose,
                possession=sign_detached(new, Typ.NEW_KEY, canonical_bytes(dict(shown))),
                idempotency_key=key or f"metering-{new.thumbprint}",
            ),
        )

    async def lint(self, offer: Offer) -> LintReport:
        """Every finding about an offer; nothing is published."""
        return await self.connection.call(
            LINT_LISTING,
            LintListing(
                listing=dict(offer.listing),
                rate_card=dict(offer.rate_card),
                terms=dict(offer.terms),
            ),
        )

    async def publish(self, offer: Offer, *, key: str = "") -> Publication:
        """Sign and publish a version of a listing.

        Raises:
            Refused: `listing_invalid` with the first finding's path, and so on.
        """
        return await self.connection.call(
            PUBLISH_LISTING,
            PublishListing(
                listing=dict(offer.listing),
                rate_card=dict(offer.rate_card),
                terms=dict(offer.terms),
                signature=sign_listing(self.signer, offer.listing),
                idempotency_key=key or self.connection.new_key(),
            ),
        )

    async def withdraw(self, listing_id: str, reason: str, *, key: str = "") -> Publication:
        """Take a listing off the market; agreements in force are kept."""
        return await self.connection.call(
            WITHDRAW_LISTING,
            WithdrawListing(
                listing_id=listing_id,
                reason=reason,
                idempotency_key=key or self.connection.new_key(),
            ),
        )

    async def capture(self, delivery: DeliveryRecord, *, key: str = "") -> Reply[Charge]:
        """Capture what was used of a hold; the key is made of the hold, so it happens once.

        Raises:
            Refused: `hold_expired`, `capture_exceeds_hold`, and so on.
        """
        signed = sign_delivery(self.signer, delivery)
        return await self.capture_signed(
            delivery.hold_id, signed.document, signed.signature, key=key
        )

    async def capture_signed(
        self, hold_id: str, delivery: Document, signature: str, *, key: str = ""
    ) -> Reply[Charge]:
        """As `capture`, with a delivery record that was signed before."""
        return await self.connection.send(
            CAPTURE_HOLD,
            CaptureHold(
                hold_id=hold_id,
                delivery=delivery,
                delivery_signature=signature,
                idempotency_key=key or capture_key(hold_id),
            ),
        )

    async def release(self, hold_id: str, reason: str = "", *, key: str = "") -> Reply[Hold]:
        """Give a hold back whole."""
        return await self.connection.send(
            RELEASE_HOLD,
            ReleaseHold(
                hold_id=hold_id, reason=reason, idempotency_key=key or f"release-{hold_id}"
            ),
        )

    async def hold_status(self, hold_id: str) -> HoldView:
        """What became of a hold."""
        return await self.connection.call(GET_HOLD, GetHold(hold_id=hold_id))

    async def report_usage(
        self, session_id: str, batch: str, signature: str, voucher: str, *, key: str
    ) -> UsageReport:
        """Report calls of a session in a signed batch; under its key it is billed once.

        Args:
            session_id: Which session.
            batch: The exact text that is signed.
            signature: The vendor's detached signature of it.
            voucher: The payer's that covers it.
            key: Idempotency key; the same for the same batch.

        Raises:
            Refused: `session_closed`, `signature_invalid`, and so on: none of it is billed.
            Unverified: What came back is another session's.
        """
        return await self.connection.call(
            REPORT_USAGE,
            ReportUsage(
                session_id=session_id,
                batch=batch,
                batch_signature=signature,
                voucher=voucher,
                idempotency_key=key,
            ),
        )

    async def correct_usage(
        self, charge_id: str, taken_back: Mapping[int, Mapping[str, int]], *, key: str = ""
    ) -> UsageCorrection:
        """Take back what billed calls of a session used too much, and give back its price.

        Args:
            charge_id: The charge of the report in which the calls were billed.
            taken_back: Quantities by the call's number and meter; each call can be corrected once.
            key: Idempotency key.

        Raises:
            Refused: `usage_invalid` with the call or meter that does not fit, and so on.
        """
        key = key or self.connection.new_key()
        ask = sign_correction(self.signer, charge_id, taken_back, key=key)
        return await self.connection.call(CORRECT_USAGE, ask)

    async def session_status(self, session_id: str) -> Session:
        """Where a session stands in settlement."""
        return await self.connection.call(GET_SESSION, GetSession(session_id=session_id))

    async def sessions(self, limit: int = 50, cursor: str = "") -> Sessions:
        """The sessions with the vendor, newest first; `cursor` is where a page ended."""
        return await self.connection.call(LIST_SESSIONS, ListSessions(limit=limit, cursor=cursor))

    async def close_session(self, session_id: str, *, key: str = "") -> Session:
        """End a session at once: nothing more of it is billed, and the rest goes back."""
        return await self.connection.call(
            CLOSE_SESSION,
            CloseSession(session_id=session_id, idempotency_key=key or f"close-{session_id}"),
        )

    async def refund(
        self, charge_id: str, amount: Money, reason: str = "", *, key: str = ""
    ) -> Refund:
        """Give a charge back, whole or in part."""
        return await self.connection.call(
            REFUND_CHARGE,
            RefundCharge(
                charge_id=charge_id,
                amount=amount,
                reason=reason,
                idempotency_key=key or self.connection.new_key(),
            ),
        )

    async def request_payout(
        self,
        amount: Money,
        *,
        account: Literal["vendor_payable", "partner_payable"] = "vendor_payable",
        processor: ProcessorName = "manual",
        destination: str = "",
        key: str = "",
    ) -> PayoutView:
        """Ask for money that was earned for good; the treasurer lets it go."""
        return await self.connection.call(
            REQUEST_PAYOUT,
            RequestPayout(
                amount=amount,
                account=account,
                processor=processor,
                destination=destination,
                idempotency_key=key or self.connection.new_key(),
            ),
        )

    async def cancel_payout(self, payout_id: str, *, key: str = "") -> PayoutView:
        """Take back a payout that was asked for and not sent."""
        return await self.connection.call(
            CANCEL_PAYOUT,
            CancelPayout(payout_id=payout_id, idempotency_key=key or self.connection.new_key()),
        )

    async def partner(self, subject_id: str = "") -> PartnerView:
        """Who shares in what is agreed with the vendor, or on one of its listings, from now on.

        Raises:
            Refused: `not_found`: nobody does.
        """
        ask = GetPartner(subject_id=subject_id or self.vendor_id)
        return await self.connection.call(GET_PARTNER, ask)

    async def payouts(self, limit: int = 50, cursor: str = "") -> Payouts:
        """The vendor's payouts, newest first; `cursor` is where a page ended."""
        return await self.connection.call(LIST_PAYOUTS, ListPayouts(limit=limit, cursor=cursor))

    async def submit_evidence(self, dispute_id: str, body: bytes, *, key: str = "") -> Dispute:
        """Answer a dispute with the delivered body: the bytes the delivery record digests."""
        return await self.connection.call(
            SUBMIT_EVIDENCE,
            SubmitEvidence(
                dispute_id=dispute_id,
                body=base64.b64encode(body).decode(),
                idempotency_key=key or self.connection.new_key(),
            ),
        )

    async def agreement(self, agreement_id: str) -> Agreement:
        """An agreement under which the vendor sells."""
        return await self.connection.call(GET_AGREEMENT, GetAgreement(agreement_id=agreement_id))

    async def terminate(self, agreement_id: str, reason: str, *, key: str = "") -> Agreement:
        """End an agreement for new holds."""
        return await self.connection.call(
            TERMINATE_AGREEMENT,
            TerminateAgreement(
                agreement_id=agreement_id,
                reason=reason,
                idempotency_key=key or self.connection.new_key(),
            ),
        )

    async def document(self, sha256: str) -> Document:
        """A published document; its bytes are those of the hash.

        Raises:
            Unverified: The platform gave another.
        """
        return dict(await published(self.connection, sha256))


def capture_key(hold_id: str) -> str:
    """The idempotency key of a hold's one capture."""
    return f"capture-{hold_id}"
