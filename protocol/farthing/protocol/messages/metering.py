"""What became of reported usage: one call's receipt, what was rejected, two countings compared."""

from typing import Annotated, Literal

from pydantic import Field

from farthing.protocol.canonical import INTEGER_MAX
from farthing.protocol.errors import Code
from farthing.protocol.messages.charges import CallCost, Receipt
from farthing.protocol.wire import (
    Effect,
    Money,
    Operation,
    Role,
    SessionRef,
    Sha256,
    Slug,
    message,
)

__all__ = [
    "ACKNOWLEDGED_MAX",
    "GET_CALL_RECEIPT",
    "LIST_REJECTED_USAGE",
    "RECONCILE_USAGE",
    "REJECTED_MAX",
    "REPORTED_MAX",
    "AcknowledgedCall",
    "CallDifference",
    "CallReceipt",
    "GetCallReceipt",
    "ListRejectedUsage",
    "MeterTotal",
    "ReasonCount",
    "ReconcileUsage",
    "RejectedUsage",
    "RejectedUsages",
    "UsageReconciliation",
]

REJECTED_MAX = 200
ACKNOWLEDGED_MAX = 5000
"""The most acknowledgements of one comparison on the wire."""
REPORTED_MAX = 20_000
"""The most reported events of a session that is compared there; longer ones are at home."""

_PARTIES = frozenset({Role.BUYER, Role.OPERATOR, Role.VENDOR})
_Units = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,18})$")]
_CallNumber = Annotated[int, Field(ge=1, le=INTEGER_MAX)]
_PPM_MAX = 1_000_000


@message
class GetCallReceipt:
    """Ask for the receipt of one call of a session, by its number."""

    session_id: SessionRef
    call: _CallNumber


@message
class CallReceipt:
    """The record of the report that holds a call, proven, and the call's place in its batch.

    `charge_id` is empty where nothing of the batch is billed.
    """

    session_id: str
    charge_id: str
    place: int
    cost: CallCost
    receipt: Receipt


@message
class ListRejectedUsage:
    """Ask for usage that was reported and not taken, newest first; `cursor` pages on."""

    session_id: Annotated[str, Field(pattern=r"^(ses_[0-7][0-9a-hjkmnp-tv-z]{25})?$")] = ""
    agreement_id: Annotated[str, Field(pattern=r"^(agr_[0-7][0-9a-hjkmnp-tv-z]{25})?$")] = ""
    reason: Slug = ""
    cursor: Annotated[str, Field(pattern=r"^([0-9]{1,16}-[0-9]{1,4}-[0-9]{1,16})?$")] = ""
    limit: Annotated[int, Field(ge=1, le=REJECTED_MAX)] = 50


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


@message
class AcknowledgedCall:
    """An answer that the buyer took into its chain; `units` of the asset by its own rating."""

    call: _CallNumber
    units: _Units
    result_sha256: Sha256


@message
class ReconcileUsage:
    """Compare what the vendor reported of a session with what its buyer acknowledged.

    Args:
        session_id: the session.
        acknowledged: the buyer's list, in the order of receipt, from the first answer on.
        voucher: a voucher that proves the list; those that came with reports are known.
        tolerance_ppm: how far apart two sums may be, in millionths of the larger.
    """

    session_id: SessionRef
    acknowledged: Annotated[tuple[AcknowledgedCall, ...], Field(max_length=ACKNOWLEDGED_MAX)] = ()
    voucher: Annotated[str, Field(max_length=4096)] = ""
    tolerance_ppm: Annotated[int, Field(ge=0, le=_PPM_MAX)] = 0


@message
class MeterTotal:
    """Quantities of one meter: delivered by the vendor's word, billed, acknowledged of that."""

    meter: str
    reported: str
    billed: str
    acknowledged: str


@message
class CallDifference:
    """A call that the two tell differently; `fault` is why its event was rejected."""

    call: int
    kind: Literal["unacknowledged", "unreported", "not_billed", "amount_differs", "result_differs"]
    billed: Money
    acknowledged: Money
    fault: str = ""


@message
class UsageReconciliation:
    """What a comparison found, as of a record.

    `counted` is the platform's own sum for the session, kept beside the reports; `proven` how many
    of the list a signed voucher proves; `within` whether all sums agree within the tolerance.
    `differences` are the first of `differences_in_all`.
    """

    session_id: str
    agreement_id: str
    reported_calls: int
    billed_calls: int
    billed: Money
    acknowledged_calls: int
    acknowledged: Money
    counted_calls: int
    counted: Money
    proven: int
    meters: tuple[MeterTotal, ...]
    differences: tuple[CallDifference, ...]
    differences_in_all: int
    within: bool
    as_of_seq: int


GET_CALL_RECEIPT = Operation(
    name="get_call_receipt",
    title="Get the receipt of a call",
    says="Return the receipt of one call of a session; it verifies offline.",
    ask=GetCallReceipt,
    answer=CallReceipt,
    effect=Effect.READS,
    roles=_PARTIES,
    codes=(Code.NOT_FOUND, Code.UNAVAILABLE),
)
LIST_REJECTED_USAGE = Operation(
    name="list_rejected_usage",
    title="List rejected usage",
    says="List reported usage that was not taken, with the reasons.",
    ask=ListRejectedUsage,
    answer=RejectedUsages,
    effect=Effect.READS,
    roles=_PARTIES,
    codes=(Code.INVALID_ARGUMENT, Code.UNAVAILABLE),
)
RECONCILE_USAGE = Operation(
    name="reconcile_usage",
    title="Reconcile usage",
    says="Compare a session's reported usage with what its buyer acknowledged.",
    ask=ReconcileUsage,
    answer=UsageReconciliation,
    effect=Effect.READS,
    roles=_PARTIES,
    codes=(Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.SIGNATURE_INVALID, Code.UNAVAILABLE),
)
