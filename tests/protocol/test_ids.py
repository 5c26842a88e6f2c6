"""Ids have one spelling; derived ones repeat, UUIDv7 ones carry their time."""

import re
import uuid
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from farthing.protocol.ids import (
    InvalidId,
    derive_id,
    id_pattern,
    typeid,
    uuid7_bytes,
)
from tests.protocol.vectors import cases, vectors

VECTORS = vectors("ids")
RAW = st.binary(min_size=16, max_size=16)
PREFIXES = st.from_regex(r"[a-z](?:[a-z_]{0,8}[a-z])?", fullmatch=True)


@pytest.mark.parametrize("case", VECTORS["typeids"])
def test_an_id_and_its_bytes_are_two_names_of_one_thing(case: dict[str, str]) -> None:
    raw = uuid.UUID(case["uuid"]).bytes
    assert typeid(case["prefix"], raw) == case["id"]
    assert re.search(id_pattern(case["prefix"]), case["id"])


@pytest.mark.parametrize("case", cases(VECTORS["refused"]))
def test_any_other_text_is_refused(case: dict[str, str]) -> None:
    prefix = case["id"].rpartition("_")[0]
    try:
        pattern = id_pattern(prefix)
    except InvalidId:
        return
    # Python alone takes a newline before the end for the end.
    assert not re.fullmatch(pattern, case["id"])


@given(PREFIXES, RAW)
def test_every_id_survives_the_wire_and_matches_its_pattern(prefix: str, raw: bytes) -> None:
    text = typeid(prefix, raw)
    letters = "0123456789abcdefghjkmnpqrstvwxyz"
    number = sum(letters.index(letter) << 5 * place for place, letter in enumerate(text[:-27:-1]))
    assert text[:-26] == f"{prefix}_"
    assert number.to_bytes(16) == raw
    assert re.search(id_pattern(prefix), text)


@given(RAW, RAW)
def test_ids_of_one_prefix_sort_as_their_bytes_do(one: bytes, other: bytes) -> None:
    assert (typeid("hld", one) < typeid("hld", other)) == (one < other)


def test_a_pattern_matches_its_own_prefix_only() -> None:
    hold = typeid("hld", bytes(16))
    assert not re.search(id_pattern("chg"), hold)
    assert not re.search(id_pattern("hld"), f"x{hold}")
    assert not re.search(id_pattern("hld"), f"{hold}0")


@pytest.mark.parametrize("size", [0, 15, 17])
def test_an_id_has_sixteen_bytes(size: int) -> None:
    with pytest.raises(InvalidId):
        typeid("hld", bytes(size))


@pytest.mark.parametrize("prefix", ["", "Hld", "hl1", "_hld", "hld_", "h-d", "h" * 64, "hld\n"])
def test_a_prefix_is_lower_case_letters(prefix: str) -> None:
    with pytest.raises(InvalidId):
        typeid(prefix, bytes(16))
    with pytest.raises(InvalidId):
        derive_id(prefix, "a")
    with pytest.raises(InvalidId):
        id_pattern(prefix)


@pytest.mark.parametrize("case", VECTORS["derived"])
def test_a_derived_id_repeats(case: dict[str, Any]) -> None:
    expected = uuid.UUID(case["uuid"])
    assert derive_id(case["prefix"], *case["parts"]) == case["id"]
    assert typeid(case["prefix"], expected.bytes) == case["id"]
    assert (expected.version, expected.variant) == (8, uuid.RFC_4122)


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_other_parts_make_another_id(one: list[str], other: list[str]) -> None:
    assume(one != other)
    assert derive_id("hld", *one) != derive_id("hld", *other)
    assert derive_id("hld", *one)[-26:] != derive_id("chg", *one)[-26:]


@pytest.mark.parametrize("case", VECTORS["uuid7"])
def test_a_uuid7_is_laid_out_as_the_rfc_says(case: dict[str, str]) -> None:
    raw = uuid7_bytes(int(case["ms"]), bytes.fromhex(case["entropy"]))
    assert raw == uuid.UUID(case["uuid"]).bytes


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_a_uuid7_carries_its_time(ms: int, entropy: bytes) -> None:
    made = uuid.UUID(bytes=uuid7_bytes(ms, entropy))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert int.from_bytes(made.bytes[:6]) == ms


@pytest.mark.parametrize(("ms", "entropy"), [(-1, 10), (2**48, 10), (0, 9), (0, 11)])
def test_a_uuid7_of_other_sizes_is_refused(ms: int, entropy: int) -> None:
    with pytest.raises(InvalidId):
        uuid7_bytes(ms, bytes(entropy))
