"""Charges: explained line by line, refunded by the vendor, proven by a receipt."""

from typing import Annotated, Final

from pydantic import Field

from farthing.protocol.errors import Code
from farthing.protocol.messages.accounts import StandingNow
from farthing.protocol.messages.corrections import UsageCorrection
from farthing.protocol.messages.holds import Charge
from farthing.protocol.messages.listings import Document
from farthing.protocol.usage import BATCH_EVENTS_MAX
from farthing.protocol.wire import (
    PARTIES,
    AgreementRef,
    ChargeRef,
    Effect,
    IdempotencyKey,
    Money,
    Operation,
    PageCursor,
    PageLimit,
    Role,
    Sha256,
    Text,
    Usage,
    message,
)

__all__ = [
    "CALLS_MAX",
    "EXPLAIN_CHARGE",
    "GET_EVIDENCE",
    "GET_RECEIPT",
    "LIST_CHARGES",
    "REFUND_CHARGE",
    "CallCost",
    "Charges",
    "Evidence",
    "ExplainCharge",
    "Explanation",
    "GetEvidence",
    "GetReceipt",
    "ListCharges",
    "Receipt",
    "Refund",
    "RefundCharge",
]

CALLS_MAX: Final = BATCH_EVENTS_MAX


@message
class RefundCharge:
    """Give a charge back, whole or in part, unasked. Only the vendor can."""

    charge_id: ChargeRef
    amount: Money
    reason: Text = ""
    idempotency_key: IdempotencyKey


@message
class Refund:
    """What was given back; the platform's fee on it is given back too."""

    refund_id: str
    charge_id: str
    amount: Money
    fee_returned: Money
    refunded_in_all: Money
    standing: StandingNow | None = None


@message
class ExplainCharge:
    """Ask how a charge came about; of a session's also `limit` of its calls, from place `first`."""

    charge_id: ChargeRef
    first: Annotated[int, Field(ge=0, le=CALLS_MAX)] = 0
    limit: Annotated[int, Field(ge=1, le=CALLS_MAX)] = 50


@message
class CallCost:
    """One reported call of a session. `rejected` is why it was not taken, if it was not.

    `call` is its number in the session, `at` when the vendor says that it was answered;
    `taken_back` what of its usage the vendor corrected later, where the charge is explained.
    """

    call: int
    at: str
    outcome: str
    usage: tuple[Usage, ...]
    amount: Money
    args_sha256: str
    result_sha256: str = ""
    rejected: str = ""
    taken_back: tuple[Usage, ...] = ()


@message
class Explanation:
    """A charge with the trace of every line and the postings it made.

    A session's charge is of a batch of `calls_in_all`: `calls` are those that were asked for, and
    the amounts of all come to the charge's. `corrections` are what was taken back of it since.
    """

    charge: Charge
    rate_card_sha256: str
    trace: tuple[Document, ...]
    postings: tuple[Document, ...]
    calls: tuple[CallCost, ...] = ()
    calls_in_all: int = 0
    corrections: tuple[UsageCorrection, ...] = ()


@message
class ListCharges:
    """Ask for the caller's charges, newest first; of one agreement where it is named."""

    agreement_id: AgreementRef | None = None
    cursor: PageCursor = ""
    limit: PageLimit = 50


@message
class Charges:
    """The caller's charges as of a record; `cursor` is there while there are more."""

    charges: tuple[Charge, ...]
    as_of_seq: int = 0
    cursor: str = ""


@message
class GetReceipt:
    """Ask for the receipt of a charge."""

    charge_id: ChargeRef


@message
class Receipt:
    """A journal record, its inclusion proof and the signed tree head it is proven under.

    Verifies offline with the platform's journal key alone (spec/receipts.md).

    Args:
        seq: the record's place in the journal, from 1; its leaf in the tree is `seq - 1`.
        record: the record's canonical bytes, decoded as UTF-8.
        proof: the hashes of the audit path from the leaf up, each as 64 lower-case hex digits.
        tree_head: the signed note over the tree that the path leads to; its size is in it.
    """

    seq: int
    record: str
    proof: tuple[Sha256, ...]
    tree_head: str


@message
class GetEvidence:
    """Ask for everything that proves a charge: records with their proofs, and the keys."""

    charge_id: ChargeRef


@message
class Evidence:
    """The parts of an evidence pack (spec/evidence.md); `evidence.gather` makes the pack of them.

    All documents, their signatures and the keys of the parties are in the records.

    Args:
        charge_id: the charge.
        receipts: those of the records that spec/evidence.md names, in journal order.
        journal_key: the platform's public key, as a JWK, that signed the tree heads.
        quote_keys: every public key, as JWKs, that the platform has ever signed quotes with.
    """

    charge_id: str
    receipts: tuple[Receipt, ...]
    journal_key: Document
    quote_keys: tuple[Document, ...]


REFUND_CHARGE = Operation(
    name="refund_charge",
    title="Refund a charge",
    says="Give a charge back, whole or in part.",
    ask=RefundCharge,
    answer=Refund,
    effect=Effect.MOVES_MONEY,
    roles=frozenset({Role.VENDOR}),
    codes=(
        Code.INVALID_AMOUNT,
        Code.NOT_FOUND,
        Code.ASSET_MISMATCH,
        Code.REFUND_EXCEEDS_CHARGE,
        Code.INSUFFICIENT_FUNDS,
    ),
)
EXPLAIN_CHARGE = Operation(
    name="explain_charge",
    title="Explain a charge",
    says="Show how a charge came about: every line's trace and every posting.",
    ask=ExplainCharge,
    answer=Explanation,
    effect=Effect.READS,
    roles=PARTIES,
    codes=(Code.NOT_FOUND,),
)
LIST_CHARGES = Operation(
    name="list_charges",
    title="List charges",
    says="List the caller's charges, newest first.",
    ask=ListCharges,
    answer=Charges,
    effect=Effect.READS,
    roles=PARTIES,
    codes=(Code.NOT_FOUND,),
)
GET_RECEIPT = Operation(
    name="get_receipt",
    title="Get a receipt",
    says="Return the receipt of a charge; it verifies offline.",
    ask=GetReceipt,
    answer=Receipt,
    effect=Effect.READS,
    roles=PARTIES,
    codes=(Code.NOT_FOUND,),
)
GET_EVIDENCE = Operation(
    name="get_evidence",
    title="Get evidence",
    says="Return everything that proves a charge, for an evidence pack.",
    ask=GetEvidence,
    answer=Evidence,
    effect=Effect.READS,
    roles=PARTIES,
    codes=(Code.NOT_FOUND,),
)
