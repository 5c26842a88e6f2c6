"""Authority: what an operator sets, what an agent may spend."""

from farthing.identity.callers import Caller
from farthing.protocol.authority.standing import decide_purchase
from farthing.protocol.errors import Code, Refused, refuse
from farthing.protocol.messages.authority import (
    REVOKE_AUTHORITY,
    SET_AUTHORITY,
    Authority,
    AuthorityCheck,
    CheckAuthority,
    GetAuthority,
    RevokeAuthority,
    SetAuthority,
)
from farthing.protocol.wire import Role
from farthing.server.market import Market
from farthing.server.operations.listings import listing_head, purchase_of
from farthing.server.operations.replies import Reply, reply, standing_now
from farthing.settlement.engine.grants import grant_answer, grant_view
from farthing.settlement.engine.questions import Lookup, StandingOf
from farthing.settlement.engine.things import Principal

__all__ = ["check_authority", "get_authority", "revoke_authority", "set_authority"]


async def set_authority(market: Market, caller: Caller, ask: SetAuthority) -> Reply:
    """Set what an agent may spend of one asset."""
    return reply(await market.submit(caller, SET_AUTHORITY, ask), grant_answer)


async def revoke_authority(market: Market, caller: Caller, ask: RevokeAuthority) -> Reply:
    """Take a grant away."""
    return reply(await market.submit(caller, REVOKE_AUTHORITY, ask), grant_answer)


async def get_authority(market: Market, caller: Caller, ask: GetAuthority) -> Reply:
    """An agent's grants: its own, or those of one of the operator's agents."""
    agent_id = ask.agent_id or caller.principal_id
    agent = await market.ask(Lookup(noun="principal", id=agent_id))
    # An agent sees itself; an operator sees the agents whose organisation it is.
    if not isinstance(agent, Principal) or caller.principal_id not in (
        agent_id,
        agent.organisation_id,
    ):
        raise Refused(refuse(Code.NOT_FOUND, path="agent_id"))
    standing = await market.ask(StandingOf(principal_id=agent_id))
    return Reply(
        answer=Authority(
            agent_id=agent_id,
            frozen=standing.frozen,
            grants=tuple(
                grant_view(grant, standing.spent_units.get(asset, 0))
                for asset, grant in sorted(standing.grants.items())
            ),
        )
    )


async def check_authority(market: Market, caller: Caller, ask: CheckAuthority) -> Reply:
    """Whether a purchase would be allowed now; consumes nothing."""
    assert caller.role is Role.BUYER
    listing = await listing_head(market, ask.listing_id)
    standing = await market.ask(StandingOf(principal_id=caller.principal_id))
    purchase = await purchase_of(market, listing, ask.amount.asset, ask.amount.units)
    reasons = decide_purchase(standing, purchase, market.now_us())
    left = standing_now(standing, ask.amount.asset)
    return Reply(
        answer=AuthorityCheck(
            allowed=not reasons,
            reasons=tuple(reason.code.value for reason in reasons),
            remaining_today=left.remaining_today,
            per_call_max=left.per_call_max,
        )
    )
