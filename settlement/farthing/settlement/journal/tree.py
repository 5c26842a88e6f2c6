"""The journal's Merkle tree in a quarter of a byte a record: tiles of 256 leaves.

Boundary: a `Tree` like any other; of a tile that is complete only its root is kept, and the leaves
are hashed anew from the journal when a proof asks for them. Source: spec/merkle.md.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from farthing.protocol.merkle import HASH_BYTES, Tree

__all__ = ["TILE_LEAVES", "JournalTree", "LeavesOf"]

_TILE_LEVEL: Final = 8
TILE_LEAVES: Final = 2**_TILE_LEVEL
_TILES_KEPT: Final = 64

LeavesOf = Callable[[int], list[bytes]]
"""The leaf hashes of a complete tile, by its number."""


class JournalTree(Tree):
    """A tree that forgets what the journal can tell again.

    Args:
        leaves_of: reads a complete tile's leaf hashes from the journal.
    """

    __slots__ = ("_tail", "_tile", "_tiles")

    def __init__(self, leaves_of: LeavesOf) -> None:
        super().__init__()
        self._tiles = Tree()
        self._tail = Tree()
        self._tile = lru_cache(maxsize=_TILES_KEPT)(lambda number: _tree(leaves_of(number)))

    @property
    def size(self) -> int:
        return self._tiles.size * TILE_LEAVES + self._tail.size

    def append(self, leaf: bytes) -> int:
        index = self._tiles.size * TILE_LEAVES + self._tail.append(leaf)
        if self._tail.size == TILE_LEAVES:
            self._tiles.append(self._tail.root())
            self._tail = Tree()
        return index

    def node(self, level: int, position: int) -> bytes:
        if level >= _TILE_LEVEL:
            return self._tiles.node(level - _TILE_LEVEL, position)
        number, within = divmod(position, TILE_LEAVES >> level)
        tile = self._tail if number == self._tiles.size else self._tile(number)
        return tile.node(level, within)

    def kept(self) -> tuple[bytes, bytes]:
        """What a snapshot needs: the roots of all complete tiles, the leaves of the last one."""
        return _nodes(self._tiles), _nodes(self._tail)

    def restore(self, tiles: bytes, tail: bytes) -> None:
        """Become the tree that `kept` described.

        Raises:
            ValueError: that is not a list of hashes.
        """
        self._tiles, self._tail = _tree(_hashes(tiles)), _tree(_hashes(tail))


def _tree(leaves: list[bytes]) -> Tree:
    tree = Tree()
    for leaf in leaves:
        tree.append(leaf)
    return tree


def _nodes(tree: Tree) -> bytes:
    return b"".join(tree.node(0, position) for position in range(tree.size))


def _hashes(nodes: bytes) -> list[bytes]:
    return [nodes[at : at + HASH_BYTES] for at in range(0, len(nodes), HASH_BYTES)]
