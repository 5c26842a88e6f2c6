"""Signed snapshots: the state, the head and the tree at one record, so that a start reads the tail.

Boundary: bytes in, bytes out; where they lie is the store's business. A snapshot is a shortcut and
never the truth: one that does not verify is passed over. Source: spec/journal.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar, cast

import orjson

from farthing.protocol import base64url
from farthing.protocol.canonical import (
    InvalidJson,
    Json,
    canonical_bytes,
    parse_json,
    sha256_hex,
)
from farthing.protocol.chain import Chain
from farthing.protocol.errors import Unverified
from farthing.protocol.keys import PublicKey, Signer
from farthing.protocol.signatures import InvalidSignature, Typ, sign_detached, verify_detached
from farthing.settlement.journal.machine import Memory
from farthing.settlement.journal.tree import JournalTree, LeavesOf

__all__ = ["SNAPSHOT_VERSION", "OtherVersion", "Snapshot", "make_snapshot", "read_snapshot"]

State = TypeVar("State")

SNAPSHOT_VERSION: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Where a journal stood after record `seq`; `state` is the machine's document of it."""

    seq: int
    chain: Chain
    state: dict[str, Json]


class OtherVersion(Unverified):
    """A snapshot that another version of this program signed; nobody starts from it."""


def make_snapshot(state: State, chain: Chain, memory: Memory[State], signer: Signer) -> bytes:
    """Write down and sign a state that has forgotten what is settled.

    Args:
        state: as of the chain's last record.
        chain: over a `JournalTree`.
        memory: how the state is written down.
        signer: the platform's journal key.
    """
    tree = chain.tree
    assert isinstance(tree, JournalTree)
    tiles, tail = tree.kept()
    body = orjson.dumps(
        {
            "state": memory.pack(state),
            "tail": base64url.encode(tail),
            "tiles": base64url.encode(tiles),
        }
    )
    header = canonical_bytes(
        {
            "at_us": chain.at_us,
            "body_sha256": sha256_hex(body),
            "head_sha256": chain.head,
            "root_sha256": tree.root().hex(),
            "seq": chain.seq,
            "v": SNAPSHOT_VERSION,
        }
    )
    signature = sign_detached(signer, Typ.SNAPSHOT, header)
    return b"\n".join((header, signature.encode(), body))


def read_snapshot(data: bytes, keys: Sequence[PublicKey], leaves_of: LeavesOf) -> Snapshot:
    """The snapshot that `make_snapshot` wrote.

    Args:
        data: what was written.
        keys: the platform's journal keys, now and before.
        leaves_of: reads a complete tile's leaf hashes from the journal.

    Raises:
        OtherVersion: another version of this program wrote it.
        Unverified: it is not one, or is not signed by one of the keys.
    """
    by_thumbprint = {key.thumbprint: key for key in keys}
    try:
        header, signature, body = data.split(b"\n", 2)
        verify_detached(signature.decode(), Typ.SNAPSHOT, header, by_thumbprint.get)
        named = cast("dict[str, Json]", parse_json(header))
        if named["v"] != SNAPSHOT_VERSION:
            raise OtherVersion("the snapshot is of another version")
        if named["body_sha256"] != sha256_hex(body):
            raise Unverified("the snapshot is not the one that was signed")
        kept = cast("dict[str, Json]", orjson.loads(body))
        tree = JournalTree(leaves_of)
        tree.restore(base64url.decode(str(kept["tiles"])), base64url.decode(str(kept["tail"])))
        seq = cast("int", named["seq"])
        if tree.size != seq or tree.root().hex() != named["root_sha256"]:
            raise Unverified("the snapshot's tree is not the one that was signed")
        chain = Chain(head=str(named["head_sha256"]), tree=tree, at_us=cast("int", named["at_us"]))
        return Snapshot(seq=seq, chain=chain, state=cast("dict[str, Json]", kept["state"]))
    except (KeyError, TypeError, ValueError, InvalidJson, InvalidSignature) as error:
        raise Unverified(f"not a snapshot: {error}") from error
