"""Who held which key when, as the journal itself says: built from its records, one after another.

Boundary: follows the records of registrations, additions, rotations and revocations. A signature
counts only where its key is in force at that place of the journal, and for what it signs.
Source: spec/evidence.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

from farthing.protocol.canonical import canonical_bytes
from farthing.protocol.errors import Unverified
from farthing.protocol.ids import derive_id
from farthing.protocol.keys import PublicKey
from farthing.protocol.messages.operations import OPERATIONS
from farthing.protocol.purposes import may_call, may_sign
from farthing.protocol.records import Change, Record
from farthing.protocol.replay.reading import (
    JsonObject,
    changes,
    member,
    only,
    require,
    same,
    text_fact,
)
from farthing.protocol.signatures import InvalidSignature, KeyOf, Typ, verify_detached
from farthing.protocol.wire import KeyPurpose

__all__ = ["KEY_OPERATIONS", "PLATFORM", "KeyHistory"]

PLATFORM: Final = "platform"
_REGISTRATIONS: Final = {"enrol_organisation": "org", "register_agent": "agt"}
KEY_OPERATIONS: Final = frozenset({*_REGISTRATIONS, "add_key", "rotate_key", "revoke_key"})


@dataclass(frozen=True, slots=True)
class _Held:
    key: PublicKey
    document: JsonObject

    @property
    def is_active(self) -> bool:
        return self.document["status"] == "active"

    @property
    def purpose(self) -> str:
        return str(self.document.get("purpose", ""))


class KeyHistory:
    """The keys of the parties, as they stand after the records learnt so far."""

    __slots__ = ("_held", "_organisations", "_roles")

    def __init__(self) -> None:
        """Know nobody."""
        self._held: dict[str, _Held] = {}
        self._organisations: dict[str, str] = {}
        self._roles: dict[str, str] = {}

    @property
    def principals(self) -> frozenset[str]:
        """Everybody whose keys are known."""
        return frozenset(self._organisations)

    def learn(self, record: Record) -> None:
        """Follow a registration, addition, rotation or revocation."""
        match record.operation:
            case "enrol_organisation" | "register_agent":
                self._register(record)
            case "add_key":
                self._add(record)
            case "rotate_key":
                self._rotate(record)
            case _:
                (change,) = changes(record, "key")
                self._end(record, change, "revoked")

    def begin(self, record: Record) -> None:
        """Follow the first record, which names the platform's staff and their keys."""
        staff = [change for change in record.changed if change.noun == "principal"]
        keys = [change for change in record.changed if change.noun == "key"]
        require(record.seq == 1 and len(staff) == len(keys), record, "the staff is named later")
        for member_change, key_change in zip(staff, keys, strict=True):
            principal = only(member_change, "principal_id", record)
            expected = derive_id("stf", key_change.id)
            require(member_change.id == expected, record, "the id is not made of the key")
            self._organisations[member_change.id] = member(principal, "organisation_id")
            self._roles[member_change.id] = member(principal, "role")
            self._begin(record, key_change, member_change.id)

    def organisation_of(self, principal_id: str) -> str:
        """The organisation a principal acts for; raises `Unverified` for a stranger."""
        organisation = self._organisations.get(principal_id)
        if organisation is None:
            raise Unverified(f"no record of the registration of {principal_id}")
        return organisation

    def keys_of(self, principal_id: str, typ: Typ) -> KeyOf:
        """The keys of a principal that are in force now, for documents of a kind."""

        def key_of(thumbprint: str) -> PublicKey | None:
            held = self._active(principal_id, thumbprint)
            return held.key if held is not None and may_sign(held.purpose, typ) else None

        return key_of

    def _active(self, principal_id: str, thumbprint: str) -> _Held | None:
        held = self._held.get(thumbprint)
        if held is None or held.document["principal_id"] != principal_id:
            return None
        return held if held.is_active else None

    def check_speaker(self, record: Record) -> None:
        """Require whoever asked for a record to be known, with a key and in a role for it."""
        by, operation = record.by, OPERATIONS.get(record.operation)
        is_own = by.principal_id == PLATFORM
        require(is_own is (operation is None), record, f"{by.principal_id} does not ask for it")
        if operation is None:
            return
        held = self._active(by.principal_id, by.key_thumbprint)
        if held is None:
            text = f"record {record.seq} ({record.operation}): "
            raise Unverified(f"{text}the key of {by.principal_id} is not in force")
        is_for_it = may_call(held.purpose, record.operation)
        require(is_for_it, record, f"a {held.purpose} key does not ask for it")
        house = self.organisation_of(by.principal_id)
        require(by.organisation_id == house, record, f"{by.principal_id} acts for another")
        role = self._roles[by.principal_id]
        is_theirs = by.role == role in operation.roles
        # Who may not ask at all is refused, and that may be remembered.
        require(
            is_theirs or record.refused is not None,
            record,
            f"{by.principal_id} asks in a role that is not for it",
        )

    def _register(self, record: Record) -> None:
        principal_change, key_change = changes(record, "principal", "key")
        principal = only(principal_change, "principal_id", record)
        principal_id = principal_change.id
        # An id is made of the first key: nobody can be registered under another's.
        expected = derive_id(_REGISTRATIONS[record.operation], key_change.id)
        require(principal_id == expected, record, "the id is not made of the key")
        require(record.by.key_thumbprint == key_change.id, record, "the key was not proven")
        self._organisations[principal_id] = member(principal, "organisation_id")
        self._roles[principal_id] = member(principal, "role")
        self._begin(record, key_change, principal_id)

    def _rotate(self, record: Record) -> None:
        old, new = changes(record, "key", "key")
        replaced = record.asked.get("replaces", record.by.key_thumbprint)
        require(old.id == replaced, record, "another key was rotated away")
        self.check_speaker(record)
        held = self._active(record.by.principal_id, old.id)
        require(held is not None, record, "the key that is replaced is not the caller's")
        self._end(record, old, "retired")
        self._begin(record, new, record.by.principal_id, self._held[old.id].purpose)
        shown = {"new": new.id, "old": old.id, "principal": record.by.principal_id}
        self._check_possession(record, Typ.ROTATION, shown)

    def _add(self, record: Record) -> None:
        (new,) = changes(record, "key")
        self.check_speaker(record)
        principal_id, purpose = record.by.principal_id, member(record.asked, "purpose")
        require(purpose in {*KeyPurpose}, record, "a key of no known purpose")
        self._begin(record, new, principal_id, purpose)
        shown = {"new": new.id, "principal": principal_id, "purpose": purpose}
        self._check_possession(record, Typ.NEW_KEY, shown)

    def _check_possession(self, record: Record, typ: Typ, shown: Mapping[str, str]) -> None:
        """Require the holder of a new key to have signed what was shown."""
        keys = {shown["new"]: self._held[shown["new"]].key}
        try:
            signature = text_fact(record, "possession")
            verify_detached(signature, typ, canonical_bytes(dict(shown)), keys.get)
        except InvalidSignature as error:
            text = f"record {record.seq} ({record.operation}): possession of the key: {error}"
            raise Unverified(text) from error

    def _begin(self, record: Record, change: Change, principal_id: str, purpose: str = "") -> None:
        document = only(change, "thumbprint", record)
        jwk = document["jwk"]
        key = PublicKey.from_jwk(cast("dict[str, object]", jwk))
        require(change.before is None, record, "a new key has a past")
        require(change.id not in self._held, record, "the key is known already")
        require(key.thumbprint == change.id and key.jwk() == jwk, record, "the key is another")
        require(document.get("purpose", "") == purpose, record, "the key is for something else")
        since_us = record.at_us
        same(
            record,
            "key",
            document,
            principal_id=principal_id,
            status="active",
            since_us=since_us,
            seq=record.seq,
        )
        self._held[change.id] = _Held(key, document)

    def _end(self, record: Record, change: Change, status: str) -> None:
        held = self._held.get(change.id)
        if held is None or change.before != held.document:
            text = f"record {record.seq} ({record.operation}): the past of a key is missing"
            raise Unverified(text)
        until_us = held.document.get("until_us") or record.at_us
        after: JsonObject = {**held.document, "status": status, "until_us": until_us}
        require(change.after == after, record, "more of the key changes than its end")
        self._held[change.id] = _Held(held.key, after)
