"""A Merkle tree of hashes that only grows, and its two proofs (RFC 6962, RFC 9162).

The tree is kept by whoever keeps the journal; whoever doubts it needs the verifying functions
alone. See spec/merkle.md.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

__all__ = [
    "EMPTY_ROOT",
    "HASH_BYTES",
    "Tree",
    "inclusion_of",
    "leaf_hash",
    "node_hash",
    "read_path",
    "root_of",
    "verify_consistency",
    "verify_inclusion",
]

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """Hash an entry; the leading zero byte keeps a leaf from passing for a node."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two subtrees into one."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def read_path(texts: object) -> list[bytes]:
    """The hashes of a path, a list of texts, from their one spelling: 64 lower-case hex digits.

    Raises:
        ValueError: One of them is spelt otherwise, or is no hash.
        TypeError: It is no list, or one of them is no text.
    """
    if not isinstance(texts, list | tuple):
        raise TypeError("a path is a list")
    path: list[bytes] = []
    for text in texts:
        node = bytes.fromhex(text)
        # `fromhex` takes capitals and blanks as well: a second spelling is a changed byte.
        if node.hex() != text or len(node) != HASH_BYTES:
            raise ValueError("a hash is spelt otherwise")
        path.append(node)
    return path


def root_of(entries: Sequence[bytes]) -> bytes:
    """Hash a whole list of entries, of which nothing is kept."""
    if not entries:
        return EMPTY_ROOT
    sha256 = hashlib.sha256
    level = [sha256(b"\x00" + entry).digest() for entry in entries]
    while len(level) > 1:
        # What has no neighbour on its level is carried up as it is.
        alone = level[-1:] if len(level) & 1 else []
        pairs = zip(level[::2], level[1::2], strict=False)
        level = [sha256(b"\x01" + left + right).digest() for left, right in pairs] + alone
    return level[0]


def inclusion_of(entries: Sequence[bytes], index: int) -> list[bytes]:
    """Prove that an entry is in a whole list; raises ValueError where there is none."""
    tree = Tree()
    for entry in entries:
        tree.append(leaf_hash(entry))
    return tree.inclusion(index, tree.size)


class Tree:
    """All complete subtrees of a growing list of leaf hashes, some 64 bytes a leaf.

    Level k holds the hashes of the complete subtrees of 2**k leaves, one after another, so that
    every question is a walk of at most twice the height.
    """

    __slots__ = ("_levels",)

    def __init__(self) -> None:
        """Start empty."""
        self._levels: list[bytearray] = [bytearray()]

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return len(self._levels[0]) // HASH_BYTES

    def append(self, leaf: bytes) -> int:
        """Add a leaf hash and give its index.

        Raises:
            ValueError: It is not a hash.
        """
        if len(leaf) != HASH_BYTES:
            raise ValueError("a leaf is added by its hash of 32 bytes")
        index = self.size
        node, position, level = leaf, index, 0
        self._levels[0] += node
        while position & 1:
            node = node_hash(self.node(level, position - 1), node)
            position, level = position >> 1, level + 1
            if level == len(self._levels):
                self._levels.append(bytearray())
            self._levels[level] += node
        return index

    def root(self, size: int | None = None) -> bytes:
        """Hash the first `size` leaves, or all of them.

        Raises:
            ValueError: The tree was never that large.
        """
        size = self.size if size is None else size
        self._check_size(size)
        return self._range(0, size) if size else EMPTY_ROOT

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """Prove that a leaf is in the tree of the first `size` leaves.

        Raises:
            ValueError: The tree was never that large, or had no such leaf.
        """
        self._check_size(size)
        if not 0 <= index < size:
            raise ValueError("no such leaf in a tree of that size")
        proof: list[bytes] = []
        start, end = 0, size
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                proof.append(self._range(middle, end))
                end = middle
            else:
                proof.append(self._range(start, middle))
                start = middle
        proof.reverse()
        return proof

    def consistency(self, first: int, second: int) -> list[bytes]:
        """Prove that the tree of `second` leaves begins with the tree of `first`.

        Raises:
            ValueError: The tree was never that large, or the sizes are not in order.
        """
        self._check_size(second)
        if not 0 <= first <= second:
            raise ValueError("the first size is at most the second")
        if first in {0, second}:
            return []
        proof: list[bytes] = []
        start, end = 0, second
        # The subtree that ends where the first tree ended; the verifier knows its hash already
        # when it is the whole first tree.
        while end != first:
            middle = start + _split(end - start)
            if first <= middle:
                proof.append(self._range(middle, end))
                end = middle
            else:
                proof.append(self._range(start, middle))
                start = middle
        if start:
            proof.append(self._range(start, end))
        proof.reverse()
        return proof

    def _range(self, start: int, end: int) -> bytes:
        # Hash of the leaves from start to end, where start is a multiple of the next power of two.
        width = end - start
        if width & (width - 1) == 0:
            level = width.bit_length() - 1
            return self.node(level, start >> level)
        middle = start + _split(width)
        return node_hash(self._range(start, middle), self._range(middle, end))

    def node(self, level: int, position: int) -> bytes:
        """Hash of the complete subtree of `2**level` leaves at a position of its level."""
        offset = position * HASH_BYTES
        return bytes(self._levels[level][offset : offset + HASH_BYTES])

    def _check_size(self, size: int) -> None:
        if not 0 <= size <= self.size:
            raise ValueError("the tree was never that large")


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> bool:
    """Say whether the proof shows the leaf hash at the index of the tree (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size or not _are_hashes(leaf, root, *proof):
        return False
    position, last, node = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            node = node_hash(sibling, node)
            while position and not position & 1:
                position, last = position >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and node == root


def verify_consistency(
    first: int, second: int, root1: bytes, root2: bytes, proof: Sequence[bytes]
) -> bool:
    """Say whether the proof shows that the second tree only adds to the first (9162, 2.1.4.2)."""
    if not 0 <= first <= second or not _are_hashes(root1, root2, *proof):
        return False
    if first == second:
        return not proof and root1 == root2
    if first == 0:
        return not proof and root1 == EMPTY_ROOT
    # A first tree that is one complete subtree stands for itself at the head of the path.
    path = list(proof) if first & (first - 1) else [root1, *proof]
    if not path:
        return False
    position, last = first - 1, second - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old = new = path[0]
    for node in path[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            old, new = node_hash(node, old), node_hash(node, new)
            while position and not position & 1:
                position, last = position >> 1, last >> 1
        else:
            new = node_hash(new, node)
        position, last = position >> 1, last >> 1
    return last == 0 and old == root1 and new == root2


def _split(width: int) -> int:
    """Give the largest power of two below the width."""
    return 1 << (width - 1).bit_length() - 1


def _are_hashes(*nodes: bytes) -> bool:
    return all(len(node) == HASH_BYTES for node in nodes)
