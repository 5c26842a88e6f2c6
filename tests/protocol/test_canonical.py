"""One value, one byte string: equal to a plain RFC 8785 encoder; and reading that never guesses."""

import json
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum, StrEnum
from typing import Any, cast

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from farthing.protocol.canonical import (
    DEPTH_MAX,
    INTEGER_MAX,
    InvalidJson,
    Json,
    JsonFault,
    JsonLike,
    canonical_bytes,
    document_sha256,
    parse_json,
    sha256_hex,
)
from tests.protocol.vectors import cases, vectors

VECTORS = vectors("canonical")
LEAVES = st.one_of(st.booleans(), st.integers(-INTEGER_MAX, INTEGER_MAX), st.text())
KEYS = st.text(st.characters(max_codepoint=127))
DOCUMENTS: st.SearchStrategy[Json] = st.recursive(
    cast("st.SearchStrategy[Json]", LEAVES),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(KEYS, inner)),
)


def raw(case: dict[str, str]) -> bytes:
    return bytes.fromhex(case["input_hex"]) if "input_hex" in case else case["input"].encode()


def fault_of_reading(text: bytes, **options: int) -> JsonFault:
    with pytest.raises(InvalidJson) as refused:
        parse_json(text, **cast("Any", options))
    return refused.value.reason


def fault_of_writing(value: object) -> JsonFault:
    with pytest.raises(InvalidJson) as refused:
        canonical_bytes(cast("JsonLike", value))
    return refused.value.reason


@pytest.mark.parametrize("case", cases(VECTORS["documents"]))
def test_a_document_has_one_byte_string(case: dict[str, str]) -> None:
    value = parse_json(raw(case))
    assert canonical_bytes(value) == case["canonical"].encode()
    assert document_sha256(value) == case["sha256"]


@given(DOCUMENTS)
def test_canonical_bytes_are_those_of_rfc_8785(value: Json) -> None:
    assert canonical_bytes(value) == rfc8785.dumps(cast("Any", value))


@given(DOCUMENTS)
def test_canonical_bytes_read_back_as_the_same_document(value: Json) -> None:
    assert parse_json(canonical_bytes(value)) == value


@given(st.dictionaries(KEYS, st.integers(0, 9), min_size=2))
def test_the_order_in_which_members_were_set_leaves_no_trace(members: dict[str, int]) -> None:
    turned = dict(reversed(members.items()))
    assert canonical_bytes(members) == canonical_bytes(turned)


@pytest.mark.parametrize("case", cases(VECTORS["unwritable"]))
def test_what_sorters_disagree_about_can_be_read_and_not_written(case: dict[str, str]) -> None:
    assert fault_of_writing(parse_json(raw(case))) == case["reason"]


def deep(levels: int, of: Callable[[Json], Json]) -> Json:
    value: Json = 0
    for _ in range(levels):
        value = of(value)
    return value


class Colour(StrEnum):
    RED = "red"


class Number(IntEnum):
    ONE = 1


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, JsonFault.NULL),
        ({"a": [None]}, JsonFault.NULL),
        (1.0, JsonFault.FLOAT),
        ([float("nan")], JsonFault.FLOAT),
        (INTEGER_MAX + 1, JsonFault.INTEGER_RANGE),
        (-INTEGER_MAX - 1, JsonFault.INTEGER_RANGE),
        (2**200, JsonFault.INTEGER_RANGE),
        ("\ud800", JsonFault.SURROGATE),
        ({"a": ["\udfff"]}, JsonFault.SURROGATE),
        ({"é": 1}, JsonFault.KEY_NOT_ASCII),
        ({1: 1}, JsonFault.TYPE),
        ({Colour.RED: 1}, JsonFault.TYPE),
        (b"a", JsonFault.TYPE),
        ({"a"}, JsonFault.TYPE),
        (object(), JsonFault.TYPE),
        (Number.ONE, JsonFault.TYPE),
    ],
)
def test_a_value_outside_the_alphabet_is_refused(value: object, reason: JsonFault) -> None:
    assert fault_of_writing(value) is reason


def test_a_value_that_holds_itself_is_too_deep() -> None:
    value: list[object] = []
    value.append(value)
    assert fault_of_writing(value) is JsonFault.TOO_DEEP


@pytest.mark.parametrize(
    "of", [lambda inner: [inner], lambda inner: {"a": inner}], ids=["lists", "objects"]
)
def test_the_deepest_document_is_written_and_read(of: Callable[[Json], Json]) -> None:
    assert parse_json(canonical_bytes(deep(DEPTH_MAX, of))) == deep(DEPTH_MAX, of)
    assert fault_of_writing(deep(DEPTH_MAX + 1, of)) is JsonFault.TOO_DEEP
    assert fault_of_reading(str(deep(DEPTH_MAX + 1, of)).replace("'", '"').encode()) is (
        JsonFault.TOO_DEEP
    )


def test_tuples_and_string_enums_are_written_as_lists_and_texts() -> None:
    assert canonical_bytes({"colour": (Colour.RED, 1)}) == b'{"colour":["red",1]}'


def test_writing_changes_nothing_of_what_it_is_given() -> None:
    value: Json = {"b": [1, {"d": 1, "c": 2}], "a": 0}
    canonical_bytes(value)
    assert str(value) == "{'b': [1, {'d': 1, 'c': 2}], 'a': 0}"


def test_a_digest_is_64_lower_case_hex_digits() -> None:
    # FIPS 180-2, appendix B.1.
    assert sha256_hex(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("case", cases(VECTORS["refused"]))
def test_json_that_could_be_read_two_ways_is_refused(case: dict[str, str]) -> None:
    assert fault_of_reading(raw(case)) == case["reason"]


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 9])
def test_hostile_depth_is_refused_and_overflows_nothing(text: bytes) -> None:
    assert fault_of_reading(text) is JsonFault.TOO_DEEP


def test_a_million_digits_are_refused_at_once() -> None:
    assert fault_of_reading(b"1" * 1_000_000) is JsonFault.INTEGER_RANGE


def test_the_depth_allowed_is_the_callers() -> None:
    assert parse_json(b"[[1]]", depth_max=2) == [[1]]
    assert fault_of_reading(b"[[1]]", depth_max=1) is JsonFault.TOO_DEEP
    assert parse_json(b"1", depth_max=0) == 1


def test_null_and_fractions_are_read_only_where_allowed() -> None:
    assert parse_json(b'{"a":[null,1]}', allow_null=True) == {"a": [None, 1]}
    assert parse_json(b"[1.5,1e3]", allow_float=True) == [1.5, 1000.0]
    assert fault_of_reading(b"[1.5]", allow_null=True) is JsonFault.FLOAT
    assert fault_of_reading(b"null", allow_float=True) is JsonFault.NULL


@pytest.mark.parametrize("text", [b"NaN", b"Infinity", b"-Infinity"])
def test_what_is_no_number_is_refused_even_where_fractions_are_allowed(text: bytes) -> None:
    assert fault_of_reading(text, allow_float=True) is JsonFault.MALFORMED


def test_a_fraction_beyond_reckoning_is_refused() -> None:
    assert fault_of_reading(b"1e999", allow_float=True) is JsonFault.FLOAT


def reading(text: bytes, **options: int) -> object:
    try:
        return repr(parse_json(text, **cast("Any", options)))
    except InvalidJson as refused:
        return refused.reason


@given(
    st.one_of(
        DOCUMENTS.map(canonical_bytes),
        st.text('{}[]",:\\u0189da.e- ', max_size=40).map(str.encode),
        st.recursive(st.none() | st.floats(width=32) | st.integers() | st.text(), st.lists).map(
            lambda value: json.dumps(value, separators=(",", ":")).encode()
        ),
    ),
    st.integers(0, 3),
)
def test_canonical_and_other_spellings_are_read_alike(text: bytes, options: int) -> None:
    # A space behind the value keeps the reader from its short way with canonical input.
    allowed = {"allow_float": options & 1, "allow_null": options & 2}
    assert reading(text, **allowed) == reading(text + b" ", **allowed)


@given(st.one_of(st.binary(max_size=40), st.text('{}[]",:\\u0189da.e- ', max_size=40)))
def test_no_input_raises_anything_but_a_reason(text: bytes | str) -> None:
    with suppress(InvalidJson):
        canonical_bytes(parse_json(text if isinstance(text, bytes) else text.encode()))
