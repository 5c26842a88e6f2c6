"""Money on its way out: what was earned for good is set aside, and has left once it is said so.

Boundary: the treasurer's word and, by `payments`, a processor's. Source: spec/ledger.md.
"""

from msgspec.structs import replace

from farthing.protocol.errors import Code, NextAction, Refusal, refuse
from farthing.protocol.ledger import AccountKind, Movement, Transfer, account_name
from farthing.protocol.messages.payments import (
    CancelPayout,
    ConfirmPayout,
    FailPayout,
    PayoutView,
    RequestPayout,
    SendPayout,
)
from farthing.protocol.money import format_units
from farthing.protocol.records import Record
from farthing.protocol.times import SECOND_US, format_time
from farthing.protocol.wire import Money, money
from farthing.settlement.engine.accounts import (
    available_units,
    clearing,
    of_nothing,
    owed_units,
    short_of,
    transfer,
    unknown,
)
from farthing.settlement.engine.drafts import Call, Draft, change
from farthing.settlement.engine.principals import is_frozen
from farthing.settlement.engine.state import State
from farthing.settlement.engine.things import Payout, TopUp

__all__ = [
    "ASKED_AGAIN_US",
    "IN_HAND",
    "cancel_payout",
    "confirm_payout",
    "decided",
    "fail_payout",
    "kept_back",
    "left",
    "payout_answer",
    "payout_view",
    "request_payout",
    "returned",
    "send_payout",
]

IN_HAND = frozenset({"requested", "sent"})
"""The statuses of a payout whose money is set aside."""

# For how long a processor may be asked once more to pay. Stripe keeps an idempotency key for a day;
# who asks after that pays twice.
ASKED_AGAIN_US = 12 * 3_600 * SECOND_US
# How long the last of these asks may take to have its effect.
_ASKING_US = 600 * SECOND_US
# Where it waits for the window's close, what is paid out from an account.
_EARNED_ON = {
    AccountKind.VENDOR_PAYABLE: AccountKind.VENDOR_PENDING,
    AccountKind.PARTNER_PAYABLE: AccountKind.PARTNER_PENDING,
}
# The processor that is asked for nothing: the treasurer alone knows what it has done.
_BY_HAND = "manual"


def request_payout(state: State, call: Call) -> Draft | Refusal:
    """Set aside what a vendor or partner wants paid out of what it has earned for good."""
    body = call.command.body
    assert isinstance(body, RequestPayout)
    units, asset = body.amount.units, body.amount.asset
    if units <= 0:
        return of_nothing("amount.amount")
    if is_frozen(state, call.organisation_id):
        return kept_back()
    kind = AccountKind(body.account)
    if refusal := _not_payable(state, call.organisation_id, kind, body.amount):
        return refusal
    payout = Payout(
        payout_id=call.new_id("pay"),
        organisation_id=call.organisation_id,
        kind=kind.value,
        asset=asset,
        amount_units=units,
        status="requested",
        processor=body.processor,
        destination=body.destination,
        seq=call.seq,
    )
    return Draft(
        moved=tuple(_outward(Movement.PENDING, payout)),
        changed=(change("payout", payout.payout_id, payout),),
    )


def cancel_payout(state: State, call: Call) -> Draft | Refusal:
    """Who asked for a payout that was not sent wants it no more."""
    body = call.command.body
    assert isinstance(body, CancelPayout)
    payout = state.payouts.get(body.payout_id)
    if payout is None or payout.organisation_id != call.organisation_id:
        return refuse(Code.NOT_FOUND, path="payout_id")
    if payout.status != "requested":
        return decided("payout_id", payout)
    return returned(replace(payout, status="cancelled"))


def send_payout(state: State, call: Call) -> Draft | Refusal:
    """The treasurer lets a payout go; nothing moves before the processor has said so."""
    body = call.command.body
    assert isinstance(body, SendPayout)
    payout = state.payouts.get(body.payout_id)
    if payout is None:
        return refuse(Code.NOT_FOUND, path="payout_id")
    if is_frozen(state, payout.organisation_id):
        return kept_back("payout_id")
    if payout.status != "requested":
        return decided("payout_id", payout)
    sent = replace(payout, status="sent", sent_at_us=call.now_us)
    return Draft(changed=(change("payout", payout.payout_id, sent),))


def confirm_payout(state: State, call: Call) -> Draft | Refusal:
    """The money has left, by the treasurer's word, which may have been given up."""
    body = call.command.body
    assert isinstance(body, ConfirmPayout)
    payout = state.payouts.get(body.payout_id)
    if payout is None:
        return refuse(Code.NOT_FOUND, path="payout_id")
    if payout.status == "paid":
        return decided("payout_id", payout)
    return left(state, payout, body.reference, "") or short_of(
        payout.amount_units,
        _there_units(state, payout),
        payout.asset,
        path="payout_id",
        message=f"It is {payout.status}, and less than it was of is on its account now.",
    )


def fail_payout(state: State, call: Call) -> Draft | Refusal:
    """The money has not left, and nobody asks for it any more: it is the organisation's again."""
    body = call.command.body
    assert isinstance(body, FailPayout)
    payout = state.payouts.get(body.payout_id)
    if payout is None:
        return refuse(Code.NOT_FOUND, path="payout_id")
    if payout.status not in IN_HAND:
        return decided("payout_id", payout)
    if payout.sent_at_us and payout.processor != _BY_HAND:
        # What its organisation had again, and the processor paid after all, would be paid twice.
        ends_at_us = payout.sent_at_us + ASKED_AGAIN_US + _ASKING_US
        if call.now_us < ends_at_us:
            text = "The processor may still be asked for it; it can be failed later."
            return refuse(
                Code.PAYMENT_RESOLVED,
                path="payout_id",
                required=format_time(ends_at_us),
                message=text,
                next_action=NextAction.WAIT,
            )
    return returned(replace(payout, status="failed", reference=body.reference))


def left(state: State, payout: Payout, reference: str, event_id: str) -> Draft | None:
    """The money of a payout has left, which may have been given up; None where it is not there."""
    paid = _paid(payout, reference, event_id)
    if payout.status in IN_HAND:
        return paid
    given_up = None if payout.status == "paid" else _giving_way(state, payout)
    if given_up is None:
        return None
    back = [returned(replace(each, status="failed")) for each in given_up]
    return Draft(
        moved=(*(moved for each in back for moved in each.moved), *paid.moved),
        changed=(*paid.changed, *(changed for each in back for changed in each.changed)),
    )


def returned(after: Payout) -> Draft:
    """What was set aside for a payout that is given up is its organisation's again."""
    return Draft(
        moved=tuple(_outward(Movement.VOID, after)),
        changed=(change("payout", after.payout_id, after),),
    )


def kept_back(path: str = "") -> Refusal:
    """The refusal of a payout to an organisation that is frozen."""
    text = "Nothing is paid out to an organisation that is frozen."
    return refuse(Code.FROZEN, path=path, message=text)


def decided(path: str, payment: Payout | TopUp) -> Refusal:
    """The refusal of what is decided about a payment that was decided before."""
    under = f", under {payment.reference}" if payment.reference else ""
    text = f"It is {payment.status} already{under}."
    return refuse(Code.PAYMENT_RESOLVED, path=path, message=text, next_action=NextAction.NONE)


def payout_answer(record: Record) -> PayoutView:
    """The answer of every write on a payout, from the record alone."""
    return payout_view(Payout.from_document(record.changed[0].after))


def payout_view(payout: Payout) -> PayoutView:
    """A payout as its organisation and the treasurer see it."""
    return PayoutView(
        payout_id=payout.payout_id,
        organisation_id=payout.organisation_id,
        account=payout.kind,
        amount=money(payout.amount_units, payout.asset),
        status=payout.status,
        processor=payout.processor,
        destination=payout.destination,
        reference=payout.reference,
        reversed=money(payout.reversed_units, payout.asset),
    )


def _paid(payout: Payout, reference: str, event_id: str) -> Draft:
    voided = _outward(Movement.VOID, payout) if payout.status in IN_HAND else []
    after = replace(payout, status="paid", reference=reference, event_id=event_id)
    return Draft(
        moved=(*voided, *_outward(Movement.POST, payout)),
        changed=(change("payout", payout.payout_id, after),),
    )


def _giving_way(state: State, payout: Payout) -> list[Payout] | None:
    """What was asked for since and not sent, as far as its account has not enough without it.

    The same money would leave twice. None where it has not enough with all of it either.
    """
    account = (payout.organisation_id, payout.kind, payout.asset)
    left_units = _there_units(state, payout)
    given_up: list[Payout] = []
    for each in sorted(state.payouts.values(), key=lambda each: each.seq, reverse=True):
        if payout.amount_units <= left_units:
            break
        is_same = (each.organisation_id, each.kind, each.asset) == account
        if is_same and each.status == "requested":
            given_up.append(each)
            left_units += each.amount_units
    return given_up if payout.amount_units <= left_units else None


def _there_units(state: State, payout: Payout) -> int:
    kind = AccountKind(payout.kind)
    return available_units(state, payout.organisation_id, kind, payout.asset)


def _not_payable(state: State, owner: str, kind: AccountKind, amount: Money) -> Refusal | None:
    """Why so much is not paid out: nothing was earned there, or it is not payable yet."""
    units, asset = amount.units, amount.asset
    waiting = state.accounts.get(account_name(owner, _EARNED_ON[kind], asset))
    pending_units = waiting.posted_units if waiting else 0
    if account_name(owner, kind, asset) not in state.accounts and not pending_units:
        text = f"Nothing has been earned on {kind.value}."
        kinds = (kind, _EARNED_ON[kind])
        return unknown(state, owner, *kinds, asset=asset, path="amount.asset", message=text)
    owed = owed_units(state, owner, asset)
    available = max(available_units(state, owner, kind, asset) - owed, 0)
    if units <= available:
        return None
    text, next_action = "Less than that is payable.", None
    if owed:
        text = f"Less than that is payable: {format_units(owed, asset)} {asset} is owed."
        next_action = NextAction.TOP_UP
    elif pending_units:
        pending = f"{format_units(pending_units, asset)} {asset}"
        text = f"Less than that is payable yet: {pending} waits for its dispute windows to close."
        # A partner sees its shares, and not the charges of the vendors that it brought.
        if kind is AccountKind.VENDOR_PAYABLE:
            text += " When each does, list_charges says."
    return short_of(
        units, available, asset, path="amount.amount", message=text, next_action=next_action
    )


def _outward(movement: Movement, payout: Payout) -> list[Transfer]:
    name = account_name(payout.organisation_id, AccountKind(payout.kind), payout.asset)
    return transfer(movement, name, clearing(payout.asset), payout.asset, payout.amount_units)
