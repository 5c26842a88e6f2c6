"""Charges after capture: refunds by the vendor, and becoming payable when the window closes."""

from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from farthing.protocol.errors import Code, NextAction, Refusal, refuse
from farthing.protocol.ledger import AccountKind, Transfer, account_name
from farthing.protocol.messages.charges import Refund, RefundCharge
from farthing.protocol.money import format_units
from farthing.protocol.records import Record
from farthing.protocol.refunds import Split, split_refund
from farthing.protocol.wire import money
from farthing.settlement.engine import lots, shares
from farthing.settlement.engine.accounts import available_units, of_nothing, post, short_of
from farthing.settlement.engine.drafts import Call, Draft, change
from farthing.settlement.engine.state import State
from farthing.settlement.engine.things import Charge

__all__ = [
    "SettleCharge",
    "give_back",
    "given_back",
    "refund",
    "refund_answer",
    "settle",
    "split_of",
]


# Each change of a charge names all before it, and its evidence has every one.
_TRAIL_MAX: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleCharge:
    """The platform's command: a charge's dispute window has closed."""

    charge_id: str


def refund(state: State, call: Call) -> Draft | Refusal:
    """Give back part or all of a charge, with the platform's fee on it."""
    body = call.command.body
    assert isinstance(body, RefundCharge)
    if body.amount.units <= 0:
        return of_nothing("amount.amount")
    charge = state.charges.get(body.charge_id)
    if charge is None or charge.vendor_id != call.principal_id:
        return refuse(Code.NOT_FOUND, path="charge_id")
    rest = money(charge.amount_units - charge.refunded_units, charge.asset)
    if len(charge.trail_seqs) >= _TRAIL_MAX and rest.units and body.amount != rest:
        return refuse(
            Code.INVALID_AMOUNT,
            path="amount.amount",
            required=rest.amount,
            asset=rest.asset,
            message="The charge has changed too often to be given back in parts: the rest can be.",
        )
    if body.amount.asset != charge.asset:
        return refuse(Code.ASSET_MISMATCH, path="amount.asset", required=charge.asset)
    return give_back(state, call, charge, body.amount.units, path="amount.amount")


def give_back(
    state: State, call: Call, charge: Charge, units: int, *, path: str
) -> Draft | Refusal:
    """Give back `units` of a charge, from all who were paid to all who paid.

    `path` is the argument that says how much.
    """
    asset = charge.asset
    left_units = charge.amount_units - charge.refunded_units
    if units > left_units or not left_units or charge.status == "disputed":
        disputed = charge.status == "disputed"
        return refuse(
            Code.REFUND_EXCEEDS_CHARGE,
            path=path,
            required=format_units(units, asset),
            remaining=format_units(0 if disputed else left_units, asset),
            asset=asset,
            message="The charge is in dispute: its ruling gives back." if disputed else "",
        )
    split = split_of(charge, units)
    kind = _vendors_account(charge)
    available = available_units(state, charge.vendor_id, kind, asset)
    if split.net_units > available:
        text = "The vendor's share of it has been paid out, or is about to be."
        return short_of(split.net_units, available, asset, path=path, message=text)
    if charge.tail is not None and split.partner_units:
        payable = charge.status == "payable"
        kind = AccountKind.PARTNER_PAYABLE if payable else AccountKind.PARTNER_PENDING
        if split.partner_units > available_units(state, charge.tail.partner_id, kind, asset):
            # What else the partner has is nothing that the vendor may see.
            text = "The partner's share of it has been paid out, or is about to be."
            return refuse(
                Code.INSUFFICIENT_FUNDS, path=path, message=text, next_action=NextAction.WAIT
            )
    after = given_back(charge, split, call.seq)
    return Draft(
        moved=tuple(shares.back(charge, split)),
        changed=(
            change("charge", charge.charge_id, after),
            *lots.returned(state, charge.drawn, charge.amount_units, charge.refunded_units, units),
        ),
        decided={"fee_units": str(split.fee_units), "units": str(units)},
    )


def given_back(charge: Charge, split: Split, seq: int) -> Charge:
    """The charge after record `seq` gave part of it back."""
    tail = charge.tail
    if tail is not None:
        tail = replace(tail, returned_units=tail.returned_units + split.partner_units)
    return replace(
        charge,
        refunded_units=charge.refunded_units + sum(split),
        fee_returned_units=charge.fee_returned_units + split.fee_units,
        trail_seqs=(*charge.trail_seqs, seq),
        tail=tail,
    )


def settle(state: State, call: Call) -> Draft | Refusal:
    """Move what the vendor earned from pending to payable; the platform's own command."""
    body = call.command.body
    assert isinstance(body, SettleCharge)
    charge = state.charges[body.charge_id]
    assert charge.status == "pending"
    assert charge.window_closes_at_us <= call.now_us
    net_units = charge.amount_units - charge.fee_units
    net_units -= charge.refunded_units - charge.fee_returned_units
    partners: list[Transfer] = []
    if charge.tail is not None:
        owner, kept_units = charge.tail.partner_id, charge.tail.kept_units
        net_units -= kept_units
        partners = post(
            account_name(owner, AccountKind.PARTNER_PENDING, charge.asset),
            account_name(owner, AccountKind.PARTNER_PAYABLE, charge.asset),
            charge.asset,
            kept_units,
        )
    pending = account_name(charge.vendor_id, AccountKind.VENDOR_PENDING, charge.asset)
    payable = account_name(charge.vendor_id, AccountKind.VENDOR_PAYABLE, charge.asset)
    after = replace(charge, status="payable", trail_seqs=(*charge.trail_seqs, call.seq))
    return Draft(
        moved=(*post(pending, payable, charge.asset, net_units), *partners),
        changed=(change("charge", charge.charge_id, after),),
    )


def split_of(charge: Charge, units: int) -> Split:
    """How giving back `units` of a charge divides (spec/ledger.md)."""
    return split_refund(
        amount_units=charge.amount_units,
        fee_units=charge.fee_units,
        refunded_units=charge.refunded_units,
        fee_returned_units=charge.fee_returned_units,
        back_units=units,
        partner_units=charge.tail.amount_units if charge.tail else 0,
        partner_returned_units=charge.tail.returned_units if charge.tail else 0,
    )


def _vendors_account(charge: Charge) -> AccountKind:
    """Where the vendor's share of a charge lies now."""
    payable = charge.status == "payable"
    return AccountKind.VENDOR_PAYABLE if payable else AccountKind.VENDOR_PENDING


def refund_answer(record: Record) -> Refund:
    """The answer, from the record alone."""
    charge = Charge.from_document(record.changed[0].after)
    decided = record.decided
    assert decided is not None
    return Refund(
        refund_id=record.new_id("rfd"),
        charge_id=charge.charge_id,
        amount=money(int(str(decided["units"])), charge.asset),
        fee_returned=money(int(str(decided["fee_units"])), charge.asset),
        refunded_in_all=money(charge.refunded_units, charge.asset),
    )
