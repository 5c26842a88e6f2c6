"""Succession of the platform's keys: the old one names the new one, so that who pinned it follows.

Boundary: pure; where successions are kept and published is `identity.keyring`'s affair, when they
are asked for the clients'. Source: spec/keys-and-signatures.md#succession.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from farthing.protocol.canonical import InvalidJson, Json, canonical_bytes
from farthing.protocol.keys import InvalidKey, PublicKey, Signer
from farthing.protocol.signatures import InvalidSignature, Typ, sign_detached, verify_detached

__all__ = ["SUCCESSIONS", "SUCCESSIONS_MAX", "followed", "sign_succession"]

SUCCESSIONS: Final = "org.farthing/successions"
"""The member of the platform's key set that lists them, oldest first."""

# At one a month, eighty years.
SUCCESSIONS_MAX: Final = 1_000
_SCHEMA: Final = "farthing-succession/1"
_JWK_MEMBERS: Final = frozenset({"kty", "crv", "x", "y"})


def sign_succession(old: Signer, new: PublicKey, *, origin: str, purpose: str) -> dict[str, Json]:
    """What the old key says of the new one, with its signature.

    Args:
        old: the key that signs from now on no more.
        new: the key that signs instead.
        origin: the journal's name.
        purpose: what both are for.
    """
    document: dict[str, Json] = {
        "schema": _SCHEMA,
        "origin": origin,
        "purpose": purpose,
        "key": dict(new.jwk()),
    }
    signature = sign_detached(old, Typ.SUCCESSION, canonical_bytes(document))
    return {"document": document, "signature": signature}


def followed(pinned: Mapping[str, PublicKey], successions: Iterable[object]) -> list[PublicKey]:
    """The keys that those pinned lead to, each by the signature of one that is believed already.

    Args:
        pinned: what is believed, by thumbprint.
        successions: as they were published, oldest first; what is not one is passed over.
    """
    known = dict(pinned)
    for each, _ in zip(successions, range(SUCCESSIONS_MAX), strict=False):
        if (key := _successor(each, known)) is not None:
            known.setdefault(key.thumbprint, key)
    return [key for thumbprint, key in known.items() if thumbprint not in pinned]


def _successor(succession: object, known: Mapping[str, PublicKey]) -> PublicKey | None:
    if not isinstance(succession, dict):
        return None
    document, signature = succession.get("document"), succession.get("signature")
    if not isinstance(document, dict) or not isinstance(signature, str):
        return None
    jwk = document.get("key")
    if document.get("schema") != _SCHEMA or not isinstance(jwk, dict) or jwk.keys() - _JWK_MEMBERS:
        return None
    try:
        verify_detached(signature, Typ.SUCCESSION, canonical_bytes(document), known.get)
        return PublicKey.from_jwk({name: str(value) for name, value in jwk.items()})
    except (InvalidJson, InvalidKey, InvalidSignature):
        return None
