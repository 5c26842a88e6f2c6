"""Organisations, agents and their keys: registration, approval, rotation, revocation, freeze."""

from typing import Annotated, Literal

from pydantic import Field

from farthing.protocol.errors import Code
from farthing.protocol.wire import (
    EVERY_PRINCIPAL,
    AgentRef,
    Effect,
    IdempotencyKey,
    KeyPurpose,
    Name,
    Operation,
    OrganisationRef,
    PageLimit,
    PrincipalRef,
    Role,
    Text,
    Time,
    message,
)

__all__ = [
    "ADD_KEY",
    "APPROVE_REGISTRATION",
    "ENROL_ORGANISATION",
    "FREEZE",
    "GET_REGISTRATION",
    "LIST_AGENTS",
    "LIST_KEYS",
    "REGISTER_AGENT",
    "REVOKE_KEY",
    "ROTATE_KEY",
    "UNFREEZE",
    "AddKey",
    "AgentSummary",
    "Agents",
    "ApproveRegistration",
    "EnrolOrganisation",
    "Freeze",
    "FreezeState",
    "GetRegistration",
    "KeyState",
    "KeyView",
    "Keys",
    "ListAgents",
    "ListKeys",
    "PublicJwk",
    "RegisterAgent",
    "Registration",
    "RevokeKey",
    "RotateKey",
    "Unfreeze",
]


@message
class PublicJwk:
    """A public key as a JWK: Ed25519 (`OKP`) or P-256 (`EC`)."""

    kty: Literal["OKP", "EC"]
    crv: Literal["Ed25519", "P-256"]
    x: str
    y: str = ""


@message
class EnrolOrganisation:
    """Enrol an operator or a vendor. The request is signed with the very key it names."""

    kind: Literal["operator", "vendor"]
    name: Name
    key: PublicJwk
    idempotency_key: IdempotencyKey


@message
class RegisterAgent:
    """Register an agent under an operator. Signed with the agent's own key, which it names."""

    operator_id: OrganisationRef
    name: Name
    key: PublicJwk
    idempotency_key: IdempotencyKey


@message
class Registration:
    """Who a principal is and whether it may act yet."""

    principal_id: str
    organisation_id: str
    role: Role
    status: Literal["pending", "active"]
    key_thumbprint: str


@message
class GetRegistration:
    """Ask who the caller is to the market."""


@message
class ApproveRegistration:
    """Approve a pending organisation (admin) or a pending agent (its operator)."""

    principal_id: PrincipalRef
    idempotency_key: IdempotencyKey


@message
class RotateKey:
    """Replace the caller's key. Signed with the old key; `possession` is signed with the new one.

    `possession` is a detached JWS over the canonical bytes of
    `{"old": thumbprint, "new": thumbprint, "principal": id}`, of typ `farthing-rotation+json`.
    `replaces` names a metering key of the caller's to replace in place of the key that signs.
    """

    key: PublicJwk
    possession: str
    replaces: str = ""
    idempotency_key: IdempotencyKey


@message
class AddKey:
    """Register a metering key beside the caller's. `possession` is signed with the new one.

    It is a detached JWS over the canonical bytes of
    `{"new": thumbprint, "principal": id, "purpose": "metering"}`, of typ `farthing-key+json`.
    """

    key: PublicJwk
    purpose: Literal["metering"]
    possession: str
    idempotency_key: IdempotencyKey


@message
class RevokeKey:
    """Revoke a principal's key at once: by itself, by the operator of the agent, or by admin."""

    principal_id: PrincipalRef
    key_thumbprint: str
    idempotency_key: IdempotencyKey


@message
class KeyState:
    """A key and what it is now."""

    principal_id: str
    key_thumbprint: str
    status: Literal["active", "retired", "revoked"]
    purpose: str = ""


@message
class ListKeys:
    """Ask for the caller's keys."""

    limit: Annotated[int, Field(ge=1, le=200)] = 50


@message
class KeyView:
    """One key. Without a purpose it does everything; without `until` it is in force."""

    key_thumbprint: str
    purpose: str
    status: Literal["active", "retired", "revoked"]
    since: Time
    until: str


@message
class Keys:
    """The caller's keys: those in force first, then the newest."""

    keys: tuple[KeyView, ...]


@message
class Freeze:
    """Stop an agent or a whole organisation from placing holds, from the next call on."""

    principal_id: PrincipalRef
    reason: Text
    idempotency_key: IdempotencyKey


@message
class Unfreeze:
    """Let a frozen agent or organisation act again."""

    principal_id: PrincipalRef
    reason: Text
    idempotency_key: IdempotencyKey


@message
class FreezeState:
    """Whether a principal is frozen."""

    principal_id: str
    frozen: bool


@message
class ListAgents:
    """Ask for the operator's agents: its own, oldest first, and after them who asks to be one."""

    cursor: Annotated[str, Field(pattern=r"^([ma][0-9]{1,15})?$")] = ""
    limit: PageLimit = 50


@message
class AgentSummary:
    """One agent of an operator."""

    agent_id: AgentRef
    name: str
    status: str
    frozen: bool
    key_thumbprint: str


@message
class Agents:
    """The operator's agents; `cursor` is there while there are more."""

    agents: tuple[AgentSummary, ...]
    cursor: str = ""


ENROL_ORGANISATION = Operation(
    name="enrol_organisation",
    title="Enrol an organisation",
    says="Enrol an operator or a vendor by proving possession of its key.",
    ask=EnrolOrganisation,
    answer=Registration,
    effect=Effect.WRITES,
    roles=frozenset({Role.NEWCOMER}),
    codes=(Code.INVALID_ARGUMENT, Code.ALREADY_REGISTERED),
)
REGISTER_AGENT = Operation(
    name="register_agent",
    title="Register an agent",
    says="Register an agent under an operator by proving possession of the agent's key.",
    ask=RegisterAgent,
    answer=Registration,
    effect=Effect.WRITES,
    roles=frozenset({Role.NEWCOMER}),
    codes=(Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.ALREADY_REGISTERED),
)
GET_REGISTRATION = Operation(
    name="get_registration",
    title="Get registration",
    says="Say who the caller is to the market and whether it may act yet.",
    ask=GetRegistration,
    answer=Registration,
    effect=Effect.READS,
    roles=EVERY_PRINCIPAL,
    purposes=frozenset({KeyPurpose.METERING}),
)
APPROVE_REGISTRATION = Operation(
    name="approve_registration",
    title="Approve a registration",
    says="Approve a pending organisation or agent so that it may act.",
    ask=ApproveRegistration,
    answer=Registration,
    effect=Effect.WRITES,
    roles=frozenset({Role.OPERATOR, Role.ADMIN}),
    codes=(Code.NOT_FOUND,),
)
ROTATE_KEY = Operation(
    name="rotate_key",
    title="Rotate the key",
    says="Replace the caller's key; the old one signs nothing more from the next call on.",
    ask=RotateKey,
    answer=KeyState,
    effect=Effect.WRITES,
    roles=EVERY_PRINCIPAL,
    codes=(
        Code.INVALID_ARGUMENT,
        Code.NOT_FOUND,
        Code.ALREADY_REGISTERED,
        Code.SIGNATURE_INVALID,
    ),
)
ADD_KEY = Operation(
    name="add_key",
    title="Add a metering key",
    says="Register a key that can report usage, capture and release, and nothing else.",
    ask=AddKey,
    answer=KeyState,
    effect=Effect.WRITES,
    roles=frozenset({Role.VENDOR}),
    codes=(
        Code.INVALID_ARGUMENT,
        Code.NOT_PERMITTED,
        Code.ALREADY_REGISTERED,
        Code.SIGNATURE_INVALID,
    ),
)
LIST_KEYS = Operation(
    name="list_keys",
    title="List keys",
    says="List the caller's keys with what each is for, those in force first.",
    ask=ListKeys,
    answer=Keys,
    effect=Effect.READS,
    roles=EVERY_PRINCIPAL,
)
REVOKE_KEY = Operation(
    name="revoke_key",
    title="Revoke a key",
    says="Revoke a key at once; the next call signed with it is refused.",
    ask=RevokeKey,
    answer=KeyState,
    effect=Effect.WRITES,
    roles=EVERY_PRINCIPAL,
    codes=(Code.NOT_FOUND,),
)
FREEZE = Operation(
    name="freeze",
    title="Freeze",
    says="Stop an agent or an organisation from placing holds, from the next call on.",
    ask=Freeze,
    answer=FreezeState,
    effect=Effect.WRITES,
    roles=frozenset({Role.OPERATOR, Role.ADMIN}),
    codes=(Code.NOT_FOUND,),
)
UNFREEZE = Operation(
    name="unfreeze",
    title="Unfreeze",
    says="Let a frozen agent or organisation act again.",
    ask=Unfreeze,
    answer=FreezeState,
    effect=Effect.WRITES,
    roles=frozenset({Role.OPERATOR, Role.ADMIN}),
    codes=(Code.NOT_PERMITTED, Code.NOT_FOUND),
)
LIST_AGENTS = Operation(
    name="list_agents",
    title="List agents",
    says="List the operator's agents with their state, oldest first, then who asks to be one.",
    ask=ListAgents,
    answer=Agents,
    effect=Effect.READS,
    roles=frozenset({Role.OPERATOR}),
)
