"""Keys begun, replaced and ended in a test market: real possession, the real engine."""

from dataclasses import replace
from typing import Any

from farthing.identity.callers import Caller
from farthing.protocol.canonical import Json, canonical_bytes
from farthing.protocol.messages.agents import (
    ADD_KEY,
    REVOKE_KEY,
    ROTATE_KEY,
    AddKey,
    RevokeKey,
    RotateKey,
)
from farthing.protocol.records import Record
from farthing.protocol.signatures import Typ, sign_detached
from tests.construction import Room
from tests.papers import public_jwk, signing_key

__all__ = ["add_key", "metering_key", "revoke", "rotate"]


def metering_key(room: Room, vendor: Caller, name: str) -> Caller:
    """Register the metering key of a name; gives the vendor as it calls with that key."""
    record = add_key(room, vendor, name)
    assert isinstance(record, Record), record
    assert record.refusal is None, record.refusal
    return replace(vendor, key_thumbprint=signing_key(name).thumbprint, purpose="metering")


def add_key(room: Room, vendor: Caller, name: str) -> Any:
    """Ask for a metering key; gives whatever the engine decides."""
    new = signing_key(name)
    shown = {"new": new.thumbprint, "principal": vendor.principal_id, "purpose": "metering"}
    possession = sign_detached(new, Typ.NEW_KEY, canonical_bytes(dict(shown)))
    ask = AddKey(
        key=public_jwk(new),
        purpose="metering",
        possession=possession,
        idempotency_key=room.key(),
    )
    facts: dict[str, Json] = {"new_thumbprint": new.thumbprint, "possession": possession}
    return room.submit(vendor, ADD_KEY, ask, facts=facts)


def rotate(room: Room, by: Caller, name: str, replaces: str = "") -> Any:
    """Put the key of a name in the place of the caller's, or of one that it names."""
    new = signing_key(name)
    shown = {
        "new": new.thumbprint,
        "old": replaces or by.key_thumbprint,
        "principal": by.principal_id,
    }
    possession = sign_detached(new, Typ.ROTATION, canonical_bytes(dict(shown)))
    ask = RotateKey(
        key=public_jwk(new), possession=possession, replaces=replaces, idempotency_key=room.key()
    )
    facts: dict[str, Json] = {"new_thumbprint": new.thumbprint, "possession": possession}
    return room.submit(by, ROTATE_KEY, ask, facts=facts)


def revoke(room: Room, by: Caller, thumbprint: str) -> Any:
    """End a key of the caller's."""
    ask = RevokeKey(
        principal_id=by.principal_id, key_thumbprint=thumbprint, idempotency_key=room.key()
    )
    return room.submit(by, REVOKE_KEY, ask)
