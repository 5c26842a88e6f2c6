"""The journal record: all that one command asked, decided, moved, counted and changed.

Boundary: shape and bytes, no meaning. A record's bytes are canonical JSON, stored as written and
never re-serialised; `prev` holds the hash of the record before it. Source: spec/journal.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

from farthing.protocol.canonical import Json, canonical_bytes, parse_json, sha256_hex
from farthing.protocol.errors import Code, Refusal, Unverified
from farthing.protocol.ledger import Transfer

__all__ = [
    "GENESIS",
    "RECORD_VERSION",
    "Change",
    "Count",
    "Record",
    "Request",
    "Signer",
    "parse_record",
    "record_bytes",
]

RECORD_VERSION: Final = 1
# What the first record names as its predecessor.
GENESIS: Final = sha256_hex(b"farthing journal")

JsonObject = dict[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Who asked, and the proof that was burnt with the effect.

    The writer's own commands (expiries, releases) carry `principal_id` "platform" and no proof;
    a newcomer has a key and no principal yet.
    """

    principal_id: str = ""
    organisation_id: str = ""
    role: str = ""
    key_thumbprint: str = ""
    assurance: str = ""
    proof_jti: str = ""
    proof_expires_at_us: int = 0

    def document(self) -> JsonObject:
        """The signer as it stands in a record; empty members are left out."""
        pairs: tuple[tuple[str, Json], ...] = (
            ("assurance", self.assurance),
            ("key_thumbprint", self.key_thumbprint),
            ("organisation_id", self.organisation_id),
            ("principal_id", self.principal_id),
            ("proof_expires_at_us", self.proof_expires_at_us),
            ("proof_jti", self.proof_jti),
            ("role", self.role),
        )
        return {name: value for name, value in pairs if value}

    @classmethod
    def from_document(cls, document: Mapping[str, Json]) -> "Signer":
        """The signer that `document` wrote."""
        return cls(**document)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The idempotency part: the key, the digest of the ask and one digest per argument."""

    key: str
    sha256: str
    args_sha256: Mapping[str, str]

    def document(self) -> JsonObject:
        """The request as it stands in a record."""
        return {"args_sha256": dict(self.args_sha256), "key": self.key, "sha256": self.sha256}


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """A change of one authority counter: a grant's spend on one UTC day."""

    grant_id: str
    day: str
    units: int

    def document(self) -> JsonObject:
        """The count as it stands in a record."""
        return {"day": self.day, "grant_id": self.grant_id, "units": str(self.units)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing's new state, whole; `before` is kept where a trail must show the old one."""

    noun: str
    id: str
    after: JsonObject
    before: JsonObject | None = None

    def document(self) -> JsonObject:
        """The change as it stands in a record."""
        document: JsonObject = {"after": self.after, "id": self.id, "noun": self.noun}
        if self.before is not None:
            document["before"] = self.before
        return document


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One command's whole effect. `seq` counts from 1; `at_us` never falls."""

    seq: int
    at_us: int
    operation: str
    by: Signer
    request: Request | None = None
    asked: JsonObject
    refused: JsonObject | None = None
    moved: tuple[Transfer, ...] = ()
    counted: tuple[Count, ...] = ()
    changed: tuple[Change, ...] = ()
    decided: JsonObject | None = None
    facts: JsonObject | None = None

    @property
    def refusal(self) -> Refusal | None:
        """The remembered refusal, where the record is one."""
        if self.refused is None:
            return None
        return Refusal.from_document(cast("Mapping[str, object]", self.refused))

    @property
    def code(self) -> Code | None:
        """The refusal's code, where the record is one."""
        refusal = self.refusal
        return None if refusal is None else refusal.code


def record_bytes(record: Record, prev: str) -> bytes:
    """The canonical bytes of a record that follows the record whose bytes hash to `prev`."""
    document: JsonObject = {
        "asked": record.asked,
        "at_us": record.at_us,
        "by": record.by.document(),
        "operation": record.operation,
        "prev": prev,
        "seq": record.seq,
        "v": RECORD_VERSION,
    }
    if record.request is not None:
        document["request"] = record.request.document()
    if record.refused is not None:
        document["refused"] = record.refused
    if record.moved:
        document["moved"] = [transfer.document() for transfer in record.moved]
    if record.counted:
        document["counted"] = [count.document() for count in record.counted]
    if record.changed:
        document["changed"] = [change.document() for change in record.changed]
    if record.decided is not None:
        document["decided"] = record.decided
    if record.facts is not None:
        document["facts"] = record.facts
    return canonical_bytes(document)


def parse_record(data: bytes) -> tuple[Record, str]:
    """The record that `record_bytes` wrote, and the hash of its predecessor.

    Raises:
        Unverified: the bytes are not a record of a known version in its canonical form.
    """
    try:
        document = cast("JsonObject", parse_json(data))
        if document["v"] != RECORD_VERSION:
            text = f"record version {document['v']} is not known"
            raise Unverified(text)
        record = _record_of(document)
        prev = str(document["prev"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        text = f"not a record: {error}"
        raise Unverified(text) from error
    if record_bytes(record, prev) != data:
        text = f"record {record.seq} is not in canonical form"
        raise Unverified(text)
    return record, prev


def _record_of(document: JsonObject) -> Record:
    request = cast("JsonObject | None", document.get("request"))
    return Record(
        seq=_integer(document["seq"]),
        at_us=_integer(document["at_us"]),
        operation=_text(document["operation"]),
        by=Signer.from_document(_object(document["by"])),
        request=None
        if request is None
        else Request(
            key=_text(request["key"]),
            sha256=_text(request["sha256"]),
            args_sha256={k: _text(v) for k, v in _object(request["args_sha256"]).items()},
        ),
        asked=_object(document["asked"]),
        refused=_optional(document.get("refused")),
        moved=tuple(Transfer.from_document(_object(m)) for m in _items(document.get("moved"))),
        counted=tuple(
            Count(
                grant_id=_text(count["grant_id"]),
                day=_text(count["day"]),
                units=int(_text(count["units"])),
            )
            for count in map(_object, _items(document.get("counted")))
        ),
        changed=tuple(
            Change(
                noun=_text(change["noun"]),
                id=_text(change["id"]),
                after=_object(change["after"]),
                before=_optional(change.get("before")),
            )
            for change in map(_object, _items(document.get("changed")))
        ),
        decided=_optional(document.get("decided")),
        facts=_optional(document.get("facts")),
    )


def _object(value: Json) -> JsonObject:
    if not isinstance(value, dict):
        text = "an object was expected"
        raise TypeError(text)
    return value


def _optional(value: Json | None) -> JsonObject | None:
    return None if value is None else _object(value)


def _items(value: Json | None) -> list[Json]:
    if value is None:
        return []
    if not isinstance(value, list) or not value:
        text = "a list with members was expected"
        raise TypeError(text)
    return value


def _text(value: Json) -> str:
    if not isinstance(value, str):
        text = "text was expected"
        raise TypeError(text)
    return value


def _integer(value: Json) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        text = "an integer was expected"
        raise TypeError(text)
    return value
