"""A schema that many instances are held against: what is plain in it is asked at once.

Boundary: the rule is `schemas.violation`; here only a yes is ever found faster. Types, members and
items have a short way, whatever else a schema says is left to the rule. Source: spec/listing.md.
"""

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias, cast

from farthing.protocol.canonical import Json
from farthing.protocol.schemas import (
    ANNOTATIONS,
    DEPTH_MAX,
    NAMES_SHIFT,
    STEPS_MAX,
    Violation,
    violation,
)

__all__ = ["Shape"]

_Steps: TypeAlias = Callable[[object], int]
"""The steps taken where an instance fits, 0 where that is not known."""

_NAME_MAX: Final = 64
_KINDS: Final[Mapping[str, frozenset[type]]] = {
    "boolean": frozenset({bool}),
    "integer": frozenset({int}),
    "null": frozenset({type(None)}),
    "number": frozenset({int, float}),
    "string": frozenset({str}),
}
_INNER: Final = {"array": {"items"}, "object": {"properties", "required"}}


class Shape:
    """A schema that `check_schema` passes."""

    __slots__ = ("_steps", "schema")

    def __init__(self, schema: Mapping[str, Json]) -> None:
        self.schema = schema
        self._steps = _steps(dict(schema), 0)

    def violation(self, instance: object) -> Violation | None:
        """As `schemas.violation`."""
        if self._steps is not None and 0 < self._steps(instance) <= STEPS_MAX:
            return None
        return violation(self.schema, instance)


def _steps(schema: Json, depth: int) -> _Steps | None:
    if not isinstance(schema, dict) or depth > DEPTH_MAX:
        return None
    word = schema.get("type")
    if not isinstance(word, str) or not schema.keys() <= (
        ANNOTATIONS | {"type"} | _INNER.get(word, set())
    ):
        return None
    own = sum(len(each) + 1 if isinstance(each, list) else 1 for each in schema.values())
    if word == "array":
        return _array(schema, own, depth)
    if word == "object":
        return _object(schema, own, depth)
    kinds = _KINDS[word]
    return lambda instance: own if type(instance) in kinds else 0


def _array(schema: Mapping[str, Json], own: int, depth: int) -> _Steps | None:
    of_item = _steps(schema["items"], depth + 1) if "items" in schema else _unasked
    if of_item is None:
        return None

    def steps(instance: object) -> int:
        if type(instance) is not list:
            return 0
        total = own
        if of_item is not _unasked:
            for each in instance:
                if not (found := of_item(each)):
                    return 0
                total += found
        return total

    return steps


def _object(schema: Mapping[str, Json], own: int, depth: int) -> _Steps | None:
    required = frozenset(cast("list[str]", schema.get("required", [])))
    known: dict[str, _Steps] = {}
    for name, each in cast("dict[str, Json]", schema.get("properties", {})).items():
        # With longer names a path may cost steps of its own.
        if len(name) > _NAME_MAX or (of_member := _steps(each, depth + 1)) is None:
            return None
        known[name] = of_member

    def steps(instance: object) -> int:
        if type(instance) is not dict or not required <= instance.keys():
            return 0
        total = own + (min(len(known), len(instance)) >> NAMES_SHIFT)
        for name, of_member in known.items():
            if name in instance:
                if not (found := of_member(instance[name])):
                    return 0
                total += found
        return total

    return steps


def _unasked(_: object) -> int:
    return 0
