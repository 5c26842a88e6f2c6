"""The subset of JSON Schema agrees with a full validator wherever it speaks, and bounds work."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from farthing.protocol.canonical import Json
from farthing.protocol.errors import Code
from farthing.protocol.schemas import STEPS_MAX, Violation, check_schema, violation
from farthing.protocol.shapes import Shape

NAMES = st.sampled_from(["a", "b", "c"])
SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.5, 1.0, -2.0]),
    st.sampled_from(["", "a", "ab", "é\U0001f600"]),
)
INSTANCES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=6,
)
SIGNABLE: st.SearchStrategy[Any] = st.one_of(
    st.booleans(), st.integers(-3, 3), st.sampled_from(["", "a", "ab"]), st.just([1, "a"])
)
TYPES = st.sampled_from(["array", "boolean", "integer", "null", "number", "object", "string"])


def _keywords(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    size = st.integers(0, 3)
    number = st.integers(-2, 2)
    members: dict[str, st.SearchStrategy[Any]] = {
        "type": st.one_of(TYPES, st.lists(TYPES, min_size=1, max_size=3, unique=True)),
        "enum": st.lists(SIGNABLE, max_size=3),
        "const": SIGNABLE,
        "required": st.lists(NAMES, max_size=2, unique=True),
        "properties": st.dictionaries(NAMES, inner, max_size=3),
        "additionalProperties": inner,
        "items": inner,
        "prefixItems": st.lists(inner, min_size=1, max_size=2),
        "uniqueItems": st.booleans(),
        "multipleOf": st.integers(1, 3),
        "allOf": st.lists(inner, min_size=1, max_size=2),
        "anyOf": st.lists(inner, min_size=1, max_size=2),
        "oneOf": st.lists(inner, min_size=1, max_size=2),
        "not": inner,
        "if": inner,
        "then": inner,
        "else": inner,
        "pattern": st.just("^z"),
        "title": st.just("t"),
        **dict.fromkeys(
            ["maxItems", "minItems", "maxLength", "minLength", "maxProperties", "minProperties"],
            size,
        ),
        **dict.fromkeys(["maximum", "minimum", "exclusiveMaximum", "exclusiveMinimum"], number),
    }
    names = st.lists(st.sampled_from(sorted(members)), max_size=3, unique=True)
    return names.flatmap(lambda each: st.fixed_dictionaries({name: members[name] for name in each}))


SCHEMAS = _keywords(
    st.recursive(st.booleans(), lambda inner: st.one_of(inner, _keywords(inner)), max_leaves=4)
)


def _without_pattern(schema: Json) -> Json:
    if isinstance(schema, dict):
        return {name: _without_pattern(each) for name, each in schema.items() if name != "pattern"}
    return [_without_pattern(each) for each in schema] if isinstance(schema, list) else schema


@given(schema=SCHEMAS, instance=INSTANCES)
def test_the_subset_agrees_with_a_full_validator(schema: dict[str, Json], instance: object) -> None:
    assert check_schema(schema) is None
    plain = _without_pattern(schema)
    assert isinstance(plain, dict)
    oracle = Draft202012Validator(plain)
    assert (violation(schema, instance) is None) == oracle.is_valid(instance)


PLAIN: st.SearchStrategy[Any] = st.recursive(
    st.fixed_dictionaries(
        {"type": TYPES}, optional={"title": st.just("a"), "minLength": st.just(1)}
    ),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"type": st.just("array")}, optional={"items": inner}),
        st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.dictionaries(NAMES, inner, max_size=3)},
            optional={"required": st.lists(NAMES, max_size=2, unique=True)},
        ),
    ),
    max_leaves=6,
)


@given(schema=st.one_of(PLAIN, SCHEMAS), instance=INSTANCES)
def test_a_shape_finds_what_the_rule_finds(schema: dict[str, Json], instance: object) -> None:
    assert Shape(schema).violation(instance) == violation(schema, instance)


@pytest.mark.parametrize(("items", "keyword"), [(STEPS_MAX - 2, None), (STEPS_MAX - 1, "steps")])
def test_a_shape_looks_at_no_more_than_the_rule_does(items: int, keyword: str | None) -> None:
    schema: dict[str, Json] = {"type": "array", "items": {"type": "string"}}
    found = Shape(schema).violation([""] * items)
    assert found == violation(schema, [""] * items)
    assert (found.keyword if found else None) == keyword


@pytest.mark.parametrize(
    ("arguments", "path", "required", "said"),
    [
        ({}, "arguments.pdf", "string, null", "missing"),
        ({"pdf": 1}, "arguments.pdf", "string, null", "'type'"),
        ({"pdf": "ab"}, "arguments.pdf", "maxLength 1", "'maxLength'"),
        ({"pdf": "a", "odd": 1, "x": 1}, "arguments.x", "", "no such argument"),
        ({"pdf": "a", "odd": 1, "as": "b"}, "arguments.as", "", "'enum'"),
        ({"pdf": "a"}, "arguments.odd", "", "missing"),
        (1, "arguments", "object", "'type'"),
    ],
)
def test_a_refusal_says_what_is_missing_or_would_fit(
    arguments: object, path: str, required: str, said: str
) -> None:
    schema: dict[str, Json] = {
        "type": "object",
        "properties": {
            "pdf": {"type": ["string", "null"], "maxLength": 1},
            "as": {"enum": ["a vendor's words"]},
            "odd": {"type": "a vendor's words"},
        },
        "required": ["pdf", "odd"],
        "additionalProperties": False,
    }
    found = violation(schema, arguments)
    assert found is not None
    refusal = found.refusal("; nothing was held")
    assert (refusal.code, refusal.path, refusal.required) == (
        Code.INVALID_ARGUMENT,
        path,
        required,
    )
    assert said in refusal.message
    assert refusal.message.endswith("; nothing was held.")


def test_a_violation_names_the_member_and_the_keyword() -> None:
    schema: dict[str, Json] = {
        "type": "object",
        "properties": {"pages": {"type": "array", "items": {"$ref": "#/$defs/page"}}},
        "$defs": {"page": {"type": "object", "required": ["text"], "additionalProperties": False}},
    }
    instance = {"pages": [{"text": "a"}]}
    assert violation(schema, {"pages": [{}]}) == Violation(path="pages.0.text", keyword="required")
    assert violation(schema, instance) == Violation(
        path="pages.0.text", keyword="additionalProperties"
    )


@pytest.mark.parametrize(
    ("schema", "path", "keyword"),
    [
        ([], "", "schema"),
        ({"patternProperties": {}}, "", "patternProperties"),
        ({"items": {"$dynamicRef": "#x"}}, "items", "$dynamicRef"),
        ({"$ref": "https://example.org/schema"}, "", "$ref"),
        ({"$ref": "#/$defs/absent"}, "", "$ref"),
        ({"properties": {"a": {"$defs": {}}}}, "properties.a", "$defs"),
        ({"type": "float"}, "", "type"),
        ({"type": []}, "", "type"),
        ({"minLength": -1}, "", "minLength"),
        ({"multipleOf": 0}, "", "multipleOf"),
        ({"maximum": True}, "", "maximum"),
        ({"allOf": []}, "", "allOf"),
        ({"required": [1]}, "", "required"),
        ({"enum": "a"}, "", "enum"),
        ({"uniqueItems": 1}, "", "uniqueItems"),
    ],
)
def test_a_schema_outside_the_subset_is_refused_where_it_leaves_it(
    schema: Json, path: str, keyword: str
) -> None:
    assert check_schema(schema) == Violation(path=path, keyword=keyword)


def test_a_schema_that_refers_to_itself_for_ever_fits_nothing() -> None:
    schema: dict[str, Json] = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}
    assert check_schema(schema) is None
    assert violation(schema, {}) == Violation(path="", keyword="depth")


def test_a_schema_that_doubles_its_work_at_every_step_is_cut_short() -> None:
    definitions: dict[str, Json] = {"a0": {"type": "object"}}
    for level in range(1, 40):
        below: Json = {"$ref": f"#/$defs/a{level - 1}"}
        definitions[f"a{level}"] = {"allOf": [below, below]}
    schema: dict[str, Json] = {"not": {"$ref": "#/$defs/a39"}, "$defs": definitions}
    assert check_schema(schema) is None
    assert violation(schema, {}) == Violation(path="", keyword="depth")
    shallow: dict[str, Json] = {"not": {"$ref": "#/$defs/a25"}, "$defs": definitions}
    assert violation(shallow, {}) == Violation(path="", keyword="steps")


NAMES_OF_MANY = {f"p{n}": 1 for n in range(1_500)}


@pytest.mark.parametrize(
    ("rule", "instance"),
    [
        pytest.param({"items": True}, [1] * 2_000, id="what anything fits"),
        pytest.param({"enum": [[1] * 1_000 + [2]]}, [1] * 1_000 + [3], id="long values"),
        pytest.param({"uniqueItems": True}, ["é" * 100_000], id="long texts"),
        pytest.param({"uniqueItems": True}, [{"é" * 100_000: 1}], id="long names"),
        pytest.param(
            {"properties": dict.fromkeys(NAMES_OF_MANY, True), "additionalProperties": False},
            NAMES_OF_MANY,
            id="many names",
        ),
        pytest.param(
            {"properties": {name: {} for name in NAMES_OF_MANY}},
            {f"q{n}": 1 for n in range(2_000)},
            id="names of others",
        ),
    ],
)
def test_whatever_a_schema_looks_at_is_a_step(rule: dict[str, Json], instance: Json) -> None:
    """Twelve kilobytes, which anybody may have linted, took fourteen seconds."""
    one: Json = {"$ref": "#/$defs/one"}
    some: Json = {"$ref": "#/$defs/some"}
    schema: dict[str, Json] = {
        "$defs": {
            "one": {"allOf": [rule, {"type": "null"}]},
            "some": {"anyOf": [one] * 100},
        },
        "anyOf": [some] * 100,
    }
    assert check_schema(schema) is None
    assert violation(schema, instance) == Violation(path="", keyword="steps")


def test_a_long_path_costs_what_copying_it_does() -> None:
    schema: dict[str, Json] = {"additionalProperties": {"items": {"type": "integer"}}}
    assert violation(schema, {"a": [1] * 50_000}) is None
    found = violation(schema, {"a" * 100_000: [1] * 50_000})
    assert found == Violation(path="", keyword="steps")


@pytest.mark.parametrize("name", ["a", "a" * 9_000])
@pytest.mark.parametrize("items", [60_000, 150_000])
def test_a_shape_takes_as_many_steps_whatever_members_are_called(name: str, items: int) -> None:
    names = [f"{name}{n}" for n in range(16)]
    schema: dict[str, Json] = {
        "type": "object",
        "properties": {each: {"type": "array", "items": {"type": "null"}} for each in names},
    }
    instance = {each: [None] * (items // 16) for each in names}
    assert Shape(schema).violation(instance) == violation(schema, instance)


def test_a_regular_expression_never_runs() -> None:
    schema: dict[str, Json] = {"type": "string", "pattern": "^(a+)+$"}
    assert violation(schema, "a" * 5000 + "b") is None


def test_many_distinct_items_are_compared_in_linear_time() -> None:
    items = [{"n": n} for n in range(20_000)]
    assert violation({"uniqueItems": True}, items) is None
    assert violation({"uniqueItems": True}, [*items, {"n": 7.0}]) == Violation(
        path="20000", keyword="uniqueItems"
    )
