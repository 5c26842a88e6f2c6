"""Funding, balances, the trial balance."""

from farthing.identity.callers import Caller
from farthing.protocol.errors import Refused
from farthing.protocol.ledger import Account, split_account
from farthing.protocol.messages.accounts import (
    FUND_ACCOUNT,
    WITHDRAW_FUNDS,
    Balances,
    FundAccount,
    GetBalance,
    GetTrialBalance,
    TrialBalance,
    TrialRow,
    TrialTotal,
    WithdrawFunds,
)
from farthing.protocol.money import format_units
from farthing.server.market import Market
from farthing.server.operations.replies import (
    Reply,
    balance_of,
    foreign_cursor,
    not_yet,
    organisation_asked_for,
    reply,
)
from farthing.server.operations.statements import balances_then
from farthing.settlement.engine.accounts import fund_answer
from farthing.settlement.engine.questions import AccountsOf
from farthing.settlement.engine.reversals import withdrawal_answer
from farthing.settlement.engine.treasury import closed_view, grace_view
from farthing.settlement.reports.trial_balance import accounts_at

__all__ = ["fund_account", "get_balance", "get_trial_balance", "withdraw_funds"]


async def fund_account(market: Market, caller: Caller, ask: FundAccount) -> Reply:
    """Credit a prepaid account from outside."""
    return reply(await market.submit(caller, FUND_ACCOUNT, ask), fund_answer)


async def withdraw_funds(market: Market, caller: Caller, ask: WithdrawFunds) -> Reply:
    """Take money out of a prepaid account again."""
    return reply(await market.submit(caller, WITHDRAW_FUNDS, ask), withdrawal_answer)


async def get_balance(market: Market, caller: Caller, ask: GetBalance) -> Reply:
    """The balances of an organisation, now or as they were."""
    owner = await organisation_asked_for(market, caller, ask.organisation_id)
    if ask.at_seq or ask.at or ask.effective_at:
        return await balances_then(market, caller, owner, ask)
    books = await market.ask(AccountsOf(owner=owner))
    return Reply(
        answer=Balances(
            organisation_id=owner,
            accounts=tuple(
                balance_of(name, account) for name, account in sorted(books.accounts.items())
            ),
            as_of_seq=books.seq,
            graces=tuple(map(grace_view, books.graces)),
            closed=tuple(map(closed_view, books.closed)),
        )
    )


async def get_trial_balance(market: Market, caller: Caller, ask: GetTrialBalance) -> Reply:
    """A page of the accounts' gross counters, and the totals of all, now or after a record."""
    seq, after = ask.at_seq, ""
    if ask.cursor:
        of_seq, _, after = ask.cursor.partition("-")
        seq = int(of_seq)
        if ask.at_seq not in {0, seq}:
            raise Refused(foreign_cursor())
    async with market.totals.turn, market.reports.view(caller.organisation_id) as view:
        if seq > view.as_of_seq or (view.behind and not seq):
            raise not_yet(view, seq, "cursor" if ask.cursor else "at_seq")
        seq = seq or view.as_of_seq
        accounts, more = await accounts_at(view, seq, after, ask.limit)
        totals = await market.totals.at(view, seq)
    return Reply(
        answer=TrialBalance(
            rows=tuple(
                TrialRow(account=name, asset=asset, **_counters(account, asset))
                for name, account in accounts.items()
                for _, _, asset in [split_account(name)]
            ),
            totals=tuple(
                TrialTotal(asset=asset, **_counters(total, asset))
                for asset, total in totals.items()
            ),
            balanced=all(
                each.debits_posted == each.credits_posted
                and each.debits_pending == each.credits_pending
                for each in totals.values()
            ),
            as_of_seq=seq,
            cursor=f"{seq}-{more}" if more else "",
        )
    )


def _counters(account: Account, asset: str) -> dict[str, str]:
    return {
        "debits_posted": format_units(account.debits_posted, asset),
        "credits_posted": format_units(account.credits_posted, asset),
        "debits_pending": format_units(account.debits_pending, asset),
        "credits_pending": format_units(account.credits_pending, asset),
    }
