"""Arguments as an attacker would try them: made from the messages' own schemas, then bent.

A strategy knows no running market, so it leaves marks (`@agr`, `@document`) where something real
goes; `filled` puts it there, bends what it was told to, and signs documents anew, so that what is
behind a signature is reached too.
"""

import copy
import os
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from hypothesis import strategies as st

from farthing.protocol.canonical import Json, canonical_bytes, document_sha256
from farthing.protocol.keys import PrivateKey
from farthing.protocol.messages.operations import AnyOperation
from farthing.protocol.signatures import Typ, sign_detached
from farthing.server.dispatch import adapter

__all__ = ["Attack", "Known", "attacks", "filled"]

Loose = Any
Schema = Mapping[str, Any]

# What a schema's pattern or a field's name lets something real stand for.
_PREFIXES: Final = ("agt", "org", "stf", "lst", "agr", "hld", "chg", "dsp")
_DOCUMENTS: Final = ("listing", "rate_card", "terms", "delivery", "quote", "acceptance", "any")
_EDITS_MAX: Final = 3
# A good value of a text, so that one bad one is not always met by another before it.
_PLAIN: Final = {
    "amount": "0.001",
    "asset": "USD",
    "idempotency_key": "@key",
    "key_thumbprint": "@thumbprint",
    "meter": "page",
    "quantity": "1",
    "x": "@x",
}

_SCALARS: Final[tuple[Loose, ...]] = (
    None, True, False, 0, 1, -1, 2**53 - 1, -(2**53 - 1), 2**31, 0.5, -0.0, 1e308,
    "", " ", "0", "-1", "1", "1.50", "1e9", "9" * 19, "9" * 16, "9" * 5000, "NaN", "null",
    "\x00", "\x1b[2J", "\u202e\u2066", "\u200b", "\U0010ffff", "e\u0301", "\ufdfa" * 40,
    "'; DROP TABLE journal_batch; --", '" OR NEAR(a b', "a* AND (b", "^:{}", "%00", "../../etc",
    "farthing-listing/1", "USD", "XTS", "ABC", "page", "AA==", "=" * 44, "a.b.c", "a..b",
    "9999-12-31T23:59:59.999999Z", "1970-01-01T00:00:00.000000Z", "x" * 70_000,
    [], {}, [[]], [{}], {"": ""}, {"\u00e9": 1}, {"$ref": "#"}, {"type": "object"},
    {"__proto__": {"a": 1}}, {"amount": "1", "asset": "USD"}, ["page"] * 200,
)  # fmt: skip


def _deep() -> Loose:
    value: Loose = 1
    for _ in range(20):
        value = [value, {"a": value}] if isinstance(value, int) else [value]
    return value


_VALUES: Final = st.one_of(
    st.sampled_from((*_SCALARS, _deep())),
    st.text(max_size=40).filter(lambda text: not _is_surrogate(text)),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(-(2**53) + 1, 2**53 - 1), st.text("ab1.")),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.text("ab_", max_size=4), inner)
        ),
        max_leaves=6,
    ),
)


class Edit(NamedTuple):
    """One place of a document, by its number, and what becomes of it."""

    place: int
    what: str
    value: Loose


class Attack(NamedTuple):
    """Arguments with marks in them, and how they are bent once the marks are filled."""

    arguments: Loose
    edits: list[Edit]


class Known(NamedTuple):
    """What is real in a market: ids by mark, documents by name, and the keys that sign them."""

    ids: Mapping[str, str]
    documents: Mapping[str, dict[str, Json]]
    signatures: Mapping[str, str]
    signers: Mapping[str, PrivateKey]


_EDITS: Final[st.SearchStrategy[list[Edit]]] = st.one_of(
    st.builds(list),
    st.lists(
        st.builds(
            Edit,
            place=st.integers(0, 200),
            what=st.sampled_from(["replace", "replace", "remove", "add", "wrap", "repeat"]),
            value=_VALUES,
        ),
        min_size=1,
        max_size=_EDITS_MAX,
    ),
)


def attacks(operation: AnyOperation) -> st.SearchStrategy[Attack]:
    """Arguments for an operation, from its ask's schema."""
    schema = adapter(operation.ask).json_schema()
    arguments = _values(schema, schema.get("$defs", {}), "")
    return st.builds(Attack, arguments=arguments, edits=_EDITS)


def filled(attack: Attack, known: Known) -> Loose:
    """The arguments with the real things in place of the marks, bent, and signed anew."""
    arguments = _fill(copy.deepcopy(attack.arguments), known)
    if isinstance(arguments, dict):
        _seal(arguments, known)
    return _bent(arguments, attack.edits)


def _values(schema: Schema, defs: Mapping[str, Schema], name: str) -> st.SearchStrategy[Loose]:
    if "$ref" in schema:
        return _values(defs[schema["$ref"].rpartition("/")[2]], defs, name)
    if "anyOf" in schema:
        return st.one_of([_values(each, defs, name) for each in schema["anyOf"]])
    if name in {"kty", "crv"}:
        return st.sampled_from([schema["enum"][0]] * 3 + schema["enum"])
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    match schema.get("type"):
        case "object" if "properties" in schema:
            return _objects(schema, defs)
        case "object":
            return st.builds(lambda edits: {"@document": name, "edits": edits}, _EDITS)
        case "array":
            items = schema.get("items", {"type": "null"})
            return st.lists(_values(items, defs, name), max_size=4)
        case "integer":
            least, most = schema.get("minimum", -(2**31)), schema.get("maximum", 2**53 - 1)
            return st.one_of(st.integers(0, 100), st.integers(least, most))
        case "boolean":
            return st.booleans()
        case "string":
            return _texts(schema, name)
        case _:
            return st.none()


def _objects(schema: Schema, defs: Mapping[str, Schema]) -> st.SearchStrategy[Loose]:
    members = {
        member: _values(inner, defs, member) for member, inner in schema["properties"].items()
    }
    required = set(schema.get("required", ()))
    return st.fixed_dictionaries(
        {member: values for member, values in members.items() if member in required},
        optional={member: values for member, values in members.items() if member not in required},
    )


def _texts(schema: Schema, name: str) -> st.SearchStrategy[Loose]:
    pattern = schema.get("pattern")
    marks = [f"@{prefix}" for prefix in _PREFIXES if pattern and _names(pattern, prefix)] * 2
    if name.endswith("signature") or name == "possession":
        return st.just(f"@signature {name}")
    if name in _PLAIN:
        marks = [_PLAIN[name]] * 3
    free = (
        st.text(max_size=min(schema.get("maxLength", 200), 200))
        if pattern is None
        else _matching(pattern)
    ).filter(lambda text: not _is_surrogate(text))
    return st.one_of(*[st.just(mark) for mark in marks], free)


def _matching(pattern: str) -> st.SearchStrategy[str]:
    return st.from_regex(pattern, fullmatch=True)


def _names(pattern: str, prefix: str) -> bool:
    return f"{prefix}_" in pattern or f"{prefix}|" in pattern or f"|{prefix})" in pattern


def _is_surrogate(text: str) -> bool:
    return any(0xD800 <= ord(each) <= 0xDFFF for each in text)


def _fill(value: Loose, known: Known) -> Loose:
    if isinstance(value, dict):
        if "@document" in value:
            name = value["@document"] if value["@document"] in known.documents else "listing"
            return _bent(copy.deepcopy(known.documents[name]), value["edits"])
        return {name: _fill(each, known) for name, each in value.items()}
    if isinstance(value, list):
        return [_fill(each, known) for each in value]
    if isinstance(value, str) and value.startswith("@"):
        if value == "@key":
            return os.urandom(12).hex()
        return known.ids.get(value[1:], value)
    return value


def _seal(arguments: dict[str, Loose], known: Known) -> None:
    """Let documents name each other by hash, and sign them, as far as they still can be."""
    listing = arguments.get("listing")
    if isinstance(listing, dict):
        for name in ("rate_card", "terms"):
            if name in arguments and f"{name}_sha256" in listing:
                listing[f"{name}_sha256"] = _sha256(arguments[name])
    for name, value in arguments.items():
        if isinstance(value, str) and value.startswith("@signature "):
            arguments[name] = _signature(arguments, name, known)


def _signature(arguments: dict[str, Loose], name: str, known: Known) -> str:
    document = "listing" if name == "signature" else name.removesuffix("_signature")
    if document in known.signatures:
        return known.signatures[document]
    typ = {"listing": Typ.LISTING, "delivery": Typ.DELIVERY, "acceptance": Typ.ACCEPTANCE}
    if document not in typ or document not in known.signers:
        return "a..b"
    try:
        payload = canonical_bytes(arguments[document])
    except (KeyError, TypeError, ValueError):
        payload = b"{}"
    return sign_detached(known.signers[document], typ[document], payload)


def _sha256(document: Loose) -> str:
    try:
        return document_sha256(document)
    except (TypeError, ValueError):
        return "0" * 64


def _bent(value: Loose, edits: list[Edit]) -> Loose:
    root = {"": value}
    for edit in edits:
        # What is put in may be bent in its turn, and all examples share the values they draw from.
        put = copy.deepcopy(edit.value)
        places = list(_places(root))
        # The document itself is the first place, and only then is it meant.
        inner = edit.place % (len(places) - 1) + 1 if edit.place and len(places) > 1 else 0
        holder, key = places[inner]
        match edit.what:
            case "replace":
                holder[key] = put
            case "remove" if holder is not root:
                del holder[key]
            case "add" if isinstance(holder[key], dict):
                holder[key]["unknown"] = put
            case "wrap":
                holder[key] = [holder[key]]
            case "repeat" if isinstance(holder[key], list):
                holder[key] = [copy.deepcopy(each) for each in holder[key] * 30]
            case _:
                holder[key] = put
    return root[""]


def _places(value: Loose) -> Iterator[tuple[Loose, Loose]]:
    """Every place of a document, as what holds it and under what."""
    keys = range(len(value)) if isinstance(value, list) else list(value)
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])
