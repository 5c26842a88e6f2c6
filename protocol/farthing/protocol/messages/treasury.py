"""The treasury: credit lots, grace, partners, closing an account."""

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
    "GET_PARTNER",
    "GRANT_CREDIT",
    "LIST_CREDIT_LOTS",
    "SET_GRACE",
    "SET_PARTNER",
    "WITHDRAW_CREDIT",
    "AccountState",
    "CloseAccount",
    "CreditLot",
    "CreditLots",
    "GetPartner",
    "GraceView",
    "GrantCredit",
    "ListCreditLots",
    "LotRef",
    "PartnerView",
    "SetGrace",
    "SetPartner",
    "SubjectRef",
    "WithdrawCredit",
]

_TREASURER = frozenset({Role.TREASURER})

LotRef = Annotated[str, Field(pattern=id_pattern("lot"))]
SubjectRef = Annotated[str, Field(pattern=r"^(lst|org)_[0-7][0-9a-hjkmnp-tv-z]{25}$")]


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
    """A credit lot: `amount` is free, held by open holds, spent, expired and withdrawn together."""

    lot_id: str
    organisation_id: str
    kind: str
    amount: Money
    free: Money
    held: Money
    spent: Money
    expired: Money
    withdrawn: Money
    priority: int
    expires_at: str = ""


@message
class WithdrawCredit:
    """Take back what is free of a credit lot, or a part of it, to where the lot came from."""

    lot_id: LotRef
    amount: Money
    reference: Text = ""
    idempotency_key: IdempotencyKey


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
class GetPartner:
    """Ask who is the partner of a vendor, or of a listing."""

    subject_id: SubjectRef


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
WITHDRAW_CREDIT = Operation(
    name="withdraw_credit",
    title="Withdraw credit",
    says="Take back what is free of a credit lot, or a part of it.",
    ask=WithdrawCredit,
    answer=CreditLot,
    effect=Effect.MOVES_MONEY,
    roles=_TREASURER,
    codes=(
        Code.INVALID_AMOUNT,
        Code.NOT_FOUND,
        Code.AMOUNT_OVERFLOW,
        Code.ASSET_MISMATCH,
        Code.INSUFFICIENT_FUNDS,
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
GET_PARTNER = Operation(
    name="get_partner",
    title="Get a partner",
    says="Show who shares in what is agreed with a vendor, or on a listing, from now on.",
    ask=GetPartner,
    answer=PartnerView,
    effect=Effect.READS,
    roles=frozenset({Role.ADMIN, Role.OPERATOR, Role.TREASURER, Role.VENDOR}),
    codes=(Code.NOT_FOUND,),
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
