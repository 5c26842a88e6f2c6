"""Holds: money set aside by a buyer, captured by the payee alone, released or expired."""

from typing import Annotated

from pydantic import Field

from farthing.protocol.errors import Code
from farthing.protocol.messages.accounts import StandingNow
from farthing.protocol.messages.agreements import Line
from farthing.protocol.messages.listings import Document
from farthing.protocol.wire import (
    PARTIES,
    AgreementRef,
    Effect,
    HoldRef,
    IdempotencyKey,
    KeyPurpose,
    Money,
    Operation,
    PageCursor,
    PageLimit,
    Role,
    Sha256,
    Text,
    Workload,
    message,
)

__all__ = [
    "AUTHORITY_CODES",
    "CAPTURE_HOLD",
    "GET_HOLD",
    "LIST_HOLDS",
    "PLACE_HOLD",
    "RELEASE_HOLD",
    "CaptureHold",
    "Charge",
    "GetHold",
    "Hold",
    "HoldView",
    "Holds",
    "ListHolds",
    "PlaceHold",
    "ReleaseHold",
]

AUTHORITY_CODES = (
    Code.FROZEN,
    Code.AUTHORITY_MISSING,
    Code.AUTHORITY_EXPIRED,
    Code.VENDOR_NOT_ALLOWED,
    Code.CAPABILITY_NOT_ALLOWED,
    Code.PER_CALL_LIMIT_EXCEEDED,
    Code.BUDGET_EXCEEDED,
)


@message
class PlaceHold:
    """Set money aside for one delivery under an agreement.

    `workload` is the most that may be used; the hold takes its price at the agreement's rating
    position. `args_sha256` is the digest of the tool's arguments, so that the vendor can tell
    which call is paid for. `expires_in_s` is bounded by the terms' delivery deadline.
    """

    agreement_id: AgreementRef
    workload: Workload
    args_sha256: Sha256
    expires_in_s: Annotated[int, Field(ge=0)] = 0
    idempotency_key: IdempotencyKey


@message
class Hold:
    """Money set aside. `entitlement` is what the vendor may believe, signed by the platform."""

    hold_id: str
    agreement_id: str
    status: str
    amount: Money
    expires_at: str
    lines: tuple[Line, ...] = ()
    entitlement: str = ""
    standing: StandingNow | None = None


@message
class CaptureHold:
    """Capture what was used, with a signed delivery record. Only the payee can.

    `delivery` is the vendor's document (spec/holds.md): hold, digests of arguments and result,
    quantities, time; `delivery_signature` its detached JWS.
    """

    hold_id: HoldRef
    delivery: Document
    delivery_signature: str
    idempotency_key: IdempotencyKey


@message
class Charge:
    """What was captured of a hold, or billed of a session: then `hold_id` is empty.

    `status` tells where the money stands now. A session's charge is of one batch of calls, which
    have their results each: `result_sha256` is empty.
    """

    charge_id: str
    hold_id: str
    agreement_id: str
    status: str
    amount: Money
    released: Money
    fee: Money
    refunded: Money
    lines: tuple[Line, ...]
    result_sha256: str
    captured_at: str
    window_closes_at: str
    seq: int
    session_id: str = ""
    standing: StandingNow | None = None


@message
class ReleaseHold:
    """Give a hold back whole. Only the payee can; else it expires."""

    hold_id: HoldRef
    reason: Text = ""
    idempotency_key: IdempotencyKey


@message
class GetHold:
    """Ask what became of a hold; `charge_id` in the answer says that it was captured."""

    hold_id: HoldRef


@message
class HoldView:
    """A hold as its buyer, operator or vendor sees it."""

    hold_id: str
    agreement_id: str
    status: str
    amount: Money
    expires_at: str
    charge_id: str = ""


@message
class ListHolds:
    """Ask for the caller's holds, newest first; of one agreement where it is named."""

    agreement_id: AgreementRef | None = None
    cursor: PageCursor = ""
    limit: PageLimit = 50


@message
class Holds:
    """The caller's holds as of a record; `cursor` is there while there are more."""

    holds: tuple[HoldView, ...]
    as_of_seq: int = 0
    cursor: str = ""


PLACE_HOLD = Operation(
    name="place_hold",
    title="Place a hold",
    says="Set money aside for one delivery.",
    ask=PlaceHold,
    answer=Hold,
    effect=Effect.MOVES_MONEY,
    roles=frozenset({Role.BUYER}),
    codes=(
        Code.NOT_FOUND,
        Code.AGREEMENT_ENDED,
        Code.USAGE_INVALID,
        Code.AMOUNT_OVERFLOW,
        *AUTHORITY_CODES,
        Code.ALLOWANCE_EXCEEDED,
        Code.ACCOUNT_CLOSED,
        Code.INSUFFICIENT_FUNDS,
    ),
)
CAPTURE_HOLD = Operation(
    name="capture_hold",
    title="Capture a hold",
    says="Capture what was used of a hold, with a signed delivery record.",
    ask=CaptureHold,
    answer=Charge,
    effect=Effect.MOVES_MONEY,
    roles=frozenset({Role.VENDOR}),
    codes=(
        Code.NOT_FOUND,
        Code.SIGNATURE_INVALID,
        Code.HOLD_RESOLVED,
        Code.HOLD_EXPIRED,
        Code.ANSWER_AWAITED,
        Code.DELIVERY_INVALID,
        Code.USAGE_INVALID,
        Code.AMOUNT_OVERFLOW,
        Code.CAPTURE_EXCEEDS_HOLD,
    ),
    purposes=frozenset({KeyPurpose.METERING}),
)
RELEASE_HOLD = Operation(
    name="release_hold",
    title="Release a hold",
    says="Give a hold back whole.",
    ask=ReleaseHold,
    answer=Hold,
    effect=Effect.MOVES_MONEY,
    roles=frozenset({Role.VENDOR}),
    codes=(Code.NOT_FOUND, Code.HOLD_RESOLVED, Code.HOLD_EXPIRED),
    purposes=frozenset({KeyPurpose.METERING}),
)
GET_HOLD = Operation(
    name="get_hold",
    title="Get a hold",
    says="Say what became of a hold: open, captured, released or expired.",
    ask=GetHold,
    answer=HoldView,
    effect=Effect.READS,
    roles=PARTIES,
    codes=(Code.NOT_FOUND,),
    purposes=frozenset({KeyPurpose.METERING}),
)
LIST_HOLDS = Operation(
    name="list_holds",
    title="List holds",
    says="List the caller's holds, newest first.",
    ask=ListHolds,
    answer=Holds,
    effect=Effect.READS,
    roles=PARTIES,
    codes=(Code.NOT_FOUND,),
)
