"""JSON Schema 2020-12 as a rule of money: whether a result fits the schema its listing published.

Boundary: a subset that any side evaluates alike, on hostile schemas too: nothing is fetched, no
regular expression runs (`pattern` and `format` are annotations here), work is bounded. A keyword
outside the subset is refused when the listing is published, never passed over afterwards.
Source: spec/listing.md.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias, TypeGuard, cast

from farthing.protocol.canonical import Json, LooseJson
from farthing.protocol.errors import Code, Refusal, refuse

__all__ = [
    "ANNOTATIONS",
    "DEPTH_MAX",
    "KEYWORDS",
    "STEPS_MAX",
    "Violation",
    "check_schema",
    "violation",
]

STEPS_MAX: Final = 200_000
"""How many steps one evaluation may take; beyond, the instance does not fit.

A step is a keyword, `true` or `false` in the place of a schema, or a value that is compared; where
much is looked at for one of them it is more.
"""
DEPTH_MAX: Final = 64
# What is looked at in one go, and costs as much as a step: names, characters of a text, of a path.
NAMES_SHIFT: Final = 3
PATH_SHIFT: Final = 13
_TEXT_SHIFT: Final = 8

ANNOTATIONS: Final = frozenset({
    "$comment", "$id", "$schema", "contentEncoding", "contentMediaType", "default", "deprecated",
    "description", "examples", "format", "pattern", "readOnly", "title", "writeOnly",
})  # fmt: skip
_TYPES: Final = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
_BOUNDS: Final = frozenset({
    "maxItems", "maxLength", "maxProperties", "minItems", "minLength", "minProperties",
})  # fmt: skip
_NUMBERS: Final = frozenset({
    "exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf",
})  # fmt: skip
_ONE_SCHEMA: Final = frozenset({"additionalProperties", "else", "if", "items", "not", "then"})
_MANY_SCHEMAS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED_SCHEMAS: Final = frozenset({"$defs", "properties"})
_REF_PREFIX: Final = "#/$defs/"

Schema: TypeAlias = Json
Number: TypeAlias = int | float
"""What an instance may hold; the bounds of a schema are integers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """Where something does not fit, in dotted form, and the keyword that says so.

    `needs` is what would: a type or a bound, empty for what a schema can say in its own words.
    """

    path: str
    keyword: str
    needs: str = field(default="", compare=False)

    def refusal(self, more: str = "") -> Refusal:
        """The refusal of arguments that a tool does not take, and what to say beside it."""
        match self.keyword:
            case "required":
                text = "This argument is missing"
            case "additionalProperties":
                text = "There is no such argument"
            case keyword:
                text = f"The arguments do not fit the listing's input schema ({keyword!r})"
        path = f"arguments.{self.path}" if self.path else "arguments"
        text = f"{text}{more}."
        return refuse(Code.INVALID_ARGUMENT, path=path, required=self.needs, message=text)


def check_schema(schema: Json) -> Violation | None:
    """The first thing in a schema that this subset does not know or cannot evaluate."""
    definitions = schema.get("$defs", {}) if isinstance(schema, dict) else {}
    names = set(definitions) if isinstance(definitions, dict) else set()
    return _check(schema, "", names, 0)


def violation(
    schema: Mapping[str, Json], instance: object, *, steps_max: int = STEPS_MAX
) -> Violation | None:
    """The first place where an instance does not fit a schema that `check_schema` passes."""
    try:
        return _Evaluation(schema, steps_max).run(schema, cast("LooseJson", instance), "", 0)
    except _Exhausted as limit:
        return Violation(path="", keyword=str(limit))


class _Exhausted(Exception):
    """The work is beyond its bound. Raised, since inside a `not` a false answer would be a yes."""


class _Evaluation:
    """One evaluation: the root for references, and the work done so far."""

    __slots__ = ("definitions", "steps", "steps_max")

    def __init__(self, root: Mapping[str, Json], steps_max: int) -> None:
        definitions = root.get("$defs")
        self.definitions = definitions if isinstance(definitions, dict) else {}
        self.steps = 0
        self.steps_max = steps_max

    def run(
        self, schema: Schema | Mapping[str, Json], instance: LooseJson, path: str, depth: int
    ) -> Violation | None:
        # Each step further down copies the path.
        self.spend(len(path) >> PATH_SHIFT)
        if isinstance(schema, bool):
            self.spend(1)
            return None if schema else Violation(path=path, keyword="false")
        assert isinstance(schema, Mapping)
        if depth > DEPTH_MAX:
            raise _Exhausted("depth")
        for keyword, value in sorted(schema.items()):
            # A list is looked at member by member, so that a long `enum` is not one step.
            self.spend(len(value) + 1 if isinstance(value, list) else 1)
            if keyword in _ASSERTIONS:
                if not _ASSERTIONS[keyword](value, instance):
                    return Violation(path=path, keyword=keyword, needs=_needs(keyword, value))
            elif keyword in _APPLICATORS:
                found = _APPLICATORS[keyword](self, schema, instance, path, depth + 1)
                if found is not None:
                    return found
        return None

    def fits(self, schema: Schema, instance: LooseJson, depth: int) -> bool:
        return self.run(schema, instance, "", depth) is None

    def spend(self, steps: int) -> None:
        self.steps += steps
        if self.steps > self.steps_max:
            raise _Exhausted("steps")

    def key(self, value: LooseJson) -> str:
        """Text that is equal exactly where JSON values are: no comparing of every pair."""
        self.spend(1)
        if isinstance(value, dict):
            self.spend(sum(map(len, value)) >> _TEXT_SHIFT)
            return f"{{{','.join(f'{name!r}:{self.key(value[name])}' for name in sorted(value))}}}"
        if isinstance(value, list):
            return f"[{','.join(map(self.key, value))}]"
        if isinstance(value, str):
            self.spend(len(value) >> _TEXT_SHIFT)
        if _is_number(value) and value % 1 == 0:
            return repr(int(value))
        return repr(value)


def _check(schema: Json, path: str, names: set[str], depth: int) -> Violation | None:
    if isinstance(schema, bool):
        return None
    if not isinstance(schema, dict) or depth > DEPTH_MAX:
        return Violation(path=path, keyword="schema")
    for keyword, value in sorted(schema.items()):
        here = _join(path, keyword)
        if not _keyword_is_sound(keyword, value, names, depth):
            return Violation(path=path, keyword=keyword)
        nested: list[tuple[str, Json]] = []
        if keyword in _ONE_SCHEMA:
            nested = [(here, value)]
        elif keyword in _MANY_SCHEMAS and isinstance(value, list):
            nested = [(f"{here}.{index}", each) for index, each in enumerate(value)]
        elif keyword in _NAMED_SCHEMAS and isinstance(value, dict):
            nested = [(f"{here}.{name}", each) for name, each in sorted(value.items())]
        for each_path, each in nested:
            found = _check(each, each_path, names, depth + 1)
            if found is not None:
                return found
    return None


def _keyword_is_sound(keyword: str, value: Json, names: set[str], depth: int) -> bool:
    if keyword in ANNOTATIONS or keyword in _ONE_SCHEMA or keyword in {"const", "enum"}:
        return keyword != "enum" or isinstance(value, list)
    if keyword in _MANY_SCHEMAS:
        return isinstance(value, list) and bool(value)
    if keyword in _NAMED_SCHEMAS:
        # Definitions stand at the root alone, so that a reference has one meaning.
        return isinstance(value, dict) and (keyword != "$defs" or depth == 0)
    if keyword == "$ref":
        return (
            isinstance(value, str)
            and value.startswith(_REF_PREFIX)
            and value.removeprefix(_REF_PREFIX) in names
        )
    if keyword == "type":
        words = value if isinstance(value, list) else [value]
        return bool(words) and all(isinstance(each, str) and each in _TYPES for each in words)
    if keyword == "required":
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    if keyword == "uniqueItems":
        return isinstance(value, bool)
    number = isinstance(value, int) and not isinstance(value, bool)
    if keyword == "multipleOf":
        return number and _at_least(1, value)
    if keyword in _BOUNDS:
        return number and _at_least(0, value)
    return keyword in _NUMBERS and number


def _at_least(floor: int, value: Json) -> bool:
    return isinstance(value, int) and value >= floor


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


# Assertions: (keyword's value, instance) -> whether it holds. Where a keyword has no say, it holds.


def _is_number(instance: LooseJson) -> TypeGuard[Number]:
    return isinstance(instance, int | float) and not isinstance(instance, bool)


def _is_type(word: str, instance: LooseJson) -> bool:
    match word:
        case "null":
            return instance is None
        case "boolean":
            return isinstance(instance, bool)
        case "string":
            return isinstance(instance, str)
        case "array":
            return isinstance(instance, list)
        case "object":
            return isinstance(instance, dict)
        case "integer":
            # 1.0 is an integer to JSON Schema, which knows no other difference.
            return _is_number(instance) and instance % 1 == 0
        case _:
            return _is_number(instance)


def _type(value: Json, instance: LooseJson) -> bool:
    words = value if isinstance(value, list) else [value]
    return any(_is_type(str(word), instance) for word in words)


def _sized(kind: type, compare: Callable[[int, int], bool]) -> Callable[[Json, LooseJson], bool]:
    def holds(value: Json, instance: LooseJson) -> bool:
        assert isinstance(value, int)
        if not isinstance(instance, kind):
            return True
        assert isinstance(instance, str | list | dict)
        return compare(len(instance), value)

    return holds


def _numeric(compare: Callable[[Number, int], bool]) -> Callable[[Json, LooseJson], bool]:
    def holds(value: Json, instance: LooseJson) -> bool:
        assert isinstance(value, int)
        return compare(instance, value) if _is_number(instance) else True

    return holds


_ASSERTIONS: Final[Mapping[str, Callable[[Json, LooseJson], bool]]] = {
    "exclusiveMaximum": _numeric(lambda number, bound: number < bound),
    "exclusiveMinimum": _numeric(lambda number, bound: number > bound),
    "maximum": _numeric(lambda number, bound: number <= bound),
    "minimum": _numeric(lambda number, bound: number >= bound),
    "multipleOf": _numeric(lambda number, step: number % step == 0),
    "maxItems": _sized(list, lambda count, bound: count <= bound),
    "minItems": _sized(list, lambda count, bound: count >= bound),
    "maxLength": _sized(str, lambda count, bound: count <= bound),
    "minLength": _sized(str, lambda count, bound: count >= bound),
    "maxProperties": _sized(dict, lambda count, bound: count <= bound),
    "minProperties": _sized(dict, lambda count, bound: count >= bound),
    "type": _type,
}

# Applicators: (evaluation, schema, instance, path, depth) -> the first violation below.

_Applicator: TypeAlias = Callable[
    [_Evaluation, Mapping[str, Json], LooseJson, str, int], Violation | None
]


def _ref(
    run: _Evaluation, schema: Mapping[str, Json], instance: LooseJson, path: str, depth: int
) -> Violation | None:
    name = str(schema["$ref"]).removeprefix(_REF_PREFIX)
    return run.run(run.definitions[name], instance, path, depth)


def _equal(run: _Evaluation, one: Json | LooseJson, other: LooseJson) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        run.spend(1)
        return len(one) == len(other) and all(
            _equal_member(run, *each) for each in zip(one, other, strict=True)
        )
    if isinstance(one, dict) and isinstance(other, dict):
        run.spend(1 + (min(len(one), len(other)) >> NAMES_SHIFT))
        return one.keys() == other.keys() and all(
            _equal_member(run, one[name], other[name]) for name in one
        )
    return one == other


def _equal_member(run: _Evaluation, one: Json | LooseJson, other: LooseJson) -> bool:
    run.spend(1)
    return _equal(run, one, other)


def _const(
    run: _Evaluation, schema: Mapping[str, Json], instance: LooseJson, path: str, depth: int
) -> Violation | None:
    del depth
    fits = _equal(run, schema["const"], instance)
    return None if fits else Violation(path=path, keyword="const")


def _enum(
    run: _Evaluation, schema: Mapping[str, Json], instance: LooseJson, path: str, depth: int
) -> Violation | None:
    del depth
    fits = any(_equal(run, each, instance) for each in _rules(schema, "enum"))
    return None if fits else Violation(path=path, keyword="enum")


def _required(
    run: _Evaluation, schema: Mapping[str, Json], instance: LooseJson, path: str, depth: int
) -> Violation | None:
    del run, depth
    names = schema["required"]
    assert isinstance(names, list)
    for name in names:
        if isinstance(instance, dict) and name not in instance:
            known = schema.get("properties")
            rule = known.get(str(name)) if isinstance(known, dict) else None
            needs = _needs("type", rule.get("type")) if isinstance(rule, dict) else ""
            return Violation(path=_join(path, str(name)), keyword="required", needs=needs)
    return None


def _needs(keyword: str, value: Json | None) -> str:
    if keyword == "type":
        words = value if isinstance(value, list) else [value]
        return ", ".join(str(each) for each in words if str(each) in _TYPES)
    return f"{keyword} {value}" if isinstance(value, int) else ""


def _properties(
    run: _Evaluation, schema: Mapping[str, Json], instance: LooseJson, path: str, depth: int
) -> Violation | None:
    known = schema["properties"]
    if isinstance(instance, dict) and isinstance(known, dict):
        run.spend(min(len(known), len(instance)) >> NAMES_SHIFT)
        for name in sorted(known.keys() & instance.keys()):
            found = run.run(known[name], instance[name], _join(path, name), depth)
            if found is not None:
                return found
    return None


def _additional(
    run: _Evaluation, schema: Mapping[str, Json], instance: LooseJson, path: str, depth: int
) -> Violation | None:
    known = schema.get("properties", {})
    if isinstance(instance, dict) and isinstance(known, dict):
        run.spend(len(instance) >> NAMES_SHIFT)
        for name in sorted(instance.keys() - known.keys()):
            rule = schema["additionalProperties"]
            if rule is False:
                return Violation(path=_join(path, name), keyword="additionalProperties")
            found = run.run(rule, instance[name], _join(path, name), depth)
            if found is not None:
                return found
    return None


def _items(
    run: _Evaluation, schema: Mapping[str, Json], instance: LooseJson, path: str, depth: int
) -> Violation | None:
    first = schema.get("prefixItems", [])
    if isinstance(instance, list) and isinstance(first, list):
        for index in range(len(first), len(instance)):
            found = run.run(schema["items"], instance[index], _join(path, str(index)), depth)
            if found is not None:
                return found
    return None


def _prefix_items(
    run: _Evaluation, schema: Mapping[str, Json], instance: LooseJson, path: str, depth: int
) -> Violation | None:
    first = schema["prefixItems"]
    if isinstance(instance, list) and isinstance(first, list):
        for index, (rule, each) in enumerate(zip(first, instance, strict=False)):
            found = run.run(rule, each, _join(path, str(index)), depth)
            if found is not None:
                return found
    return None


def _all_of(
    run: _Evaluation, schema: Mapping[str, Json], instance: LooseJson, path: str, depth: int
) -> Violation | None:
    for rule in _rules(schema, "allOf"):
        found = run.run(rule, instance, path, depth)
        if found is not None:
            return found
    return None


def _any_of(
    run: _Evaluation, schema: Mapping[str, Json], instance: LooseJson, path: str, depth: int
) -> Violation | None:
    fits = any(run.fits(rule, instance, depth) for rule in _rules(schema, "anyOf"))
    return None if fits else Violation(path=path, keyword="anyOf")


def _one_of(
    run: _Evaluation, schema: Mapping[str, Json], instance: LooseJson, path: str, depth: int
) -> Violation | None:
    count = sum(run.fits(rule, instance, depth) for rule in _rules(schema, "oneOf"))
    return None if count == 1 else Violation(path=path, keyword="oneOf")


def _not(
    run: _Evaluation, schema: Mapping[str, Json], instance: LooseJson, path: str, depth: int
) -> Violation | None:
    fits = run.fits(schema["not"], instance, depth)
    return Violation(path=path, keyword="not") if fits else None


def _if(
    run: _Evaluation, schema: Mapping[str, Json], instance: LooseJson, path: str, depth: int
) -> Violation | None:
    branch = "then" if run.fits(schema["if"], instance, depth) else "else"
    return run.run(schema.get(branch, True), instance, path, depth)


def _unique_items(
    run: _Evaluation, schema: Mapping[str, Json], instance: LooseJson, path: str, _depth: int
) -> Violation | None:
    if schema["uniqueItems"] and isinstance(instance, list):
        seen: set[str] = set()
        for index, each in enumerate(instance):
            key = run.key(each)
            if key in seen:
                return Violation(path=_join(path, str(index)), keyword="uniqueItems")
            seen.add(key)
    return None


def _rules(schema: Mapping[str, Json], keyword: str) -> Sequence[Json]:
    rules = schema[keyword]
    return rules if isinstance(rules, list) else []


_APPLICATORS: Final[Mapping[str, _Applicator]] = {
    "$ref": _ref,
    "additionalProperties": _additional,
    "allOf": _all_of,
    "anyOf": _any_of,
    "const": _const,
    "enum": _enum,
    "if": _if,
    "items": _items,
    "not": _not,
    "oneOf": _one_of,
    "prefixItems": _prefix_items,
    "properties": _properties,
    "required": _required,
    "uniqueItems": _unique_items,
}

KEYWORDS: Final = _ASSERTIONS.keys() | _APPLICATORS.keys() | {"$defs", "else", "then"}
"""The keywords that are enforced; all others are annotations or refused."""
