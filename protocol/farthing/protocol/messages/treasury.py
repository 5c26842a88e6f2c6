"""The treasury: top-ups, payouts, credit lots, grace, partners, closing an account."""

from typing import Annotated, Literal

from pydantic import Field

from farthing.protocol.errors import Code
from farthing.protocol.ids import id_pattern
from farthing.protocol.money import PPM
from farthing.protocol.wire import (
    AssetCode,
    Effect,
    IdempotencyKey,
    Money,
    Operation,
    OrganisationRef,
    PageCursor,
    PageLimit,
    Role,
    Text,
    Time,
    message,
)

__all__ = [
    "CLOSE_ACCOUNT",
    "CONFIRM_PAYOUT",
    "CONFIRM_TOP_UP",
    "CREATE_TOP_UP",
    "FAIL_PAYOUT",
    "FAIL_TOP_UP",
    "GRANT_CREDIT",
    "LIST_CREDIT_LOTS",
    "LIST_PAYOUTS",
    "LIST_TOP_UPS",
    "REQUEST_PAYOUT",
    "SEND_PAYOUT",
    "SET_GRACE",
    "SET_PARTNER",
    "AccountState",
    "CloseAccount",
    "ConfirmPayout",
    "ConfirmTopUp",
    "CreateTopUp",
    "CreditLot",
    "CreditLots",
    "FailPayout",
    "FailTopUp",
    "GraceView",
    "GrantCredit",
    "ListCreditLots",
    "ListPayouts",
    "ListTopUps",
    "PartnerView",
    "PayoutRef",
    "PayoutView",
    "Payouts",
    "ProcessorName",
    "RequestPayout",
    "SendPayout",
    "SetGrace",
    "SetPartner",
    "SubjectRef",
    "TopUpRef",
    "TopUpView",
    "TopUps",
]

_TREASURER = frozenset({Role.TREASURER})

TopUpRef = Annotated[str, Field(pattern=id_pattern("top"))]
PayoutRef = Annotated[str, Field(pattern=id_pattern("pay"))]
SubjectRef = Annotated[str, Field(pattern=r"^(lst|org)_[0-7][0-9a-hjkmnp-tv-z]{25}$")]
ProcessorName = Literal["manual", "stripe"]
# A processor's own id of something: opaque, and no place for a card number's spaces.
Reference = Annotated[str, Field(max_length=255, pattern=r"^[A-Za-z0-9_.:-]*$")]


@message
class CreateTopUp:
    """Announce money for the caller's prepaid account."""

    amount: Money
    processor: ProcessorName = "manual"
    idempotency_key: IdempotencyKey


@message
class TopUpView:
    """A top-up. `url` is where a person pays it, at the processor; it is not kept."""

    top_up_id: str
    organisation_id: str
    amount: Money
    status: str
    processor: str
    reference: str
    expires_at: str
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
class ListTopUps:
    """Ask for top-ups, newest first: the caller's, or as treasurer those of an organisation."""

    organisation_id: OrganisationRef | None = None
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
    """A payout and how far it has come."""

    payout_id: str
    organisation_id: str
    account: str
    amount: Money
    status: str
    processor: str
    destination: str
    reference: str


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
class ListPayouts:
    """Ask for payouts, newest first: the caller's, or as treasurer those of an organisation."""

    organisation_id: OrganisationRef | None = None
    cursor: PageCursor = ""
    limit: PageLimit = 50


@message
class Payouts:
    """Payouts, newest first, as of a record; `cursor` is there while there are more."""

    payouts: tuple[PayoutView, ...]
    as_of_seq: int = 0
    cursor: str = ""


@message
class GrantCredit:
    """Give an operator a credit lot: bought outside, or promotional.

    A lower `priority` is spent first; `expires_at` left out is never.
    """

    organisation_id: OrganisationRef
    amount: Money
    kind: Literal["bought", "promotional"]
    priority: Annotated[int, Field(ge=0, le=255)] = 100
    expires_at: Time = ""
    reference: Text = ""
    idempotency_key: IdempotencyKey


@message
class CreditLot:
    """A credit lot: `amount` is free, held by open holds, spent and expired together."""

    lot_id: str
    organisation_id: str
    kind: str
    amount: Money
    free: Money
    held: Money
    spent: Money
    expired: Money
    priority: int
    expires_at: str = ""


@message
class ListCreditLots:
    """Ask for credit lots, newest first: the caller's, or as treasurer an organisation's."""

    organisation_id: OrganisationRef | None = None
    cursor: PageCursor = ""
    limit: PageLimit = 50


@message
class CreditLots:
    """Credit lots, newest first, as of a record; `cursor` is there while there are more."""

    lots: tuple[CreditLot, ...]
    as_of_seq: int = 0
    cursor: str = ""


@message
class SetGrace:
    """Set how far a prepaid account may be below zero.

    The treasurer grants; the operator can choose less for itself. What is in force is the lesser.
    """

    organisation_id: OrganisationRef
    amount: Money
    idempotency_key: IdempotencyKey


@message
class GraceView:
    """A grace: what was granted, what the operator chose, and what is in force."""

    organisation_id: str
    granted: Money
    in_force: Money
    chosen: Money | None = None


@message
class SetPartner:
    """Name the partner of a vendor or of one listing, and its share in millionths; 0 is none."""

    subject_id: SubjectRef
    partner_id: OrganisationRef
    ppm: Annotated[int, Field(ge=0, le=PPM)]
    idempotency_key: IdempotencyKey


@message
class PartnerView:
    """Who shares in what is agreed from now on."""

    subject_id: str
    partner_id: str
    ppm: int


@message
class CloseAccount:
    """Close an empty account: nothing new begins on it."""

    organisation_id: OrganisationRef
    account: Literal["prepaid", "vendor_payable", "partner_payable"]
    asset: AssetCode
    idempotency_key: IdempotencyKey


@message
class AccountState:
    """An account that was closed."""

    organisation_id: str
    account: str
    asset: str
    status: str


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
    codes=(Code.NOT_FOUND, Code.PAYMENT_RESOLVED),
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
    codes=(Code.NOT_FOUND, Code.PAYMENT_RESOLVED),
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
GRANT_CREDIT = Operation(
    name="grant_credit",
    title="Grant credit",
    says="Give an operator a credit lot, bought outside or promotional.",
    ask=GrantCredit,
    answer=CreditLot,
    effect=Effect.MOVES_MONEY,
    roles=_TREASURER,
    codes=(
        Code.INVALID_ARGUMENT,
        Code.INVALID_AMOUNT,
        Code.NOT_FOUND,
        Code.AMOUNT_OVERFLOW,
        Code.ACCOUNT_CLOSED,
    ),
)
LIST_CREDIT_LOTS = Operation(
    name="list_credit_lots",
    title="List credit lots",
    says="List an operator's credit lots, newest first.",
    ask=ListCreditLots,
    answer=CreditLots,
    effect=Effect.READS,
    roles=frozenset({Role.OPERATOR, Role.TREASURER}),
    codes=(Code.INVALID_ARGUMENT, Code.NOT_FOUND),
)
SET_GRACE = Operation(
    name="set_grace",
    title="Set a grace",
    says="Set how far a prepaid account may be below zero; its operator can only choose less.",
    ask=SetGrace,
    answer=GraceView,
    effect=Effect.WRITES,
    roles=frozenset({Role.TREASURER, Role.OPERATOR}),
    codes=(Code.NOT_FOUND, Code.ACCOUNT_CLOSED, Code.INSUFFICIENT_FUNDS),
)
SET_PARTNER = Operation(
    name="set_partner",
    title="Set a partner",
    says="Name who brought a vendor's or a listing's trade, and its share of each charge.",
    ask=SetPartner,
    answer=PartnerView,
    effect=Effect.WRITES,
    roles=frozenset({Role.ADMIN}),
    codes=(Code.INVALID_ARGUMENT, Code.NOT_FOUND),
)
CLOSE_ACCOUNT = Operation(
    name="close_account",
    title="Close an account",
    says="Close an organisation's empty account: nothing new begins on it.",
    ask=CloseAccount,
    answer=AccountState,
    effect=Effect.WRITES,
    roles=_TREASURER,
    codes=(Code.NOT_FOUND, Code.ACCOUNT_UNKNOWN, Code.ACCOUNT_IN_USE),
)
