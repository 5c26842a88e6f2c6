"""Payments: money on its way in and out, by a processor or by hand, and what goes back."""

from typing import Annotated, Literal

from pydantic import Field

from farthing.protocol.errors import Code
from farthing.protocol.ids import id_pattern
from farthing.protocol.wire import (
    Effect,
    IdempotencyKey,
    Money,
    Operation,
    OrganisationRef,
    PageCursor,
    PageLimit,
    Role,
    form,
    message,
)

__all__ = [
    "CANCEL_PAYOUT",
    "CONFIRM_PAYOUT",
    "CONFIRM_TOP_UP",
    "CREATE_TOP_UP",
    "FAIL_PAYOUT",
    "FAIL_TOP_UP",
    "LIST_PAYOUTS",
    "LIST_TOP_UPS",
    "REQUEST_PAYOUT",
    "REVERSE_PAYOUT",
    "REVERSE_TOP_UP",
    "SEND_PAYOUT",
    "CancelPayout",
    "ConfirmPayout",
    "ConfirmTopUp",
    "CreateTopUp",
    "FailPayout",
    "FailTopUp",
    "ListPayouts",
    "ListTopUps",
    "PayoutRef",
    "PayoutStatus",
    "PayoutView",
    "Payouts",
    "ProcessorName",
    "RequestPayout",
    "ReversePayout",
    "ReverseTopUp",
    "SendPayout",
    "TopUpRef",
    "TopUpStatus",
    "TopUpView",
    "TopUps",
]

_TREASURER = frozenset({Role.TREASURER})

TopUpRef = Annotated[str, Field(pattern=id_pattern("top"))]
PayoutRef = Annotated[str, Field(pattern=id_pattern("pay"))]
ProcessorName = Literal["manual", "stripe"]
TopUpStatus = Literal["pending", "posted", "failed", "expired"]
PayoutStatus = Literal["requested", "sent", "paid", "failed", "cancelled"]
# A processor's own id of something: opaque, and no place for a card number's spaces.
Reference = Annotated[
    str, form(r"^[A-Za-z0-9_.:-]*$", "It is letters, digits, _, ., : and -.", max_length=255)
]


@message
class CreateTopUp:
    """Announce money for the caller's prepaid account."""

    amount: Money
    processor: ProcessorName = "manual"
    idempotency_key: IdempotencyKey


@message
class TopUpView:
    """A top-up. `url` is where a person pays it, at the processor; it is not kept.

    `reversed` is how much of it has gone back.
    """

    top_up_id: str
    organisation_id: str
    amount: Money
    status: str
    processor: str
    reference: str
    expires_at: str
    reversed: Money
    url: str = ""


@message
class ConfirmTopUp:
    """Say that the money of a top-up has come; `reference` is what it is booked under outside."""

    top_up_id: TopUpRef
    reference: Reference = ""
    idempotency_key: IdempotencyKey


@message
class FailTopUp:
    """Say that the money of a top-up will not come."""

    top_up_id: TopUpRef
    reference: Reference = ""
    idempotency_key: IdempotencyKey


@message
class ReverseTopUp:
    """Say that money of a top-up that had come has gone back, or is about to.

    Args:
        total: how much of it in all, with what was said before.
        may_owe: whether its operator owes what its prepaid account has not: True for what has gone
            whatever is there, as by a chargeback.
    """

    top_up_id: TopUpRef
    total: Money
    may_owe: bool = False
    reference: Reference = ""
    idempotency_key: IdempotencyKey


@message
class ListTopUps:
    """Ask for top-ups, newest first: the caller's, or as treasurer those of an organisation.

    `status`: those alone that stand so.
    """

    organisation_id: OrganisationRef | None = None
    status: TopUpStatus | None = None
    cursor: PageCursor = ""
    limit: PageLimit = 50


@message
class TopUps:
    """Top-ups, newest first, as of a record; `cursor` is there while there are more."""

    top_ups: tuple[TopUpView, ...]
    as_of_seq: int = 0
    cursor: str = ""


@message
class RequestPayout:
    """Ask for money that the caller has earned for good to be paid out.

    `destination` is whom the processor knows the caller by, such as a connected account.
    """

    amount: Money
    account: Literal["vendor_payable", "partner_payable"] = "vendor_payable"
    processor: ProcessorName = "manual"
    destination: Reference = ""
    idempotency_key: IdempotencyKey


@message
class PayoutView:
    """A payout and how far it has come; `reversed` is how much of it has come back."""

    payout_id: str
    organisation_id: str
    account: str
    amount: Money
    status: str
    processor: str
    destination: str
    reference: str
    reversed: Money


@message
class CancelPayout:
    """Take back a payout that was asked for and not sent."""

    payout_id: PayoutRef
    idempotency_key: IdempotencyKey


@message
class SendPayout:
    """Let a payout go: the processor is told to pay it."""

    payout_id: PayoutRef
    idempotency_key: IdempotencyKey


@message
class ConfirmPayout:
    """Say that the money of a payout has left."""

    payout_id: PayoutRef
    reference: Reference = ""
    idempotency_key: IdempotencyKey


@message
class FailPayout:
    """Say that the money of a payout has not left: it is the organisation's again."""

    payout_id: PayoutRef
    reference: Reference = ""
    idempotency_key: IdempotencyKey


@message
class ReversePayout:
    """Say that money of a payout that had left has come back; `total` is how much of it in all."""

    payout_id: PayoutRef
    total: Money
    reference: Reference = ""
    idempotency_key: IdempotencyKey


@message
class ListPayouts:
    """Ask for payouts, newest first: the caller's, or as treasurer those of an organisation.

    `status`: those alone that stand so.
    """

    organisation_id: OrganisationRef | None = None
    status: PayoutStatus | None = None
    cursor: PageCursor = ""
    limit: PageLimit = 50


@message
class Payouts:
    """Payouts, newest first, as of a record; `cursor` is there while there are more."""

    payouts: tuple[PayoutView, ...]
    as_of_seq: int = 0
    cursor: str = ""


CREATE_TOP_UP = Operation(
    name="create_top_up",
    title="Create a top-up",
    says="Announce money for the caller's prepaid account; it can be spent once it has come.",
    ask=CreateTopUp,
    answer=TopUpView,
    effect=Effect.MOVES_MONEY,
    roles=frozenset({Role.OPERATOR}),
    codes=(
        Code.INVALID_ARGUMENT,
        Code.INVALID_AMOUNT,
        Code.AMOUNT_OVERFLOW,
        Code.ACCOUNT_CLOSED,
        Code.PROCESSOR_FAILED,
    ),
)
CONFIRM_TOP_UP = Operation(
    name="confirm_top_up",
    title="Confirm a top-up",
    says="Say that the money of a top-up has come.",
    ask=ConfirmTopUp,
    answer=TopUpView,
    effect=Effect.MOVES_MONEY,
    roles=_TREASURER,
    codes=(Code.NOT_FOUND, Code.PAYMENT_RESOLVED, Code.PROCESSOR_FAILED),
)
FAIL_TOP_UP = Operation(
    name="fail_top_up",
    title="Fail a top-up",
    says="Say that the money of a top-up will not come.",
    ask=FailTopUp,
    answer=TopUpView,
    effect=Effect.MOVES_MONEY,
    roles=_TREASURER,
    codes=(Code.NOT_FOUND, Code.PAYMENT_RESOLVED),
)
REVERSE_TOP_UP = Operation(
    name="reverse_top_up",
    title="Reverse a top-up",
    says="Say that money of a top-up has gone back, by a refund or a chargeback.",
    ask=ReverseTopUp,
    answer=TopUpView,
    effect=Effect.MOVES_MONEY,
    roles=_TREASURER,
    codes=(
        Code.INVALID_AMOUNT,
        Code.NOT_FOUND,
        Code.AMOUNT_OVERFLOW,
        Code.ASSET_MISMATCH,
        Code.INSUFFICIENT_FUNDS,
        Code.PAYMENT_RESOLVED,
    ),
)
LIST_TOP_UPS = Operation(
    name="list_top_ups",
    title="List top-ups",
    says="List an organisation's top-ups, newest first.",
    ask=ListTopUps,
    answer=TopUps,
    effect=Effect.READS,
    roles=frozenset({Role.OPERATOR, Role.TREASURER}),
    codes=(Code.INVALID_ARGUMENT, Code.NOT_FOUND),
)
REQUEST_PAYOUT = Operation(
    name="request_payout",
    title="Request a payout",
    says="Ask for money that was earned for good to be paid out.",
    ask=RequestPayout,
    answer=PayoutView,
    effect=Effect.MOVES_MONEY,
    roles=frozenset({Role.VENDOR, Role.OPERATOR}),
    codes=(
        Code.INVALID_ARGUMENT,
        Code.INVALID_AMOUNT,
        Code.FROZEN,
        Code.ACCOUNT_UNKNOWN,
        Code.INSUFFICIENT_FUNDS,
    ),
)
CANCEL_PAYOUT = Operation(
    name="cancel_payout",
    title="Cancel a payout",
    says="Take back a payout of the caller's that was asked for and not sent.",
    ask=CancelPayout,
    answer=PayoutView,
    effect=Effect.MOVES_MONEY,
    roles=frozenset({Role.VENDOR, Role.OPERATOR}),
    codes=(Code.NOT_FOUND, Code.PAYMENT_RESOLVED),
)
SEND_PAYOUT = Operation(
    name="send_payout",
    title="Send a payout",
    says="Let a payout go: the processor is told to pay it.",
    ask=SendPayout,
    answer=PayoutView,
    effect=Effect.WRITES,
    roles=_TREASURER,
    codes=(Code.NOT_FOUND, Code.FROZEN, Code.PAYMENT_RESOLVED, Code.PROCESSOR_FAILED),
)
CONFIRM_PAYOUT = Operation(
    name="confirm_payout",
    title="Confirm a payout",
    says="Say that the money of a payout has left.",
    ask=ConfirmPayout,
    answer=PayoutView,
    effect=Effect.MOVES_MONEY,
    roles=_TREASURER,
    codes=(Code.NOT_FOUND, Code.INSUFFICIENT_FUNDS, Code.PAYMENT_RESOLVED),
)
FAIL_PAYOUT = Operation(
    name="fail_payout",
    title="Fail a payout",
    says="Say that the money of a payout has not left.",
    ask=FailPayout,
    answer=PayoutView,
    effect=Effect.MOVES_MONEY,
    roles=_TREASURER,
    codes=(Code.NOT_FOUND, Code.PAYMENT_RESOLVED),
)
REVERSE_PAYOUT = Operation(
    name="reverse_payout",
    title="Reverse a payout",
    says="Say that money of a payout has come back: it is the organisation's again.",
    ask=ReversePayout,
    answer=PayoutView,
    effect=Effect.MOVES_MONEY,
    roles=_TREASURER,
    codes=(
        Code.INVALID_AMOUNT,
        Code.NOT_FOUND,
        Code.AMOUNT_OVERFLOW,
        Code.ASSET_MISMATCH,
        Code.PAYMENT_RESOLVED,
    ),
)
LIST_PAYOUTS = Operation(
    name="list_payouts",
    title="List payouts",
    says="List an organisation's payouts, newest first.",
    ask=ListPayouts,
    answer=Payouts,
    effect=Effect.READS,
    roles=frozenset({Role.VENDOR, Role.OPERATOR, Role.TREASURER}),
    codes=(Code.INVALID_ARGUMENT, Code.NOT_FOUND),
)
