"""The journal's chain and tree: which bytes may come next, and what they add.

Boundary: pure. The writer seals with it, recovery and auditors read with the very same.
Source: spec/journal.md.
"""

from collections.abc import Callable

from farthing.protocol.errors import Unverified
from farthing.protocol.merkle import Tree, leaf_hash
from farthing.protocol.records import (
    GENESIS,
    Record,
    head_of,
    line_of,
    parse_record,
    read_record,
    record_bytes,
)

__all__ = ["BadRecord", "Chain"]


class BadRecord(Unverified):
    """Record `seq` is not what it has to be; `why` says what is wrong with it."""

    def __init__(self, seq: int, why: str) -> None:
        super().__init__(f"record {seq}: {why}")
        self.seq = seq
        self.why = why


class Chain:
    """The records so far: how many, the hash of the last, the tree of all.

    Attributes:
        head: hash of the last record's bytes, which the next record names as `prev`.
        tree: the Merkle tree whose leaf `seq - 1` is record `seq`.
        at_us: the time of the last record read by `read`.
    """

    __slots__ = ("at_us", "head", "tree")

    def __init__(self, *, head: str = GENESIS, tree: Tree | None = None, at_us: int = 0) -> None:
        """Start before the first record, or where somebody else has got to."""
        self.head = head
        self.tree = Tree() if tree is None else tree
        self.at_us = at_us

    @property
    def seq(self) -> int:
        """The position of the last record; 0 before the first."""
        return self.tree.size

    def bytes_of(self, record: Record) -> bytes:
        """The entry of `record` as the next one. Changes nothing.

        Raises:
            InvalidJson: the record holds a value outside the restricted alphabet.
        """
        return record_bytes(record, self.head)

    def add(self, data: bytes) -> None:
        """Take in the next record's entry, unread."""
        self.head = head_of(data)
        self.tree.append(leaf_hash(line_of(data)))

    def read(self, data: bytes) -> Record:
        """Check that `data` is the next record, and take it in.

        Raises:
            BadRecord: it is not; the chain is as before.
        """
        return self._next(data, parse_record)

    def follow(self, data: bytes) -> Record:
        """As `read`, of bytes whose one spelling is known: this program wrote and signed them."""
        return self._next(data, read_record)

    def _next(self, data: bytes, reader: Callable[[bytes], tuple[Record, str]]) -> Record:
        seq = self.seq + 1
        try:
            record, prev = reader(data)
        except Unverified as error:
            raise BadRecord(seq, str(error)) from error
        if record.seq != seq:
            raise BadRecord(seq, f"record {record.seq} stands in its place")
        if prev != self.head:
            # Who looks further may find the fault in the one before: the text is true of either.
            found = f"record {seq} gives the hash of the one before as {prev}"
            raise BadRecord(seq, f"{found}, which is {self.head}: one of the two was changed")
        if record.at_us < self.at_us:
            raise BadRecord(seq, "is earlier than the record before it")
        self.add(data)
        self.at_us = record.at_us
        return record
