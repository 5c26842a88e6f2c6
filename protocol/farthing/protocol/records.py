"""The journal record: all that one command asked, decided, moved, counted and changed.

Boundary: shape and bytes, no meaning. A record's bytes are canonical JSON, stored as written and
never re-serialised; `prev` holds the hash of the record before it. Source: spec/journal.md.

The values are msgspec structs: the paid path makes a dozen of them a call, in a tenth of the time
that frozen dataclasses take, and reads a record back ten times as fast as a generic reader.
"""

from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec
import orjson

from farthing.protocol.canonical import InvalidJson, Json, JsonFault, parse_json, sha256_hex
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
    "read_record",
    "record_bytes",
]

RECORD_VERSION: Final = 1
# What the first record names as its predecessor.
GENESIS: Final = sha256_hex(b"farthing journal")

JsonObject = dict[str, Json]


class Signer(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
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
        return cast("JsonObject", msgspec.to_builtins(self))


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The idempotency part: the key, the digest of the ask and one digest per argument."""

    key: str
    sha256: str
    args_sha256: Mapping[str, str]

    def document(self) -> JsonObject:
        """The request as it stands in a record."""
        return {"args_sha256": dict(self.args_sha256), "key": self.key, "sha256": self.sha256}


class Count(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A change of one authority counter: a grant's spend on one UTC day."""

    grant_id: str
    day: str
    units: int

    def document(self) -> JsonObject:
        """The count as it stands in a record."""
        return {"day": self.day, "grant_id": self.grant_id, "units": str(self.units)}


class Change(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing's new state, whole; `before` is kept where a trail must show the old one."""

    noun: str
    id: str
    after: dict[str, Any]
    before: dict[str, Any] | None = None

    def document(self) -> JsonObject:
        """The change as it stands in a record."""
        document: JsonObject = {"after": self.after, "id": self.id, "noun": self.noun}
        if self.before is not None:
            document["before"] = self.before
        return document


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One command's whole effect. `seq` counts from 1; `at_us` never falls."""

    seq: int
    at_us: int
    operation: str
    by: Signer
    request: Request | None = None
    asked: dict[str, Any]
    refused: dict[str, Any] | None = None
    moved: tuple[Transfer, ...] = ()
    counted: tuple[Count, ...] = ()
    changed: tuple[Change, ...] = ()
    decided: dict[str, Any] | None = None
    facts: dict[str, Any] | None = None

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


class _Written(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A record as it is written: with the hash of the one before it, and the version."""

    prev: str
    v: int


_DECODER: Final = msgspec.json.Decoder(_Written, strict=False)


def record_bytes(record: Record, prev: str) -> bytes:
    """The canonical bytes of a record that follows the record whose bytes hash to `prev`.

    What stands in a record has been held against the restricted alphabet before it became a
    command, or was made by the engine, so only what no type can promise is looked for here.

    Raises:
        InvalidJson: an integer is out of range, or text cannot be written.
    """
    document: dict[str, Any] = {
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
    try:
        return orjson.dumps(document, option=_CANONICAL)
    except orjson.JSONEncodeError:
        raise InvalidJson(JsonFault.TYPE) from None


def read_record(data: bytes) -> tuple[Record, str]:
    """As `parse_record`, of bytes that this very program wrote and that a chain of hashes holds.

    Types and names are checked; that there is no second spelling is not.

    Raises:
        Unverified: the bytes are not a record of a known version.
    """
    try:
        written = _DECODER.decode(data)
    except msgspec.DecodeError as error:
        text = f"not a record: {error}"
        raise Unverified(text) from error
    if written.v != RECORD_VERSION:
        text = f"record version {written.v} is not known"
        raise Unverified(text)
    return Record(**{name: getattr(written, name) for name in _MEMBERS}), written.prev


def parse_record(data: bytes) -> tuple[Record, str]:
    """The record that `record_bytes` wrote, and the hash of its predecessor.

    Raises:
        Unverified: the bytes are not a record of a known version in its canonical form.
    """
    try:
        parse_json(data)
    except InvalidJson as error:
        text = f"not a record: {error}"
        raise Unverified(text) from error
    record, prev = read_record(data)
    if record_bytes(record, prev) != data:
        text = f"record {record.seq} is not in canonical form"
        raise Unverified(text)
    return record, prev


_MEMBERS: Final = Record.__struct_fields__
# Integers from 2^53 are refused by the encoder; a sorted compact encoder gives RFC 8785 bytes.
_CANONICAL: Final = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER
