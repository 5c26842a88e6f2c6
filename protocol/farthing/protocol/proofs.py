"""The three short-lived JWTs of a trade, made and checked: request, entitlement, voucher.

A request JWT proves one HTTP call to the platform, an entitlement tells a vendor what it may
believe about a hold or a session, a voucher is what the payer signs towards the vendor. A claim
that is not expected is refused, as is a missing one. Whether a proof was used before, and whether
its key may still act, is judged in the engine. See spec/proofs.md.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from farthing.protocol.canonical import Json, JsonLike
from farthing.protocol.claims import (
    SHA256,
    SKEW_S,
    ProofError,
    ProofFault,
    check_life,
    confirmed_key,
    instant_us,
    life,
    text_claim,
    units_claim,
    verified_claims,
)
from farthing.protocol.ids import (
    AgreementId,
    HoldId,
    ListingId,
    OrganisationId,
    PrincipalId,
    SessionId,
)
from farthing.protocol.keys import PublicKey, Signer
from farthing.protocol.money import ASSETS
from farthing.protocol.signatures import KeyOf, Typ, read_header, sign_compact
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
    "read_voucher",
    "request_jwt",
    "voucher_jwt",
]

REQUEST_LIFETIME_S_MAX: Final = 60
VOUCHER_LIFETIME_S_MAX: Final = 3600

_JTI: Final = re.compile(r"[\x21-\x7e]{1,128}")

_REQUEST_CLAIMS: Final = frozenset(
    {"iss", "sub", "aud", "iat", "exp", "jti", "htm", "htu", "content_digest"}
)
_ENTITLEMENT_CLAIMS: Final = frozenset(
    {"iss", "sub", "aud", "iat", "exp", "cnf", "agreement_id", "listing_id"}
    | {"cap_units", "asset", "card_sha256"}
)
_VOUCHER_CLAIMS: Final = frozenset(
    {"aud", "iat", "exp", "jti", "args_sha256", "seq", "max_cum_units", "ack"}
)
_HOLD: Final = frozenset({"hold_id"})
_SESSION: Final = frozenset({"session_id"})
_BLOCK: Final = _SESSION | {"per_call_units", "unsigned_units"}
_CALL: Final = frozenset({"args_sha256", "on_answer"})


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
    """What the platform lets a vendor believe about a hold or a session, one of the two.

    Work done for the payer's vouchers before `expires_at_us` is covered up to `cap_units` of the
    asset, in a session up to `per_call_units` a call. With `args_sha256` a hold is for one call
    with exactly these arguments. `unsigned_units` is what a session may owe on MACs beyond its
    last signed voucher, 0 where none are taken. A hold `on_answer` is captured by the platform,
    once it has accepted the answer and the delivery record beside it. The expiry travels in whole
    seconds, rounded down, so that an entitlement never outlives what it is for. `issued_at_us` is
    when the platform said it, where it was checked.
    """

    hold_id: HoldId | None = None
    session_id: SessionId | None = None
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
    per_call_units: int = 0
    unsigned_units: int = 0
    on_answer: bool = False
    issued_at_us: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Voucher:
    """What the payer signs towards the vendor: this call, up to this much altogether.

    `seq` counts the calls under a hold or a session from 1. `max_cum_units` is the most the payer
    owes for all of them so far, this one included. `ack` is the digest chain of the answers
    received, empty before the first. `mac_sha256` is the digest of the key of a session's MACs,
    where one is handed over beside the voucher.
    """

    agreement_id: AgreementId
    hold_id: HoldId | None = None
    session_id: SessionId | None = None
    args_sha256: str
    seq: int
    max_cum_units: int
    ack: str
    mac_sha256: str | None = None


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
        **life(now_us, lifetime_s, REQUEST_LIFETIME_S_MAX),
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
    claims = verified_claims(token, Typ.REQUEST, key_of, _REQUEST_CLAIMS)
    subject = text_claim(claims, "sub")
    proof = RequestProof(
        principal=PrincipalId(subject),
        thumbprint=read_header(token).kid,
        jti=text_claim(claims, "jti", _JTI),
        issued_at_us=instant_us(claims, "iat"),
        expires_at_us=instant_us(claims, "exp"),
    )
    aud, htm, htu, digest = (text_claim(claims, n) for n in ("aud", "htm", "htu", "content_digest"))
    if text_claim(claims, "iss") != subject:
        raise ProofError(ProofFault.WRONG_SUBJECT)
    if aud != audience:
        raise ProofError(ProofFault.WRONG_AUD)
    check_life(proof.issued_at_us, proof.expires_at_us, now_us, REQUEST_LIFETIME_S_MAX)
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
        **_subject(entitlement),
        "agreement_id": entitlement.agreement_id,
        "listing_id": entitlement.listing_id,
        "cap_units": str(entitlement.cap_units),
        "asset": entitlement.asset,
        "card_sha256": entitlement.card_sha256,
    }
    if entitlement.session_id is not None:
        claims["per_call_units"] = str(entitlement.per_call_units)
        claims["unsigned_units"] = str(entitlement.unsigned_units)
    elif entitlement.args_sha256 is not None:
        claims["args_sha256"] = entitlement.args_sha256
    if entitlement.on_answer:
        assert entitlement.hold_id is not None, "a session's calls are reported"
        claims["on_answer"] = True
    return sign_compact(signer, Typ.ENTITLEMENT, claims)


def check_entitlement(token: str, *, key_of: KeyOf, vendor_id: str, now_us: int) -> Entitlement:
    """Check an entitlement as the vendor it is for; `key_of` knows the platform's keys only.

    Raises:
        ProofError: With the reason.
    """
    claims = verified_claims(
        token, Typ.ENTITLEMENT, key_of, _ENTITLEMENT_CLAIMS, _HOLD | _BLOCK | _CALL
    )
    hold_id, session_id = _read_subject(claims)
    is_block = session_id is not None
    if claims.keys() & _BLOCK != (_BLOCK if is_block else set()) or (
        is_block and claims.keys() & _CALL
    ):
        raise ProofError(ProofFault.MALFORMED)
    entitlement = Entitlement(
        hold_id=hold_id,
        session_id=session_id,
        agreement_id=AgreementId(text_claim(claims, "agreement_id")),
        listing_id=ListingId(text_claim(claims, "listing_id")),
        vendor_id=OrganisationId(PrincipalId(text_claim(claims, "aud"))),
        buyer_id=PrincipalId(text_claim(claims, "sub")),
        payer_jwk=confirmed_key(claims["cnf"]).jwk(),
        cap_units=units_claim(claims, "cap_units"),
        asset=text_claim(claims, "asset"),
        card_sha256=text_claim(claims, "card_sha256", SHA256),
        expires_at_us=instant_us(claims, "exp"),
        issuer=text_claim(claims, "iss"),
        args_sha256=_optional_digest(claims, "args_sha256"),
        per_call_units=units_claim(claims, "per_call_units") if is_block else 0,
        unsigned_units=units_claim(claims, "unsigned_units") if is_block else 0,
        on_answer="on_answer" in claims,
        issued_at_us=instant_us(claims, "iat"),
    )
    if entitlement.asset not in ASSETS or claims.get("on_answer", True) is not True:
        raise ProofError(ProofFault.MALFORMED)
    if entitlement.vendor_id != vendor_id:
        raise ProofError(ProofFault.WRONG_AUD)
    check_life(entitlement.issued_at_us, entitlement.expires_at_us, now_us, None)
    return entitlement


def voucher_jwt(signer: Signer, voucher: Voucher, *, now_us: int, jti: str, lifetime_s: int) -> str:
    """Sign a voucher with the payer's key; it is for the vendor under one agreement alone.

    Raises:
        ProofError: `lifetime`, when it is not 1 to `VOUCHER_LIFETIME_S_MAX`.
    """
    claims: dict[str, JsonLike] = {
        "aud": voucher.agreement_id,
        "jti": jti,
        **_subject(voucher),
        "args_sha256": voucher.args_sha256,
        "seq": voucher.seq,
        "max_cum_units": str(voucher.max_cum_units),
        "ack": voucher.ack,
        **life(now_us, lifetime_s, VOUCHER_LIFETIME_S_MAX),
    }
    if voucher.mac_sha256 is not None:
        assert voucher.session_id is not None, "only a session has MACs"
        claims["mac_sha256"] = voucher.mac_sha256
    return sign_compact(signer, Typ.VOUCHER, claims)


def check_voucher(
    token: str, *, entitlement: Entitlement, args_sha256: str, now_us: int
) -> Voucher:
    """Check a voucher against the entitlement the platform gave for the hold or session.

    Args:
        token: What the payer sent.
        entitlement: A checked entitlement; its key is the only one that can have signed.
        args_sha256: The digest of the arguments that came with the voucher.
        now_us: The vendor's clock.

    Raises:
        ProofError: With the reason. That `seq` and `max_cum_units` only ever grow is for the
            vendor, who saw the last voucher, to check.
    """
    claims = _voucher_claims(token, PublicKey.from_jwk(entitlement.payer_jwk))
    voucher = _voucher(claims)
    issued_at_us, expires_at_us = instant_us(claims, "iat"), instant_us(claims, "exp")
    if (voucher.hold_id, voucher.session_id) != (entitlement.hold_id, entitlement.session_id):
        raise ProofError(ProofFault.WRONG_SUBJECT)
    if voucher.agreement_id != entitlement.agreement_id:
        raise ProofError(ProofFault.WRONG_AUD)
    check_life(issued_at_us, expires_at_us, now_us, VOUCHER_LIFETIME_S_MAX)
    if now_us >= entitlement.expires_at_us:
        raise ProofError(ProofFault.EXPIRED)
    if voucher.args_sha256 != args_sha256:
        raise ProofError(ProofFault.BODY_MISMATCH)
    if entitlement.args_sha256 is not None and args_sha256 != entitlement.args_sha256:
        raise ProofError(ProofFault.BODY_MISMATCH)
    if voucher.max_cum_units > entitlement.cap_units:
        raise ProofError(ProofFault.OVER_CAP)
    return voucher


def read_voucher(token: str, payer: PublicKey, agreement_id: str) -> Voucher:
    """Read a voucher for settlement, later: what counts is that this payer signed it.

    Neither its time nor its arguments are judged, nor the hold or session it is for: compare that
    with what is settled.

    Raises:
        ProofError: `malformed`, a fault of the signature, or `wrong_aud`.
    """
    claims = _voucher_claims(token, payer)
    voucher = _voucher(claims)
    if voucher.agreement_id != agreement_id:
        raise ProofError(ProofFault.WRONG_AUD)
    return voucher


def content_digest(body: bytes) -> str:
    """Digest a body in the form of an RFC 9530 Content-Digest member."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def _voucher_claims(token: str, payer: PublicKey) -> dict[str, Json]:
    def key_of(kid: str) -> PublicKey | None:
        return payer if kid == payer.thumbprint else None

    optional = _HOLD | _SESSION | {"mac_sha256"}
    return verified_claims(token, Typ.VOUCHER, key_of, _VOUCHER_CLAIMS, optional)


def _voucher(claims: Mapping[str, Json]) -> Voucher:
    hold_id, session_id = _read_subject(claims)
    seq, ack = claims["seq"], claims["ack"]
    if type(seq) is not int or seq < 1 or (hold_id is not None and "mac_sha256" in claims):
        raise ProofError(ProofFault.MALFORMED)
    for name in ("iat", "exp"):
        instant_us(claims, name)
    text_claim(claims, "jti", _JTI)
    return Voucher(
        agreement_id=AgreementId(text_claim(claims, "aud")),
        hold_id=hold_id,
        session_id=session_id,
        args_sha256=text_claim(claims, "args_sha256", SHA256),
        seq=seq,
        max_cum_units=units_claim(claims, "max_cum_units"),
        ack="" if ack == "" else text_claim(claims, "ack", SHA256),
        mac_sha256=_optional_digest(claims, "mac_sha256"),
    )


def _subject(of: Entitlement | Voucher) -> dict[str, str]:
    assert (of.hold_id is None) is not (of.session_id is None), "a hold or a session"
    if of.session_id is not None:
        return {"session_id": of.session_id}
    assert of.hold_id is not None
    return {"hold_id": of.hold_id}


def _read_subject(claims: Mapping[str, Json]) -> tuple[HoldId | None, SessionId | None]:
    if ("hold_id" in claims) is ("session_id" in claims):
        raise ProofError(ProofFault.MALFORMED)
    if "hold_id" in claims:
        return HoldId(text_claim(claims, "hold_id")), None
    return None, SessionId(text_claim(claims, "session_id"))


def _optional_digest(claims: Mapping[str, Json], name: str) -> str | None:
    return text_claim(claims, name, SHA256) if name in claims else None
