"""Funding, what an operator can spend and owes, and the transfers that other nouns build."""

from farthing.protocol.errors import Code, NextAction, Refusal, refuse
from farthing.protocol.ledger import (
    COUNTER_MAX,
    Account,
    AccountKind,
    Movement,
    Transfer,
    account_name,
)
from farthing.protocol.messages.accounts import FundAccount, Funding
from farthing.protocol.money import ASSETS, INT64_MAX, format_units
from farthing.protocol.records import Record
from farthing.protocol.wire import Role, money
from farthing.settlement.engine.commands import PLATFORM
from farthing.settlement.engine.drafts import Call, Draft
from farthing.settlement.engine.state import State
from farthing.settlement.engine.things import Agreement

__all__ = [
    "available_units",
    "clearing",
    "fund",
    "fund_answer",
    "is_full",
    "no_operator",
    "not_covered",
    "of_nothing",
    "owed_units",
    "post",
    "repaid",
    "short_of",
    "spent_and_owed",
    "to_spend",
    "transfer",
    "unknown",
]

_NOTHING = Account()
# What is set aside may end in several transfers, each of up to 2**63: there is room for them.
_NEARLY_FULL = COUNTER_MAX // 2


def available_units(state: State, owner: str, kind: AccountKind, asset: str) -> int:
    """What can be debited from an account now."""
    return state.accounts.get(account_name(owner, kind, asset), _NOTHING).available_units


def owed_units(state: State, owner: str, asset: str) -> int:
    """What an operator owes of top-ups that have gone back."""
    name = account_name(owner, AccountKind.RECEIVABLE, asset)
    return -state.accounts.get(name, _NOTHING).posted_units


def to_spend(state: State, owner: str, asset: str) -> int:
    """What an operator's money and grace cover, less what it owes; credit lots come on top."""
    name = account_name(owner, AccountKind.PREPAID, asset)
    units = state.accounts.get(name, _NOTHING).available_units
    if state.grace_units:
        units += state.grace_units.get(name, 0)
    return max(units - owed_units(state, owner, asset), 0)


def spent_and_owed(owner: str, asset: str) -> tuple[str, str]:
    """The account that an operator spends from, and the one of what it owes."""
    kinds = AccountKind.PREPAID, AccountKind.RECEIVABLE
    prepaid, receivable = (account_name(owner, kind, asset) for kind in kinds)
    return prepaid, receivable


def clearing(asset: str) -> str:
    """The account that mirrors the money of an asset that is elsewhere."""
    return account_name(PLATFORM, AccountKind.EXTERNAL_CLEARING, asset)


def transfer(movement: Movement, debit: str, credit: str, asset: str, units: int) -> list[Transfer]:
    """One transfer, or none where there is nothing to move."""
    if units == 0:
        return []
    return [Transfer(movement=movement, debit=debit, credit=credit, asset=asset, units=units)]


def post(debit: str, credit: str, asset: str, units: int) -> list[Transfer]:
    """A posted transfer, or none where there is nothing to move."""
    return transfer(Movement.POST, debit, credit, asset, units)


def repaid(state: State, owner: str, asset: str, units: int) -> list[Transfer]:
    """What an operator pays of what it owes, as so many units come for it, or go."""
    owed = owed_units(state, owner, asset)
    if not owed:
        return []
    has = available_units(state, owner, AccountKind.PREPAID, asset) + units
    prepaid, receivable = spent_and_owed(owner, asset)
    return post(prepaid, receivable, asset, min(owed, max(has, 0)))


def fund(state: State, call: Call) -> Draft | Refusal:
    """Credit an operator's prepaid account from external clearing."""
    body = call.command.body
    assert isinstance(body, FundAccount)
    units, asset = body.amount.units, body.amount.asset
    if units <= 0:
        return of_nothing("amount.amount")
    owner = state.principals.get(body.organisation_id)
    if owner is None or owner.role != Role.OPERATOR:
        return no_operator("organisation_id")
    prepaid = account_name(owner.principal_id, AccountKind.PREPAID, asset)
    if is_full(state, prepaid, clearing(asset), units):
        return refuse(Code.AMOUNT_OVERFLOW, path="amount.amount")
    if prepaid in state.closures and not owed_units(state, owner.principal_id, asset):
        return refuse(Code.ACCOUNT_CLOSED, path="organisation_id")
    came = post(clearing(asset), prepaid, asset, units)
    return Draft(moved=(*came, *repaid(state, owner.principal_id, asset, units)))


def fund_answer(record: Record) -> Funding:
    """The answer, from the record alone."""
    moved = record.moved[0]
    return Funding(
        funding_id=record.new_id("fnd"),
        organisation_id=str(record.asked["organisation_id"]),
        amount=money(moved.units, moved.asset),
        reference=str(record.asked.get("reference", "")),
    )


def no_operator(path: str) -> Refusal:
    """The refusal of an organisation that has no money to spend, if it is one at all."""
    text = "There is no operator of this id that the caller may see."
    return refuse(Code.NOT_FOUND, path=path, message=text)


def of_nothing(path: str) -> Refusal:
    """The refusal of an amount that would move nothing."""
    return refuse(Code.INVALID_AMOUNT, path=path, message="The amount must be above nothing.")


def is_full(state: State, credit: str, debit: str, units: int) -> bool:
    """Whether an amount, or what it adds to a lifetime counter, does not fit."""
    into, out = state.accounts.get(credit, _NOTHING), state.accounts.get(debit, _NOTHING)
    most = max(into.credits_posted + into.credits_pending, out.debits_posted + out.debits_pending)
    return units > INT64_MAX or most + units > COUNTER_MAX


def unknown(
    state: State, owner: str, *kinds: AccountKind, asset: str, path: str, message: str = ""
) -> Refusal:
    """The refusal of an account that never began: for its kind, or for its asset alone.

    `path` is the argument that names the asset: it is at fault where there is one of another.
    """
    others = (account_name(owner, kind, each) for kind in kinds for each in ASSETS if each != asset)
    path = path if any(name in state.accounts for name in others) else "account"
    return refuse(Code.ACCOUNT_UNKNOWN, path=path, message=message)


def short_of(
    units: int,
    available_units: int,
    asset: str,
    *,
    path: str,
    message: str,
    next_action: NextAction | None = None,
) -> Refusal:
    """The refusal of a debit that an account nobody tops up has too little for."""
    return refuse(
        Code.INSUFFICIENT_FUNDS,
        path=path,
        required=format_units(units, asset),
        remaining=format_units(available_units, asset),
        asset=asset,
        message=message,
        next_action=next_action or (NextAction.REDUCE if available_units else NextAction.WAIT),
    )


def not_covered(state: State, agreement: Agreement, units: int) -> tuple[Refusal, ...]:
    """Why this much money cannot be set aside under an agreement: it is short, or closed."""
    short = _short(state, agreement, units)
    closed = _closed(state, agreement) if state.closures else None
    return tuple(each for each in (short, closed) if each is not None)


def _short(state: State, agreement: Agreement, units: int) -> Refusal | None:
    """What the operator lacks: money and, where it has some, grace."""
    name = account_name(agreement.operator_id, AccountKind.PREPAID, agreement.asset)
    account = state.accounts.get(name, _NOTHING)
    if account.debits_posted > _NEARLY_FULL:
        return refuse(Code.AMOUNT_OVERFLOW, path="amount")
    available = to_spend(state, agreement.operator_id, agreement.asset)
    if units <= available:
        return None
    owed = owed_units(state, agreement.operator_id, agreement.asset)
    return refuse(
        Code.INSUFFICIENT_FUNDS,
        path="amount",
        required=format_units(units, agreement.asset),
        remaining=format_units(available, agreement.asset),
        asset=agreement.asset,
        message=f"{format_units(owed, agreement.asset)} {agreement.asset} is owed." if owed else "",
    )


def _closed(state: State, agreement: Agreement) -> Refusal | None:
    """Whether nothing new begins on the account that would pay, or be paid in the end."""
    payer = account_name(agreement.operator_id, AccountKind.PREPAID, agreement.asset)
    payee = account_name(agreement.vendor_id, AccountKind.VENDOR_PAYABLE, agreement.asset)
    if payer in state.closures or payee in state.closures:
        return refuse(Code.ACCOUNT_CLOSED, path="agreement_id")
    return None
