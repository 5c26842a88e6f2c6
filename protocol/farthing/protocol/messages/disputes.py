"""Disputes: a preview, the filing, the vendor's evidence, the ruling."""

from typing import Literal

from farthing.protocol.errors import Code
from farthing.protocol.messages.listings import Document
from farthing.protocol.wire import (
    PARTIES,
    ChargeRef,
    DisputeRef,
    Effect,
    IdempotencyKey,
    Money,
    Operation,
    PageCursor,
    PageLimit,
    Role,
    message,
)

__all__ = [
    "GET_DISPUTE_STATUS",
    "INITIATE_DISPUTE",
    "LIST_DISPUTES",
    "PREVIEW_DISPUTE",
    "SUBMIT_EVIDENCE",
    "Dispute",
    "DisputePreview",
    "Disputes",
    "GetDisputeStatus",
    "InitiateDispute",
    "ListDisputes",
    "PreviewDispute",
    "SubmitEvidence",
]

Reason = Literal["not_delivered", "calculation_error"]


@message
class PreviewDispute:
    """Ask what a dispute would come to, without filing it."""

    charge_id: ChargeRef
    reason: Reason


@message
class DisputePreview:
    """What the rules say now. `needs_evidence` means the vendor would have to answer first."""

    charge_id: str
    reason: str
    outcome: Literal["credit", "reject", "needs_evidence"]
    credit: Money
    rule_id: str
    trace: tuple[Document, ...]


@message
class InitiateDispute:
    """File a dispute of a charge. The disputed money is held until the ruling."""

    charge_id: ChargeRef
    reason: Reason
    idempotency_key: IdempotencyKey


@message
class Dispute:
    """A dispute and where it stands.

    `redelivery` holds the vendor's body, as base64, where it answered with the work itself.
    """

    dispute_id: str
    charge_id: str
    reason: str
    status: Literal["needs_evidence", "decided"]
    outcome: str = ""
    rule_id: str = ""
    held: Money
    credit: Money | None = None
    evidence_due_at: str = ""
    trace: tuple[Document, ...] = ()
    redelivery: str = ""


@message
class SubmitEvidence:
    """Answer a dispute with the body that the delivery record's digest names, as base64."""

    dispute_id: DisputeRef
    body: str
    idempotency_key: IdempotencyKey


@message
class GetDisputeStatus:
    """Ask where a dispute stands."""

    dispute_id: DisputeRef


@message
class ListDisputes:
    """Ask for the disputes that the caller is a party to, newest first; of one charge if named."""

    charge_id: ChargeRef | None = None
    cursor: PageCursor = ""
    limit: PageLimit = 50


@message
class Disputes:
    """Disputes as of a record, without bodies; `cursor` is there while there are more."""

    disputes: tuple[Dispute, ...]
    as_of_seq: int = 0
    cursor: str = ""


PREVIEW_DISPUTE = Operation(
    name="preview_dispute",
    title="Preview a dispute",
    says="Say what a dispute would come to, with the rule and its trace. Files nothing.",
    ask=PreviewDispute,
    answer=DisputePreview,
    effect=Effect.READS,
    roles=frozenset({Role.BUYER, Role.OPERATOR}),
    codes=(Code.NOT_FOUND, Code.ALREADY_DISPUTED, Code.DISPUTE_WINDOW_CLOSED, Code.NOT_DISPUTABLE),
)
INITIATE_DISPUTE = Operation(
    name="initiate_dispute",
    title="Initiate a dispute",
    says="File a dispute of a charge; a fixed rule decides it, the money is held meanwhile.",
    ask=InitiateDispute,
    answer=Dispute,
    effect=Effect.MOVES_MONEY,
    roles=frozenset({Role.BUYER, Role.OPERATOR}),
    codes=(Code.NOT_FOUND, Code.ALREADY_DISPUTED, Code.DISPUTE_WINDOW_CLOSED, Code.NOT_DISPUTABLE),
)
SUBMIT_EVIDENCE = Operation(
    name="submit_evidence",
    title="Submit evidence",
    says="Answer a dispute with the delivered body; digest and schema decide.",
    ask=SubmitEvidence,
    answer=Dispute,
    effect=Effect.MOVES_MONEY,
    roles=frozenset({Role.VENDOR}),
    codes=(
        Code.INVALID_ARGUMENT,
        Code.NOT_FOUND,
        Code.DISPUTE_DECIDED,
        Code.DISPUTE_WINDOW_CLOSED,
    ),
)
GET_DISPUTE_STATUS = Operation(
    name="get_dispute_status",
    title="Get dispute status",
    says="Say where a dispute stands and how it was decided.",
    ask=GetDisputeStatus,
    answer=Dispute,
    effect=Effect.READS,
    roles=PARTIES,
    codes=(Code.NOT_FOUND,),
)
LIST_DISPUTES = Operation(
    name="list_disputes",
    title="List disputes",
    says="List the disputes that the caller is a party to, newest first.",
    ask=ListDisputes,
    answer=Disputes,
    effect=Effect.READS,
    roles=PARTIES,
    codes=(Code.NOT_FOUND,),
)
