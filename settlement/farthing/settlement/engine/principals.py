"""Organisations, agents and keys: who exists, which key speaks for it, who is stopped.

Boundary: decides and answers; the proofs themselves were checked at the door.
Source: spec/identity.md.
"""

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar, cast

from msgspec.structs import replace

from farthing.protocol.canonical import Json
from farthing.protocol.errors import Code, Refusal, refuse
from farthing.protocol.ids import derive_id
from farthing.protocol.messages.agents import (
    AddKey,
    ApproveRegistration,
    EnrolOrganisation,
    Freeze,
    FreezeState,
    KeyState,
    KeyView,
    RegisterAgent,
    Registration,
    RevokeKey,
    RotateKey,
    Unfreeze,
)
from farthing.protocol.purposes import KEYS_MAX, may_sign
from farthing.protocol.records import Change, Record
from farthing.protocol.signatures import Typ
from farthing.protocol.times import format_time
from farthing.protocol.wire import Role
from farthing.settlement.engine.commands import PLATFORM
from farthing.settlement.engine.drafts import Call, Draft, change
from farthing.settlement.engine.state import State
from farthing.settlement.engine.things import Key, Principal

__all__ = [
    "Named",
    "Registering",
    "add",
    "approve",
    "enrol",
    "freeze",
    "freeze_answer",
    "frozen_since_us",
    "is_frozen",
    "jwk_of",
    "key_answer",
    "key_view",
    "register",
    "registration_answer",
    "registration_of",
    "revoke",
    "rotate",
    "signs",
    "unfreeze",
]

Registering = TypeVar("Registering", EnrolOrganisation, RegisterAgent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Named(Generic[Registering]):
    """An enrolment or registration whose name is replaced by its salted commitment."""

    ask: Registering
    name_sha256: str

    @property
    def asked(self) -> dict[str, Json]:
        """What stands in the record, refused or not: never the name."""
        if isinstance(self.ask, EnrolOrganisation):
            return {"kind": self.ask.kind, "name_sha256": self.name_sha256}
        return {"name_sha256": self.name_sha256, "operator_id": self.ask.operator_id}


def enrol(state: State, call: Call) -> Draft | Refusal:
    """Enrol an operator or a vendor: pending until admin approves, unless enrolment is open."""
    body = call.command.body
    assert isinstance(body, Named)
    assert isinstance(body.ask, EnrolOrganisation)
    thumbprint = call.command.by.key_thumbprint
    if thumbprint in state.keys:
        return refuse(Code.ALREADY_REGISTERED, path="key")
    principal_id = derive_id("org", thumbprint)
    principal = Principal(
        principal_id=principal_id,
        organisation_id=principal_id,
        role=body.ask.kind,
        status="active" if state.open_enrolment else "pending",
        name_sha256=body.name_sha256,
    )
    return _newcomer(call, principal, jwk_of(body.ask))


def register(state: State, call: Call) -> Draft | Refusal:
    """Register an agent under an operator: pending until the operator approves."""
    body = call.command.body
    assert isinstance(body, Named)
    assert isinstance(body.ask, RegisterAgent)
    operator = state.principals.get(body.ask.operator_id)
    if operator is None or operator.role != Role.OPERATOR:
        return refuse(Code.NOT_FOUND, path="operator_id")
    thumbprint = call.command.by.key_thumbprint
    if thumbprint in state.keys:
        return refuse(Code.ALREADY_REGISTERED, path="key")
    principal = Principal(
        principal_id=derive_id("agt", thumbprint),
        organisation_id=operator.principal_id,
        role=Role.BUYER.value,
        status="pending",
        name_sha256=body.name_sha256,
    )
    return _newcomer(call, principal, jwk_of(body.ask))


def approve(state: State, call: Call) -> Draft | Refusal:
    """Approve an organisation (admin) or an agent (its operator). Twice is once."""
    body = call.command.body
    assert isinstance(body, ApproveRegistration)
    principal = _subject(state, call, body.principal_id)
    if principal is None:
        return refuse(Code.NOT_FOUND, path="principal_id")
    active = replace(principal, status="active")
    return Draft(changed=(change("principal", active.principal_id, active, principal),))


def rotate(state: State, call: Call) -> Draft | Refusal:
    """Replace a key of the caller's; the door has checked possession of the new one."""
    body = call.command.body
    assert isinstance(body, RotateKey)
    old = state.keys.get(body.replaces or call.command.by.key_thumbprint)
    if old is None or old.principal_id != call.principal_id or old.status != "active":
        return refuse(Code.NOT_FOUND, path="replaces")
    new = _new_key(state, call, body, old.purpose)
    if isinstance(new, Refusal):
        return new
    retired = replace(old, status="retired", until_us=call.now_us)
    return Draft(
        changed=(change("key", old.thumbprint, retired, old), change("key", new.thumbprint, new))
    )


def add(state: State, call: Call) -> Draft | Refusal:
    """Register a key of one purpose beside the caller's; the door has checked its possession."""
    body = call.command.body
    assert isinstance(body, AddKey)
    held = (state.keys[each] for each in state.by_party[("key", call.principal_id)])
    in_force = [key for key in held if key.purpose == body.purpose and key.status == "active"]
    if len(in_force) >= KEYS_MAX:
        text = f"There are {KEYS_MAX} {body.purpose} keys in force: revoke one first."
        return refuse(Code.NOT_PERMITTED, path="purpose", message=text)
    key = _new_key(state, call, body, body.purpose)
    return key if isinstance(key, Refusal) else Draft(changed=(change("key", key.thumbprint, key),))


def revoke(state: State, call: Call) -> Draft | Refusal:
    """Revoke a key: its holder, an agent's operator, admin for organisations and treasurers."""
    body = call.command.body
    assert isinstance(body, RevokeKey)
    key = state.keys.get(body.key_thumbprint)
    if key is None or key.principal_id != body.principal_id:
        return refuse(Code.NOT_FOUND, path="key_thumbprint")
    own = key.principal_id == call.principal_id
    treasurers = call.command.by.role is Role.ADMIN and (
        state.principals[key.principal_id].role == Role.TREASURER
    )
    if not (own or treasurers) and _subject(state, call, key.principal_id) is None:
        return refuse(Code.NOT_FOUND, path="principal_id")
    revoked = replace(key, status="revoked", until_us=key.until_us or call.now_us)
    return Draft(changed=(change("key", key.thumbprint, revoked, key),))


def freeze(state: State, call: Call) -> Draft | Refusal:
    """Freeze an agent or organisation. Whoever froze it keeps it frozen."""
    body = call.command.body
    assert isinstance(body, Freeze)
    principal = _freezable(state, call, body.principal_id)
    if principal is None:
        return refuse(Code.NOT_FOUND, path="principal_id")
    setters = {*principal.frozen_by, call.organisation_id}
    since_us = principal.frozen_at_us if principal.frozen_by else call.now_us
    frozen = replace(principal, frozen_by=tuple(sorted(setters)), frozen_at_us=since_us)
    return Draft(changed=(change("principal", frozen.principal_id, frozen, principal),))


def unfreeze(state: State, call: Call) -> Draft | Refusal:
    """Take the caller's own freeze away; another's stays until its own setter lifts it."""
    body = call.command.body
    assert isinstance(body, Unfreeze)
    principal = _freezable(state, call, body.principal_id)
    if principal is None:
        return refuse(Code.NOT_FOUND, path="principal_id")
    if principal.frozen_by and call.organisation_id not in principal.frozen_by:
        text = "It was frozen by another, who alone can let it act again."
        return refuse(Code.NOT_PERMITTED, path="principal_id", message=text)
    setters = set(principal.frozen_by) - {call.organisation_id}
    since_us = principal.frozen_at_us if setters else 0
    thawed = replace(principal, frozen_by=tuple(sorted(setters)), frozen_at_us=since_us)
    return Draft(changed=(change("principal", thawed.principal_id, thawed, principal),))


def signs(state: State, principal_id: str, thumbprint: str, typ: Typ) -> bool:
    """Whether a key is the principal's, in force, and for documents of this kind."""
    key = state.keys.get(thumbprint)
    if key is None or key.principal_id != principal_id or key.status != "active":
        return False
    return may_sign(key.purpose, typ)


def is_frozen(state: State, principal_id: str) -> bool:
    """Whether a principal or its organisation is frozen."""
    principal = state.principals[principal_id]
    if principal.frozen_by:
        return True
    organisation = state.principals.get(principal.organisation_id)
    return organisation is not None and bool(organisation.frozen_by)


def frozen_since_us(state: State, principal_id: str) -> int | None:
    """Since when a principal or its organisation has been frozen; None where neither is."""
    principal = state.principals[principal_id]
    both = (principal, state.principals.get(principal.organisation_id))
    return min((each.frozen_at_us for each in both if each and each.frozen_by), default=None)


def registration_answer(record: Record) -> Registration:
    """The answer of enrolment, registration and approval, from the record alone."""
    principal = Principal.from_document(_after(record, "principal").after)
    keys = [each for each in record.changed if each.noun == "key"]
    return registration_of(principal, keys[0].id if keys else "")


def registration_of(principal: Principal, key_thumbprint: str) -> Registration:
    """A principal as its registration."""
    return Registration(
        principal_id=principal.principal_id,
        organisation_id=principal.organisation_id,
        role=Role(principal.role),
        status=cast("Literal['pending', 'active']", principal.status),
        key_thumbprint=key_thumbprint,
    )


def key_answer(record: Record) -> KeyState:
    """The answer of what begins or ends a key, from the record alone: of two, the new one."""
    last = [each for each in record.changed if each.noun == "key"][-1]
    key = Key.from_document(last.after)
    return KeyState(
        principal_id=key.principal_id,
        key_thumbprint=key.thumbprint,
        status=cast("Literal['active', 'retired', 'revoked']", key.status),
        purpose=key.purpose,
    )


def key_view(key: Key) -> KeyView:
    """A key as its holder sees it."""
    return KeyView(
        key_thumbprint=key.thumbprint,
        purpose=key.purpose,
        status=cast("Literal['active', 'retired', 'revoked']", key.status),
        since=format_time(key.since_us),
        until=format_time(key.until_us) if key.until_us else "",
    )


def freeze_answer(record: Record) -> FreezeState:
    """The answer of freeze and unfreeze, from the record alone."""
    principal = Principal.from_document(_after(record, "principal").after)
    return FreezeState(principal_id=principal.principal_id, frozen=bool(principal.frozen_by))


def jwk_of(body: EnrolOrganisation | RegisterAgent | RotateKey | AddKey) -> dict[str, str]:
    """The public key an ask names, as a JWK without empty members."""
    key = body.key
    jwk = {"crv": key.crv, "kty": key.kty, "x": key.x}
    return jwk | {"y": key.y} if key.y else jwk


def _new_key(state: State, call: Call, body: RotateKey | AddKey, purpose: str) -> Key | Refusal:
    """The key that an ask names, as a key of the caller's, where nobody has ever had it."""
    facts = call.command.facts
    assert facts is not None
    thumbprint = cast("str", facts["new_thumbprint"])
    if thumbprint in state.keys:
        return refuse(Code.ALREADY_REGISTERED, path="key")
    return Key(
        thumbprint=thumbprint,
        principal_id=call.principal_id,
        jwk=jwk_of(body),
        status="active",
        since_us=call.now_us,
        seq=call.seq,
        purpose=purpose,
    )


def _newcomer(call: Call, principal: Principal, jwk: dict[str, str]) -> Draft:
    key = Key(
        thumbprint=call.command.by.key_thumbprint,
        principal_id=principal.principal_id,
        jwk=jwk,
        status="active",
        since_us=call.now_us,
        seq=call.seq,
    )
    return Draft(
        changed=(
            change("principal", principal.principal_id, principal),
            change("key", key.thumbprint, key),
        )
    )


def _subject(state: State, call: Call, principal_id: str) -> Principal | None:
    """The principal, where the caller is the one who answers for it."""
    principal = state.principals.get(principal_id)
    if principal is None:
        return None
    is_organisation = principal.organisation_id == principal.principal_id
    if call.command.by.role is Role.ADMIN:
        return principal if is_organisation else None
    return principal if _is_agent_of(principal, call.organisation_id) else None


def _freezable(state: State, call: Call, principal_id: str) -> Principal | None:
    principal = state.principals.get(principal_id)
    if principal is None or principal.organisation_id == PLATFORM:
        return None
    if call.command.by.role is Role.ADMIN or principal_id == call.organisation_id:
        return principal
    return principal if _is_agent_of(principal, call.organisation_id) else None


def _is_agent_of(principal: Principal, organisation_id: str) -> bool:
    return principal.organisation_id == organisation_id != principal.principal_id


def _after(record: Record, noun: str) -> Change:
    return next(each for each in record.changed if each.noun == noun)
