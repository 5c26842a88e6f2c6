"""Tiles lie where C2SP tlog-tiles says, and the tree can be put together from them alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.protocol.merkle import Tree, leaf_hash, node_hash
from farthing.protocol.tiles import TILE_WIDTH, Tile, parse_tile, tile_of, tile_path

SIZE = 70_000


def grown(size: int) -> Tree:
    tree = Tree()
    for index in range(size):
        tree.append(leaf_hash(index.to_bytes(4)))
    return tree


TREE = grown(SIZE)


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(level=0, index=0), "0/000"),
        (Tile(level=0, index=999), "0/999"),
        (Tile(level=1, index=1000), "1/x001/000"),
        # The example of the specification.
        (Tile(level=4, index=1234067), "4/x001/x234/067"),
        (Tile(level=0, index=273, width=112), "0/273.p/112"),
        (Tile(level=7, index=10**6, width=1), "7/x001/x000/000.p/1"),
    ],
)
def test_a_tile_is_found_at_its_path(tile: Tile, path: str) -> None:
    assert tile_path(tile) == path
    assert parse_tile(path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "", "0", "0/", "0/00", "0/0000", "00/000", "8/000", "-1/000", "0/x000/000", "0/001/000",
        "0/x001", "0/000.p/0", "0/000.p/01", "0/000.p/256", "0/000.p/", "0/000.p", "0/000/",
        "entries/000", "0/000.p/1/000", "0/000\n", "0/\u0661\u0661\u0661",
    ],
)  # fmt: skip
def test_no_other_spelling_is_a_tile(path: str) -> None:
    assert parse_tile(path) is None


def complete(tree: Tree, size: int, level: int) -> list[bytes]:
    """All complete subtrees of a level, read tile by tile as a client does."""
    count = size >> (8 * level)
    nodes: list[bytes] = []
    for index in range((count + TILE_WIDTH - 1) // TILE_WIDTH):
        width = min(TILE_WIDTH, count - index * TILE_WIDTH)
        data = tile_of(tree, level, index, width)
        assert data is not None
        assert len(data) == 32 * width
        nodes += [data[at : at + 32] for at in range(0, len(data), 32)]
    return nodes


def test_the_tiles_give_every_level_and_the_root() -> None:
    leaves, above, top = (complete(TREE, SIZE, level) for level in (0, 1, 2))

    assert len(leaves) == SIZE
    for index, node in enumerate(above):
        assert grown_of(leaves[index * 256 : index * 256 + 256]).root() == node
    assert top == [grown_of(above[:256]).root()]
    # What is left beyond the complete subtrees hangs to their right.
    rest = grown_of(leaves[65_536:]).root()
    assert node_hash(top[0], rest) == TREE.root()


def grown_of(leaves: list[bytes]) -> Tree:
    tree = Tree()
    for leaf in leaves:
        tree.append(leaf)
    return tree


@given(st.integers(0, 2), st.integers(0, 300), st.integers(1, 256))
def test_a_tile_is_given_only_where_the_tree_reaches(level: int, index: int, width: int) -> None:
    reaches = (index * 256 + width) * 256**level <= SIZE

    assert (tile_of(TREE, level, index, width) is not None) == reaches


@pytest.mark.parametrize(
    ("level", "index", "width"), [(-1, 0, 1), (8, 0, 1), (0, -1, 1), (0, 0, 0), (0, 0, 257)]
)
def test_what_is_no_tile_is_not_given(level: int, index: int, width: int) -> None:
    assert tile_of(TREE, level, index, width) is None
