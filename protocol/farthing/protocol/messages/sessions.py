"""Spend sessions: money set aside for many calls, debited by the usage that the vendor reports."""

from typing import Annotated, Final, Literal

from pydantic import Field

from farthing.protocol.errors import Code
from farthing.protocol.messages.accounts import StandingNow
from farthing.protocol.messages.holds import AUTHORITY_CODES
from farthing.protocol.usage import BATCH_BYTES_MAX
from farthing.protocol.wire import (
    PARTIES,
    AgreementRef,
    Effect,
    IdempotencyKey,
    KeyPurpose,
    Money,
    Operation,
    PageCursor,
    PageLimit,
    RawMember,
    Role,
    SessionRef,
    Token,
    message,
)

__all__ = [
    "CLOSE_SESSION",
    "GET_SESSION",
    "LIST_SESSIONS",
    "OPEN_SESSION",
    "REPORTS_MAX",
    "REPORT_USAGE",
    "TOP_UP_SESSION",
    "CloseSession",
    "FinalAction",
    "GetSession",
    "ListSessions",
    "OpenSession",
    "RejectedEvent",
    "ReportUsage",
    "Session",
    "Sessions",
    "TopUpSession",
    "UsageReport",
]

_LIFETIME_S_MAX: Final = 86_400
# Of one request: enough to share its cost, few enough that others at the front end do not wait.
REPORTS_MAX: Final = 16

FinalAction = Literal["refuse", "top_up", "request_approval"]


@message
class OpenSession:
    """Set `cap` aside for many calls under an agreement, each of at most `per_call`.

    At or below `low_water` every report says so; `final_action` is what the buyer's side means to
    do once the cap is used up. With `unsigned` calls may be paid by MAC, as long as no more than
    that is owed without a signature.
    """

    agreement_id: AgreementRef
    cap: Money
    per_call: Money
    expires_in_s: Annotated[int, Field(ge=1, le=_LIFETIME_S_MAX)] = 3600
    low_water: Money | None = None
    final_action: FinalAction = "refuse"
    unsigned: Money | None = None
    idempotency_key: IdempotencyKey


@message
class Session:
    """A spend session as its parties see it. `entitlement` is what the vendor may believe.

    `calls` were billed, `rejected` were not taken, each for a reason that its report named.
    `max_cum` and `voucher_seq` are of the best voucher that settlement has seen. `closes_at` is
    until when usage is still taken once the buyer has closed the session, else empty.
    """

    session_id: str
    agreement_id: str
    status: str
    cap: Money
    per_call: Money
    spent: Money
    remaining: Money
    calls: int
    rejected: int
    top_seq: int
    voucher_seq: int
    max_cum: Money
    low_water: Money | None = None
    final_action: FinalAction
    unsigned: Money | None = None
    opened_at: str
    expires_at: str
    closes_at: str = ""
    rate_card_sha256: str
    entitlement: str = ""
    standing: StandingNow | None = None


@message
class GetSession:
    """Ask where a session stands; its buyer gets the entitlement too."""

    session_id: SessionRef


@message
class ListSessions:
    """Ask for the caller's sessions, newest first; of one agreement where it is named."""

    agreement_id: AgreementRef | None = None
    cursor: PageCursor = ""
    limit: PageLimit = 50


@message
class Sessions:
    """The caller's sessions as of a record; `cursor` is there while there are more."""

    sessions: tuple[Session, ...]
    as_of_seq: int = 0
    cursor: str = ""


@message
class TopUpSession:
    """Set more money aside for a session; its new entitlement is in the answer."""

    session_id: SessionRef
    amount: Money
    idempotency_key: IdempotencyKey


@message
class CloseSession:
    """End a session. The vendor ends it at once; a buyer's end leaves time to report."""

    session_id: SessionRef
    idempotency_key: IdempotencyKey


@message
class ReportUsage:
    """Report calls of one session: a batch of usage events, signed by the vendor.

    `batch` is the exact text whose bytes are signed (spec/metering.md), `batch_signature` its
    detached JWS, `voucher` the best voucher of the payer's that the vendor holds.
    """

    session_id: SessionRef
    batch: Annotated[str, Field(max_length=BATCH_BYTES_MAX)]
    batch_signature: Token
    voucher: Token
    idempotency_key: IdempotencyKey


@message
class RejectedEvent:
    """An event that was not taken, by its id, and why (spec/metering.md)."""

    id: str
    reason: str


@message
class UsageReport:
    """What became of a batch. `charge_id` is empty where nothing of it is billed.

    `closes_at` is there where the buyer has closed the session: until then reports are taken.
    """

    session_id: str
    charge_id: str
    amount: Money
    accepted: int
    billed: int
    rejected: tuple[RejectedEvent, ...]
    spent: Money
    remaining: Money
    max_cum: Money
    low: bool
    closes_at: str = ""
    seq: int
    standing: StandingNow | None = None


OPEN_SESSION = Operation(
    name="open_session",
    title="Open a spend session",
    says="Set money aside for many calls under an agreement.",
    ask=OpenSession,
    answer=Session,
    effect=Effect.MOVES_MONEY,
    roles=frozenset({Role.BUYER}),
    codes=(
        Code.INVALID_AMOUNT,
        Code.NOT_FOUND,
        Code.AGREEMENT_ENDED,
        Code.AMOUNT_OVERFLOW,
        *AUTHORITY_CODES,
        Code.ASSET_MISMATCH,
        Code.ACCOUNT_CLOSED,
        Code.INSUFFICIENT_FUNDS,
    ),
)
TOP_UP_SESSION = Operation(
    name="top_up_session",
    title="Top up a spend session",
    says="Set more money aside for an open session.",
    ask=TopUpSession,
    answer=Session,
    effect=Effect.MOVES_MONEY,
    roles=frozenset({Role.BUYER}),
    codes=(
        Code.INVALID_AMOUNT,
        Code.NOT_FOUND,
        Code.AGREEMENT_ENDED,
        Code.SESSION_CLOSED,
        Code.AMOUNT_OVERFLOW,
        *AUTHORITY_CODES,
        Code.ASSET_MISMATCH,
        Code.ACCOUNT_CLOSED,
        Code.INSUFFICIENT_FUNDS,
    ),
)
CLOSE_SESSION = Operation(
    name="close_session",
    title="Close a spend session",
    says="End a session; what is left of it is given back.",
    ask=CloseSession,
    answer=Session,
    effect=Effect.MOVES_MONEY,
    roles=PARTIES,
    codes=(Code.NOT_FOUND, Code.SESSION_CLOSED),
)
REPORT_USAGE = Operation(
    name="report_usage",
    title="Report usage",
    says="Report metered calls of a session in a signed batch; what they cost is charged.",
    ask=ReportUsage,
    answer=UsageReport,
    effect=Effect.MOVES_MONEY,
    raw=RawMember(
        name="batch", path="batches", asks_max=REPORTS_MAX, characters_max=BATCH_BYTES_MAX
    ),
    roles=frozenset({Role.VENDOR}),
    codes=(Code.SIGNATURE_INVALID, Code.SESSION_CLOSED, Code.USAGE_INVALID),
    purposes=frozenset({KeyPurpose.METERING}),
)
GET_SESSION = Operation(
    name="get_session",
    title="Get a spend session",
    says="Show a session: what is spent, what is left, until when.",
    ask=GetSession,
    answer=Session,
    effect=Effect.READS,
    roles=PARTIES,
    codes=(Code.NOT_FOUND,),
    purposes=frozenset({KeyPurpose.METERING}),
)
LIST_SESSIONS = Operation(
    name="list_sessions",
    title="List spend sessions",
    says="List the caller's sessions, newest first.",
    ask=ListSessions,
    answer=Sessions,
    effect=Effect.READS,
    roles=PARTIES,
    codes=(Code.NOT_FOUND,),
)
