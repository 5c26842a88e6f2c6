"""Funding, balances, the trial balance."""

from farthing.identity.callers import Caller
from farthing.protocol.ledger import Account, imbalances, split_account
from farthing.protocol.messages.accounts import (
    FUND_ACCOUNT,
    Balances,
    FundAccount,
    GetBalance,
    GetTrialBalance,
    TrialBalance,
    TrialRow,
)
from farthing.protocol.money import format_units
from farthing.server.market import Market
from farthing.server.operations.replies import Reply, balance_of, reply
from farthing.server.operations.statements import accounts_then, balances_then
from farthing.settlement.engine.accounts import fund_answer
from farthing.settlement.engine.questions import AccountsOf, AllAccounts, Books

__all__ = ["fund_account", "get_balance", "get_trial_balance"]


async def fund_account(market: Market, caller: Caller, ask: FundAccount) -> Reply:
    """Credit a prepaid account from outside."""
    return reply(await market.submit(caller, FUND_ACCOUNT, ask), fund_answer)


async def get_balance(market: Market, caller: Caller, ask: GetBalance) -> Reply:
    """The balances of the caller's organisation, now or as they were."""
    if ask.at_seq or ask.at or ask.effective_at:
        return await balances_then(market, caller, ask)
    books = await market.ask(AccountsOf(owner=caller.organisation_id))
    return Reply(
        answer=Balances(
            organisation_id=caller.organisation_id,
            accounts=tuple(
                balance_of(name, account) for name, account in sorted(books.accounts.items())
            ),
            as_of_seq=books.seq,
        )
    )


async def get_trial_balance(market: Market, caller: Caller, ask: GetTrialBalance) -> Reply:
    """Every account's gross counters, now or after an earlier record."""
    del caller
    if ask.at_seq:
        books = Books(accounts=await accounts_then(market, ask.at_seq), seq=ask.at_seq)
    else:
        books = await market.ask(AllAccounts())
    return Reply(
        answer=TrialBalance(
            rows=tuple(_row(*each) for each in sorted(books.accounts.items())),
            balanced=not imbalances(books.accounts),
            as_of_seq=books.seq,
        )
    )


def _row(name: str, account: Account) -> TrialRow:
    asset = split_account(name)[2]
    return TrialRow(
        account=name,
        asset=asset,
        debits_posted=format_units(account.debits_posted, asset),
        credits_posted=format_units(account.credits_posted, asset),
        debits_pending=format_units(account.debits_pending, asset),
        credits_pending=format_units(account.credits_pending, asset),
    )
