"""What became of reported usage: one call's receipt, what was rejected."""

from typing import Annotated

from pydantic import Field

from farthing.protocol.errors import Code
from farthing.protocol.messages.charges import CallCost, Receipt
from farthing.protocol.wire import (
    PARTIES,
    CallNumber,
    Effect,
    Operation,
    OptionalAgreementRef,
    OptionalSessionRef,
    SessionRef,
    Slug,
    message,
)

__all__ = [
    "GET_CALL_RECEIPT",
    "LIST_REJECTED_USAGE",
    "CallReceipt",
    "GetCallReceipt",
    "ListRejectedUsage",
    "ReasonCount",
    "RejectedUsage",
    "RejectedUsages",
]

_REJECTED_MAX = 200


@message
class GetCallReceipt:
    """Ask for the receipt of one call of a session, by its number."""

    session_id: SessionRef
    call: CallNumber


@message
class CallReceipt:
    """The record of the report that holds a call, proven, and the call in its batch, proven too.

    The record is without the batch; `event` is the call's of it, `path` leads from there to the
    root that the vendor signed. `charge_id` is empty where nothing of the batch is billed.
    """

    session_id: str
    charge_id: str
    place: int
    event: str
    path: tuple[str, ...]
    cost: CallCost
    receipt: Receipt


@message
class ListRejectedUsage:
    """Ask for usage that was reported and not taken, newest first; `cursor` pages on."""

    session_id: OptionalSessionRef = ""
    agreement_id: OptionalAgreementRef = ""
    reason: Slug = ""
    cursor: Annotated[str, Field(pattern=r"^([0-9]{1,16}-[0-9]{1,4}-[0-9]{1,16})?$")] = ""
    limit: Annotated[int, Field(ge=1, le=_REJECTED_MAX)] = 50


@message
class RejectedUsage:
    """An event that was not taken; or, `unattributed` or `refused`, a batch of `events`.

    `seq` is the record that it stands in. `call` is 0 for a batch, `code` what it was refused with.
    """

    seq: int
    session_id: str
    agreement_id: str
    call: int
    reason: str
    code: str
    events: int
    reported_at: str


@message
class ReasonCount:
    """How many events were rejected for a reason."""

    reason: str
    events: int


@message
class RejectedUsages:
    """Rejected usage, and how much of it there is by reason, all pages together."""

    rejected: tuple[RejectedUsage, ...]
    reasons: tuple[ReasonCount, ...]
    as_of_seq: int
    cursor: str = ""


GET_CALL_RECEIPT = Operation(
    name="get_call_receipt",
    title="Get the receipt of a call",
    says="Return the receipt of one call of a session; it verifies offline.",
    ask=GetCallReceipt,
    answer=CallReceipt,
    effect=Effect.READS,
    roles=PARTIES,
    codes=(Code.UNAVAILABLE, Code.NOT_FOUND),
)
LIST_REJECTED_USAGE = Operation(
    name="list_rejected_usage",
    title="List rejected usage",
    says="List reported usage that was not taken, with the reasons.",
    ask=ListRejectedUsage,
    answer=RejectedUsages,
    effect=Effect.READS,
    roles=PARTIES,
    codes=(Code.UNAVAILABLE, Code.INVALID_ARGUMENT),
)
