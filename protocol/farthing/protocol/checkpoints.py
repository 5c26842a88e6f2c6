"""Signed tree heads as text: the C2SP `tlog-checkpoint` body in a C2SP `signed-note`.

A person can read one, any transparency-log tool can verify one. Ed25519 only, as the formats say.
See spec/merkle.md.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from farthing.protocol.keys import PublicKey, Signer
from farthing.protocol.merkle import EMPTY_ROOT, HASH_BYTES
from farthing.protocol.money import INT64_MAX

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "CheckpointFault",
    "note_key_id",
    "origin_of",
    "sign_checkpoint",
    "verifier_key",
    "verify_checkpoint",
]

# Room for the sixteen signatures that the format bids a verifier take, post-quantum ones included.
_NOTE_CHARACTERS_MAX: Final = 131_072
_SIGNATURES_MAX: Final = 16
_KEY_ID_BYTES: Final = 4
_ED25519: Final = b"\x01"

# A signed-note key name holds no space and no plus; we keep to visible ASCII besides.
_ORIGIN: Final = re.compile(r"[\x21-\x2a\x2c-\x7e]{1,255}")
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_SIGNATURE_LINE: Final = re.compile(r"— ([^\s+\x00-\x1f]+) ([A-Za-z0-9+/]+={0,2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The head of a tree: whose log, how many leaves, which root."""

    origin: str
    size: int
    root: bytes


class CheckpointFault(StrEnum):
    """Why a note is refused."""

    MALFORMED = "malformed"
    WRONG_ORIGIN = "wrong_origin"
    UNSIGNED = "unsigned"
    BAD_SIGNATURE = "bad_signature"


class CheckpointError(ValueError):
    """The note is not a tree head signed by the expected key."""

    def __init__(self, reason: CheckpointFault) -> None:
        super().__init__(reason.value)
        self.reason = reason


def sign_checkpoint(signer: Signer, checkpoint: Checkpoint) -> str:
    """Write a tree head as a signed note, under the log's origin as the key's name.

    Raises:
        CheckpointError: The head cannot be written, or the key is not Ed25519.
    """
    body = _body(checkpoint)
    key_id = note_key_id(checkpoint.origin, signer.public)
    signature = base64.b64encode(key_id + signer.sign(body.encode())).decode()
    return f"{body}\n— {checkpoint.origin} {signature}\n"


def verify_checkpoint(note: str, origin: str, key: PublicKey) -> Checkpoint:
    """Read a tree head of a known log, signed by a known key.

    Lines by other keys (witnesses) are passed over, and every line by this one must verify, as
    the format asks.

    Raises:
        CheckpointError: With the reason.
    """
    if len(note) > _NOTE_CHARACTERS_MAX:
        raise CheckpointError(CheckpointFault.MALFORMED)
    # The body is signed with its last newline; the empty line after it is not.
    body, separator, tail = note.rpartition("\n\n")
    if not separator or not tail.endswith("\n"):
        raise CheckpointError(CheckpointFault.MALFORMED)
    body += "\n"
    checkpoint = _read_body(body)
    if checkpoint.origin != origin:
        raise CheckpointError(CheckpointFault.WRONG_ORIGIN)
    signatures = _signatures_of(tail, origin, note_key_id(origin, key))
    if not signatures:
        raise CheckpointError(CheckpointFault.UNSIGNED)
    if not all(key.verify(signature, body.encode()) for signature in signatures):
        raise CheckpointError(CheckpointFault.BAD_SIGNATURE)
    return checkpoint


def origin_of(note: str) -> str:
    """The log that a note names, which is its first line; nothing is verified by it."""
    return note.partition("\n")[0]


def note_key_id(name: str, key: PublicKey) -> bytes:
    """Give the four bytes by which a signed note hints at an Ed25519 key.

    Raises:
        CheckpointError: The key is not Ed25519.
    """
    if key.alg != "EdDSA":
        raise CheckpointError(CheckpointFault.MALFORMED)
    named = name.encode() + b"\n" + _ED25519 + key.raw
    return hashlib.sha256(named).digest()[:_KEY_ID_BYTES]


def verifier_key(name: str, key: PublicKey) -> str:
    """The line by which other tools of the format know a key: name, key id, type and key.

    Raises:
        CheckpointError: The key is not Ed25519.
    """
    stamped = base64.b64encode(_ED25519 + key.raw).decode()
    return f"{name}+{note_key_id(name, key).hex()}+{stamped}"


def _body(checkpoint: Checkpoint) -> str:
    root = base64.b64encode(checkpoint.root).decode()
    body = f"{checkpoint.origin}\n{checkpoint.size}\n{root}\n"
    # What nobody could read back is not written.
    assert _read_body(body) == checkpoint
    return body


def _read_body(body: str) -> Checkpoint:
    # Origin, size, root, and what follows the last newline. Extension lines are allowed by the
    # format and never written by us: signed words that nobody here understands are refused.
    lines = body.split("\n")
    if len(lines) != 4 or lines[3]:
        raise CheckpointError(CheckpointFault.MALFORMED)
    origin, size, root = lines[0], lines[1], _base64(lines[2])
    if _ORIGIN.fullmatch(origin) is None or _SIZE.fullmatch(size) is None:
        raise CheckpointError(CheckpointFault.MALFORMED)
    if len(root) != HASH_BYTES or int(size) > INT64_MAX or (size == "0") != (root == EMPTY_ROOT):
        raise CheckpointError(CheckpointFault.MALFORMED)
    return Checkpoint(origin=origin, size=int(size), root=root)


def _signatures_of(tail: str, name: str, key_id: bytes) -> list[bytes]:
    lines = tail.removesuffix("\n").split("\n")
    if len(lines) > _SIGNATURES_MAX:
        raise CheckpointError(CheckpointFault.MALFORMED)
    signatures = []
    for line in lines:
        match = _SIGNATURE_LINE.fullmatch(line)
        if match is None:
            raise CheckpointError(CheckpointFault.MALFORMED)
        stamped = _base64(match[2])
        if match[1] == name and stamped.startswith(key_id):
            signatures.append(stamped[_KEY_ID_BYTES:])
    return signatures


def _base64(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise CheckpointError(CheckpointFault.MALFORMED) from None
    if base64.b64encode(data).decode() != text:
        raise CheckpointError(CheckpointFault.MALFORMED)
    return data
