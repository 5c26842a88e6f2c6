"""The bundle of a real trade, made by the real engine and sealed in batches by a real key."""

from collections.abc import Iterator, Sequence

from farthing.protocol.bundles import bundle_lines
from farthing.protocol.checkpoints import Checkpoint, sign_checkpoint
from farthing.protocol.keys import PrivateKey
from farthing.protocol.merkle import Tree, leaf_hash
from tests.protocol.evidence_market import JOURNAL_KEY, ORIGIN, QUOTE_KEY, Told

__all__ = ["BATCH", "batches", "bundled", "traded"]

BATCH = 4


def traded() -> Told:
    """A market with a charge, a refund, a dispute, an expired hold and a refusal."""
    told = Told.of(rotated=True, held=14)
    told.refund(1_000)
    told.dispute("not_delivered")
    told.trade.room.advance(10**6)
    told.trade.held(3)
    told.trade.room.advance(10**6)
    told.trade.room.hold(told.trade.agent, told.trade.agreement_id, 10**6)
    told.trade.held(2)
    return told


def batches(
    records: Sequence[bytes], key: PrivateKey = JOURNAL_KEY
) -> Iterator[tuple[Sequence[bytes], str]]:
    """The records, some at a time, each time under a signed head."""
    tree = Tree()
    for start in range(0, len(records), BATCH):
        batch = records[start : start + BATCH]
        for data in batch:
            tree.append(leaf_hash(data))
        head = Checkpoint(origin=ORIGIN, size=tree.size, root=tree.root())
        yield batch, sign_checkpoint(key, head)


def bundled(records: Sequence[bytes], key: PrivateKey = JOURNAL_KEY) -> list[bytes]:
    """The lines of the bundle."""
    lines = bundle_lines(
        batches(records, key),
        origin=ORIGIN,
        journal_keys=[key.public],
        quote_keys=[QUOTE_KEY.public],
    )
    return list(lines)
