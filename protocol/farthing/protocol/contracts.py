"""The signed documents of a trade, as values: quote, acceptance, delivery record.

Boundary: reads each strictly, verifies its signature and says whether one fits the other. Whether
what was accepted is still offered, and whether a delivery fits its hold, is judged in the engine.
Source: spec/contracts.md.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar, cast

from farthing.protocol.canonical import (
    INTEGER_MAX,
    InvalidJson,
    Json,
    canonical_bytes,
    document_sha256,
)
from farthing.protocol.documents import (
    DocumentError,
    Fault,
    Fields,
    quantities_document,
    read_document,
)
from farthing.protocol.errors import Code, Refusal, refuse
from farthing.protocol.ids import (
    AgreementId,
    HoldId,
    ListingId,
    OrganisationId,
    PrincipalId,
    QuoteId,
)
from farthing.protocol.money import ASSETS, INT64_MAX
from farthing.protocol.rating import (
    InvalidLine,
    Line,
    RateCard,
    RatingError,
    line_document,
    parse_line,
    rate,
)
from farthing.protocol.rating.card import DIMENSIONS_MAX
from farthing.protocol.signatures import InvalidSignature, KeyOf, Typ, verify_detached

__all__ = [
    "ACCEPTANCE_SCHEMA",
    "DELIVERY_SCHEMA",
    "QUOTE_SCHEMA",
    "Acceptance",
    "DeliveryOutcome",
    "DeliveryRecord",
    "QuoteDocument",
    "check_acceptance",
    "check_price",
    "read_acceptance",
    "read_delivery",
    "read_quote",
]

QUOTE_SCHEMA: Final = "farthing-quote/1"
ACCEPTANCE_SCHEMA: Final = "farthing-acceptance/1"
DELIVERY_SCHEMA: Final = "farthing-delivery/1"

_VERSION_MAX: Final = 2**31 - 1
_UNITS: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_ISSUER: Final = re.compile(r"[\x21-\x7e]+")
_NONCE: Final = re.compile(r"[A-Za-z0-9_-]{16,128}")
_PRINCIPAL: Final = re.compile(r"(?:agt|org)_[0-7][0-9a-hjkmnp-tv-z]{25}")

T = TypeVar("T")


class DeliveryOutcome(StrEnum):
    """What a delivery record can say. Work that failed has no record: its hold is released."""

    SUCCEEDED = "succeeded"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteDocument:
    """A price the platform stands by until `expires_at_us`, as the platform signs it.

    `lines` and `total_units` are the rating of `workload` on top of `position` under the card
    named by hash; anybody who has the card can compute them again (`check_price`).
    `agreement_id` is empty where the price starts a new agreement, from zero.
    """

    quote_id: QuoteId
    platform: str
    buyer_id: PrincipalId
    operator_id: OrganisationId
    vendor_id: OrganisationId
    listing_id: ListingId
    listing_version: int
    listing_sha256: str
    rate_card_sha256: str
    terms_sha256: str
    asset: str
    workload: Mapping[str, int]
    position: Mapping[str, int]
    total_units: int
    lines: tuple[Line, ...]
    issued_at_us: int
    expires_at_us: int
    agreement_id: AgreementId | None = None

    @property
    def sha256(self) -> str:
        """The digest an acceptance names."""
        return document_sha256(self.document())

    def document(self) -> dict[str, Json]:
        """The document that is signed."""
        document: dict[str, Json] = {
            "schema": QUOTE_SCHEMA,
            "quote_id": self.quote_id,
            "platform": self.platform,
            "buyer_id": self.buyer_id,
            "operator_id": self.operator_id,
            "vendor_id": self.vendor_id,
            "listing_id": self.listing_id,
            "listing_version": self.listing_version,
            "listing_sha256": self.listing_sha256,
            "rate_card_sha256": self.rate_card_sha256,
            "terms_sha256": self.terms_sha256,
            "asset": self.asset,
            "workload": quantities_document(self.workload),
            "position": quantities_document(self.position),
            "total_units": str(self.total_units),
            "lines": [line_document(line) for line in self.lines],
            "issued_at_us": self.issued_at_us,
            "expires_at_us": self.expires_at_us,
        }
        if self.agreement_id is not None:
            document["agreement_id"] = self.agreement_id
        return document

    @classmethod
    def from_document(cls, document: Json) -> "QuoteDocument":
        """Read what `document` wrote, strictly.

        Raises:
            DocumentError: The first fault, with its path.
        """
        fields = read_document(document, QUOTE_SCHEMA)
        quote = cls(
            quote_id=QuoteId(fields.typeid("quote_id", "qte")),
            platform=fields.text("platform", length_max=2048, form=_ISSUER),
            buyer_id=_principal(fields, "buyer_id"),
            operator_id=_organisation(fields, "operator_id"),
            vendor_id=_organisation(fields, "vendor_id"),
            listing_id=ListingId(fields.typeid("listing_id", "lst")),
            listing_version=fields.integer("listing_version", at_least=1, at_most=_VERSION_MAX),
            listing_sha256=fields.digest("listing_sha256"),
            rate_card_sha256=fields.digest("rate_card_sha256"),
            terms_sha256=fields.digest("terms_sha256"),
            asset=_asset(fields),
            workload=fields.quantities("workload", count_min=1, count_max=DIMENSIONS_MAX),
            position=fields.quantities("position", count_min=0, count_max=DIMENSIONS_MAX),
            total_units=_units(fields, "total_units"),
            lines=_lines(fields),
            issued_at_us=_instant_us(fields, "issued_at_us"),
            expires_at_us=_instant_us(fields, "expires_at_us"),
            agreement_id=AgreementId(fields.typeid("agreement_id", "agr"))
            if fields.has("agreement_id")
            else None,
        )
        fields.end()
        if quote.total_units != sum(line.amount_units for line in quote.lines):
            raise DocumentError("total_units", Fault.UNKNOWN_VALUE)
        if quote.expires_at_us <= quote.issued_at_us:
            raise DocumentError("expires_at_us", Fault.OUT_OF_RANGE)
        return quote


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """A buyer's yes to exact documents, as the buyer's agent signs it.

    Every digest is named, though the quote names three of them too: what is signed can be read
    without the quote at hand. `nonce` keeps two acceptances of one quote apart.
    """

    quote_sha256: str
    listing_sha256: str
    rate_card_sha256: str
    terms_sha256: str
    buyer_id: PrincipalId
    operator_id: OrganisationId
    vendor_id: OrganisationId
    accepted_at_us: int
    nonce: str

    @property
    def sha256(self) -> str:
        """The digest an agreement names."""
        return document_sha256(self.document())

    def document(self) -> dict[str, Json]:
        """The document that is signed."""
        return {
            "schema": ACCEPTANCE_SCHEMA,
            "quote_sha256": self.quote_sha256,
            "listing_sha256": self.listing_sha256,
            "rate_card_sha256": self.rate_card_sha256,
            "terms_sha256": self.terms_sha256,
            "buyer_id": self.buyer_id,
            "operator_id": self.operator_id,
            "vendor_id": self.vendor_id,
            "accepted_at_us": self.accepted_at_us,
            "nonce": self.nonce,
        }

    @classmethod
    def from_document(cls, document: Json) -> "Acceptance":
        """Read what `document` wrote, strictly.

        Raises:
            DocumentError: The first fault, with its path.
        """
        fields = read_document(document, ACCEPTANCE_SCHEMA)
        acceptance = cls(
            quote_sha256=fields.digest("quote_sha256"),
            listing_sha256=fields.digest("listing_sha256"),
            rate_card_sha256=fields.digest("rate_card_sha256"),
            terms_sha256=fields.digest("terms_sha256"),
            buyer_id=_principal(fields, "buyer_id"),
            operator_id=_organisation(fields, "operator_id"),
            vendor_id=_organisation(fields, "vendor_id"),
            accepted_at_us=_instant_us(fields, "accepted_at_us"),
            nonce=fields.text("nonce", length_max=128, form=_NONCE),
        )
        fields.end()
        return acceptance

    @classmethod
    def of(cls, quote: QuoteDocument, *, accepted_at_us: int, nonce: str) -> "Acceptance":
        """The acceptance of a quote; a clock behind the platform's is moved up to the quote."""
        return cls(
            quote_sha256=quote.sha256,
            listing_sha256=quote.listing_sha256,
            rate_card_sha256=quote.rate_card_sha256,
            terms_sha256=quote.terms_sha256,
            buyer_id=quote.buyer_id,
            operator_id=quote.operator_id,
            vendor_id=quote.vendor_id,
            accepted_at_us=max(accepted_at_us, quote.issued_at_us),
            nonce=nonce,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRecord:
    """What a vendor swears it delivered: the digest of the result, and what is to be paid for.

    `result_sha256` is of the canonical bytes of the tool's structured result, `args_sha256` of its
    arguments, `output_schema_sha256` of the schema that the result must fit.
    """

    hold_id: HoldId
    agreement_id: AgreementId
    vendor_id: OrganisationId
    listing_id: ListingId
    args_sha256: str
    result_sha256: str
    output_schema_sha256: str
    usage: Mapping[str, int]
    delivered_at_us: int
    outcome: DeliveryOutcome = DeliveryOutcome.SUCCEEDED

    def document(self) -> dict[str, Json]:
        """The document that is signed."""
        return {
            "schema": DELIVERY_SCHEMA,
            "hold_id": self.hold_id,
            "agreement_id": self.agreement_id,
            "vendor_id": self.vendor_id,
            "listing_id": self.listing_id,
            "args_sha256": self.args_sha256,
            "result_sha256": self.result_sha256,
            "output_schema_sha256": self.output_schema_sha256,
            "usage": quantities_document(self.usage),
            "outcome": self.outcome.value,
            "delivered_at_us": self.delivered_at_us,
        }

    @classmethod
    def from_document(cls, document: Json) -> "DeliveryRecord":
        """Read what `document` wrote, strictly.

        Raises:
            DocumentError: The first fault, with its path.
        """
        fields = read_document(document, DELIVERY_SCHEMA)
        record = cls(
            hold_id=HoldId(fields.typeid("hold_id", "hld")),
            agreement_id=AgreementId(fields.typeid("agreement_id", "agr")),
            vendor_id=_organisation(fields, "vendor_id"),
            listing_id=ListingId(fields.typeid("listing_id", "lst")),
            args_sha256=fields.digest("args_sha256"),
            result_sha256=fields.digest("result_sha256"),
            output_schema_sha256=fields.digest("output_schema_sha256"),
            usage=fields.quantities("usage", count_min=1, count_max=DIMENSIONS_MAX),
            outcome=fields.member("outcome", DeliveryOutcome),
            delivered_at_us=_instant_us(fields, "delivered_at_us"),
        )
        fields.end()
        return record


def read_quote(
    document: Mapping[str, object], signature: str, key_of: KeyOf
) -> QuoteDocument | Refusal:
    """Read and verify a quote; `key_of` knows the platform's keys only.

    Returns:
        The quote, or `invalid_argument` with the path, or `signature_invalid`.
    """
    return _read(QuoteDocument.from_document, Typ.QUOTE, document, signature, key_of)


def read_acceptance(
    document: Mapping[str, object], signature: str, key_of: KeyOf
) -> Acceptance | Refusal:
    """Read and verify an acceptance; `key_of` knows the keys of the agent that accepts only.

    Returns:
        The acceptance, or `invalid_argument` with the path, or `signature_invalid`.
    """
    return _read(Acceptance.from_document, Typ.ACCEPTANCE, document, signature, key_of)


def read_delivery(
    document: Mapping[str, object], signature: str, key_of: KeyOf
) -> DeliveryRecord | Refusal:
    """Read and verify a delivery record; `key_of` knows the keys of the vendor only.

    Returns:
        The record, or `invalid_argument` with the path, or `signature_invalid`.
    """
    return _read(DeliveryRecord.from_document, Typ.DELIVERY, document, signature, key_of)


def check_acceptance(acceptance: Acceptance, quote: QuoteDocument) -> Refusal | None:
    """Say whether an acceptance is of this very quote, given while the quote stood.

    Returns:
        None, or `signature_invalid` with the path of the first member that does not fit,
        `quote_expired` when it was accepted too late.
    """
    pairs = (
        ("quote_sha256", acceptance.quote_sha256, quote.sha256),
        ("listing_sha256", acceptance.listing_sha256, quote.listing_sha256),
        ("rate_card_sha256", acceptance.rate_card_sha256, quote.rate_card_sha256),
        ("terms_sha256", acceptance.terms_sha256, quote.terms_sha256),
        ("buyer_id", acceptance.buyer_id, quote.buyer_id),
        ("operator_id", acceptance.operator_id, quote.operator_id),
        ("vendor_id", acceptance.vendor_id, quote.vendor_id),
    )
    for name, accepted, quoted in pairs:
        if accepted != quoted:
            return refuse(Code.SIGNATURE_INVALID, path=f"acceptance.{name}", required=quoted)
    if acceptance.accepted_at_us < quote.issued_at_us:
        return refuse(Code.SIGNATURE_INVALID, path="acceptance.accepted_at_us")
    if acceptance.accepted_at_us >= quote.expires_at_us:
        return refuse(Code.QUOTE_EXPIRED, path="acceptance.accepted_at_us")
    return None


def check_price(quote: QuoteDocument, card: RateCard) -> Refusal | None:
    """Say whether a quote's lines and total are what the card gives.

    Returns:
        None, or `terms_changed` where the card is another one, `usage_invalid` where it cannot
        rate the workload, `invalid_amount` with the path where it gives another figure.
    """
    if card.card_sha256 != quote.rate_card_sha256 or card.asset != quote.asset:
        return refuse(Code.TERMS_CHANGED, path="quote.rate_card_sha256")
    try:
        rating = rate(card, quote.position, quote.workload)
    except RatingError as error:
        return refuse(Code.USAGE_INVALID, path="quote.workload", message=str(error))
    if rating.lines != quote.lines:
        return refuse(Code.INVALID_AMOUNT, path="quote.lines")
    if rating.total_units != quote.total_units:
        return refuse(Code.INVALID_AMOUNT, path="quote.total_units")
    return None


def _read(
    read: Callable[[Json], T],
    typ: Typ,
    document: Mapping[str, object],
    signature: str,
    key_of: KeyOf,
) -> T | Refusal:
    name = typ.value.removeprefix("farthing-").removesuffix("+json")
    # What came through the door is JSON already; canonical_bytes refuses null and fractions.
    plain = cast("dict[str, Json]", document)
    try:
        payload = canonical_bytes(plain)
        value = read(plain)
        verify_detached(signature, typ, payload, key_of)
    except InvalidJson as error:
        return refuse(Code.INVALID_ARGUMENT, path=name, message=f"Not a signed document: {error}.")
    except DocumentError as error:
        path = f"{name}.{error.path}" if error.path else name
        return refuse(Code.INVALID_ARGUMENT, path=path, message=f"{path}: {error.reason}.")
    except InvalidSignature as error:
        return refuse(
            Code.SIGNATURE_INVALID,
            path=f"{name}_signature",
            message=f"The signature of the {name} does not verify: {error.reason}.",
        )
    return value


def _lines(fields: Fields) -> tuple[Line, ...]:
    value = fields.value("lines")
    if not isinstance(value, list):
        raise DocumentError("lines", Fault.WRONG_TYPE)
    if not 1 <= len(value) <= DIMENSIONS_MAX:
        raise DocumentError("lines", Fault.WRONG_COUNT)
    lines: list[Line] = []
    for index, each in enumerate(value):
        try:
            lines.append(parse_line(each))
        except InvalidLine:
            raise DocumentError(f"lines.{index}", Fault.INVALID_FORM) from None
    return tuple(lines)


def _organisation(fields: Fields, name: str) -> OrganisationId:
    return OrganisationId(PrincipalId(fields.typeid(name, "org")))


def _principal(fields: Fields, name: str) -> PrincipalId:
    return PrincipalId(fields.text(name, length_max=40, form=_PRINCIPAL))


def _asset(fields: Fields) -> str:
    asset = fields.text("asset", length_max=8)
    if asset not in ASSETS:
        raise DocumentError("asset", Fault.UNKNOWN_VALUE)
    return asset


def _units(fields: Fields, name: str) -> int:
    units = int(fields.text(name, length_max=19, form=_UNITS))
    if units > INT64_MAX:
        raise DocumentError(fields.at(name), Fault.OUT_OF_RANGE)
    return units


def _instant_us(fields: Fields, name: str) -> int:
    return fields.integer(name, at_least=0, at_most=INTEGER_MAX)
