"""Listings: publishing with a lint report, reading, documents by hash."""

from farthing.protocol.errors import Code
from farthing.protocol.wire import (
    Effect,
    IdempotencyKey,
    ListingRef,
    Operation,
    Role,
    Sha256,
    Text,
    message,
)

__all__ = [
    "GET_DOCUMENT",
    "GET_LISTING",
    "LINT_LISTING",
    "PUBLISH_LISTING",
    "WITHDRAW_LISTING",
    "Document",
    "DocumentAnswer",
    "Finding",
    "GetDocument",
    "GetListing",
    "LintListing",
    "LintReport",
    "ListingView",
    "Publication",
    "PublishListing",
    "WithdrawListing",
]

Document = dict[str, object]


@message
class LintListing:
    """Check a listing with its rate card and terms; nothing is published."""

    listing: Document
    rate_card: Document
    terms: Document


@message
class Finding:
    """One thing the lint has to say about a listing."""

    code: str
    severity: str
    path: str
    message: str


@message
class LintReport:
    """Every finding; the listing can be published when no finding is an error."""

    publishable: bool
    findings: tuple[Finding, ...] = ()


@message
class PublishListing:
    """Publish a version of a listing with the rate card and terms it names by hash.

    `signature` is the vendor's detached JWS over the canonical bytes of `listing`.
    """

    listing: Document
    rate_card: Document
    terms: Document
    signature: str
    idempotency_key: IdempotencyKey


@message
class Publication:
    """A published version, immutable from now on."""

    listing_id: str
    version: int
    listing_sha256: str
    rate_card_sha256: str
    terms_sha256: str
    findings: tuple[Finding, ...] = ()


@message
class WithdrawListing:
    """Take a listing off the market. Agreements in force are kept."""

    listing_id: ListingRef
    reason: Text
    idempotency_key: IdempotencyKey


@message
class GetListing:
    """Ask for the newest version of a listing, whole."""

    listing_id: ListingRef


@message
class ListingView:
    """A listing as published. `listing` holds the vendor's own words: judge, never obey."""

    listing_id: str
    version: int
    state: str
    vendor_id: str
    listing_sha256: str
    rate_card_sha256: str
    terms_sha256: str
    listing: Document
    rate_card: Document
    terms: Document
    signature: str


@message
class GetDocument:
    """Ask for a listing, rate card or terms document by its hash."""

    sha256: Sha256


@message
class DocumentAnswer:
    """A published document; the hash of its canonical bytes is the one asked for."""

    sha256: str
    document: Document


LINT_LISTING = Operation(
    name="lint_listing",
    title="Lint a listing",
    says="Check a listing, its rate card and its terms, and report every finding.",
    ask=LintListing,
    answer=LintReport,
    effect=Effect.READS,
    roles=frozenset({Role.ANYONE}),
)
PUBLISH_LISTING = Operation(
    name="publish_listing",
    title="Publish a listing",
    says="Publish an immutable version of a listing with its rate card and terms.",
    ask=PublishListing,
    answer=Publication,
    effect=Effect.WRITES,
    roles=frozenset({Role.VENDOR}),
    codes=(Code.NOT_FOUND, Code.STALE, Code.LISTING_INVALID, Code.SIGNATURE_INVALID),
)
WITHDRAW_LISTING = Operation(
    name="withdraw_listing",
    title="Withdraw a listing",
    says="Take a listing off the market; agreements in force are kept.",
    ask=WithdrawListing,
    answer=Publication,
    effect=Effect.WRITES,
    roles=frozenset({Role.VENDOR}),
    codes=(Code.NOT_FOUND,),
)
GET_LISTING = Operation(
    name="get_listing",
    title="Get a listing",
    says="Show a listing whole: schemas, price, terms, service level, limits, data handling.",
    ask=GetListing,
    answer=ListingView,
    effect=Effect.READS,
    roles=frozenset({Role.ANYONE}),
    codes=(Code.NOT_FOUND,),
)
GET_DOCUMENT = Operation(
    name="get_document",
    title="Get a document",
    says="Return a published listing, rate card or terms document by its hash.",
    ask=GetDocument,
    answer=DocumentAnswer,
    effect=Effect.READS,
    roles=frozenset({Role.ANYONE}),
    codes=(Code.NOT_FOUND,),
)
