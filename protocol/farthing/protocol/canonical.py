"""Canonical bytes of a document, its digest, and the strict reading of JSON that came from outside.

One value, one byte string: RFC 8785 over a restricted alphabet (ASCII keys; text, booleans,
integers below 2^53, lists, objects). See spec/canonical.md.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final, Literal, NoReturn, TypeAlias, cast, overload

import orjson

__all__ = [
    "DEPTH_MAX",
    "INTEGER_MAX",
    "InvalidJson",
    "Json",
    "JsonFault",
    "JsonLike",
    "LooseJson",
    "canonical_bytes",
    "document_sha256",
    "parse_json",
    "sha256_hex",
]

Json: TypeAlias = bool | int | str | list["Json"] | dict[str, "Json"]
"""What reading gives."""

JsonLike: TypeAlias = bool | int | str | Sequence["JsonLike"] | Mapping[str, "JsonLike"]
"""What writing takes: at run time lists, tuples and plain dicts."""

LooseJson: TypeAlias = bool | int | float | str | list["LooseJson"] | dict[str, "LooseJson"] | None
"""What reading gives when null or fractions are let in; it has no canonical bytes."""

DEPTH_MAX: Final = 32
INTEGER_MAX: Final = 2**53 - 1

_INTEGER_CHARACTERS_MAX: Final = len(str(-INTEGER_MAX))


class JsonFault(StrEnum):
    """Why bytes or a value are not JSON as Farthing reads it."""

    NOT_UTF8 = "not_utf8"
    MALFORMED = "malformed"
    DUPLICATE_KEY = "duplicate_key"
    TOO_DEEP = "too_deep"
    FLOAT = "float"
    INTEGER_RANGE = "integer_range"
    NULL = "null"
    SURROGATE = "surrogate"
    KEY_NOT_ASCII = "key_not_ascii"
    TYPE = "type"


class InvalidJson(ValueError):
    """The bytes are not strict JSON, or the value lies outside the restricted alphabet."""

    def __init__(self, reason: JsonFault) -> None:
        super().__init__(reason.value)
        self.reason = reason


def canonical_bytes(value: JsonLike) -> bytes:
    """Write a value as its RFC 8785 bytes.

    Within the restricted alphabet a compact encoder that sorts keys by code point gives exactly
    these bytes; outside it (keys beyond ASCII, fractions, integers from 2^53) it would not, so
    such values are refused.

    Raises:
        InvalidJson: The value lies outside the restricted alphabet.
    """
    _check_alphabet(value, 0)
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        # After the check above only text that UTF-8 cannot carry is left.
        raise InvalidJson(JsonFault.SURROGATE) from None


def sha256_hex(data: bytes) -> str:
    """Digest bytes as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def document_sha256(value: JsonLike) -> str:
    """Digest a document's canonical bytes.

    Raises:
        InvalidJson: The value lies outside the restricted alphabet.
    """
    return sha256_hex(canonical_bytes(value))


@overload
def parse_json(
    raw: bytes,
    *,
    depth_max: int = DEPTH_MAX,
    allow_float: Literal[False] = False,
    allow_null: Literal[False] = False,
) -> Json: ...
@overload
def parse_json(
    raw: bytes, *, depth_max: int = DEPTH_MAX, allow_float: bool = False, allow_null: bool = False
) -> LooseJson: ...
def parse_json(
    raw: bytes, *, depth_max: int = DEPTH_MAX, allow_float: bool = False, allow_null: bool = False
) -> Json | LooseJson:
    """Read JSON strictly: what two parsers could read differently is refused.

    Args:
        raw: UTF-8 without a byte order mark. Bounding its size is the caller's duty.
        depth_max: Lists and objects inside one another.
        allow_float: Let finite fractions and exponents in, as floats.
        allow_null: Let null in, as None.

    Raises:
        InvalidJson: With the reason; duplicate keys, NaN, lone surrogates, integers from 2^53 and
            all else that is not I-JSON (RFC 7493) included.
    """
    value = _read_if_canonical(raw)
    if value is None:
        value = _read(raw)
    _check_read(value, depth_max, allow_float=allow_float, allow_null=allow_null)
    return value


def _read_if_canonical(raw: bytes) -> LooseJson:
    # Most input is ours and canonical already. A fast reader that would pass over a key given twice
    # or a number it cannot hold is safe where writing what it read gives the same bytes again:
    # then there was nothing to pass over. None stands for everything else, null included.
    try:
        value = cast("LooseJson", orjson.loads(raw))
        again = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    return value if again == raw else None


def _read(raw: bytes) -> LooseJson:
    try:
        return cast("LooseJson", _DECODER.decode(raw.decode()))
    except UnicodeDecodeError:
        raise InvalidJson(JsonFault.NOT_UTF8) from None
    except InvalidJson:
        raise
    except RecursionError:
        raise InvalidJson(JsonFault.TOO_DEEP) from None
    except ValueError:
        raise InvalidJson(JsonFault.MALFORMED) from None


def _check_alphabet(value: object, depth: int) -> None:
    kind = type(value)
    if kind is str or kind is bool:
        return
    if kind is int:
        if not -INTEGER_MAX <= cast("int", value) <= INTEGER_MAX:
            raise InvalidJson(JsonFault.INTEGER_RANGE)
    elif kind is dict:
        if depth >= DEPTH_MAX:
            raise InvalidJson(JsonFault.TOO_DEEP)
        for key, item in cast("dict[object, object]", value).items():
            if type(key) is not str:
                raise InvalidJson(JsonFault.TYPE)
            if not key.isascii():
                raise InvalidJson(JsonFault.KEY_NOT_ASCII)
            _check_alphabet(item, depth + 1)
    elif kind is list or kind is tuple:
        if depth >= DEPTH_MAX:
            raise InvalidJson(JsonFault.TOO_DEEP)
        for item in cast("Sequence[object]", value):
            _check_alphabet(item, depth + 1)
    elif value is None:
        raise InvalidJson(JsonFault.NULL)
    elif kind is float:
        raise InvalidJson(JsonFault.FLOAT)
    elif not isinstance(value, StrEnum):
        raise InvalidJson(JsonFault.TYPE)


def _check_read(value: LooseJson, room: int, *, allow_float: bool, allow_null: bool) -> None:
    kind = type(value)
    if kind is str:
        _check_text(cast("str", value))
    elif kind is int:
        if not -INTEGER_MAX <= cast("int", value) <= INTEGER_MAX:
            raise InvalidJson(JsonFault.INTEGER_RANGE)
    elif isinstance(value, dict | list):
        if room == 0:
            raise InvalidJson(JsonFault.TOO_DEEP)
        if isinstance(value, dict):
            for key in value:
                _check_text(key)
            value = list(value.values())
        for item in value:
            _check_read(item, room - 1, allow_float=allow_float, allow_null=allow_null)
    elif value is None:
        if not allow_null:
            raise InvalidJson(JsonFault.NULL)
    elif kind is float and not (allow_float and math.isfinite(cast("float", value))):
        raise InvalidJson(JsonFault.FLOAT)


def _check_text(text: str) -> None:
    # ASCII is known without looking; a surrogate is found by trying.
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidJson(JsonFault.SURROGATE) from None


def _unique_members(pairs: list[tuple[str, LooseJson]]) -> dict[str, LooseJson]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise InvalidJson(JsonFault.DUPLICATE_KEY)
    return members


def _integer(text: str) -> int:
    # int() of a megabyte of digits is slow. Any number out of range stands for one that long.
    return int(text) if len(text) <= _INTEGER_CHARACTERS_MAX else INTEGER_MAX + 1


def _refuse_constant(_: str) -> NoReturn:
    # NaN and the infinities are not JSON (RFC 8259, section 6).
    raise InvalidJson(JsonFault.MALFORMED)


# Made once, for making one takes as long as reading a token with it. What it lets through beyond
# the alphabet is refused afterwards, in the order of the document, however that was spelled.
_DECODER: Final = json.JSONDecoder(
    parse_int=_integer, parse_constant=_refuse_constant, object_pairs_hook=_unique_members
)
