"""A batch in the making: records become bytes, chained, in the tree, under one signed head.

Boundary: no storage and no threads. Source: spec/journal.md.
"""

from collections.abc import Sequence

from farthing.protocol.chain import Chain
from farthing.protocol.checkpoints import Checkpoint, sign_checkpoint
from farthing.protocol.keys import Signer
from farthing.protocol.records import Record
from farthing.settlement.engine.commands import Committed
from farthing.settlement.journal.store import Batch, Row

__all__ = ["Draft", "sign_head"]


class Draft:
    """The records after the last durable one, in order, not yet committed.

    Adding a record moves `chain` on: if the batch is not committed, the chain is of no more use.
    """

    def __init__(self, chain: Chain) -> None:
        self.records: list[Record] = []
        self.size_bytes = 0
        self._chain = chain
        self._after_seq = chain.seq
        self._data: list[bytes] = []
        self._rows: list[Row] = []

    def add(self, record: Record, data: bytes, rows: Sequence[Row]) -> None:
        """Take the next record, with its bytes as `chain.bytes_of` gave them."""
        assert record.seq == self._chain.seq + 1, "a record follows the last one"
        self._chain.add(data)
        self.records.append(record)
        self._data.append(data)
        self.size_bytes += len(data)
        self._rows += rows

    def record(self, seq: int) -> Record | None:
        """A record of this batch by its position."""
        index = seq - self._after_seq - 1
        return self.records[index] if 0 <= index < len(self.records) else None

    @property
    def committed(self) -> list[Committed]:
        """The records as they are kept once they are durable."""
        first_seq = self._after_seq + 1
        return [Committed(seq=seq, data=data) for seq, data in enumerate(self._data, first_seq)]

    def seal(self, *, epoch: int, signer: Signer, origin: str) -> Batch:
        """The batch, under a head signed for the log `origin`."""
        assert self.records, "a batch is never empty"
        return Batch(
            epoch=epoch,
            first_seq=self._after_seq + 1,
            records=tuple(self._data),
            head_sha256=self._chain.head,
            root_sha256=self._chain.tree.root().hex(),
            note=sign_head(self._chain, signer, origin),
            at_us=self.records[-1].at_us,
            rows=tuple(self._rows),
        )


def sign_head(chain: Chain, signer: Signer, origin: str) -> str:
    """The signed note over the tree as it is now.

    Raises:
        CheckpointError: the origin cannot be written, or the key is not Ed25519.
    """
    head = Checkpoint(origin=origin, size=chain.seq, root=chain.tree.root())
    return sign_checkpoint(signer, head)
