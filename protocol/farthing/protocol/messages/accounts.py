"""Accounts: crediting them from outside, balances, the trial balance."""

from typing import Annotated, Final

from pydantic import Field

from farthing.protocol.canonical import INTEGER_MAX
from farthing.protocol.errors import Code
from farthing.protocol.messages.treasury import AccountState, GraceView
from farthing.protocol.wire import (
    EVERY_PRINCIPAL,
    Effect,
    IdempotencyKey,
    Money,
    Operation,
    OrganisationRef,
    Role,
    Text,
    Time,
    message,
)

__all__ = [
    "FUND_ACCOUNT",
    "GET_BALANCE",
    "GET_TRIAL_BALANCE",
    "ROWS_MAX",
    "WITHDRAW_FUNDS",
    "AccountBalance",
    "Balances",
    "FundAccount",
    "Funding",
    "GetBalance",
    "GetTrialBalance",
    "StandingNow",
    "TrialBalance",
    "TrialRow",
    "TrialTotal",
    "WithdrawFunds",
    "Withdrawal",
]

ROWS_MAX: Final = 1000
"""The most rows of one answer: a fifth of a mebibyte, and a small market whole."""


@message
class StandingNow:
    """What the caller has left, read when the answer is given; a replayed answer reads it anew.

    Absent members do not apply to the caller: a vendor has no budget.
    """

    balance: Money | None = None
    pending: Money | None = None
    remaining_today: Money | None = None
    per_call_max: Money | None = None


@message
class FundAccount:
    """Credit a prepaid account from the external clearing account."""

    organisation_id: OrganisationRef
    amount: Money
    reference: Text
    idempotency_key: IdempotencyKey


@message
class Funding:
    """Money that came in from outside."""

    funding_id: str
    organisation_id: str
    amount: Money
    reference: str


@message
class WithdrawFunds:
    """Take money out of a prepaid account again, to the external clearing account.

    Args:
        organisation_id: the operator.
        amount: how much goes.
        may_owe: whether the operator owes what its account has not: True for what has gone
            whatever is there.
        reference: what it is booked under outside.
    """

    organisation_id: OrganisationRef
    amount: Money
    may_owe: bool = False
    reference: Text
    idempotency_key: IdempotencyKey


@message
class Withdrawal:
    """Money that went out again; `owed` of it the operator had not, and owes."""

    withdrawal_id: str
    organisation_id: str
    amount: Money
    owed: Money
    reference: str


@message
class GetBalance:
    """Ask for the balances of the caller's organisation: now, or as they were.

    Those of staff are the platform's own.

    Args:
        organisation_id: whose balances, where the treasurer asks for another's.
        at_seq: after this record of the journal.
        at: after all that was recorded up to this time; one of the two at most.
        effective_at: of that, only what had taken effect by this time.
    """

    organisation_id: OrganisationRef | None = None
    at_seq: Annotated[int, Field(ge=1, le=INTEGER_MAX)] = 0
    at: Time = ""
    effective_at: Time = ""


@message
class AccountBalance:
    """One account: `posted` is settled, `held` is set aside, `available` is the rest.

    What is owed (`receivable`, below zero) cannot be spent of `prepaid`; a grace can, besides.
    """

    account: str
    posted: Money
    held: Money
    available: Money


@message
class Balances:
    """The accounts of one organisation, as of a journal position.

    `graces` say how far a prepaid account may be below zero, and `closed` which accounts take
    nothing new: both of now alone, and left out of the balances of an earlier moment.
    """

    organisation_id: str
    accounts: tuple[AccountBalance, ...]
    as_of_seq: int
    graces: tuple[GraceView, ...] = ()
    closed: tuple[AccountState, ...] = ()


@message
class GetTrialBalance:
    """Ask for every account's gross counters: now, or after the record `at_seq`.

    Args:
        at_seq: the record.
        cursor: where a page left off. It names the record too, so that all pages are of one.
        limit: the most accounts of the page.
    """

    at_seq: Annotated[int, Field(ge=1, le=INTEGER_MAX)] = 0
    cursor: Annotated[
        str, Field(max_length=100, pattern=r"^([1-9][0-9]{0,15}-[a-z0-9_]+:[a-z_]+:[A-Z]{3,8})?$")
    ] = ""
    limit: Annotated[int, Field(ge=1, le=ROWS_MAX)] = ROWS_MAX


@message
class TrialRow:
    """One account's gross counters, canonical amounts of its asset."""

    account: str
    asset: str
    debits_posted: str
    credits_posted: str
    debits_pending: str
    credits_pending: str


@message
class TrialTotal:
    """What the counters of all accounts of an asset add up to."""

    asset: str
    debits_posted: str
    credits_posted: str
    debits_pending: str
    credits_pending: str


@message
class TrialBalance:
    """Accounts by name, as of a record; `cursor` is there while there are more.

    `totals` are of all accounts, on every page; `balanced` says that in them debits equal credits.
    """

    rows: tuple[TrialRow, ...]
    totals: tuple[TrialTotal, ...]
    balanced: bool
    as_of_seq: int
    cursor: str = ""


FUND_ACCOUNT = Operation(
    name="fund_account",
    title="Fund an account",
    says="Credit an operator's prepaid account from the external clearing account.",
    ask=FundAccount,
    answer=Funding,
    effect=Effect.MOVES_MONEY,
    roles=frozenset({Role.TREASURER}),
    codes=(
        Code.INVALID_AMOUNT,
        Code.NOT_FOUND,
        Code.AMOUNT_OVERFLOW,
        Code.ACCOUNT_CLOSED,
    ),
)
WITHDRAW_FUNDS = Operation(
    name="withdraw_funds",
    title="Withdraw funds",
    says="Take money out of an operator's prepaid account: what was funded by mistake, or leaves.",
    ask=WithdrawFunds,
    answer=Withdrawal,
    effect=Effect.MOVES_MONEY,
    roles=frozenset({Role.TREASURER}),
    codes=(
        Code.INVALID_AMOUNT,
        Code.NOT_FOUND,
        Code.AMOUNT_OVERFLOW,
        Code.INSUFFICIENT_FUNDS,
    ),
)
GET_BALANCE = Operation(
    name="get_balance",
    title="Get balance",
    says="Show the balances of the caller's organisation, now or at an earlier moment.",
    ask=GetBalance,
    answer=Balances,
    effect=Effect.READS,
    roles=EVERY_PRINCIPAL,
    codes=(Code.UNAVAILABLE, Code.INVALID_ARGUMENT, Code.NOT_FOUND),
)
GET_TRIAL_BALANCE = Operation(
    name="get_trial_balance",
    title="Get trial balance",
    says="List the accounts with their gross counters and say whether all of them balance.",
    ask=GetTrialBalance,
    answer=TrialBalance,
    effect=Effect.READS,
    roles=frozenset({Role.TREASURER, Role.ADMIN}),
    codes=(Code.UNAVAILABLE, Code.INVALID_ARGUMENT),
)
