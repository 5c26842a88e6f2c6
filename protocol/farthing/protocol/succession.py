"""Succession of the platform's keys: one names the next, so that who pinned it follows.

Boundary: pure; where successions are kept and published is `identity.keyring`'s affair, when they
are asked for the clients'. Source: spec/keys-and-signatures.md#succession.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from farthing.protocol.canonical import InvalidJson, Json, canonical_bytes
from farthing.protocol.keys import JWK_MEMBERS, InvalidKey, PublicKey, Signer
from farthing.protocol.platform_keys import PlatformKeys, PlatformPurpose
from farthing.protocol.signatures import InvalidSignature, Typ, sign_detached, verify_detached

__all__ = ["SUCCESSIONS", "followed", "sign_succession", "successions_in"]

SUCCESSIONS: Final = "org.farthing/successions"
"""The member of the platform's key set that lists them."""

# At one a month, eighty years.
_SUCCESSIONS_MAX: Final = 1_000
_SCHEMA: Final = "farthing-succession/1"


def sign_succession(
    by: Signer, key: PublicKey, *, origin: str, purpose: PlatformPurpose
) -> dict[str, Json]:
    """What one key says of another, with its signature.

    Args:
        by: the key that signs from now on no more; or the journal's, for a `platform` key.
        key: the key that is named.
        origin: the journal's name.
        purpose: what it is for.
    """
    document: dict[str, Json] = {
        "schema": _SCHEMA,
        "origin": origin,
        "purpose": purpose.value,
        "key": dict(key.jwk()),
    }
    signature = sign_detached(by, Typ.SUCCESSION, canonical_bytes(document))
    return {"document": document, "signature": signature}


def successions_in(key_set: Mapping[str, object]) -> Sequence[object]:
    """What a published key set lists of them: nothing where that is no list."""
    listed = key_set.get(SUCCESSIONS)
    return listed if isinstance(listed, list) else ()


def followed(pinned: PlatformKeys, successions: Iterable[object], origin: str = "") -> PlatformKeys:
    """The keys pinned and those that they lead to.

    A key is led to by one that is believed for the same purpose, or for the journal.

    Args:
        pinned: what is believed.
        successions: as they were published, each after those that lead to its signer; what is not
            one is passed over.
        origin: the log whose keys are asked for: what names another is passed over. Empty where
            it is not known.
    """
    platform, journal = dict(pinned.platform), dict(pinned.journal)
    known = {PlatformPurpose.PLATFORM: platform, PlatformPurpose.JOURNAL: journal}
    for each, _ in zip(successions, range(_SUCCESSIONS_MAX), strict=False):
        _follow(each, known, origin)
    return PlatformKeys(platform=platform, journal=journal)


def _follow(
    succession: object, known: Mapping[PlatformPurpose, dict[str, PublicKey]], origin: str
) -> None:
    if not isinstance(succession, dict):
        return
    document, signature = succession.get("document"), succession.get("signature")
    if not isinstance(document, dict) or not isinstance(signature, str):
        return
    purpose, jwk = document.get("purpose"), document.get("key")
    if document.get("schema") != _SCHEMA or not isinstance(purpose, str) or purpose not in known:
        return
    if origin and document.get("origin") != origin:
        return
    if not isinstance(jwk, dict) or jwk.keys() - JWK_MEMBERS:
        return
    believed = known[PlatformPurpose(purpose)]
    signers = {**known[PlatformPurpose.JOURNAL], **believed}
    try:
        verify_detached(signature, Typ.SUCCESSION, canonical_bytes(document), signers.get)
        key = PublicKey.from_jwk({name: str(value) for name, value in jwk.items()})
    except (InvalidJson, InvalidKey, InvalidSignature):
        return
    believed.setdefault(key.thumbprint, key)
