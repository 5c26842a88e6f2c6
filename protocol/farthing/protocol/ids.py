"""Identifiers: TypeIDs, and the two ways their sixteen bytes come about.

Ids of money objects are derived from what asked for them, so that a retry names the same object;
all others are UUIDv7 made from time and entropy that the caller brings (spec/ids.md).
"""

import hashlib
import re
from functools import lru_cache
from typing import Final, NewType

__all__ = [
    "AgreementId",
    "HoldId",
    "InvalidId",
    "ListingId",
    "OrganisationId",
    "PrincipalId",
    "QuoteId",
    "SessionId",
    "derive_id",
    "id_pattern",
    "typeid",
    "uuid7_bytes",
]

PrincipalId = NewType("PrincipalId", str)
OrganisationId = NewType("OrganisationId", PrincipalId)
ListingId = NewType("ListingId", str)
QuoteId = NewType("QuoteId", str)
AgreementId = NewType("AgreementId", str)
HoldId = NewType("HoldId", str)
SessionId = NewType("SessionId", str)

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
# Two letters at a time: an id is made several times on every paid call.
_PAIRS: Final = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
_PAIR_SHIFTS: Final = tuple(range(120, -1, -10))
_RAW_BYTES: Final = 16
_ENTROPY_BYTES: Final = 10
_MS_MAX: Final = 2**48 - 1
# 26 letters carry 130 bits, the id has 128: the first letter never passes 7.
_SUFFIX: Final = f"[0-7][{_ALPHABET}]{{25}}"
_PREFIX: Final = re.compile(r"[a-z](?:[a-z_]{0,61}[a-z])?")


class InvalidId(ValueError):
    """The parts cannot make a TypeID."""


def typeid(prefix: str, raw: bytes) -> str:
    """Write sixteen bytes as `prefix_` and 26 Crockford base32 letters (TypeID 0.3).

    Raises:
        InvalidId: The prefix is not lower-case letters, or there are not sixteen bytes.
    """
    _check_prefix(prefix)
    if len(raw) != _RAW_BYTES:
        raise InvalidId("an id has sixteen bytes")
    number = int.from_bytes(raw)
    return f"{prefix}_" + "".join([_PAIRS[number >> shift & 1023] for shift in _PAIR_SHIFTS])


def derive_id(prefix: str, *parts: str) -> str:
    """Name an object by what asked for it: same parts, same id.

    The bytes are the first sixteen of SHA-256 over the prefix and the parts, each as UTF-8 behind
    its length in four bytes, with the version and variant bits of UUIDv8 set.

    Raises:
        InvalidId: The prefix is not lower-case letters.
    """
    texts = [part.encode() for part in (prefix, *parts)]
    named = b"".join([len(text).to_bytes(4) + text for text in texts])
    return typeid(prefix, _stamped(hashlib.sha256(named).digest()[:_RAW_BYTES], version=8))


def uuid7_bytes(ms: int, entropy: bytes) -> bytes:
    """Lay out a UUIDv7 (RFC 9562, 5.7).

    Args:
        ms: Milliseconds since 1970, 48 bits.
        entropy: Ten random bytes, of which 74 bits are used.

    Raises:
        InvalidId: The time or the entropy has the wrong size.
    """
    if not 0 <= ms <= _MS_MAX or len(entropy) != _ENTROPY_BYTES:
        raise InvalidId("a UUIDv7 takes 48 bits of milliseconds and ten bytes of entropy")
    return _stamped(ms.to_bytes(6) + entropy, version=7)


def id_pattern(prefix: str) -> str:
    """Give the anchored regular expression that the ids of one prefix match."""
    _check_prefix(prefix)
    return f"^{prefix}_{_SUFFIX}$"


@lru_cache(maxsize=64)
def _check_prefix(prefix: str) -> None:
    if _PREFIX.fullmatch(prefix) is None:
        raise InvalidId("a prefix is one to 63 lower-case letters, with underscores inside")


def _stamped(raw: bytes, *, version: int) -> bytes:
    stamped = bytearray(raw)
    stamped[6] = version << 4 | raw[6] & 0x0F
    stamped[8] = 0x80 | raw[8] & 0x3F
    return bytes(stamped)
