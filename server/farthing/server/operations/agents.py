"""Registration, approval, keys, freeze."""

from farthing.identity.callers import Caller
from farthing.protocol.canonical import Json, canonical_bytes, sha256_hex
from farthing.protocol.errors import Code, Refused, refuse
from farthing.protocol.keys import InvalidKey, PublicKey
from farthing.protocol.messages.agents import (
    ADD_KEY,
    APPROVE_REGISTRATION,
    ENROL_ORGANISATION,
    FREEZE,
    REGISTER_AGENT,
    REVOKE_KEY,
    ROTATE_KEY,
    UNFREEZE,
    AddKey,
    Agents,
    AgentSummary,
    ApproveRegistration,
    EnrolOrganisation,
    Freeze,
    GetRegistration,
    Keys,
    ListAgents,
    ListKeys,
    RegisterAgent,
    RevokeKey,
    RotateKey,
    Unfreeze,
)
from farthing.protocol.signatures import InvalidSignature, Typ, verify_detached
from farthing.server.market import Market
from farthing.server.operations.replies import Reply, reply
from farthing.settlement.engine.commands import Kept
from farthing.settlement.engine.principals import (
    Named,
    Registering,
    freeze_answer,
    jwk_of,
    key_answer,
    key_view,
    registration_answer,
    registration_of,
)
from farthing.settlement.engine.questions import (
    ActiveKeys,
    KeyOf,
    KeysOf,
    Lookup,
    MembersOf,
    PlaceInMembers,
)
from farthing.settlement.engine.things import Principal

__all__ = [
    "add_key",
    "approve_registration",
    "enrol_organisation",
    "freeze",
    "get_registration",
    "list_agents",
    "list_keys",
    "register_agent",
    "revoke_key",
    "rotate_key",
    "unfreeze",
]

_SALT_BYTES = 16
# What a cursor begins with: whether the page begins among the operator's own, or who asks.
_LISTS = "ma"


async def enrol_organisation(market: Market, caller: Caller, ask: EnrolOrganisation) -> Reply:
    """Enrol an organisation; its name stays outside the journal, behind a salted commitment."""
    body, kept = _named(market, ask)
    outcome = await market.submit(caller, ENROL_ORGANISATION, ask, body=body, kept=kept)
    return reply(outcome, registration_answer)


async def register_agent(market: Market, caller: Caller, ask: RegisterAgent) -> Reply:
    """Register an agent; its name stays outside the journal, behind a salted commitment."""
    body, kept = _named(market, ask)
    outcome = await market.submit(caller, REGISTER_AGENT, ask, body=body, kept=kept)
    return reply(outcome, registration_answer)


async def get_registration(market: Market, caller: Caller, ask: GetRegistration) -> Reply:
    """Who the caller is."""
    del ask
    principal = await _principal(market, caller.principal_id)
    return Reply(answer=registration_of(principal, caller.key_thumbprint))


async def approve_registration(market: Market, caller: Caller, ask: ApproveRegistration) -> Reply:
    """Let a pending principal act."""
    return reply(await market.submit(caller, APPROVE_REGISTRATION, ask), registration_answer)


async def rotate_key(market: Market, caller: Caller, ask: RotateKey) -> Reply:
    """Replace a key of the caller's, given possession of the new one."""
    old = ask.replaces or caller.key_thumbprint
    try:
        facts = _possessed(ask, Typ.ROTATION, old=old, principal=caller.principal_id)
    except Refused as refused:
        if refused.refusal.code is Code.SIGNATURE_INVALID:
            # Whose key is to be replaced comes first, whatever was signed.
            await _own_key(market, caller, old)
        raise
    return reply(await market.submit(caller, ROTATE_KEY, ask, facts=facts), key_answer)


async def add_key(market: Market, caller: Caller, ask: AddKey) -> Reply:
    """Register a key of one purpose, given possession of it."""
    facts = _possessed(ask, Typ.NEW_KEY, principal=caller.principal_id, purpose=ask.purpose)
    return reply(await market.submit(caller, ADD_KEY, ask, facts=facts), key_answer)


async def list_keys(market: Market, caller: Caller, ask: ListKeys) -> Reply:
    """The caller's keys: those in force first, then the newest."""
    keys = await market.ask(KeysOf(principal_id=caller.principal_id))
    ordered = sorted(keys, key=lambda each: (each.status != "active", -each.seq))
    return Reply(answer=Keys(keys=tuple(map(key_view, ordered[: ask.limit]))))


async def revoke_key(market: Market, caller: Caller, ask: RevokeKey) -> Reply:
    """Revoke a key at once."""
    return reply(await market.submit(caller, REVOKE_KEY, ask), key_answer)


async def freeze(market: Market, caller: Caller, ask: Freeze) -> Reply:
    """Stop a principal from placing holds."""
    return reply(await market.submit(caller, FREEZE, ask), freeze_answer)


async def unfreeze(market: Market, caller: Caller, ask: Unfreeze) -> Reply:
    """Let a principal act again."""
    return reply(await market.submit(caller, UNFREEZE, ask), freeze_answer)


async def list_agents(market: Market, caller: Caller, ask: ListAgents) -> Reply:
    """A page of the operator's agents, oldest first, and after them who asks to be one."""
    begin = PlaceInMembers(
        asking=ask.cursor.startswith(_LISTS[True]), after=int(ask.cursor[1:] or 0)
    )
    page = await market.ask(
        MembersOf(organisation_id=caller.organisation_id, begin=begin, limit=ask.limit)
    )
    principals, more = page.agents, page.more
    names = await market.names({each.name_sha256 for each in principals})
    keys = await market.ask(ActiveKeys(principal_ids=tuple(p.principal_id for p in principals)))
    return Reply(
        answer=Agents(
            agents=tuple(
                AgentSummary(
                    agent_id=each.principal_id,
                    name=names.get(each.name_sha256, ""),
                    status=each.status,
                    frozen=bool(each.frozen_by),
                    key_thumbprint=keys.get(each.principal_id, ""),
                )
                for each in principals
            ),
            cursor="" if more is None else f"{_LISTS[more.asking]}{more.after}",
        )
    )


def _possessed(ask: RotateKey | AddKey, typ: Typ, **shown: str) -> dict[str, Json]:
    """The facts of a new key whose holder has signed what is shown, beside the key's own name."""
    try:
        new = PublicKey.from_jwk(jwk_of(ask))
    except InvalidKey as error:
        raise Refused(refuse(Code.INVALID_ARGUMENT, path="key")) from error
    payload = canonical_bytes({"new": new.thumbprint, **shown})
    try:
        verify_detached(ask.possession, typ, payload, {new.thumbprint: new}.get)
    except InvalidSignature as error:
        raise Refused(refuse(Code.SIGNATURE_INVALID, path="possession")) from error
    return {"new_thumbprint": new.thumbprint, "possession": ask.possession}


async def _own_key(market: Market, caller: Caller, thumbprint: str) -> None:
    facts = await market.ask(KeyOf(thumbprint=thumbprint))
    if facts is None or (facts.principal_id, facts.status) != (caller.principal_id, "active"):
        raise Refused(refuse(Code.NOT_FOUND, path="replaces"))


def _named(market: Market, ask: Registering) -> tuple[Named[Registering], tuple[Kept, ...]]:
    salt = market.entropy(_SALT_BYTES).hex()
    commitment = sha256_hex(f"{salt}{ask.name}".encode())
    row: dict[str, str | int | bytes] = {"commitment": commitment, "salt": salt, "value": ask.name}
    return Named(ask=ask, name_sha256=commitment), (Kept(table="personal", row=row),)


async def _principal(market: Market, principal_id: str) -> Principal:
    principal = await market.ask(Lookup(noun="principal", id=principal_id))
    if not isinstance(principal, Principal):
        raise Refused(refuse(Code.NOT_FOUND, path="principal_id"))
    return principal
