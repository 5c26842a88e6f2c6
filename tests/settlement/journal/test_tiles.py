"""The tree that forgets its leaves gives the same tiles and proofs as one that keeps them."""

import pytest

from farthing.protocol.merkle import Tree, leaf_hash, verify_consistency
from farthing.protocol.tiles import tile_of
from farthing.settlement.engine.questions import Consistency, ConsistencyOf, TileAt, TreeHeadNow
from farthing.settlement.journal.tree import TILE_LEAVES, JournalTree
from tests.settlement.journal.bank import Ask, command, stepper
from tests.settlement.journal.storage import Storage

SIZE = 3 * TILE_LEAVES + 44
LEAVES = [leaf_hash(index.to_bytes(4)) for index in range(SIZE)]


def both() -> tuple[Tree, JournalTree]:
    kept = Tree()
    forgetful = JournalTree(lambda tile: LEAVES[tile * TILE_LEAVES : (tile + 1) * TILE_LEAVES])
    for leaf in LEAVES:
        kept.append(leaf)
        forgetful.append(leaf)
    return kept, forgetful


KEPT, FORGETFUL = both()


@pytest.mark.parametrize(
    ("level", "index", "width"),
    [(0, 0, 256), (0, 2, 256), (0, 3, 44), (0, 3, 45), (0, 1, 7), (1, 0, 3), (1, 0, 4), (2, 0, 1)],
)
def test_tiles_are_the_same(level: int, index: int, width: int) -> None:
    given = tile_of(FORGETFUL, level, index, width)

    assert given == tile_of(KEPT, level, index, width)


@pytest.mark.parametrize("first", [1, 2, 255, 256, 257, 512, 700, SIZE])
def test_growth_is_proven_the_same(first: int) -> None:
    path = FORGETFUL.consistency(first, SIZE)

    assert path == KEPT.consistency(first, SIZE)
    assert verify_consistency(first, SIZE, KEPT.root(first), KEPT.root(), path)


def test_a_journal_answers_what_its_tree_holds(storage: Storage) -> None:
    engine = stepper(storage.open())
    engine.open()
    for number in range(5):
        engine.step([command("fund_account", f"key-{number}", Ask(units=1))])

    proof = engine.answer(ConsistencyOf(first=2))
    leaves = engine.answer(TileAt(level=0, index=0, width=5))

    assert isinstance(proof, Consistency)
    assert isinstance(leaves, bytes)
    tree = Tree()
    for at in range(0, len(leaves), 32):
        tree.append(leaves[at : at + 32])
    assert (proof.first, proof.second, proof.note) == (2, 5, engine.answer(TreeHeadNow()))
    assert list(proof.path) == tree.consistency(2, 5)
    assert engine.answer(TileAt(level=0, index=0, width=6)) is None
    assert engine.answer(ConsistencyOf(first=6)) is None
    assert engine.answer(ConsistencyOf(first=1, second=6)) is None
    engine.close()
