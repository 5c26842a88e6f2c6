"""Searching the catalog with the caller's own workload, money and authority."""

import asyncio
from collections.abc import Collection
from itertools import compress

from farthing.catalog.search import search
from farthing.identity.callers import Caller
from farthing.protocol.authority.standing import NOBODY
from farthing.protocol.errors import Code, Refusal, refuse
from farthing.protocol.messages.catalog import SearchCatalog
from farthing.protocol.messages.holds import PLACE_HOLD
from farthing.server.market import Market
from farthing.server.operations.replies import Reply, is_frozen
from farthing.settlement.engine.questions import StandingOf

__all__ = ["search_catalog"]


async def search_catalog(market: Market, caller: Caller, ask: SearchCatalog) -> Reply:
    """Filter, price, judge, rank, explain."""
    standing = NOBODY
    if caller.principal_id:
        # Who buys nothing has no position, and may be party to all agreements of a vendor's.
        buys = caller.role in PLACE_HOLD.roles
        standing = await market.ask(
            StandingOf(principal_id=caller.principal_id, with_positions=buys)
        )

    async def frozen_among(vendor_ids: Collection[str]) -> frozenset[str]:
        # Of one turn, so all cross to the engine together.
        told = await asyncio.gather(*(is_frozen(market, each) for each in vendor_ids))
        return frozenset(compress(vendor_ids, told))

    async with market.reads() as conn:
        return Reply(
            answer=await search(
                conn,
                ask,
                standing=standing,
                cards=market.cards,
                vocabulary=market.vocabulary,
                now_us=market.now_us(),
                frozen_among=frozen_among,
                barred=_barred(caller),
            )
        )


def _barred(caller: Caller) -> Refusal | None:
    """Why a caller who is no agent buys nothing, whatever it has: no grant is made out to it."""
    if caller.role in PLACE_HOLD.roles:
        return None
    if not caller.principal_id:
        return refuse(Code.UNAUTHENTICATED)
    return refuse(Code.NOT_PERMITTED, required=", ".join(sorted(PLACE_HOLD.roles)))
