"""The allowance: what may be used under an agreement; one side proposes, the other approves."""

from typing import Annotated, Literal

from pydantic import Field

from farthing.protocol.errors import Code
from farthing.protocol.ids import id_pattern
from farthing.protocol.wire import (
    PARTIES,
    AgreementRef,
    Effect,
    IdempotencyKey,
    KeyPurpose,
    Operation,
    Role,
    Time,
    Workload,
    message,
)

__all__ = [
    "APPROVE_ALLOWANCE",
    "GET_ALLOWANCE",
    "PROPOSE_ALLOWANCE",
    "Allowance",
    "AllowanceLimits",
    "AllowanceUse",
    "ApproveAllowance",
    "GetAllowance",
    "MeterUse",
    "ProposeAllowance",
]

AllowanceRef = Annotated[str, Field(pattern=id_pattern("alw"))]


@message
class ProposeAllowance:
    """Propose what may be used under an agreement, in place of what is in force.

    It is in force once the other side approves it, and takes the place of an earlier proposal. With
    no limits and no end anything may be used again.

    Args:
        agreement_id: the agreement.
        per_day, in_all: the most of a meter for a UTC day, and for the agreement's whole life.
        enforcement: whether use beyond is refused, or only shown.
        expires_at: when nothing more may be used; never if left out.
    """

    agreement_id: AgreementRef
    per_day: Workload = ()
    in_all: Workload = ()
    enforcement: Literal["refuse", "report"] = "refuse"
    expires_at: Time = ""
    idempotency_key: IdempotencyKey


@message
class ApproveAllowance:
    """Approve the other side's proposal; it is in force with this record."""

    agreement_id: AgreementRef
    allowance_id: AllowanceRef
    idempotency_key: IdempotencyKey


@message
class AllowanceLimits:
    """Limits, who proposed them and, once they are in force, who approved them and when."""

    allowance_id: str
    per_day: Workload
    in_all: Workload
    enforcement: Literal["refuse", "report"]
    expires_at: str
    proposed_by: str
    proposed_at: str
    approved_by: str = ""
    approved_at: str = ""


@message
class Allowance:
    """What may be used under an agreement, and what is proposed to be."""

    agreement_id: str
    in_force: AllowanceLimits | None = None
    proposed: AllowanceLimits | None = None


@message
class GetAllowance:
    """Ask what may be used under an agreement, and what was."""

    agreement_id: AgreementRef


@message
class MeterUse:
    """One limit and where it stands; `held` is set aside by open holds, `remaining` never < 0."""

    meter: str
    period: Literal["day", "agreement"]
    limit: str
    used: str
    held: str
    remaining: str


@message
class AllowanceUse:
    """An allowance as it is used now. `status` is `none` where nothing limits use."""

    agreement_id: str
    status: Literal["none", "in_force", "expired"]
    meters: tuple[MeterUse, ...]
    in_force: AllowanceLimits | None = None
    proposed: AllowanceLimits | None = None


PROPOSE_ALLOWANCE = Operation(
    name="propose_allowance",
    title="Propose an allowance",
    says="Propose what may be used under an agreement, by meter; the other side approves.",
    ask=ProposeAllowance,
    answer=Allowance,
    effect=Effect.WRITES,
    roles=PARTIES,
    codes=(Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.AGREEMENT_ENDED, Code.USAGE_INVALID),
)
APPROVE_ALLOWANCE = Operation(
    name="approve_allowance",
    title="Approve an allowance",
    says="Put the allowance in force that the other side proposed.",
    ask=ApproveAllowance,
    answer=Allowance,
    effect=Effect.WRITES,
    roles=frozenset({Role.OPERATOR, Role.VENDOR}),
    codes=(Code.NOT_PERMITTED, Code.NOT_FOUND, Code.AGREEMENT_ENDED),
)
GET_ALLOWANCE = Operation(
    name="get_allowance",
    title="Get an allowance",
    says="Show what may be used under an agreement, and what of it was used.",
    ask=GetAllowance,
    answer=AllowanceUse,
    effect=Effect.READS,
    roles=PARTIES,
    codes=(Code.NOT_FOUND,),
    purposes=frozenset({KeyPurpose.METERING}),
)
