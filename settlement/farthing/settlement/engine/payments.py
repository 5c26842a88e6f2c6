"""Money on its way in, in two phases against external clearing; what a processor says of any.

Boundary: what the processor says comes as a command, by the treasurer's hand or by the platform's
own; saying it twice, late or in another order does no harm. Source: spec/ledger.md.
"""

from dataclasses import dataclass
from typing import Literal

from msgspec.structs import replace

from farthing.protocol.errors import Code, Refusal, refuse
from farthing.protocol.ids import derive_id
from farthing.protocol.ledger import AccountKind, Movement, Transfer, account_name
from farthing.protocol.messages.payments import (
    ConfirmTopUp,
    CreateTopUp,
    FailTopUp,
    TopUpView,
)
from farthing.protocol.records import Record
from farthing.protocol.times import DAY_US, format_time
from farthing.protocol.wire import money
from farthing.settlement.engine.accounts import (
    clearing,
    is_full,
    of_nothing,
    owed_units,
    repaid,
    transfer,
)
from farthing.settlement.engine.drafts import Call, Draft, change
from farthing.settlement.engine.payouts import IN_HAND, decided, left, returned
from farthing.settlement.engine.reversals import reversed_by_event
from farthing.settlement.engine.state import State
from farthing.settlement.engine.things import TopUp

__all__ = [
    "ExpireTopUp",
    "Processed",
    "confirm_top_up",
    "create_top_up",
    "expire_top_up",
    "fail_top_up",
    "paid_again_id",
    "process_event",
    "top_up_answer",
    "top_up_view",
]

# How long a top-up waits for its money; what is paid later is still taken.
_TOP_UP_LIFETIME_US = DAY_US
# How long a payment that came twice waits for the treasurer, who decides it later too.
_PAID_AGAIN_LIFETIME_US = 30 * DAY_US


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
        return decided("top_up_id", top_up)
    return _posted(state, top_up, body.reference, "")


def fail_top_up(state: State, call: Call) -> Draft | Refusal:
    """The money of a top-up will not come."""
    body = call.command.body
    assert isinstance(body, FailTopUp)
    top_up = state.top_ups.get(body.top_up_id)
    if top_up is None:
        return refuse(Code.NOT_FOUND, path="top_up_id")
    if top_up.status != "pending":
        return decided("top_up_id", top_up)
    return _voided(replace(top_up, status="failed", reference=body.reference))


def expire_top_up(state: State, call: Call) -> Draft | Refusal:
    """Nobody paid in time; the platform's own command."""
    body = call.command.body
    assert isinstance(body, ExpireTopUp)
    top_up = state.top_ups[body.top_up_id]
    assert top_up.status == "pending"
    assert top_up.expires_at_us <= call.now_us
    return _voided(replace(top_up, status="expired"))


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
        return left(state, payout, body.reference, body.event_id) or Draft()
    failed = replace(payout, status="failed", reference=body.reference, event_id=body.event_id)
    return returned(failed) if payout.status in IN_HAND else Draft()


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


def _inward(movement: Movement, top_up: TopUp) -> list[Transfer]:
    prepaid = account_name(top_up.organisation_id, AccountKind.PREPAID, top_up.asset)
    return transfer(movement, clearing(top_up.asset), prepaid, top_up.asset, top_up.amount_units)
