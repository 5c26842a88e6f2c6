"""What a client signs and digests: arguments, results, offers, acceptances, delivery records.

Boundary: pure. The documents themselves are the law's (`farthing.protocol.contracts`, `listing`);
here they are made ready to be sent. Source: spec/contracts.md, spec/payments-mcp.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from farthing.protocol.canonical import (
    InvalidJson,
    Json,
    JsonLike,
    canonical_bytes,
    document_sha256,
    sha256_hex,
)
from farthing.protocol.contracts import Acceptance, DeliveryRecord
from farthing.protocol.corrections import CallBack, Correction
from farthing.protocol.errors import Code, Refused, refuse
from farthing.protocol.keys import Signer
from farthing.protocol.messages.corrections import CallCorrection, CorrectUsage
from farthing.protocol.signatures import Typ, sign_detached

__all__ = [
    "Offer",
    "Signed",
    "arguments_bytes",
    "arguments_sha256",
    "result_bytes",
    "result_sha256",
    "sign_acceptance",
    "sign_correction",
    "sign_delivery",
    "sign_listing",
]

Document = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A document and the detached signature over its canonical bytes."""

    document: Document
    signature: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A listing with the rate card and the terms that it names by hash."""

    listing: Mapping[str, Json]
    rate_card: Mapping[str, Json]
    terms: Mapping[str, Json]

    @classmethod
    def bind(
        cls,
        listing: Mapping[str, Json],
        rate_card: Mapping[str, Json],
        terms: Mapping[str, Json],
    ) -> "Offer":
        """Make an offer of three documents; the listing is given the hashes of the other two."""
        hashes: dict[str, Json] = {
            "rate_card_sha256": document_sha256(rate_card),
            "terms_sha256": document_sha256(terms),
        }
        return cls(listing={**listing, **hashes}, rate_card=rate_card, terms=terms)

    @property
    def sha256(self) -> str:
        """The content hash of the listing, which covers the other two."""
        return document_sha256(self.listing)


def arguments_bytes(arguments: Mapping[str, object]) -> bytes:
    """The bytes that an `args_sha256` is the digest of: canonical, of the object as sent.

    Raises:
        Refused: `invalid_argument`: they hold a fraction, null, or a key beyond ASCII.
    """
    return _bytes(arguments, "arguments")


def arguments_sha256(arguments: Mapping[str, object]) -> str:
    """The digest of a paid tool's arguments; raises as `arguments_bytes`."""
    return sha256_hex(arguments_bytes(arguments))


def result_bytes(structured: object) -> bytes:
    """The bytes that a delivery record's `result_sha256` is the digest of, and evidence must be.

    Raises:
        Refused: `invalid_argument`: the result holds a fraction, null, or a key beyond ASCII.
    """
    return _bytes(structured, "result")


def result_sha256(structured: object) -> str:
    """The digest of a paid tool's structured result.

    Raises:
        Refused: As `result_bytes`.
    """
    return sha256_hex(result_bytes(structured))


def sign_listing(signer: Signer, listing: Mapping[str, Json]) -> str:
    """The vendor's signature of a listing version."""
    return sign_detached(signer, Typ.LISTING, canonical_bytes(listing))


def sign_acceptance(signer: Signer, acceptance: Acceptance) -> Signed:
    """The buyer's signed yes."""
    return _signed(signer, Typ.ACCEPTANCE, acceptance.document())


def sign_delivery(signer: Signer, delivery: DeliveryRecord) -> Signed:
    """The vendor's signed delivery record."""
    return _signed(signer, Typ.DELIVERY, delivery.document())


def sign_correction(
    signer: Signer, charge_id: str, taken_back: Mapping[int, Mapping[str, int]], *, key: str
) -> CorrectUsage:
    """The vendor's signed ask to take back what billed calls used too much.

    Args:
        signer: the vendor's key.
        charge_id: the charge of the batch in which the calls were billed.
        taken_back: quantities by call and meter, each at least 1.
        key: the idempotency key of the ask.
    """
    calls = [CallBack(seq, dict(taken_back[seq])) for seq in sorted(taken_back)]
    correction = Correction(charge_id=charge_id, calls=tuple(calls))
    return CorrectUsage(
        charge_id=charge_id,
        corrections=tuple(
            CallCorrection(
                call=str(each.seq), usage={meter: str(n) for meter, n in each.usage.items()}
            )
            for each in calls
        ),
        signature=sign_detached(signer, Typ.CORRECTION, correction.signed_bytes()),
        idempotency_key=key,
    )


def _signed(signer: Signer, typ: Typ, document: dict[str, Json]) -> Signed:
    signature = sign_detached(signer, typ, canonical_bytes(document))
    return Signed(document=dict(document), signature=signature)


def _bytes(value: object, path: str) -> bytes:
    try:
        return canonical_bytes(cast("JsonLike", value))
    except InvalidJson as error:
        text = f"What is paid for by digest does not hold this: {error.reason.value}."
        raise Refused(refuse(Code.INVALID_ARGUMENT, path=path, message=text)) from None
