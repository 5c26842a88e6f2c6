"""The tree agrees with RFC 6962, and its proofs show what they say and nothing else."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.protocol.merkle import (
    EMPTY_ROOT,
    Tree,
    leaf_hash,
    node_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from tests.protocol.vectors import vectors

VECTORS = vectors("merkle")
LEAVES = [bytes.fromhex(leaf) for leaf in VECTORS["leaf_hashes"]]
ROOTS = [bytes.fromhex(root) for root in VECTORS["roots"]]
SIZE = 70
OTHER = leaf_hash(b"another")


def grown(leaves: list[bytes]) -> Tree:
    tree = Tree()
    for leaf in leaves:
        tree.append(leaf)
    return tree


CLASSIC = grown(LEAVES)
LARGE_LEAVES = [leaf_hash(bytes([index])) for index in range(SIZE)]
LARGE = grown(LARGE_LEAVES)


def hashes(case: dict[str, Any]) -> list[bytes]:
    return [bytes.fromhex(node) for node in case["proof"]]


def plain_root(leaves: list[bytes]) -> bytes:
    """Hash a list as RFC 6962, section 2.1 defines it, for want of anything simpler."""
    if len(leaves) < 2:
        return leaves[0] if leaves else EMPTY_ROOT
    split = 1
    while 2 * split < len(leaves):
        split *= 2
    return node_hash(plain_root(leaves[:split]), plain_root(leaves[split:]))


def plain_consistency(first: int, leaves: list[bytes], *, whole: bool = True) -> list[bytes]:
    """Prove consistency as RFC 6962, section 2.1.2 defines it."""
    if first == len(leaves):
        return [] if whole else [plain_root(leaves)]
    split = 1
    while 2 * split < len(leaves):
        split *= 2
    if first <= split:
        return [*plain_consistency(first, leaves[:split], whole=whole), plain_root(leaves[split:])]
    return [
        *plain_consistency(first - split, leaves[split:], whole=False),
        plain_root(leaves[:split]),
    ]


def spoiled(proof: list[bytes]) -> Iterator[list[bytes]]:
    """Give a proof with one thing wrong with it, in every way."""
    for index, node in enumerate(proof):
        yield [*proof[:index], bytes([node[0] ^ 1]) + node[1:], *proof[index + 1 :]]
        yield [*proof[:index], *proof[index + 1 :]]
        yield [*proof[:index], node[:-1], *proof[index + 1 :]]
    for extra in (OTHER, EMPTY_ROOT, b"", *proof):
        yield [*proof, extra]
        yield [extra, *proof]


def test_a_leaf_is_hashed_apart_from_a_node() -> None:
    assert [leaf_hash(bytes.fromhex(leaf)) for leaf in VECTORS["leaves"]] == LEAVES
    assert leaf_hash(LEAVES[0] + LEAVES[1]) != node_hash(LEAVES[0], LEAVES[1])


@pytest.mark.parametrize("size", range(len(ROOTS)))
def test_the_classic_tree_has_the_published_roots(size: int) -> None:
    assert CLASSIC.root(size) == ROOTS[size]
    assert grown(LEAVES[:size]).root() == ROOTS[size]


@pytest.mark.parametrize("case", VECTORS["inclusion"])
def test_the_classic_tree_proves_its_leaves(case: dict[str, Any]) -> None:
    index, size, proof = case["index"], case["size"], hashes(case)
    assert CLASSIC.inclusion(index, size) == proof
    assert verify_inclusion(LEAVES[index], index, size, proof, ROOTS[size])


@pytest.mark.parametrize("case", VECTORS["consistency"])
def test_the_classic_tree_proves_its_growth(case: dict[str, Any]) -> None:
    first, second, proof = case["first"], case["second"], hashes(case)
    assert CLASSIC.consistency(first, second) == proof
    assert verify_consistency(first, second, ROOTS[first], ROOTS[second], proof)


def test_every_root_is_that_of_the_definition() -> None:
    for size in range(SIZE + 1):
        assert LARGE.root(size) == plain_root(LARGE_LEAVES[:size])


def test_a_list_has_the_root_of_the_tree_that_grew_by_it() -> None:
    for size in range(SIZE + 1):
        entries = [bytes([index]) for index in range(size)]
        assert root_of(entries) == LARGE.root(size)


def test_every_leaf_of_every_size_is_proven() -> None:
    for size in range(1, SIZE + 1):
        root = LARGE.root(size)
        for index in range(size):
            proof = LARGE.inclusion(index, size)
            assert len(proof) <= size.bit_length()
            assert verify_inclusion(LARGE_LEAVES[index], index, size, proof, root)


def test_every_growth_is_proven_as_the_definition_has_it() -> None:
    for second in range(1, SIZE + 1):
        for first in range(1, second + 1):
            proof = LARGE.consistency(first, second)
            assert proof == plain_consistency(first, LARGE_LEAVES[:second])
            assert verify_consistency(first, second, LARGE.root(first), LARGE.root(second), proof)


@pytest.mark.parametrize(("index", "size"), [(0, 1), (0, 8), (5, 8), (2, 3), (1, 5), (69, 70)])
def test_a_spoiled_inclusion_proof_proves_nothing(index: int, size: int) -> None:
    leaf, root, proof = LARGE_LEAVES[index], LARGE.root(size), LARGE.inclusion(index, size)
    for wrong in spoiled(proof):
        assert not verify_inclusion(leaf, index, size, wrong, root)
    assert not verify_inclusion(OTHER, index, size, proof, root)
    assert not verify_inclusion(leaf[:-1], index, size, proof, root)
    assert not verify_inclusion(leaf, index, size, proof, OTHER)
    assert not verify_inclusion(leaf, index, size, proof, b"")
    for other in range(-1, size + 2):
        assert (other == index) == verify_inclusion(leaf, other, size, proof, root)
    for other in (0, -1, index, 2 * size, 4 * size, size // 2):
        assert not verify_inclusion(leaf, index, other, proof, root)


@pytest.mark.parametrize(
    ("first", "second"), [(1, 2), (1, 8), (6, 8), (2, 5), (6, 7), (4, 8), (63, 70)]
)
def test_a_spoiled_consistency_proof_proves_nothing(first: int, second: int) -> None:
    old, new = LARGE.root(first), LARGE.root(second)
    proof = LARGE.consistency(first, second)
    for wrong in spoiled(proof):
        assert not verify_consistency(first, second, old, new, wrong)
    assert not verify_consistency(first, second, new, old, proof)
    assert not verify_consistency(first, second, OTHER, new, proof)
    assert not verify_consistency(first, second, old, OTHER, proof)
    assert not verify_consistency(first, second, old, new, [])
    assert not verify_consistency(second, first, new, old, proof)
    assert not verify_consistency(first, 2 * second, old, new, proof)
    assert not verify_consistency(0, second, old, new, proof)
    assert not verify_consistency(-1, second, old, new, proof)


def test_a_tree_is_consistent_with_itself_and_with_the_empty_one() -> None:
    root = LARGE.root()
    assert LARGE.consistency(SIZE, SIZE) == LARGE.consistency(0, SIZE) == []
    assert verify_consistency(SIZE, SIZE, root, root, [])
    assert verify_consistency(0, SIZE, EMPTY_ROOT, root, [])
    assert not verify_consistency(0, SIZE, OTHER, root, [])
    assert not verify_consistency(SIZE, SIZE, root, OTHER, [])
    assert not verify_consistency(SIZE, SIZE, root, root, [root])
    assert not verify_consistency(SIZE, SIZE, b"", b"", [])
    assert not verify_consistency(-1, -1, root, root, [])


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=40), st.data())
def test_a_rewritten_past_cannot_be_proven(leaves: list[bytes], data: st.DataObject) -> None:
    leaves = [OTHER, *leaves, OTHER]
    first = data.draw(st.integers(1, len(leaves) - 1))
    index = data.draw(st.integers(0, first - 1))
    rewritten = [*leaves]
    rewritten[index] = leaf_hash(b"rewritten")
    old, forged = grown(leaves), grown(rewritten)
    size = len(leaves)
    for proof in (old.consistency(first, size), forged.consistency(first, size)):
        assert not verify_consistency(first, size, old.root(first), forged.root(), proof)


def test_leaves_are_numbered_from_zero() -> None:
    tree = Tree()
    assert tree.size == 0
    assert [tree.append(leaf) for leaf in LEAVES] == list(range(8))
    assert tree.size == 8


@pytest.mark.parametrize("leaf", [b"", b"raw data", bytes(31), bytes(33)])
def test_what_is_no_hash_is_no_leaf(leaf: bytes) -> None:
    tree = Tree()
    with pytest.raises(ValueError):
        tree.append(leaf)
    assert tree.size == 0


def test_a_size_the_tree_never_had_is_refused() -> None:
    for ask in (
        lambda: CLASSIC.root(9),
        lambda: CLASSIC.root(-1),
        lambda: CLASSIC.inclusion(0, 9),
        lambda: CLASSIC.inclusion(8, 8),
        lambda: CLASSIC.inclusion(-1, 8),
        lambda: CLASSIC.inclusion(0, 0),
        lambda: CLASSIC.consistency(1, 9),
        lambda: CLASSIC.consistency(5, 4),
        lambda: CLASSIC.consistency(-1, 4),
    ):
        with pytest.raises(ValueError):
            ask()


def test_the_example_of_the_rfc_has_the_paths_that_it_names() -> None:
    """RFC 6962, section 2.1.3: seven leaves d0 to d6, whose nodes it calls a to l."""
    names = dict(zip("abcdefj", LARGE_LEAVES[:7], strict=True))
    names["g"] = node_hash(names["a"], names["b"])
    names["h"] = node_hash(names["c"], names["d"])
    names["i"] = node_hash(names["e"], names["f"])
    names["k"] = node_hash(names["g"], names["h"])
    names["l"] = node_hash(names["i"], names["j"])
    called = {node: name for name, node in names.items()}
    tree = grown(LARGE_LEAVES[:7])

    def path(nodes: list[bytes]) -> str:
        return "".join(called[node] for node in nodes)

    assert tree.root() == node_hash(names["k"], names["l"])
    assert {leaf: path(tree.inclusion(leaf, 7)) for leaf in (0, 3, 4, 6)} == {
        0: "bhl",
        3: "cgl",
        4: "fjk",
        6: "ik",
    }
    assert {size: path(tree.consistency(size, 7)) for size in (3, 4, 6)} == {
        3: "cdgl",
        4: "l",
        6: "ijk",
    }
