"""Billed usage that its vendor takes back: of which calls, how much, and what comes of it."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from farthing.protocol.errors import Code
from farthing.protocol.messages.accounts import StandingNow
from farthing.protocol.messages.agreements import Line
from farthing.protocol.usage import BATCH_EVENTS_MAX, METERS_MAX
from farthing.protocol.wire import (
    ChargeRef,
    Effect,
    IdempotencyKey,
    Money,
    Operation,
    Role,
    Slug,
    Token,
    Usage,
    form,
    message,
)

__all__ = ["CORRECT_USAGE", "CallCorrection", "CorrectUsage", "UsageCorrection"]

_COUNTED = form(r"^[1-9][0-9]{0,15}$", "It is a whole number from 1 in at most 16 digits.")
_CallText = Annotated[str, _COUNTED]
_TakenBack = Annotated[str, _COUNTED]


@message
class CallCorrection:
    """What a billed call used too much, by meter; `call` is its event's id."""

    call: _CallText
    usage: Annotated[Mapping[Slug, _TakenBack], Field(min_length=1, max_length=METERS_MAX)]


@message
class CorrectUsage:
    """Take back what billed calls of a session's charge used too much.

    `signature` is the vendor's detached JWS over the charge's id and the corrections
    (spec/metering.md).

    Args:
        charge_id: the charge of the batch that the calls were billed in.
        corrections: ascending by call, each call once.
    """

    charge_id: ChargeRef
    corrections: Annotated[
        tuple[CallCorrection, ...], Field(min_length=1, max_length=BATCH_EVENTS_MAX)
    ]
    signature: Token
    idempotency_key: IdempotencyKey


@message
class UsageCorrection:
    """What a correction gave back, the platform's fee on it too.

    `lines` are the quantities that are taken back and what they come to from the agreement's
    position; `position` is where their meters stand since.
    """

    correction_id: str
    charge_id: str
    session_id: str
    calls: int
    lines: tuple[Line, ...]
    position: tuple[Usage, ...]
    amount: Money
    fee_returned: Money
    refunded_in_all: Money
    seq: int
    standing: StandingNow | None = None


CORRECT_USAGE = Operation(
    name="correct_usage",
    title="Correct usage",
    says="Take back what billed calls of a session used too much, and give back its price.",
    ask=CorrectUsage,
    answer=UsageCorrection,
    effect=Effect.MOVES_MONEY,
    roles=frozenset({Role.VENDOR}),
    codes=(
        Code.NOT_FOUND,
        Code.SIGNATURE_INVALID,
        Code.USAGE_INVALID,
        Code.REFUND_EXCEEDS_CHARGE,
        Code.INSUFFICIENT_FUNDS,
    ),
)
