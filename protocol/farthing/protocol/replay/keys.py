"""Who held which key when, as the journal itself says: built from its records, one after another.

Boundary: follows the records of registrations, rotations and revocations. A signature counts only
where its key is in force at that place of the journal. Source: spec/evidence.md.
"""

from dataclasses import dataclass
from typing import Final, cast

from farthing.protocol.errors import Unverified
from farthing.protocol.ids import derive_id
from farthing.protocol.keys import PublicKey
from farthing.protocol.records import Change, Record
from farthing.protocol.replay.reading import JsonObject, changes, member, only, require, same
from farthing.protocol.signatures import KeyOf

__all__ = ["KEY_OPERATIONS", "PLATFORM", "KeyHistory"]

PLATFORM: Final = "platform"
_REGISTRATIONS: Final = {"enrol_organisation": "org", "register_agent": "agt"}
KEY_OPERATIONS: Final = frozenset({*_REGISTRATIONS, "rotate_key", "revoke_key"})


@dataclass(frozen=True, slots=True)
class _Held:
    key: PublicKey
    document: JsonObject


class KeyHistory:
    """The keys of the parties, as they stand after the records learnt so far."""

    __slots__ = ("_held", "_organisations")

    def __init__(self) -> None:
        """Know nobody."""
        self._held: dict[str, _Held] = {}
        self._organisations: dict[str, str] = {}

    @property
    def principals(self) -> frozenset[str]:
        """Everybody whose keys are known."""
        return frozenset(self._organisations)

    def learn(self, record: Record) -> None:
        """Follow a registration, rotation or revocation."""
        match record.operation:
            case "enrol_organisation" | "register_agent":
                self._register(record)
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
            self._begin(record, key_change, member_change.id)

    def organisation_of(self, principal_id: str) -> str:
        """The organisation a principal acts for; raises `Unverified` for a stranger."""
        organisation = self._organisations.get(principal_id)
        if organisation is None:
            raise Unverified(f"no record of the registration of {principal_id}")
        return organisation

    def keys_of(self, principal_id: str) -> KeyOf:
        """The keys of a principal that are in force now."""

        def key_of(thumbprint: str) -> PublicKey | None:
            held = self._held.get(thumbprint)
            if held is None or held.document["principal_id"] != principal_id:
                return None
            return held.key if held.document["status"] == "active" else None

        return key_of

    def check_speaker(self, record: Record) -> None:
        """Require whoever asked for a record to be known, with a key in force, for its house."""
        by = record.by
        if by.principal_id == PLATFORM:
            return
        known = self.keys_of(by.principal_id)(by.key_thumbprint)
        require(known is not None, record, f"the key of {by.principal_id} is not in force")
        house = self.organisation_of(by.principal_id)
        require(by.organisation_id == house, record, f"{by.principal_id} acts for another")

    def _register(self, record: Record) -> None:
        principal_change, key_change = changes(record, "principal", "key")
        principal = only(principal_change, "principal_id", record)
        principal_id = principal_change.id
        # An id is made of the first key: nobody can be registered under another's.
        expected = derive_id(_REGISTRATIONS[record.operation], key_change.id)
        require(principal_id == expected, record, "the id is not made of the key")
        require(record.by.key_thumbprint == key_change.id, record, "the key was not proven")
        self._organisations[principal_id] = member(principal, "organisation_id")
        self._begin(record, key_change, principal_id)

    def _rotate(self, record: Record) -> None:
        old, new = changes(record, "key", "key")
        require(old.id == record.by.key_thumbprint, record, "another key was rotated away")
        self.check_speaker(record)
        self._end(record, old, "retired")
        self._begin(record, new, record.by.principal_id)

    def _begin(self, record: Record, change: Change, principal_id: str) -> None:
        document = only(change, "thumbprint", record)
        jwk = document["jwk"]
        key = PublicKey.from_jwk(cast("dict[str, object]", jwk))
        require(change.before is None, record, "a new key has a past")
        require(change.id not in self._held, record, "the key is known already")
        require(key.thumbprint == change.id and key.jwk() == jwk, record, "the key is another")
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
