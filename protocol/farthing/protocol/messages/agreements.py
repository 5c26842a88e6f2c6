"""Quotes and agreements: an exact price signed by the platform, terms accepted by signature."""

from farthing.protocol import rating
from farthing.protocol.errors import Code
from farthing.protocol.messages.listings import Document
from farthing.protocol.wire import (
    PARTIES,
    AgreementRef,
    Effect,
    IdempotencyKey,
    KeyPurpose,
    ListingRef,
    Money,
    Operation,
    PageCursor,
    PageLimit,
    Role,
    Text,
    Usage,
    Workload,
    message,
    money,
)

__all__ = [
    "ACCEPT_TERMS",
    "GET_AGREEMENT",
    "GET_LEGAL_CONTEXT",
    "GET_QUOTE",
    "LIST_AGREEMENTS",
    "TERMINATE_AGREEMENT",
    "AcceptTerms",
    "Agreement",
    "Agreements",
    "GetAgreement",
    "GetLegalContext",
    "GetQuote",
    "LegalContext",
    "Line",
    "ListAgreements",
    "Quote",
    "TerminateAgreement",
]


@message
class Line:
    """One priced line: a meter, a quantity and what it costs."""

    rule_id: str
    meter: str
    quantity: str
    amount: Money

    @classmethod
    def of(cls, line: rating.Line, asset: str) -> "Line":
        """A rated line, as it is shown."""
        return cls(
            rule_id=line.rule_id,
            meter=line.meter,
            quantity=str(line.quantity),
            amount=money(line.amount_units, asset),
        )


@message
class GetQuote:
    """Ask for an exact, signed price for a workload.

    With `agreement_id` the price starts from the agreement's rating position; without it from zero.
    """

    listing_id: ListingRef
    workload: Workload
    agreement_id: AgreementRef | None = None


@message
class Quote:
    """A price and the signed document that binds the platform to it.

    `document` is what is signed and what an acceptance embeds by hash (spec/contracts.md);
    `signature` is the platform's detached JWS over its canonical bytes.
    """

    quote_id: str
    listing_id: str
    total: Money
    lines: tuple[Line, ...]
    expires_at: str
    document: Document
    document_sha256: str
    signature: str
    allowed: bool
    reasons: tuple[str, ...] = ()


@message
class AcceptTerms:
    """Accept a listing's terms and rate card by signature.

    `acceptance` is the buyer's document (spec/contracts.md), `acceptance_signature` its detached
    JWS; `quote` and `quote_signature` are the platform's, unchanged.
    """

    quote: Document
    quote_signature: str
    acceptance: Document
    acceptance_signature: str
    idempotency_key: IdempotencyKey


@message
class Agreement:
    """An agreement between a buyer's operator and a vendor, bound to exact documents."""

    agreement_id: str
    status: str
    buyer_id: str
    operator_id: str
    vendor_id: str
    listing_id: str
    listing_version: int
    listing_sha256: str
    rate_card_sha256: str
    terms_sha256: str
    asset: str
    accepted_at: str
    position: tuple[Usage, ...] = ()
    quote_sha256: str
    acceptance_sha256: str


@message
class GetAgreement:
    """Ask for one agreement."""

    agreement_id: AgreementRef


@message
class ListAgreements:
    """Ask for the caller's agreements, newest first; on one listing where it is named."""

    listing_id: ListingRef | None = None
    cursor: PageCursor = ""
    limit: PageLimit = 50


@message
class Agreements:
    """The caller's agreements as of a record; `cursor` is there while there are more."""

    agreements: tuple[Agreement, ...]
    as_of_seq: int = 0
    cursor: str = ""


@message
class TerminateAgreement:
    """End an agreement: no new hold can be placed under it; open holds run their course."""

    agreement_id: AgreementRef
    reason: Text
    idempotency_key: IdempotencyKey


@message
class GetLegalContext:
    """Ask where a listing's terms are and how they are accepted."""

    listing_id: ListingRef


@message
class LegalContext:
    """The Legal Context Protocol's facts about a listing's terms."""

    terms: str
    terms_format: str
    terms_sha256: str
    acceptance_required: bool
    dispute_method: str
    dispute_window_s: int
    usage_tolerance_ppm: int = 0


GET_QUOTE = Operation(
    name="get_quote",
    title="Get a quote",
    says="Give an exact, signed price for a workload, valid for a stated time.",
    ask=GetQuote,
    answer=Quote,
    effect=Effect.READS,
    roles=frozenset({Role.BUYER}),
    codes=(Code.NOT_FOUND, Code.LISTING_UNAVAILABLE, Code.USAGE_INVALID, Code.AMOUNT_OVERFLOW),
)
ACCEPT_TERMS = Operation(
    name="accept_terms",
    title="Accept terms",
    says="Accept a listing's terms and rate card by signature, as quoted; makes an agreement.",
    ask=AcceptTerms,
    answer=Agreement,
    effect=Effect.WRITES,
    roles=frozenset({Role.BUYER}),
    codes=(
        Code.INVALID_ARGUMENT,
        Code.NOT_FOUND,
        Code.LISTING_UNAVAILABLE,
        Code.SIGNATURE_INVALID,
        Code.QUOTE_EXPIRED,
        Code.TERMS_CHANGED,
        Code.FROZEN,
        Code.AUTHORITY_MISSING,
        Code.AUTHORITY_EXPIRED,
        Code.VENDOR_NOT_ALLOWED,
        Code.CAPABILITY_NOT_ALLOWED,
    ),
)
GET_AGREEMENT = Operation(
    name="get_agreement",
    title="Get an agreement",
    says="Show an agreement and its rating position.",
    ask=GetAgreement,
    answer=Agreement,
    effect=Effect.READS,
    roles=PARTIES,
    codes=(Code.NOT_FOUND,),
    purposes=frozenset({KeyPurpose.METERING}),
)
LIST_AGREEMENTS = Operation(
    name="list_agreements",
    title="List agreements",
    says="List the caller's agreements, newest first.",
    ask=ListAgreements,
    answer=Agreements,
    effect=Effect.READS,
    roles=PARTIES,
    codes=(Code.NOT_FOUND,),
)
TERMINATE_AGREEMENT = Operation(
    name="terminate_agreement",
    title="Terminate an agreement",
    says="End an agreement: no new hold under it; open holds run their course.",
    ask=TerminateAgreement,
    answer=Agreement,
    effect=Effect.WRITES,
    roles=PARTIES,
    codes=(Code.NOT_FOUND, Code.AGREEMENT_ENDED),
)
GET_LEGAL_CONTEXT = Operation(
    name="get_legal_context",
    title="Get legal context",
    says="Say where a listing's terms are, their hash, and how they are accepted and disputed.",
    ask=GetLegalContext,
    answer=LegalContext,
    effect=Effect.READS,
    roles=frozenset({Role.ANYONE}),
    codes=(Code.NOT_FOUND,),
)
