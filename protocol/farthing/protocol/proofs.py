"""The three short-lived JWTs of a trade, made and checked: request, entitlement, voucher.

A request JWT proves one HTTP call to the platform, an entitlement tells a vendor what it may
believe about a hold, a voucher is what the payer signs towards the vendor. A claim that is not
expected is refused, as is a missing one. Whether a proof was used before, and whether its key may
still act, is judged in the engine. See spec/proofs.md.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from farthing.protocol.canonical import Json, JsonLike
from farthing.protocol.ids import AgreementId, HoldId, ListingId, OrganisationId, PrincipalId
from farthing.protocol.keys import InvalidKey, PublicKey, Signer
from farthing.protocol.money import ASSETS, INT64_MAX
from farthing.protocol.signatures import (
    InvalidSignature,
    KeyOf,
    SignatureFault,
    Typ,
    read_header,
    sign_compact,
    verify_compact,
)
from farthing.protocol.times import SECOND_US

__all__ = [
    "REQUEST_LIFETIME_S_MAX",
    "SKEW_S",
    "VOUCHER_LIFETIME_S_MAX",
    "Entitlement",
    "ProofError",
    "ProofFault",
    "RequestProof",
    "Voucher",
    "check_entitlement",
    "check_request",
    "check_voucher",
    "content_digest",
    "entitlement_jwt",
    "request_jwt",
    "voucher_jwt",
]

REQUEST_LIFETIME_S_MAX: Final = 60
VOUCHER_LIFETIME_S_MAX: Final = 3600
SKEW_S: Final = 5
"""How far a signer's clock may run ahead. Nothing is added at the end of a life: a used proof need
be remembered only until the `exp` it carries."""

_TEXT: Final = re.compile(r"[\x21-\x7e]{1,2048}")
_JTI: Final = re.compile(r"[\x21-\x7e]{1,128}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_UNITS: Final = re.compile(r"0|[1-9][0-9]{0,18}")

_REQUEST_CLAIMS: Final = frozenset(
    {"iss", "sub", "aud", "iat", "exp", "jti", "htm", "htu", "content_digest"}
)
_ENTITLEMENT_CLAIMS: Final = frozenset(
    {"iss", "sub", "aud", "iat", "exp", "cnf", "hold_id", "agreement_id", "listing_id"}
    | {"cap_units", "asset", "card_sha256"}
)
_VOUCHER_CLAIMS: Final = frozenset(
    {"aud", "iat", "exp", "jti", "hold_id", "args_sha256", "seq", "max_cum_units", "ack"}
)


class ProofFault(StrEnum):
    """Why a proof is refused."""

    MALFORMED = "malformed"
    WRONG_TYP = "wrong_typ"
    UNKNOWN_KEY = "unknown_key"
    BAD_SIGNATURE = "bad_signature"
    WRONG_SUBJECT = "wrong_subject"
    WRONG_AUD = "wrong_aud"
    LIFETIME = "lifetime"
    NOT_YET_VALID = "not_yet_valid"
    EXPIRED = "expired"
    WRONG_METHOD = "wrong_method"
    WRONG_URL = "wrong_url"
    BODY_MISMATCH = "body_mismatch"
    OVER_CAP = "over_cap"


class ProofError(ValueError):
    """The token does not prove what is asked of it."""

    def __init__(self, reason: ProofFault) -> None:
        super().__init__(reason.value)
        self.reason = reason


# A header that tries to choose its algorithm is a bad signature, one that tries anything else is
# malformed: whoever made such a token knows why.
_OF_SIGNATURE: Final = {
    SignatureFault.MALFORMED: ProofFault.MALFORMED,
    SignatureFault.HEADER: ProofFault.MALFORMED,
    SignatureFault.WRONG_ALG: ProofFault.BAD_SIGNATURE,
    SignatureFault.WRONG_TYP: ProofFault.WRONG_TYP,
    SignatureFault.UNKNOWN_KEY: ProofFault.UNKNOWN_KEY,
    SignatureFault.BAD_SIGNATURE: ProofFault.BAD_SIGNATURE,
    SignatureFault.CLAIMS: ProofFault.MALFORMED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestProof:
    """What a request JWT has proven.

    `expires_at_us` is the first instant at which the token is refused: until then a used `jti`
    must be remembered.
    """

    principal: PrincipalId
    thumbprint: str
    jti: str
    issued_at_us: int
    expires_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entitlement:
    """What the platform lets a vendor believe about a hold.

    Work done for the payer's vouchers before `expires_at_us` is covered up to `cap_units` of the
    asset. With `args_sha256` the hold is for one call with exactly these arguments. The expiry
    travels in whole seconds, rounded down, so that an entitlement never outlives its hold.
    """

    hold_id: HoldId
    agreement_id: AgreementId
    listing_id: ListingId
    vendor_id: OrganisationId
    buyer_id: PrincipalId
    payer_jwk: Mapping[str, str]
    cap_units: int
    asset: str
    card_sha256: str
    expires_at_us: int
    issuer: str
    args_sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Voucher:
    """What the payer signs towards the vendor: this call, up to this much altogether.

    `seq` counts the calls under a hold from 1. `max_cum_units` is the most the payer owes for all
    of them so far, this one included. `ack` is the digest chain of the answers received, empty
    before the first.
    """

    agreement_id: AgreementId
    hold_id: HoldId
    args_sha256: str
    seq: int
    max_cum_units: int
    ack: str


def request_jwt(
    signer: Signer,
    *,
    principal: str,
    audience: str,
    method: str,
    url: str,
    body: bytes,
    now_us: int,
    jti: str,
    lifetime_s: int = 30,
) -> str:
    """Prove one HTTP call.

    Args:
        signer: The caller's key, which the receiver knows by its thumbprint.
        principal: Who calls.
        audience: The receiver's public URL.
        method: The HTTP method in capitals.
        url: The URL exactly as the receiver publishes it.
        body: The bytes sent.
        now_us: The caller's clock.
        jti: A name for this proof that the caller never uses again.
        lifetime_s: 1 to `REQUEST_LIFETIME_S_MAX`.

    Raises:
        ProofError: `lifetime`, when it is out of range.
    """
    claims: dict[str, JsonLike] = {
        "iss": principal,
        "sub": principal,
        "aud": audience,
        "jti": jti,
        "htm": method,
        "htu": url,
        "content_digest": content_digest(body),
        **_life(now_us, lifetime_s, REQUEST_LIFETIME_S_MAX),
    }
    return sign_compact(signer, Typ.REQUEST, claims)


def check_request(
    token: str,
    *,
    key_of: KeyOf,
    audience: str,
    method: str,
    url: str,
    body: bytes,
    now_us: int,
) -> RequestProof:
    """Check that a token proves this very HTTP call, here and now.

    That the principal holds the key of the thumbprint is for the caller's registry to say.

    Raises:
        ProofError: With the reason.
    """
    claims = _verified(token, Typ.REQUEST, key_of, _REQUEST_CLAIMS)
    subject = _text(claims, "sub")
    proof = RequestProof(
        principal=PrincipalId(subject),
        thumbprint=read_header(token).kid,
        jti=_text(claims, "jti", _JTI),
        issued_at_us=_instant_us(claims, "iat"),
        expires_at_us=_instant_us(claims, "exp"),
    )
    aud, htm, htu, digest = (_text(claims, n) for n in ("aud", "htm", "htu", "content_digest"))
    if _text(claims, "iss") != subject:
        raise ProofError(ProofFault.WRONG_SUBJECT)
    if aud != audience:
        raise ProofError(ProofFault.WRONG_AUD)
    _check_life(proof.issued_at_us, proof.expires_at_us, now_us, REQUEST_LIFETIME_S_MAX)
    if htm != method:
        raise ProofError(ProofFault.WRONG_METHOD)
    if htu != url:
        raise ProofError(ProofFault.WRONG_URL)
    if digest != content_digest(body):
        raise ProofError(ProofFault.BODY_MISMATCH)
    return proof


def entitlement_jwt(signer: Signer, entitlement: Entitlement, now_us: int) -> str:
    """Sign an entitlement with the platform's key."""
    claims: dict[str, JsonLike] = {
        "iss": entitlement.issuer,
        "sub": entitlement.buyer_id,
        "aud": entitlement.vendor_id,
        "iat": now_us // SECOND_US,
        "exp": entitlement.expires_at_us // SECOND_US,
        "cnf": {"jwk": dict(entitlement.payer_jwk)},
        "hold_id": entitlement.hold_id,
        "agreement_id": entitlement.agreement_id,
        "listing_id": entitlement.listing_id,
        "cap_units": str(entitlement.cap_units),
        "asset": entitlement.asset,
        "card_sha256": entitlement.card_sha256,
    }
    if entitlement.args_sha256 is not None:
        claims["args_sha256"] = entitlement.args_sha256
    return sign_compact(signer, Typ.ENTITLEMENT, claims)


def check_entitlement(token: str, *, key_of: KeyOf, vendor_id: str, now_us: int) -> Entitlement:
    """Check an entitlement as the vendor it is for; `key_of` knows the platform's keys only.

    Raises:
        ProofError: With the reason.
    """
    claims = _verified(
        token, Typ.ENTITLEMENT, key_of, _ENTITLEMENT_CLAIMS, optional=frozenset({"args_sha256"})
    )
    entitlement = Entitlement(
        hold_id=HoldId(_text(claims, "hold_id")),
        agreement_id=AgreementId(_text(claims, "agreement_id")),
        listing_id=ListingId(_text(claims, "listing_id")),
        vendor_id=OrganisationId(PrincipalId(_text(claims, "aud"))),
        buyer_id=PrincipalId(_text(claims, "sub")),
        payer_jwk=_confirmed_key(claims["cnf"]).jwk(),
        cap_units=_units(claims, "cap_units"),
        asset=_text(claims, "asset"),
        card_sha256=_text(claims, "card_sha256", _SHA256),
        expires_at_us=_instant_us(claims, "exp"),
        issuer=_text(claims, "iss"),
        args_sha256=_text(claims, "args_sha256", _SHA256) if "args_sha256" in claims else None,
    )
    if entitlement.asset not in ASSETS:
        raise ProofError(ProofFault.MALFORMED)
    if entitlement.vendor_id != vendor_id:
        raise ProofError(ProofFault.WRONG_AUD)
    _check_life(_instant_us(claims, "iat"), entitlement.expires_at_us, now_us, None)
    return entitlement


def voucher_jwt(signer: Signer, voucher: Voucher, *, now_us: int, jti: str, lifetime_s: int) -> str:
    """Sign a voucher with the payer's key; it is for the vendor under one agreement alone.

    Raises:
        ProofError: `lifetime`, when it is not 1 to `VOUCHER_LIFETIME_S_MAX`.
    """
    claims: dict[str, JsonLike] = {
        "aud": voucher.agreement_id,
        "jti": jti,
        "hold_id": voucher.hold_id,
        "args_sha256": voucher.args_sha256,
        "seq": voucher.seq,
        "max_cum_units": str(voucher.max_cum_units),
        "ack": voucher.ack,
        **_life(now_us, lifetime_s, VOUCHER_LIFETIME_S_MAX),
    }
    return sign_compact(signer, Typ.VOUCHER, claims)


def check_voucher(
    token: str, *, entitlement: Entitlement, args_sha256: str, now_us: int
) -> Voucher:
    """Check a voucher against the entitlement the platform gave for the hold.

    Args:
        token: What the payer sent.
        entitlement: A checked entitlement; its key is the only one that can have signed.
        args_sha256: The digest of the arguments that came with the voucher.
        now_us: The vendor's clock.

    Raises:
        ProofError: With the reason. That `seq` and `max_cum_units` only ever grow is for the
            vendor, who saw the last voucher, to check.
    """
    payer = PublicKey.from_jwk(entitlement.payer_jwk)
    claims = _verified(
        token,
        Typ.VOUCHER,
        lambda kid: payer if kid == payer.thumbprint else None,
        _VOUCHER_CLAIMS,
    )
    seq, ack = claims["seq"], claims["ack"]
    if type(seq) is not int or seq < 1:
        raise ProofError(ProofFault.MALFORMED)
    _text(claims, "jti", _JTI)
    voucher = Voucher(
        agreement_id=AgreementId(_text(claims, "aud")),
        hold_id=HoldId(_text(claims, "hold_id")),
        args_sha256=_text(claims, "args_sha256", _SHA256),
        seq=seq,
        max_cum_units=_units(claims, "max_cum_units"),
        ack="" if ack == "" else _text(claims, "ack", _SHA256),
    )
    issued_at_us, expires_at_us = _instant_us(claims, "iat"), _instant_us(claims, "exp")
    if voucher.hold_id != entitlement.hold_id:
        raise ProofError(ProofFault.WRONG_SUBJECT)
    if voucher.agreement_id != entitlement.agreement_id:
        raise ProofError(ProofFault.WRONG_AUD)
    _check_life(issued_at_us, expires_at_us, now_us, VOUCHER_LIFETIME_S_MAX)
    if now_us >= entitlement.expires_at_us:
        raise ProofError(ProofFault.EXPIRED)
    if voucher.args_sha256 != args_sha256:
        raise ProofError(ProofFault.BODY_MISMATCH)
    if entitlement.args_sha256 is not None and args_sha256 != entitlement.args_sha256:
        raise ProofError(ProofFault.BODY_MISMATCH)
    if voucher.max_cum_units > entitlement.cap_units:
        raise ProofError(ProofFault.OVER_CAP)
    return voucher


def content_digest(body: bytes) -> str:
    """Digest a body in the form of an RFC 9530 Content-Digest member."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def _verified(
    token: str,
    typ: Typ,
    key_of: KeyOf,
    expected: frozenset[str],
    optional: frozenset[str] = frozenset(),
) -> dict[str, Json]:
    try:
        claims = verify_compact(token, typ, key_of)
    except InvalidSignature as fault:
        raise ProofError(_OF_SIGNATURE[fault.reason]) from None
    if not expected <= claims.keys() <= expected | optional:
        raise ProofError(ProofFault.MALFORMED)
    return claims


def _life(now_us: int, lifetime_s: int, lifetime_s_max: int) -> dict[str, int]:
    if not 1 <= lifetime_s <= lifetime_s_max:
        raise ProofError(ProofFault.LIFETIME)
    issued_at_s = now_us // SECOND_US
    return {"iat": issued_at_s, "exp": issued_at_s + lifetime_s}


def _check_life(
    issued_at_us: int, expires_at_us: int, now_us: int, lifetime_s_max: int | None
) -> None:
    lifetime_us = expires_at_us - issued_at_us
    if lifetime_us <= 0 or (
        lifetime_s_max is not None and lifetime_us > lifetime_s_max * SECOND_US
    ):
        raise ProofError(ProofFault.LIFETIME)
    if issued_at_us > now_us + SKEW_S * SECOND_US:
        raise ProofError(ProofFault.NOT_YET_VALID)
    if now_us >= expires_at_us:
        raise ProofError(ProofFault.EXPIRED)


def _text(claims: Mapping[str, Json], name: str, pattern: re.Pattern[str] = _TEXT) -> str:
    value = claims[name]
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise ProofError(ProofFault.MALFORMED)
    return value


def _units(claims: Mapping[str, Json], name: str) -> int:
    units = int(_text(claims, name, _UNITS))
    if units > INT64_MAX:
        raise ProofError(ProofFault.MALFORMED)
    return units


def _instant_us(claims: Mapping[str, Json], name: str) -> int:
    seconds = claims[name]
    # JSON's true is an int to Python: the exact type is asked for.
    if type(seconds) is not int or seconds < 0:
        raise ProofError(ProofFault.MALFORMED)
    return seconds * SECOND_US


def _confirmed_key(cnf: Json) -> PublicKey:
    jwk = cnf.get("jwk") if isinstance(cnf, dict) and len(cnf) == 1 else None
    if not isinstance(jwk, dict):
        raise ProofError(ProofFault.MALFORMED)
    try:
        return PublicKey.from_jwk(jwk)
    except InvalidKey:
        raise ProofError(ProofFault.MALFORMED) from None
