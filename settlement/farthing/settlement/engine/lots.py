"""Credit lots: bought or given, spent before money in a fixed order, ended at their time.

Boundary: decides and answers. What a hold draws of a lot stays its until the hold ends; what comes
back to a lot past its time ends at once. Source: spec/ledger.md.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from msgspec.structs import replace

from farthing.protocol.errors import Code, Refusal, refuse
from farthing.protocol.ledger import AccountKind, account_name
from farthing.protocol.messages.treasury import CreditLot, GrantCredit, WithdrawCredit
from farthing.protocol.records import Change, Record
from farthing.protocol.times import format_time
from farthing.protocol.wire import Role, money
from farthing.settlement.engine.accounts import is_full, no_operator, of_nothing, post, short_of
from farthing.settlement.engine.commands import PLATFORM
from farthing.settlement.engine.drafts import Call, Draft, change, ends_at
from farthing.settlement.engine.state import State
from farthing.settlement.engine.things import Drawn, Lot

__all__ = [
    "ExpireLot",
    "consumed",
    "draw",
    "ended",
    "expire",
    "grant",
    "held",
    "lot_answer",
    "lot_view",
    "returned",
    "withdraw",
]

# Where the credit of a lot comes from, by the account that it lies on until it is consumed.
_FROM = {
    AccountKind.DEFERRED_REVENUE: AccountKind.EXTERNAL_CLEARING,
    AccountKind.PROMOTIONAL_CREDIT: AccountKind.PROMOTION,
}
_KINDS = {
    "bought": AccountKind.DEFERRED_REVENUE,
    "promotional": AccountKind.PROMOTIONAL_CREDIT,
}
# More lots than one hold or session may draw on leave the rest to money: a record has a bound.
_DRAWN_MAX = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpireLot:
    """The platform's command: a credit lot is past its time."""

    lot_id: str


def grant(state: State, call: Call) -> Draft | Refusal:
    """Give an operator a credit lot, bought outside or promotional."""
    body = call.command.body
    assert isinstance(body, GrantCredit)
    units, asset = body.amount.units, body.amount.asset
    expires_at_us = ends_at(call, body.expires_at)
    if isinstance(expires_at_us, Refusal):
        return expires_at_us
    if units <= 0:
        return of_nothing("amount.amount")
    owner = state.principals.get(body.organisation_id)
    if owner is None or owner.role != Role.OPERATOR:
        return no_operator("organisation_id")
    lot = Lot(
        lot_id=call.new_id("lot"),
        operator_id=owner.principal_id,
        kind=_KINDS[body.kind].value,
        asset=asset,
        amount_units=units,
        free_units=units,
        priority=body.priority,
        expires_at_us=expires_at_us,
        created_at_us=call.now_us,
        seq=call.seq,
    )
    account, origin = _accounts(lot)
    if is_full(state, account, origin, units):
        return refuse(Code.AMOUNT_OVERFLOW, path="amount.amount")
    if account_name(owner.principal_id, AccountKind.PREPAID, asset) in state.closures:
        return refuse(Code.ACCOUNT_CLOSED, path="organisation_id")
    return Draft(
        moved=tuple(post(origin, account, asset, units)),
        changed=(change("lot", lot.lot_id, lot),),
    )


def withdraw(state: State, call: Call) -> Draft | Refusal:
    """Take back what is free of a lot, to where it came from."""
    body = call.command.body
    assert isinstance(body, WithdrawCredit)
    units, asset = body.amount.units, body.amount.asset
    if units <= 0:
        return of_nothing("amount.amount")
    lot = state.lots.get(body.lot_id)
    if lot is None:
        return refuse(Code.NOT_FOUND, path="lot_id")
    account, origin = _accounts(lot)
    if is_full(state, origin, account, units):
        return refuse(Code.AMOUNT_OVERFLOW, path="amount.amount")
    if asset != lot.asset:
        text = f"The lot is of {lot.asset}."
        return refuse(Code.ASSET_MISMATCH, path="amount.asset", required=lot.asset, message=text)
    if units > lot.free_units:
        text = "Less than that of the lot is free."
        return short_of(units, lot.free_units, asset, path="amount.amount", message=text)
    after = replace(
        lot, free_units=lot.free_units - units, withdrawn_units=lot.withdrawn_units + units
    )
    return Draft(
        moved=tuple(post(account, origin, asset, units)),
        changed=(change("lot", lot.lot_id, after),),
    )


def expire(state: State, call: Call) -> Draft | Refusal:
    """Turn what is free of an overdue lot into breakage; the platform's own command."""
    body = call.command.body
    assert isinstance(body, ExpireLot)
    lot = state.lots[body.lot_id]
    assert lot.free_units > 0
    assert 0 < lot.expires_at_us <= call.now_us
    after = replace(lot, free_units=0, expired_units=lot.expired_units + lot.free_units)
    account, _ = _accounts(lot)
    breakage = account_name(PLATFORM, AccountKind.BREAKAGE, lot.asset)
    return Draft(
        moved=tuple(post(account, breakage, lot.asset, lot.free_units)),
        changed=(change("lot", lot.lot_id, after),),
    )


def draw(
    state: State, operator_id: str, asset: str, units: int, now_us: int, *, known: int = 0
) -> tuple[Drawn, ...]:
    """What a hold of `units` draws of its operator's lots, in the order of spending.

    `known` is on how many lots what is raised by it has drawn already.
    """
    drawn: list[Drawn] = []
    for lot_id in state.free_lots.get((operator_id, asset), ()):
        if units == 0 or known + len(drawn) >= _DRAWN_MAX:
            break
        lot = state.lots[lot_id]
        if 0 < lot.expires_at_us <= now_us:
            continue
        amount_units = min(lot.free_units, units)
        units -= amount_units
        drawn.append(Drawn(lot_id=lot_id, kind=lot.kind, amount_units=amount_units))
    return tuple(drawn)


def held(state: State, drawn: tuple[Drawn, ...]) -> tuple[Change, ...]:
    """The lots after a hold has drawn on them."""
    if not drawn:
        return ()
    return tuple(
        _moved(state, each.lot_id, free_units=-each.amount_units, held_units=each.amount_units)
        for each in drawn
    )


def ended(state: State, drawn: tuple[Drawn, ...], used: Iterable[Drawn] = ()) -> tuple[Change, ...]:
    """The lots after a hold has ended: what was not used is free again."""
    if not drawn:
        return ()
    spent = {each.lot_id: each.amount_units for each in used}
    return tuple(
        _moved(
            state,
            each.lot_id,
            free_units=each.amount_units - spent.get(each.lot_id, 0),
            held_units=-each.amount_units,
        )
        for each in drawn
    )


def consumed(drawn: Iterable[Drawn], units: int) -> tuple[Drawn, ...]:
    """What a capture of `units` consumes of what its hold drew, in the same order."""
    used: list[Drawn] = []
    for each in drawn:
        amount_units = min(each.amount_units, units)
        units -= amount_units
        if amount_units:
            used.append(replace(each, amount_units=amount_units))
    return tuple(used)


def returned(
    state: State, drawn: tuple[Drawn, ...], amount_units: int, before_units: int, units: int
) -> tuple[Change, ...]:
    """The lots after part of a charge came back to them, the last consumed first.

    Args:
        state: where the lots stand.
        drawn: what the charge consumed of lots, in that order; its money was consumed after them.
        amount_units: the charge.
        before_units: what of it came back before.
        units: what comes back now.
    """
    after_lots_units = amount_units - sum(each.amount_units for each in drawn)
    skipped_units = max(before_units - after_lots_units, 0)
    units -= max(min(after_lots_units - before_units, units), 0)
    changes: list[Change] = []
    for each in reversed(drawn):
        skipped = min(each.amount_units, skipped_units)
        skipped_units -= skipped
        back_units = min(each.amount_units - skipped, units)
        units -= back_units
        if back_units:
            changes.append(_moved(state, each.lot_id, free_units=back_units))
    return tuple(changes)


def lot_answer(record: Record) -> CreditLot:
    """The answer of granting or withdrawing, from the record alone."""
    return lot_view(Lot.from_document(record.changed[0].after))


def lot_view(lot: Lot) -> CreditLot:
    """A lot as its operator sees it."""
    kind = next(name for name, kind in _KINDS.items() if kind == lot.kind)
    unspent_units = lot.free_units + lot.held_units + lot.expired_units + lot.withdrawn_units
    return CreditLot(
        lot_id=lot.lot_id,
        organisation_id=lot.operator_id,
        kind=kind,
        amount=money(lot.amount_units, lot.asset),
        free=money(lot.free_units, lot.asset),
        held=money(lot.held_units, lot.asset),
        spent=money(lot.amount_units - unspent_units, lot.asset),
        expired=money(lot.expired_units, lot.asset),
        withdrawn=money(lot.withdrawn_units, lot.asset),
        priority=lot.priority,
        expires_at=format_time(lot.expires_at_us) if lot.expires_at_us else "",
    )


def _accounts(lot: Lot) -> tuple[str, str]:
    """The account that a lot lies on, and the one that it came from."""
    kind = AccountKind(lot.kind)
    return (
        account_name(lot.operator_id, kind, lot.asset),
        account_name(PLATFORM, _FROM[kind], lot.asset),
    )


def _moved(state: State, lot_id: str, *, free_units: int, held_units: int = 0) -> Change:
    lot = state.lots[lot_id]
    after = replace(
        lot, free_units=lot.free_units + free_units, held_units=lot.held_units + held_units
    )
    return change("lot", lot_id, after)
