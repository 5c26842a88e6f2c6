"""The receipt: a journal record, its audit path and the signed tree head it is proven under.

Boundary: pure, for one record. It proves that the platform wrote the record into its journal; what
the record must say is the affair of `evidence`. Source: spec/receipts.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from farthing.protocol.checkpoints import (
    Checkpoint,
    CheckpointError,
    origin_of,
    verify_checkpoint,
)
from farthing.protocol.errors import Unverified
from farthing.protocol.keys import PublicKey
from farthing.protocol.merkle import leaf_hash, read_path, verify_inclusion
from farthing.protocol.messages.charges import Receipt
from farthing.protocol.records import Record, line_of, parse_record

__all__ = ["Proven", "make_receipt", "verify_receipt"]

# Origin, size, root, an empty line, one signature, and nothing after the last newline.
_NOTE_LINES: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """A record that stands in the journal of `head.origin`.

    Args:
        record: what the record says.
        data: its bytes.
        prev: the hash of the bytes of the record before it.
        head: the tree head it was proven under.
    """

    record: Record
    data: bytes
    prev: str
    head: Checkpoint


def make_receipt(*, seq: int, record: bytes, path: Sequence[bytes], tree_head: str) -> Receipt:
    """The receipt of a record, of what the journal keeps.

    Args:
        seq: the record's place, from 1.
        record: its bytes.
        path: the raw hashes of the inclusion proof of leaf `seq - 1` under the head.
        tree_head: the signed note.
    """
    return Receipt(
        seq=seq,
        record=record.decode(),
        proof=tuple(each.hex() for each in path),
        tree_head=tree_head,
    )


def verify_receipt(receipt: Receipt, key: PublicKey) -> Proven:
    """Verify a receipt with the platform's journal key. Every byte of it counts.

    Args:
        receipt: as it was given.
        key: the key that must have signed the tree head. Whether it is the platform's is for the
            caller to know: compare `key.thumbprint` with one that was learnt elsewhere.

    Raises:
        Unverified: naming the first thing that failed.
    """
    where = f"receipt {receipt.seq}"
    head = _head(receipt.tree_head, key, where)
    try:
        data = receipt.record.encode()
        path = read_path(receipt.proof)
    except ValueError as error:
        raise Unverified(f"{where}: the record is no text or the proof no hashes") from error
    if not verify_inclusion(leaf_hash(line_of(data)), receipt.seq - 1, head.size, path, head.root):
        raise Unverified(f"{where}: the record is not in the tree that the platform signed")
    record, prev = parse_record(data)
    if record.seq != receipt.seq:
        raise Unverified(f"{where}: the record calls itself {record.seq}")
    return Proven(record=record, data=data, prev=prev, head=head)


def _head(note: str, key: PublicKey, where: str) -> Checkpoint:
    # Lines by witnesses would be bytes that the journal's key says nothing of.
    if note.count("\n") != _NOTE_LINES - 1:
        raise Unverified(f"{where}: the tree head is not a note with one signature")
    try:
        return verify_checkpoint(note, origin_of(note), key)
    except CheckpointError as error:
        text = f"{where}: the tree head is not signed by {key.thumbprint}: {error.reason}"
        raise Unverified(text) from error
