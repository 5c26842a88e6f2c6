"""JSON Web Signatures as Farthing makes and takes them: two forms, two algorithms, three members.

Detached (RFC 7515, Appendix F) over the canonical bytes of a document, compact over the claims of
a JWT. Each kind of signed thing has a `typ` of its own and is worthless in every other slot. Keys
come from the caller's registry by thumbprint, never from a header. See
spec/keys-and-signatures.md; what the claims mean is `proofs`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

from farthing.protocol import base64url
from farthing.protocol.canonical import (
    InvalidJson,
    Json,
    JsonLike,
    canonical_bytes,
    parse_json,
)
from farthing.protocol.keys import PublicKey, Signer

__all__ = [
    "TOKEN_CHARACTERS_MAX",
    "Header",
    "InvalidSignature",
    "KeyOf",
    "SignatureFault",
    "Typ",
    "read_header",
    "sign_compact",
    "sign_detached",
    "verify_compact",
    "verify_detached",
]

KeyOf = Callable[[str], PublicKey | None]
"""Looks a key up by thumbprint; None when the registry does not hold it."""

TOKEN_CHARACTERS_MAX: Final = 8192

_HEADER_CHARACTERS_MAX: Final = 512
_HEADERS_REMEMBERED: Final = 4096
_HEADER_MEMBERS: Final = frozenset({"alg", "kid", "typ"})
_THUMBPRINT_CHARACTERS: Final = 43

# The names a header may use, and the `alg` of the key each stands for. RFC 9864 renames EdDSA
# with this curve to Ed25519; both are taken, the older is written.
_ALGS: Final = {"ES256": "ES256", "EdDSA": "EdDSA", "Ed25519": "EdDSA"}


class Typ(StrEnum):
    """The kind of a signed thing, in its header. No two kinds share one."""

    REQUEST = "farthing-request+jwt"
    VOUCHER = "farthing-voucher+jwt"
    ENTITLEMENT = "farthing-entitlement+jwt"
    QUOTE = "farthing-quote+json"
    ACCEPTANCE = "farthing-acceptance+json"
    LISTING = "farthing-listing+json"
    DELIVERY = "farthing-delivery+json"
    USAGE = "farthing-usage+json"
    CORRECTION = "farthing-correction+json"
    SNAPSHOT = "farthing-snapshot+json"
    ROTATION = "farthing-rotation+json"
    NEW_KEY = "farthing-key+json"
    GATEWAY = "farthing-gateway+json"
    SUCCESSION = "farthing-succession+json"


class SignatureFault(StrEnum):
    """Why a signed thing is refused, in the order in which it is looked at."""

    MALFORMED = "malformed"
    HEADER = "header"
    WRONG_ALG = "wrong_alg"
    WRONG_TYP = "wrong_typ"
    UNKNOWN_KEY = "unknown_key"
    BAD_SIGNATURE = "bad_signature"
    CLAIMS = "claims"


class InvalidSignature(ValueError):
    """The thing is not signed as it should be."""

    def __init__(self, reason: SignatureFault) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A JWS header. Nothing in it is proven until the signature is verified."""

    alg: str
    kid: str
    typ: str


def sign_detached(signer: Signer, typ: Typ, payload: bytes) -> str:
    """Sign bytes that travel beside the signature.

    Returns:
        `header..signature`; the payload was base64url-encoded in between when it was signed, so
        that any JOSE library can verify it once the middle is put back.
    """
    header = _header_of(signer, typ)
    signature = signer.sign(_signing_input(header, base64url.encode(payload)))
    return f"{header}..{base64url.encode(signature)}"


def verify_detached(jws: str, typ: Typ, payload: bytes, key_of: KeyOf) -> PublicKey:
    """Verify a detached signature over a payload.

    Returns:
        The key that signed.

    Raises:
        InvalidSignature: With the reason.
    """
    header, middle, signature = _segments(jws)
    if middle:
        raise InvalidSignature(SignatureFault.MALFORMED)
    return _verified_key(header, base64url.encode(payload), signature, typ, key_of)


def sign_compact(signer: Signer, typ: Typ, claims: Mapping[str, JsonLike]) -> str:
    """Sign the claims of a JWT.

    Raises:
        InvalidJson: The claims lie outside the restricted alphabet.
    """
    header = _header_of(signer, typ)
    payload = base64url.encode(canonical_bytes(dict(claims)))
    signature = signer.sign(_signing_input(header, payload))
    return f"{header}.{payload}.{base64url.encode(signature)}"


def verify_compact(token: str, typ: Typ, key_of: KeyOf) -> dict[str, Json]:
    """Verify a JWT's signature and read its claims, whose meaning is then the caller's to check.

    Raises:
        InvalidSignature: With the reason; `claims` when what is signed is not a strict JSON object.
    """
    header, payload, signature = _segments(token)
    if not payload:
        raise InvalidSignature(SignatureFault.MALFORMED)
    _verified_key(header, payload, signature, typ, key_of)
    try:
        claims = parse_json(base64url.decode(payload))
    except (base64url.InvalidBase64, InvalidJson):
        raise InvalidSignature(SignatureFault.CLAIMS) from None
    if not isinstance(claims, dict):
        raise InvalidSignature(SignatureFault.CLAIMS)
    return claims


def read_header(token: str) -> Header:
    """Read the header of a token or detached signature, to learn whose key to look for.

    Raises:
        InvalidSignature: Not three segments within the size, or a header with any member but
            `alg`, `kid` and `typ`.
    """
    header, _, _ = _segments(token)
    return _read_header(header)


def _segments(token: str) -> tuple[str, str, str]:
    if len(token) > TOKEN_CHARACTERS_MAX:
        raise InvalidSignature(SignatureFault.MALFORMED)
    segments = token.split(".")
    if len(segments) != 3:
        raise InvalidSignature(SignatureFault.MALFORMED)
    header, middle, signature = segments
    return header, middle, signature


def _verified_key(header: str, payload: str, signature: str, typ: Typ, key_of: KeyOf) -> PublicKey:
    read = _read_header(header)
    if read.typ != typ:
        raise InvalidSignature(SignatureFault.WRONG_TYP)
    key = key_of(read.kid)
    if key is None or key.thumbprint != read.kid:
        raise InvalidSignature(SignatureFault.UNKNOWN_KEY)
    # The key says how it signs. The header may only agree: a public key is never a shared secret.
    if key.alg != _ALGS[read.alg]:
        raise InvalidSignature(SignatureFault.WRONG_ALG)
    try:
        raw = base64url.decode(signature)
    except base64url.InvalidBase64:
        raise InvalidSignature(SignatureFault.MALFORMED) from None
    if not key.verify(raw, _signing_input(header, payload)):
        raise InvalidSignature(SignatureFault.BAD_SIGNATURE)
    return key


# A pure function; an agent sends the same header with every call. A refused one is not remembered.
@lru_cache(maxsize=_HEADERS_REMEMBERED)
def _read_header(segment: str) -> Header:
    if len(segment) > _HEADER_CHARACTERS_MAX:
        raise InvalidSignature(SignatureFault.HEADER)
    try:
        members = parse_json(base64url.decode(segment))
    except (base64url.InvalidBase64, InvalidJson):
        raise InvalidSignature(SignatureFault.HEADER) from None
    # `jwk`, `jku`, `x5u`, `x5c` would choose the key, `crit`, `b64`, `zip` what is signed: no
    # member is ever ignored.
    if not isinstance(members, dict) or members.keys() != _HEADER_MEMBERS:
        raise InvalidSignature(SignatureFault.HEADER)
    alg, kid, typ = members["alg"], members["kid"], members["typ"]
    if not isinstance(alg, str) or not isinstance(kid, str) or not isinstance(typ, str):
        raise InvalidSignature(SignatureFault.HEADER)
    if len(kid) != _THUMBPRINT_CHARACTERS:
        raise InvalidSignature(SignatureFault.HEADER)
    if alg not in _ALGS:
        raise InvalidSignature(SignatureFault.WRONG_ALG)
    return Header(alg=alg, kid=kid, typ=typ)


def _header_of(signer: Signer, typ: Typ) -> str:
    members = {"alg": signer.alg, "kid": signer.thumbprint, "typ": typ.value}
    return base64url.encode(canonical_bytes(members))


def _signing_input(header: str, payload: str) -> bytes:
    # A foreign letter must not crash the encoder: it cannot verify in any encoding.
    return f"{header}.{payload}".encode(errors="surrogatepass")
