"""The claims of a token, read strictly: exactly those expected, each of its type, within its life.

Boundary: what the three tokens of `proofs` share; what a claim means is said there.
Source: spec/proofs.md.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from farthing.protocol.canonical import Json
from farthing.protocol.keys import InvalidKey, PublicKey
from farthing.protocol.money import INT64_MAX
from farthing.protocol.signatures import (
    InvalidSignature,
    KeyOf,
    SignatureFault,
    Typ,
    verify_compact,
)
from farthing.protocol.times import SECOND_US

__all__ = [
    "SHA256",
    "SKEW_S",
    "ProofError",
    "ProofFault",
    "check_life",
    "confirmed_key",
    "instant_us",
    "life",
    "text_claim",
    "units_claim",
    "verified_claims",
]

SKEW_S: Final = 5
"""How far a signer's clock may run ahead. Nothing is added at the end of a life: a used proof need
be remembered only until the `exp` it carries."""

SHA256: Final = re.compile(r"[0-9a-f]{64}")
_TEXT: Final = re.compile(r"[\x21-\x7e]{1,2048}")
_UNITS: Final = re.compile(r"0|[1-9][0-9]{0,18}")


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


def verified_claims(
    token: str,
    typ: Typ,
    key_of: KeyOf,
    expected: frozenset[str],
    optional: frozenset[str] = frozenset(),
) -> dict[str, Json]:
    """The claims of a token of the type, signed by a key of the registry: all expected, no other.

    Raises:
        ProofError: With the reason.
    """
    try:
        claims = verify_compact(token, typ, key_of)
    except InvalidSignature as fault:
        raise ProofError(_OF_SIGNATURE[fault.reason]) from None
    if not expected <= claims.keys() <= expected | optional:
        raise ProofError(ProofFault.MALFORMED)
    return claims


def life(now_us: int, lifetime_s: int, lifetime_s_max: int) -> dict[str, int]:
    """The claims that bound a token's life; `lifetime` where it is not 1 to the maximum."""
    if not 1 <= lifetime_s <= lifetime_s_max:
        raise ProofError(ProofFault.LIFETIME)
    issued_at_s = now_us // SECOND_US
    return {"iat": issued_at_s, "exp": issued_at_s + lifetime_s}


def check_life(
    issued_at_us: int, expires_at_us: int, now_us: int, lifetime_s_max: int | None
) -> None:
    """Require that a token is alive now; None bounds its life by nothing."""
    lifetime_us = expires_at_us - issued_at_us
    if lifetime_us <= 0 or (
        lifetime_s_max is not None and lifetime_us > lifetime_s_max * SECOND_US
    ):
        raise ProofError(ProofFault.LIFETIME)
    if issued_at_us > now_us + SKEW_S * SECOND_US:
        raise ProofError(ProofFault.NOT_YET_VALID)
    if now_us >= expires_at_us:
        raise ProofError(ProofFault.EXPIRED)


def text_claim(claims: Mapping[str, Json], name: str, pattern: re.Pattern[str] = _TEXT) -> str:
    """A text of the form; visible ASCII unless told otherwise."""
    value = claims[name]
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise ProofError(ProofFault.MALFORMED)
    return value


def units_claim(claims: Mapping[str, Json], name: str) -> int:
    """An amount, from an integer text."""
    units = int(text_claim(claims, name, _UNITS))
    if units > INT64_MAX:
        raise ProofError(ProofFault.MALFORMED)
    return units


def instant_us(claims: Mapping[str, Json], name: str) -> int:
    """An instant in microseconds, from whole seconds."""
    seconds = claims[name]
    # JSON's true is an int to Python: the exact type is asked for.
    if type(seconds) is not int or seconds < 0:
        raise ProofError(ProofFault.MALFORMED)
    return seconds * SECOND_US


def confirmed_key(cnf: Json) -> PublicKey:
    """The one key that a `cnf` claim names (RFC 7800)."""
    jwk = cnf.get("jwk") if isinstance(cnf, dict) and len(cnf) == 1 else None
    if not isinstance(jwk, dict):
        raise ProofError(ProofFault.MALFORMED)
    try:
        return PublicKey.from_jwk(jwk)
    except InvalidKey:
        raise ProofError(ProofFault.MALFORMED) from None
