"""Countings of the same usage laid side by side: of a session, or of all that an agreement had."""

from typing import Annotated, Final, Literal

from pydantic import Field

from farthing.protocol.errors import Code
from farthing.protocol.messages.listings import Document
from farthing.protocol.wire import (
    PARTIES,
    CallNumber,
    Effect,
    Money,
    Operation,
    OptionalAgreementRef,
    OptionalSessionRef,
    SessionRef,
    Sha256,
    Time,
    Token,
    Workload,
    form,
    message,
)

__all__ = [
    "ACKNOWLEDGED_MAX",
    "BEGUN_MAX",
    "RECONCILE_USAGE",
    "REPORTED_MAX",
    "SESSIONS_MAX",
    "AcknowledgedCall",
    "AcknowledgedSession",
    "CallDifference",
    "MeterTally",
    "PassedCalls",
    "ReconcileUsage",
    "SessionTally",
    "Tally",
    "UsageReconciliation",
]

SESSIONS_MAX: Final = 200
"""The most lists of one comparison on the wire."""
ACKNOWLEDGED_MAX: Final = 5000
"""The most acknowledgements in them."""
REPORTED_MAX: Final = 20_000
"""The most reported events of one answer; a longer session is compared at home."""
BEGUN_MAX: Final = 500
"""The most sessions and calls by the platform of one answer."""

_Units = Annotated[
    str, form(r"^(0|[1-9][0-9]{0,18})$", "It is units in at most 19 digits, none needless.")
]


@message
class AcknowledgedCall:
    """An answer that the buyer took into its chain; `units` of the asset by its own rating.

    `usage` is what the answer said; left out, it is not compared.
    """

    call: CallNumber
    units: _Units
    result_sha256: Sha256
    usage: Workload | None = None


@message
class AcknowledgedSession:
    """The buyer's list of one session, in the order of receipt, from the first answer on.

    `voucher` is one that proves the list; those that came with reports are known.
    """

    session_id: SessionRef
    calls: Annotated[tuple[AcknowledgedCall, ...], Field(max_length=ACKNOWLEDGED_MAX)] = ()
    voucher: Token = ""


@message
class ReconcileUsage:
    """Compare what the vendor reported with what its buyer acknowledged and a gateway saw.

    Either of one session, or of an agreement: all of its sessions, and calls by the platform, that
    began in the period, each counted whole.

    Args:
        session_id: the session.
        agreement_id: in its place, the agreement.
        since: the period's begin, included; from the first session on if left out.
        until: its end, excluded.
        acknowledged: the buyer's lists; of a session without one nothing is acknowledged.
        gateway: a gateway's count, with its detached signature.
        through: the last session of this answer, for an asker with more lists than one ask holds.
        cursor: where an answer left off. Agreement and period stay as they were.
    """

    session_id: OptionalSessionRef = ""
    agreement_id: OptionalAgreementRef = ""
    since: Time = ""
    until: Time = ""
    acknowledged: Annotated[tuple[AcknowledgedSession, ...], Field(max_length=SESSIONS_MAX)] = ()
    gateway: Document | None = None
    gateway_signature: Token = ""
    through: OptionalSessionRef = ""
    cursor: Annotated[str, Field(pattern=r"^([0-9]{1,16}-[a-z]{3}_[0-9a-z]{26})?$")] = ""


@message
class Tally:
    """Calls, or quantities of one meter.

    Args:
        reported: delivered by the vendor's signed word.
        billed: what the platform billed of that.
        acknowledged: what the buyer acknowledged.
        over, under: by how much calls were billed above and below what was acknowledged.
        rejected: reported as delivered and not billed.
        gateway: what a gateway saw; in sessions that it counted.
        gateway_over, gateway_under: by how much sessions were reported above and below that.
    """

    reported: str
    billed: str
    acknowledged: str
    over: str
    under: str
    rejected: str
    gateway: str
    gateway_over: str
    gateway_under: str


@message
class MeterTally:
    """The quantities of one meter."""

    meter: str
    count: Tally


@message
class SessionTally:
    """One session. `counted` is the platform's own sum, kept beside the reports, uncorrected.

    `proven` is how many of the list a signed voucher proves. One that is not `compared` has more
    events than an answer holds; of it nothing is in the sums.
    """

    session_id: str
    opened_at: str
    counted_calls: int
    counted: Money
    reported_calls: int = 0
    billed_calls: int = 0
    billed: Money
    acknowledged_calls: int = 0
    acknowledged: Money
    gateway_calls: int | None = None
    proven: int = 0
    differences: int = 0
    compared: bool = True


@message
class CallDifference:
    """A call of which the countings differ; number 0 is all corrected calls of a session together.

    `fault` is why its event was rejected, or `taken_back`.
    `direction` is whether the vendor's is over or under the other; empty where only the result
    differs, or one meter is over and another under.
    """

    session_id: str
    call: int
    kind: Literal[
        "unacknowledged",
        "unreported",
        "not_billed",
        "rejected",
        "amount_differs",
        "usage_differs",
        "result_differs",
        "corrected_differs",
    ]
    direction: Literal["over", "under", ""]
    billed: Money
    acknowledged: Money
    fault: str = ""


@message
class PassedCalls:
    """Calls that the platform was asked to make, and made, and what became of each.

    `captured` were delivered by what the vendor signed, for `charged` and `usage`; the others were
    given back, or are on their way.
    """

    asked: int = 0
    captured: int = 0
    released: int = 0
    expired: int = 0
    open: int = 0
    charged: Money
    usage: Workload = ()


@message
class UsageReconciliation:
    """What a comparison found, as of a record.

    Args:
        session_id: the session, where one was asked for.
        agreement_id: the agreement.
        terms_sha256: the terms whose clause `usage` gives the tolerance.
        tolerance_ppm: how far apart two sums may be, in millionths of the larger.
        calls, meters: calls, and quantities by meter.
        billed, acknowledged: amounts.
        over, under: by how much calls were billed above and below what was acknowledged.
        sessions: each session, in the order in which they were opened.
        passed: calls by the platform.
        differences: the first of `differences_in_all`.
        other_results: calls of which the result differs.
        within: whether all is compared, no result differs and no sum by more than the tolerance.
        as_of_seq: the record.
        cursor: where the next answer goes on, while there is more.
    """

    session_id: str = ""
    agreement_id: str
    terms_sha256: str
    tolerance_ppm: int
    calls: Tally
    meters: tuple[MeterTally, ...]
    billed: Money
    acknowledged: Money
    over: Money
    under: Money
    sessions: tuple[SessionTally, ...]
    passed: PassedCalls
    differences: tuple[CallDifference, ...]
    differences_in_all: int
    other_results: int
    within: bool
    as_of_seq: int
    cursor: str = ""


RECONCILE_USAGE = Operation(
    name="reconcile_usage",
    title="Reconcile usage",
    says="Compare reported usage of a session or agreement with what others counted of it.",
    ask=ReconcileUsage,
    answer=UsageReconciliation,
    effect=Effect.READS,
    roles=PARTIES,
    codes=(Code.UNAVAILABLE, Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.SIGNATURE_INVALID),
)
