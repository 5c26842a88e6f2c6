"""Credit lots, grace, partners, closing an account."""

from farthing.identity.callers import Caller
from farthing.protocol.errors import Code, Refused, refuse
from farthing.protocol.messages.treasury import (
    CLOSE_ACCOUNT,
    GRANT_CREDIT,
    SET_GRACE,
    SET_PARTNER,
    WITHDRAW_CREDIT,
    CloseAccount,
    CreditLots,
    GetPartner,
    GrantCredit,
    ListCreditLots,
    SetGrace,
    SetPartner,
    WithdrawCredit,
)
from farthing.server.market import Market
from farthing.server.operations.pages import page_of_organisation
from farthing.server.operations.replies import Reply, reply
from farthing.settlement.engine.commands import PLATFORM
from farthing.settlement.engine.lots import lot_answer, lot_view
from farthing.settlement.engine.questions import Lookup
from farthing.settlement.engine.things import Listing, Lot, Partner
from farthing.settlement.engine.treasury import (
    close_answer,
    grace_answer,
    partner_answer,
    partner_view,
)

__all__ = [
    "close_account",
    "get_partner",
    "grant_credit",
    "list_credit_lots",
    "set_grace",
    "set_partner",
    "withdraw_credit",
]


async def grant_credit(market: Market, caller: Caller, ask: GrantCredit) -> Reply:
    """Give an operator a credit lot."""
    return reply(await market.submit(caller, GRANT_CREDIT, ask), lot_answer)


async def withdraw_credit(market: Market, caller: Caller, ask: WithdrawCredit) -> Reply:
    """Take back what is free of a credit lot."""
    return reply(await market.submit(caller, WITHDRAW_CREDIT, ask), lot_answer)


async def list_credit_lots(market: Market, caller: Caller, ask: ListCreditLots) -> Reply:
    """An operator's credit lots, newest first."""
    page = await page_of_organisation(market, caller, Lot, ask)
    lots = tuple(map(lot_view, page.things))
    return Reply(answer=CreditLots(lots=lots, as_of_seq=page.as_of_seq, cursor=page.cursor))


async def set_grace(market: Market, caller: Caller, ask: SetGrace) -> Reply:
    """Set how far a prepaid account may be below zero."""
    return reply(await market.submit(caller, SET_GRACE, ask), grace_answer)


async def set_partner(market: Market, caller: Caller, ask: SetPartner) -> Reply:
    """Name the partner of a vendor or listing."""
    return reply(await market.submit(caller, SET_PARTNER, ask), partner_answer)


async def get_partner(market: Market, caller: Caller, ask: GetPartner) -> Reply:
    """The partner of a listing, where it has none that of its vendor; to those whom it concerns."""
    listing = await market.ask(Lookup(noun="listing", id=ask.subject_id))
    vendor_id = listing.vendor_id if isinstance(listing, Listing) else ask.subject_id
    for subject_id in dict.fromkeys((ask.subject_id, vendor_id)):
        partner = await market.ask(Lookup(noun="partner", id=subject_id))
        if isinstance(partner, Partner):
            concerned = {vendor_id, partner.partner_id, PLATFORM}
            if caller.organisation_id in concerned:
                return Reply(answer=partner_view(ask.subject_id, partner))
            break
    raise Refused(refuse(Code.NOT_FOUND, path="subject_id"))


async def close_account(market: Market, caller: Caller, ask: CloseAccount) -> Reply:
    """Close an empty account."""
    return reply(await market.submit(caller, CLOSE_ACCOUNT, ask), close_answer)
