"""Money on its way in and out, in two phases against external clearing.

Boundary: what the processor says comes as a command, by the treasurer's hand or by the platform's
own; saying it twice, late or in another order does no harm. Source: spec/ledger.md.
"""

from dataclasses import dataclass
from typing import Literal

from msgspec.structs import replace

from farthing.protocol.errors import Code, NextAction, Refusal, refuse
from farthing.protocol.ids import derive_id
from farthing.protocol.ledger import AccountKind, Movement, Transfer, account_name
from farthing.protocol.messages.payments import (
    CancelPayout,
    ConfirmPayout,
    ConfirmTopUp,
    CreateTopUp,
    FailPayout,
    FailTopUp,
    PayoutView,
    RequestPayout,
    SendPayout,
    TopUpView,
)
from farthing.protocol.money import format_units
from farthing.protocol.records import Record
from farthing.protocol.times import DAY_US, SECOND_US, format_time
from farthing.protocol.wire import Money, money
from farthing.settlement.engine.accounts import (
    available_units,
    clearing,
    is_full,
    of_nothing,
    owed_units,
    repaid,
    short_of,
    transfer,
    unknown,
)
from farthing.settlement.engine.drafts import Call, Draft, change
from farthing.settlement.engine.principals import is_frozen
from farthing.settlement.engine.reversals import reversed_by_event
from farthing.settlement.engine.state import State
from farthing.settlement.engine.things import Payout, TopUp

__all__ = [
    "ASKED_AGAIN_US",
    "ExpireTopUp",
    "Processed",
    "cancel_payout",
    "confirm_payout",
    "confirm_top_up",
    "create_top_up",
    "expire_top_up",
    "fail_payout",
    "fail_top_up",
    "kept_back",
    "paid_again_id",
    "payout_answer",
    "payout_view",
    "process_event",
    "request_payout",
    "send_payout",
    "top_up_answer",
    "top_up_view",
]

# How long a top-up waits for its money; what is paid later is still taken.
_TOP_UP_LIFETIME_US = DAY_US
# How long a payment that came twice waits for the treasurer, who decides it later too.
_PAID_AGAIN_LIFETIME_US = 30 * DAY_US
_SENT = {"requested", "sent"}
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpireTopUp:
    """The platform's command: nobody paid a top-up in time."""

    top_up_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Processed:
    """The platform's command: what a processor's signed event says of a top-up or payout.

    Args:
        payment_id: the top-up (`top_...`) or the payout (`pay_...`).
        event_id: the processor's own id of the event.
        reference: the processor's own id of the payment.
        outcome: what became of it.
        asset, units: the amount that moved; another than was asked for is not taken for it. Of
            what is `reversed` how much has gone back in all.
    """

    payment_id: str
    event_id: str
    reference: str
    outcome: Literal["paid", "failed", "reversed"]
    asset: str
    units: str


def create_top_up(state: State, call: Call) -> Draft | Refusal:
    """Announce money from outside: a pending credit, not spendable before it is there."""
    body = call.command.body
    assert isinstance(body, CreateTopUp)
    units, asset = body.amount.units, body.amount.asset
    if units <= 0:
        return of_nothing("amount.amount")
    prepaid = account_name(call.organisation_id, AccountKind.PREPAID, asset)
    if is_full(state, prepaid, clearing(asset), units):
        return refuse(Code.AMOUNT_OVERFLOW, path="amount.amount")
    if prepaid in state.closures and not owed_units(state, call.organisation_id, asset):
        return refuse(Code.ACCOUNT_CLOSED, path="amount.asset")
    top_up = TopUp(
        top_up_id=call.new_id("top"),
        organisation_id=call.organisation_id,
        asset=asset,
        amount_units=units,
        status="pending",
        processor=body.processor,
        expires_at_us=call.now_us + _TOP_UP_LIFETIME_US,
        seq=call.seq,
    )
    return Draft(
        moved=tuple(_inward(Movement.PENDING, top_up)),
        changed=(change("top_up", top_up.top_up_id, top_up),),
    )


def confirm_top_up(state: State, call: Call) -> Draft | Refusal:
    """The money of a top-up is there, by the treasurer's word."""
    body = call.command.body
    assert isinstance(body, ConfirmTopUp)
    top_up = state.top_ups.get(body.top_up_id)
    if top_up is None:
        return refuse(Code.NOT_FOUND, path="top_up_id")
    if top_up.status == "posted":
        return _decided("top_up_id", top_up.status)
    return _posted(state, top_up, body.reference, "")


def fail_top_up(state: State, call: Call) -> Draft | Refusal:
    """The money of a top-up will not come."""
    body = call.command.body
    assert isinstance(body, FailTopUp)
    top_up = state.top_ups.get(body.top_up_id)
    if top_up is None:
        return refuse(Code.NOT_FOUND, path="top_up_id")
    if top_up.status != "pending":
        return _decided("top_up_id", top_up.status)
    return _voided(replace(top_up, status="failed", reference=body.reference))


def expire_top_up(state: State, call: Call) -> Draft | Refusal:
    """Nobody paid in time; the platform's own command."""
    body = call.command.body
    assert isinstance(body, ExpireTopUp)
    top_up = state.top_ups[body.top_up_id]
    assert top_up.status == "pending"
    assert top_up.expires_at_us <= call.now_us
    return _voided(replace(top_up, status="expired"))


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
        return _decided("payout_id", payout.status)
    return _returned(replace(payout, status="cancelled"))


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
        return _decided("payout_id", payout.status)
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
        return _decided("payout_id", payout.status)
    return _left(state, payout, body.reference, "") or short_of(
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
    if payout.status not in _SENT:
        return _decided("payout_id", payout.status)
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
    return _returned(replace(payout, status="failed", reference=body.reference))


def process_event(state: State, call: Call) -> Draft | Refusal:
    """What the processor says; the platform's own command, so it is never refused.

    An event of something that has been decided changes nothing, but for three: money that came or
    left after its top-up or payout was given up has moved, and is posted where it can be, before
    what was asked for since; money that came again for a top-up is a top-up of its own, for the
    treasurer to decide; and what had moved may go back.
    """
    body = call.command.body
    assert isinstance(body, Processed)
    top_up = state.top_ups.get(body.payment_id)
    payout = state.payouts.get(body.payment_id) if top_up is None else None
    payment = top_up or payout
    if payment is None or payment.asset != body.asset:
        return Draft()
    if body.outcome == "reversed":
        return reversed_by_event(state, payment, int(body.units))
    if str(payment.amount_units) != body.units:
        return Draft()
    if top_up is not None:
        return _said_of_top_up(state, call, top_up, body)
    assert payout is not None
    if body.outcome == "paid":
        return _left(state, payout, body.reference, body.event_id) or Draft()
    failed = replace(payout, status="failed", reference=body.reference, event_id=body.event_id)
    return _returned(failed) if payout.status in _SENT else Draft()


def kept_back(path: str = "") -> Refusal:
    """The refusal of a payout to an organisation that is frozen."""
    text = "Nothing is paid out to an organisation that is frozen."
    return refuse(Code.FROZEN, path=path, message=text)


def paid_again_id(top_up_id: str, reference: str) -> str:
    """The id of the top-up that another payment of one makes; told twice, it is one."""
    return derive_id("top", top_up_id, "process_event", reference)


def top_up_answer(record: Record) -> TopUpView:
    """The answer of every write on a top-up, from the record alone."""
    return top_up_view(TopUp.from_document(record.changed[0].after))


def top_up_view(top_up: TopUp) -> TopUpView:
    """A top-up as its operator and the treasurer see it."""
    return TopUpView(
        top_up_id=top_up.top_up_id,
        organisation_id=top_up.organisation_id,
        amount=money(top_up.amount_units, top_up.asset),
        status=top_up.status,
        processor=top_up.processor,
        reference=top_up.reference,
        expires_at=format_time(top_up.expires_at_us),
        reversed=money(top_up.reversed_units, top_up.asset),
    )


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


def _decided(path: str, status: str) -> Refusal:
    return refuse(Code.PAYMENT_RESOLVED, path=path, message=f"It is {status} already.")


def _posted(state: State, top_up: TopUp, reference: str, event_id: str) -> Draft:
    voided = _inward(Movement.VOID, top_up) if top_up.status == "pending" else []
    after = replace(top_up, status="posted", reference=reference, event_id=event_id)
    return Draft(
        moved=(
            *voided,
            *_inward(Movement.POST, top_up),
            *repaid(state, top_up.organisation_id, top_up.asset, top_up.amount_units),
        ),
        changed=(change("top_up", top_up.top_up_id, after),),
    )


def _said_of_top_up(state: State, call: Call, top_up: TopUp, said: Processed) -> Draft:
    if said.outcome == "failed":
        failed = replace(top_up, status="failed", reference=said.reference, event_id=said.event_id)
        return _voided(failed) if top_up.status == "pending" else Draft()
    if top_up.status == "posted":
        return _paid_again(state, call, top_up, said)
    return _posted(state, top_up, said.reference, said.event_id)


def _paid_again(state: State, call: Call, top_up: TopUp, said: Processed) -> Draft:
    """Nobody can tell here whether it is more money, or the same under another name."""
    again_id = paid_again_id(top_up.top_up_id, said.reference)
    prepaid = account_name(top_up.organisation_id, AccountKind.PREPAID, top_up.asset)
    if (
        said.reference == top_up.reference
        or state.top_ups.get(again_id) is not None
        or is_full(state, prepaid, clearing(top_up.asset), top_up.amount_units)
    ):
        return Draft()
    again = replace(
        top_up,
        top_up_id=again_id,
        status="pending",
        reference=said.reference,
        event_id=said.event_id,
        reversed_units=0,
        expires_at_us=call.now_us + _PAID_AGAIN_LIFETIME_US,
        seq=call.seq,
    )
    return Draft(
        moved=tuple(_inward(Movement.PENDING, again)),
        changed=(change("top_up", again_id, again),),
    )


def _voided(after: TopUp) -> Draft:
    return Draft(
        moved=tuple(_inward(Movement.VOID, after)),
        changed=(change("top_up", after.top_up_id, after),),
    )


def _paid(payout: Payout, reference: str, event_id: str) -> Draft:
    voided = _outward(Movement.VOID, payout) if payout.status in _SENT else []
    after = replace(payout, status="paid", reference=reference, event_id=event_id)
    return Draft(
        moved=(*voided, *_outward(Movement.POST, payout)),
        changed=(change("payout", payout.payout_id, after),),
    )


def _left(state: State, payout: Payout, reference: str, event_id: str) -> Draft | None:
    """The money of a payout has left, which may have been given up; None where it is not there."""
    paid = _paid(payout, reference, event_id)
    if payout.status in _SENT:
        return paid
    given_up = None if payout.status == "paid" else _giving_way(state, payout)
    if given_up is None:
        return None
    returned = [_returned(replace(each, status="failed")) for each in given_up]
    return Draft(
        moved=(*(moved for each in returned for moved in each.moved), *paid.moved),
        changed=(*paid.changed, *(changed for each in returned for changed in each.changed)),
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


def _returned(after: Payout) -> Draft:
    return Draft(
        moved=tuple(_outward(Movement.VOID, after)),
        changed=(change("payout", after.payout_id, after),),
    )


def _not_payable(state: State, owner: str, kind: AccountKind, amount: Money) -> Refusal | None:
    """Why so much is not paid out: nothing was earned there, or it is not payable yet."""
    units, asset = amount.units, amount.asset
    waiting = state.accounts.get(account_name(owner, _EARNED_ON[kind], asset))
    pending_units = waiting.posted_units if waiting else 0
    if account_name(owner, kind, asset) not in state.accounts and not pending_units:
        text = "Nothing has been earned on this account."
        kinds = (kind, _EARNED_ON[kind])
        return unknown(state, owner, *kinds, asset=asset, path="amount.asset", message=text)
    owed = owed_units(state, owner, asset)
    available = max(available_units(state, owner, kind, asset) - owed, 0)
    if units <= available:
        return None
    text = "Less than that is payable."
    if owed:
        text = f"Less than that is payable: {format_units(owed, asset)} {asset} is owed."
    elif pending_units:
        pending = f"{format_units(pending_units, asset)} {asset}"
        text = f"Less than that is payable yet: {pending} waits for its dispute windows to close."
        # A partner sees its shares, and not the charges of the vendors that it brought.
        if kind is AccountKind.VENDOR_PAYABLE:
            text += " When each does, list_charges says."
    return short_of(units, available, asset, path="amount.amount", message=text)


def _inward(movement: Movement, top_up: TopUp) -> list[Transfer]:
    prepaid = account_name(top_up.organisation_id, AccountKind.PREPAID, top_up.asset)
    return transfer(movement, clearing(top_up.asset), prepaid, top_up.asset, top_up.amount_units)


def _outward(movement: Movement, payout: Payout) -> list[Transfer]:
    name = account_name(payout.organisation_id, AccountKind(payout.kind), payout.asset)
    return transfer(movement, name, clearing(payout.asset), payout.asset, payout.amount_units)
