"""How a batch of usage is signed: over the root of a Merkle tree of its events.

Boundary: from the bytes of a batch to what its vendor signs, and one event's proof against it;
what the bytes say is `usage`. Source: spec/metering.md#the-signature-of-a-batch.
"""

from typing import Final, NamedTuple

from farthing.protocol.canonical import Json, canonical_bytes
from farthing.protocol.keys import PublicKey, Signer
from farthing.protocol.merkle import root_of
from farthing.protocol.signatures import (
    KeyOf,
    Typ,
    sign_detached,
    verify_detached,
)

__all__ = ["Signed", "events_in", "sign_batch", "verify_batch"]

# With this begins every event in canonical JSON, and nothing within one.
_BEGIN: Final = b'{"data":{"args_sha256":"'


def events_in(data: bytes) -> list[bytes]:
    """The canonical bytes of each event of a batch, in order; bytes that are no batch are one."""
    if not data.startswith(b"[" + _BEGIN) or not data.endswith(b"]"):
        return [data]
    return [_BEGIN + rest for rest in data[1 + len(_BEGIN) : -1].split(b"," + _BEGIN)]


def sign_batch(signer: Signer, session_id: str, data: bytes) -> str:
    """A vendor's detached signature of a batch; `data` is of `usage.batch_bytes`."""
    return sign_detached(signer, Typ.USAGE, _statement(session_id, data)[0])


class Signed(NamedTuple):
    """By which key a batch is signed, and over which root, in hex."""

    key: PublicKey
    root: str


def verify_batch(jws: str, session_id: str, data: bytes, key_of: KeyOf) -> Signed:
    """Verify that these events, all of them in this order, were signed as usage of a session.

    Raises:
        InvalidSignature: With the reason.
    """
    statement, root = _statement(session_id, data)
    return Signed(verify_detached(jws, Typ.USAGE, statement, key_of), root)


def _statement(session_id: str, data: bytes) -> tuple[bytes, str]:
    """What is signed of a batch, and the root in it."""
    events = events_in(data)
    root = root_of(events).hex()
    document: dict[str, Json] = {"events": len(events), "root": root, "session_id": session_id}
    return canonical_bytes(document), root
