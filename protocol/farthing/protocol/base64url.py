"""Base64url without padding, in its one spelling (RFC 7515, section 2).

Python's decoder skips letters it does not know and ignores the spare bits of the last one, so one
signature would have many spellings; here each byte string has exactly one.
"""

import base64
import binascii

__all__ = ["InvalidBase64", "decode", "encode", "is_sha256"]

_SHA256_BYTES = 32


class InvalidBase64(ValueError):
    """The text is not the one unpadded base64url spelling of any bytes."""


def encode(data: bytes) -> str:
    """Spell bytes."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes:
    """Read bytes back.

    Raises:
        InvalidBase64: Padding, a foreign letter, a length no bytes have, or stray last bits.
    """
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise InvalidBase64("not base64url") from None
    if encode(data) != text:
        raise InvalidBase64("not the one spelling of these bytes")
    return data


def is_sha256(text: str) -> bool:
    """Whether a text spells a SHA-256, as the thumbprint of a key does (RFC 7638)."""
    try:
        return len(decode(text)) == _SHA256_BYTES
    except InvalidBase64:
        return False
