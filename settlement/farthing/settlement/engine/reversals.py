"""Money that had come and goes back, and money that had left and comes back.

Boundary: how much of a payment is said in all, so that saying it twice, late or in another order
does no harm. What has gone has gone: what an operator has not is owed. Source: spec/ledger.md.
"""

from msgspec.structs import replace

from farthing.protocol.errors import Code, NextAction, Refusal, refuse
from farthing.protocol.ledger import AccountKind, Transfer, account_name
from farthing.protocol.messages.accounts import Withdrawal, WithdrawFunds
from farthing.protocol.messages.payments import ReversePayout, ReverseTopUp
from farthing.protocol.money import format_units
from farthing.protocol.records import Record
from farthing.protocol.wire import Money, Role, money
from farthing.settlement.engine.accounts import (
    available_units,
    clearing,
    is_full,
    no_operator,
    of_nothing,
    owed_units,
    post,
    repaid,
    spent_and_owed,
)
from farthing.settlement.engine.drafts import Call, Draft, change
from farthing.settlement.engine.state import State
from farthing.settlement.engine.things import Payout, TopUp

__all__ = [
    "reverse_payout",
    "reverse_top_up",
    "reversed_by_event",
    "withdraw_funds",
    "withdrawal_answer",
]

_MOVED = {"paid", "posted"}


def reverse_top_up(state: State, call: Call) -> Draft | Refusal:
    """Money of a top-up has gone back, or is about to, by the treasurer's word."""
    body = call.command.body
    assert isinstance(body, ReverseTopUp)
    top_up = state.top_ups.get(body.top_up_id)
    if refusal := _never(state, top_up, body.total, "top_up_id"):
        return refusal
    assert top_up is not None
    if refusal := _resolved(top_up, body.total, "top_up_id"):
        return refusal
    units = body.total.units - top_up.reversed_units
    owner, asset = top_up.organisation_id, top_up.asset
    if not body.may_owe and (refusal := _not_there(state, owner, asset, units, "total.amount")):
        return refusal
    return _gone_back(state, top_up, body.total.units)


def withdraw_funds(state: State, call: Call) -> Draft | Refusal:
    """Money goes out of an account that no top-up is named for, by the treasurer's word."""
    body = call.command.body
    assert isinstance(body, WithdrawFunds)
    units, asset = body.amount.units, body.amount.asset
    if units <= 0:
        return of_nothing("amount.amount")
    owner = state.principals.get(body.organisation_id)
    if owner is None or owner.role != Role.OPERATOR:
        return no_operator("organisation_id")
    owner_id = owner.principal_id
    _, receivable = spent_and_owed(owner_id, asset)
    if is_full(state, clearing(asset), receivable, units):
        return refuse(Code.AMOUNT_OVERFLOW, path="amount.amount")
    if not body.may_owe and (refusal := _not_there(state, owner_id, asset, units, "amount.amount")):
        return refusal
    return Draft(moved=_out(state, owner_id, asset, units))


def reverse_payout(state: State, call: Call) -> Draft | Refusal:
    """Money of a payout has come back, by the treasurer's word."""
    body = call.command.body
    assert isinstance(body, ReversePayout)
    payout = state.payouts.get(body.payout_id)
    if refusal := _never(state, payout, body.total, "payout_id"):
        return refusal
    assert payout is not None
    return _resolved(payout, body.total, "payout_id") or _come_back(payout, body.total.units)


def withdrawal_answer(record: Record) -> Withdrawal:
    """The answer of a withdrawal, from the record alone."""
    owner_id = str(record.asked["organisation_id"])
    asset = record.moved[0].asset
    prepaid, receivable = spent_and_owed(owner_id, asset)
    gone = {each.debit: each.units for each in record.moved if each.credit == clearing(asset)}
    owed_units = gone.get(receivable, 0)
    return Withdrawal(
        withdrawal_id=record.new_id("wdl"),
        organisation_id=owner_id,
        amount=money(gone.get(prepaid, 0) + owed_units, asset),
        owed=money(owed_units, asset),
        reference=str(record.asked.get("reference", "")),
    )


def reversed_by_event(state: State, payment: TopUp | Payout, total_units: int) -> Draft:
    """What a processor says has gone back of a payment; less than is known says nothing."""
    is_more = payment.reversed_units < total_units <= payment.amount_units
    if not is_more or payment.status not in _MOVED or _is_full(state, payment, total_units):
        return Draft()
    if isinstance(payment, TopUp):
        return _gone_back(state, payment, total_units)
    return _come_back(payment, total_units)


def _never(state: State, payment: TopUp | Payout | None, total: Money, path: str) -> Refusal | None:
    """Why so much of a payment cannot go back, ever."""
    if total.units <= 0:
        return of_nothing("total.amount")
    if payment is None:
        return refuse(Code.NOT_FOUND, path=path)
    if total.units > payment.amount_units:
        return refuse(
            Code.INVALID_AMOUNT,
            path="total.amount",
            required=format_units(payment.amount_units, payment.asset),
            message="The payment was of no more than that.",
        )
    if _is_full(state, payment, total.units):
        return refuse(Code.AMOUNT_OVERFLOW, path="total.amount")
    if total.asset != payment.asset:
        text = f"The payment was in {payment.asset}."
        return refuse(Code.ASSET_MISMATCH, path="total.asset", required=payment.asset, message=text)
    return None


def _resolved(payment: TopUp | Payout, total: Money, path: str) -> Refusal | None:
    """Whether none of it has moved, or so much of it has gone back before."""
    if payment.status not in _MOVED:
        text = "None of its money has moved."
        return refuse(Code.PAYMENT_RESOLVED, path=path, message=text)
    if total.units <= payment.reversed_units:
        text = "So much of it has gone back already: the total counts all of it."
        return refuse(Code.PAYMENT_RESOLVED, path="total.amount", message=text)
    return None


def _gone_back(state: State, top_up: TopUp, total_units: int) -> Draft:
    units = total_units - top_up.reversed_units
    after = replace(top_up, reversed_units=total_units)
    return Draft(
        moved=_out(state, top_up.organisation_id, top_up.asset, units),
        changed=(change("top_up", top_up.top_up_id, after),),
    )


def _not_there(state: State, owner: str, asset: str, units: int, path: str) -> Refusal | None:
    """Whether an operator has less; what it owes is not there to be paid back."""
    there_units = available_units(state, owner, AccountKind.PREPAID, asset)
    has_units = max(there_units - owed_units(state, owner, asset), 0)
    if units <= has_units:
        return None
    return refuse(
        Code.INSUFFICIENT_FUNDS,
        path=path,
        required=format_units(units, asset),
        remaining=format_units(has_units, asset),
        asset=asset,
        message="Its operator has less than that: what has gone all the same is owed.",
        next_action=NextAction.REDUCE,
    )


def _out(state: State, owner: str, asset: str, units: int) -> tuple[Transfer, ...]:
    """Out of what an operator has; what it has not it owes, and what is left pays what it owed."""
    there = clearing(asset)
    paid_units = min(max(available_units(state, owner, AccountKind.PREPAID, asset), 0), units)
    prepaid, receivable = spent_and_owed(owner, asset)
    return (
        *post(prepaid, there, asset, paid_units),
        *post(receivable, there, asset, units - paid_units),
        *repaid(state, owner, asset, -paid_units),
    )


def _come_back(payout: Payout, total_units: int) -> Draft:
    name = account_name(payout.organisation_id, AccountKind(payout.kind), payout.asset)
    units = total_units - payout.reversed_units
    after = replace(payout, reversed_units=total_units)
    return Draft(
        moved=tuple(post(clearing(payout.asset), name, payout.asset, units)),
        changed=(change("payout", payout.payout_id, after),),
    )


def _is_full(state: State, payment: TopUp | Payout, total_units: int) -> bool:
    here, there = AccountKind.RECEIVABLE, clearing(payment.asset)
    if isinstance(payment, Payout):
        here = AccountKind(payment.kind)
    name = account_name(payment.organisation_id, here, payment.asset)
    debit, credit = (name, there) if isinstance(payment, TopUp) else (there, name)
    return is_full(state, credit, debit, total_units - payment.reversed_units)
