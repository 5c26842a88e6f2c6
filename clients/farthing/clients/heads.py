"""Watching that a journal only grows: its newest signed head beside one that was kept.

Boundary: what a platform proves of its journal to anybody; no record is looked at. Source:
spec/merkle.md.
"""

from functools import partial

from farthing.clients.pins import Pinning
from farthing.protocol.checkpoints import (
    Checkpoint,
    CheckpointError,
    origin_of,
    verify_checkpoint,
)
from farthing.protocol.errors import Code, Refused, Unverified
from farthing.protocol.keys import PublicKey
from farthing.protocol.merkle import EMPTY_ROOT, read_path, verify_consistency
from farthing.protocol.messages.trails import (
    GET_CONSISTENCY_PROOF,
    ConsistencyProof,
    GetConsistencyProof,
)

__all__ = ["Watcher"]


class Watcher(Pinning):
    """Whoever keeps a journal's heads, and holds the newest against them."""

    async def newest_head(self, kept: str = "") -> str:
        """The newest head, a signed note, proven to only add to one that was kept.

        Args:
            kept: An earlier head; without one the newest is held against its signature alone.

        Raises:
            Unverified: One of them is not signed by the journal's keys, or the journal does not
                hold what the kept one covers: the two together prove it to anybody.
            Refused, Unreachable: As `Connection.call`.
        """
        before = Checkpoint(origin="", size=0, root=EMPTY_ROOT)
        if kept:
            before = await self._head(kept)
        ask = GetConsistencyProof(first_size=before.size)
        try:
            proof = await self.connection.call(GET_CONSISTENCY_PROOF, ask)
        except Refused as refused:
            if refused.code is not Code.NOT_FOUND:
                raise
            text = f"the journal ends before record {before.size}, which the head that was kept"
            raise Unverified(f"{text} covers: it was cut, or an older copy is served") from None
        after = await self._head(proof.tree_head)
        if not _grows(before, after, proof):
            text = f"the journal of {after.size} records is another than the one of {before.size}"
            raise Unverified(f"{text} whose head was kept: keep both heads, they prove it")
        return proof.tree_head

    async def _head(self, note: str) -> Checkpoint:
        keys = await self.platform_keys()
        return await keys.by_journal(note, partial(_signed, note))


def _signed(note: str, key: PublicKey) -> Checkpoint:
    try:
        return verify_checkpoint(note, origin_of(note), key)
    except CheckpointError as error:
        raise Unverified(f"the head does not verify: {error}") from None


def _grows(before: Checkpoint, after: Checkpoint, proof: ConsistencyProof) -> bool:
    if before.size and before.origin != after.origin:
        return False
    try:
        path = read_path(proof.proof)
    except (TypeError, ValueError):
        return False
    sizes = (proof.first_size, proof.second_size) == (before.size, after.size)
    return sizes and verify_consistency(before.size, after.size, before.root, after.root, path)
