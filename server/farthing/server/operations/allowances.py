"""Allowances: proposed, approved, shown with what of them was used."""

from farthing.identity.callers import Caller
from farthing.protocol.messages.allowances import (
    APPROVE_ALLOWANCE,
    PROPOSE_ALLOWANCE,
    ApproveAllowance,
    GetAllowance,
    ProposeAllowance,
)
from farthing.server.market import Market
from farthing.server.operations.replies import Reply, own, reply
from farthing.settlement.engine.allowances import allowance_answer, allowance_use
from farthing.settlement.engine.questions import Lookup
from farthing.settlement.engine.things import Agreement, Allowance

__all__ = ["approve_allowance", "get_allowance", "propose_allowance"]


async def propose_allowance(market: Market, caller: Caller, ask: ProposeAllowance) -> Reply:
    """Propose limits to the other side."""
    return reply(await market.submit(caller, PROPOSE_ALLOWANCE, ask), allowance_answer)


async def approve_allowance(market: Market, caller: Caller, ask: ApproveAllowance) -> Reply:
    """Put the other side's limits in force."""
    return reply(await market.submit(caller, APPROVE_ALLOWANCE, ask), allowance_answer)


async def get_allowance(market: Market, caller: Caller, ask: GetAllowance) -> Reply:
    """What may be used under an agreement, and what was."""
    agreement = await own(market, caller, Agreement, "agreement_id", ask.agreement_id)
    allowance = await market.ask(Lookup(noun="allowance", id=agreement.agreement_id))
    position = await market.ask(Lookup(noun="position", id=agreement.agreement_id))
    return Reply(
        answer=allowance_use(
            agreement.agreement_id,
            allowance if isinstance(allowance, Allowance) else None,
            position if isinstance(position, dict) else {},
            market.now_us(),
        )
    )
