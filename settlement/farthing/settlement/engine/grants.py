"""Authority grants: setting and revoking them, and what speaks against a purchase under them."""

from dataclasses import replace

from farthing.protocol.authority.decide import Purchase, decide
from farthing.protocol.authority.grant import Grant
from farthing.protocol.errors import Code, Refusal, refuse
from farthing.protocol.ids import derive_id
from farthing.protocol.messages.authority import GrantView, RevokeAuthority, SetAuthority
from farthing.protocol.money import ASSETS
from farthing.protocol.records import Record
from farthing.protocol.times import format_time, utc_day
from farthing.protocol.wire import money
from farthing.settlement.engine.drafts import Call, Draft, change, ends_at
from farthing.settlement.engine.principals import is_frozen
from farthing.settlement.engine.state import State

__all__ = ["grant_answer", "grant_view", "not_authorised", "revoke_authority", "set_authority"]


def set_authority(state: State, call: Call) -> Draft | Refusal:
    """Set what an agent may spend of one asset; replaces the grant before it."""
    body = call.command.body
    assert isinstance(body, SetAuthority)
    expires_at_us = ends_at(call, body.expires_at)
    if isinstance(expires_at_us, Refusal):
        return expires_at_us
    if not _is_own_agent(state, call, body.agent_id):
        return refuse(Code.NOT_FOUND, path="agent_id")
    asset = body.per_call_max.asset
    if body.per_day_max.asset != asset or asset not in ASSETS:
        text = "Both limits must be of one asset."
        return refuse(Code.ASSET_MISMATCH, path="per_day_max.asset", required=asset, message=text)
    grant = Grant(
        grant_id=derive_id("gnt", body.agent_id, asset),
        agent_id=body.agent_id,
        operator_id=call.organisation_id,
        asset=asset,
        per_call_units_max=body.per_call_max.units,
        per_day_units_max=body.per_day_max.units,
        vendors_allow=body.vendors_allow,
        vendors_deny=body.vendors_deny,
        capabilities_allow=body.capabilities_allow,
        capabilities_deny=body.capabilities_deny,
        expires_at_us=expires_at_us,
    )
    return _amend(state, call, grant)


def revoke_authority(state: State, call: Call) -> Draft | Refusal:
    """Take a grant away, from the next call on."""
    body = call.command.body
    assert isinstance(body, RevokeAuthority)
    if not _is_own_agent(state, call, body.agent_id):
        return refuse(Code.NOT_FOUND, path="agent_id")
    grant = state.grants.get((body.agent_id, body.asset))
    if grant is None:
        text = "The agent has no authority grant for this asset."
        return refuse(Code.NOT_FOUND, path="asset", message=text)
    return _amend(state, call, replace(grant, revoked=True))


def not_authorised(state: State, call: Call, purchase: Purchase) -> tuple[Refusal, ...]:
    """Every reason why the caller has no authority for a purchase now."""
    grant = state.grants.get((call.principal_id, purchase.asset))
    day = utc_day(call.now_us)
    return decide(
        grant,
        purchase,
        frozen=is_frozen(state, call.principal_id),
        spent_units=state.counters.get((grant.grant_id, day), 0) if grant else 0,
        now_us=call.now_us,
    )


def grant_answer(record: Record) -> GrantView:
    """The answer of both, from the record alone."""
    decided = record.decided
    assert decided is not None
    grant = Grant.from_document(record.changed[0].after)
    return grant_view(grant, int(str(decided["spent_units"])))


def grant_view(grant: Grant, spent_units: int) -> GrantView:
    """A grant with what is spent and what remains of it today."""
    asset = grant.asset
    return GrantView(
        grant_id=grant.grant_id,
        agent_id=grant.agent_id,
        per_call_max=money(grant.per_call_units_max, asset),
        per_day_max=money(grant.per_day_units_max, asset),
        spent_today=money(spent_units, asset),
        remaining_today=money(max(grant.per_day_units_max - spent_units, 0), asset),
        vendors_allow=grant.vendors_allow,
        vendors_deny=grant.vendors_deny,
        capabilities_allow=grant.capabilities_allow,
        capabilities_deny=grant.capabilities_deny,
        expires_at=format_time(grant.expires_at_us) if grant.expires_at_us else "",
        revoked=grant.revoked,
    )


def _amend(state: State, call: Call, grant: Grant) -> Draft:
    before = state.grants.get((grant.agent_id, grant.asset))
    spent_units = state.counters.get((grant.grant_id, utc_day(call.now_us)), 0)
    return Draft(
        changed=(change("grant", grant.grant_id, grant, before),),
        decided={"spent_units": str(spent_units)},
    )


def _is_own_agent(state: State, call: Call, agent_id: str) -> bool:
    agent = state.principals.get(agent_id)
    return agent is not None and agent.organisation_id == call.organisation_id != agent_id
