"""Searching the catalog with the caller's own workload, money and authority."""

from farthing.catalog.search import search
from farthing.identity.callers import Caller
from farthing.protocol.authority.standing import NOBODY
from farthing.protocol.messages.catalog import SearchCatalog
from farthing.server.market import Market
from farthing.server.operations.replies import Reply
from farthing.settlement.engine.questions import StandingOf

__all__ = ["search_catalog"]


async def search_catalog(market: Market, caller: Caller, ask: SearchCatalog) -> Reply:
    """Filter, price, judge, rank, explain."""
    standing = NOBODY
    if caller.principal_id:
        standing = await market.ask(
            StandingOf(principal_id=caller.principal_id, with_positions=True)
        )
    async with market.reads() as conn:
        return Reply(
            answer=await search(
                conn,
                ask,
                standing=standing,
                cards=market.cards,
                vocabulary=market.vocabulary,
                now_us=market.now_us(),
            )
        )
