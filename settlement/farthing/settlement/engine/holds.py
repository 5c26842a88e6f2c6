"""Holds: placed by the buyer, captured or released by the payee, expired by the platform.

Boundary: rating, authority and balance are judged in one step, so no race can overspend. A
capture rates from the hold's own position: equal input, equal amount. Source: spec/holds.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, cast

from msgspec.structs import replace

from farthing.protocol.authority.decide import Purchase, first_of
from farthing.protocol.canonical import Json
from farthing.protocol.contracts import DeliveryRecord
from farthing.protocol.errors import Code, NextAction, Refusal, refuse
from farthing.protocol.ids import derive_id
from farthing.protocol.ledger import AccountKind, Movement, Transfer, account_name
from farthing.protocol.messages.agreements import Line as LineView
from farthing.protocol.messages.holds import CaptureHold, HoldView, PlaceHold, ReleaseHold
from farthing.protocol.messages.holds import Charge as ChargeView
from farthing.protocol.messages.holds import Hold as HoldAnswer
from farthing.protocol.money import format_units, share_ppm
from farthing.protocol.rating import (
    RateCard,
    RatingCode,
    RatingError,
    first_fault,
    line_document,
    parse_line,
    rate,
)
from farthing.protocol.records import Change, Count, Record
from farthing.protocol.signatures import Typ
from farthing.protocol.times import SECOND_US, format_time, utc_day
from farthing.protocol.wire import Usage, money
from farthing.settlement.engine import allowances, grants, lots, shares
from farthing.settlement.engine.accounts import not_covered, post, transfer
from farthing.settlement.engine.commands import PLATFORM
from farthing.settlement.engine.drafts import Call, Draft, advanced, change
from farthing.settlement.engine.principals import is_frozen, signs
from farthing.settlement.engine.state import State
from farthing.settlement.engine.things import Agreement, Charge, Drawn, Hold

__all__ = [
    "Capture",
    "ExpireHold",
    "capture",
    "capture_answer",
    "captured",
    "charge_view",
    "expire",
    "give_back",
    "hold_view",
    "lines_view",
    "place",
    "place_answer",
    "quantities",
    "release",
    "release_answer",
]

# Which argument says what of a purchase is refused.
_ARGUMENTS = {
    "amount": "workload",
    "asset": "agreement_id",
    "per_call": "workload",
    "primary_tag": "agreement_id",
    "vendor_id": "agreement_id",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """A capture whose delivery record's signature has been checked.

    `key_thumbprint` is the key that made it, where that is another of the caller's keys.
    """

    ask: CaptureHold
    delivery: DeliveryRecord
    key_thumbprint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpireHold:
    """The platform's command: a hold is past its time."""

    hold_id: str


def place(state: State, call: Call, *, on_answer: bool = False) -> Draft | Refusal:
    """Set aside the price of the workload at the agreement's position.

    Where it is `on_answer`, the platform says when it is captured.
    """
    body = call.command.body
    assert isinstance(body, PlaceHold)
    agreement = state.agreements.get(body.agreement_id)
    if agreement is None or agreement.buyer_id != call.principal_id:
        return refuse(Code.NOT_FOUND, path="agreement_id")
    if agreement.status != "in_force":
        return refuse(Code.AGREEMENT_ENDED, path="agreement_id")
    workload = quantities(body.workload)
    position = state.positions.get(agreement.agreement_id, {})
    rating = _rate(state, agreement, position, workload)
    if isinstance(rating, Refusal):
        return rating
    units = rating.total_units
    purchase = Purchase(
        vendor_id=agreement.vendor_id,
        tags=agreement.tags,
        asset=agreement.asset,
        units=units,
        vendor_frozen=is_frozen(state, agreement.vendor_id),
    )
    reasons = grants.not_authorised(state, call, purchase)
    drawn: tuple[Drawn, ...] = ()
    money_units = units
    if state.free_lots:
        operator_id, asset = agreement.operator_id, agreement.asset
        drawn = lots.draw(state, operator_id, asset, units, call.now_us)
        money_units -= sum(each.amount_units for each in drawn)
    reasons += allowances.not_allowed(state, agreement.agreement_id, workload, call.now_us)
    if reasons := (*reasons, *not_covered(state, agreement, money_units)):
        return first_of(reasons, _ARGUMENTS)
    grant = state.grants[call.principal_id, agreement.asset]
    hold = Hold(
        hold_id=call.new_id("hld"),
        agreement_id=agreement.agreement_id,
        buyer_id=agreement.buyer_id,
        operator_id=agreement.operator_id,
        vendor_id=agreement.vendor_id,
        asset=agreement.asset,
        amount_units=units,
        status="open",
        position=position,
        workload=workload,
        args_sha256=body.args_sha256,
        grant_id=grant.grant_id,
        day=utc_day(call.now_us),
        expires_at_us=call.now_us + _lifetime_s(body, agreement) * SECOND_US,
        seq=call.seq,
        drawn=drawn,
        on_answer=on_answer,
    )
    return Draft(
        moved=tuple(_aside(Movement.PENDING, hold)),
        counted=_counted(hold, units),
        changed=(
            change("hold", hold.hold_id, hold),
            *lots.held(state, drawn),
            *allowances.reserved(state, hold),
        ),
        decided={"lines": rating.lines},
    )


def capture(state: State, call: Call) -> Draft | Refusal:
    """Capture a hold for its payee."""
    body = call.command.body
    assert isinstance(body, Capture)
    hold = _payees_hold(state, call, body.ask.hold_id)
    if isinstance(hold, Refusal):
        return hold
    by = call.command.by
    if not signs(state, by.principal_id, body.key_thumbprint or by.key_thumbprint, Typ.DELIVERY):
        return refuse(Code.SIGNATURE_INVALID, path="delivery_signature")
    if (over := _over(hold, call.now_us)) is not None:
        return over
    if hold.on_answer:
        return refuse(Code.ANSWER_AWAITED, path="hold_id", retry_after_s=1)
    return captured(state, hold, body.delivery, now_us=call.now_us, seq=call.seq)


def captured(
    state: State, hold: Hold, delivery: DeliveryRecord, *, now_us: int, seq: int
) -> Draft | Refusal:
    """Post what was used, split the fee off, give the rest back: all in one record."""
    agreement = state.agreements[hold.agreement_id]
    if path := _misfit(delivery, hold, agreement):
        return refuse(Code.DELIVERY_INVALID, path=f"delivery.{path}")
    rating = _rate(state, agreement, hold.position, delivery.usage, "delivery.usage")
    if isinstance(rating, Refusal):
        return rating
    if over := [m for m, used in delivery.usage.items() if used > hold.workload.get(m, 0)]:
        return refuse(
            Code.CAPTURE_EXCEEDS_HOLD,
            path=f"delivery.usage.{over[0]}",
            required=str(delivery.usage[over[0]]),
            remaining=str(hold.workload.get(over[0], 0)),
            message=f"More of the meter {over[0]} was used than the hold is for.",
        )
    units = rating.total_units
    if units > hold.amount_units:
        return refuse(
            Code.CAPTURE_EXCEEDS_HOLD,
            path="delivery.usage",
            required=format_units(units, hold.asset),
            remaining=format_units(hold.amount_units, hold.asset),
            asset=hold.asset,
        )
    charge = _charge(hold, agreement, delivery, units, now_us=now_us, seq=seq)
    ended = replace(hold, status="captured", charge_id=charge.charge_id)
    prepaid = account_name(hold.operator_id, AccountKind.PREPAID, hold.asset)
    vendor = account_name(hold.vendor_id, AccountKind.VENDOR_PENDING, hold.asset)
    fees = account_name(PLATFORM, AccountKind.PLATFORM_FEE, hold.asset)
    return Draft(
        moved=(
            *_aside(Movement.VOID, hold),
            *(
                shares.capture(charge)
                if charge.tail is not None or charge.drawn
                else (
                    *post(prepaid, vendor, hold.asset, units - charge.fee_units),
                    *post(prepaid, fees, hold.asset, charge.fee_units),
                )
            ),
        ),
        counted=_counted(hold, units - hold.amount_units),
        changed=(
            change("hold", hold.hold_id, ended),
            change("charge", charge.charge_id, charge),
            _advanced(state, agreement, delivery.usage),
            *lots.ended(state, hold.drawn, charge.drawn),
            *allowances.used(state, hold.agreement_id, delivery.usage, now_us, freed=hold.workload),
        ),
        decided={"lines": rating.lines},
    )


def release(state: State, call: Call) -> Draft | Refusal:
    """Give a hold back whole; only the payee can."""
    body = call.command.body
    assert isinstance(body, ReleaseHold)
    hold = _payees_hold(state, call, body.hold_id)
    if isinstance(hold, Refusal):
        return hold
    return _over(hold, call.now_us) or give_back(state, hold, "released")


def expire(state: State, call: Call) -> Draft | Refusal:
    """Give an overdue hold back; the platform's own command."""
    body = call.command.body
    assert isinstance(body, ExpireHold)
    hold = state.holds[body.hold_id]
    assert hold.status == "open"
    assert hold.expires_at_us <= call.now_us
    return give_back(state, hold, "expired")


def give_back(state: State, hold: Hold, status: str) -> Draft:
    """The end of a hold of which nothing is captured."""
    return Draft(
        moved=tuple(_aside(Movement.VOID, hold)),
        counted=_counted(hold, -hold.amount_units),
        changed=(
            change("hold", hold.hold_id, replace(hold, status=status)),
            *lots.ended(state, hold.drawn),
            *allowances.freed(state, hold),
        ),
    )


def place_answer(record: Record) -> HoldAnswer:
    """What a record set aside, from it alone; the entitlement is added when sent."""
    return _hold_answer(record, lines_view(record))


def release_answer(record: Record) -> HoldAnswer:
    """The answer of `release_hold`, from the record alone."""
    return _hold_answer(record, ())


def capture_answer(record: Record) -> ChargeView:
    """The answer of `capture_hold`, from the record alone."""
    after = next(each.after for each in record.changed if each.noun == "charge")
    return charge_view(Charge.from_document(after), lines_view(record))


def hold_view(hold: Hold) -> HoldView:
    """A hold as its parties see it."""
    return HoldView(
        hold_id=hold.hold_id,
        agreement_id=hold.agreement_id,
        status=hold.status,
        amount=money(hold.amount_units, hold.asset),
        expires_at=format_time(hold.expires_at_us),
        charge_id=hold.charge_id,
    )


def charge_view(charge: Charge, lines: tuple[LineView, ...]) -> ChargeView:
    """A charge as its parties see it."""
    asset = charge.asset
    return ChargeView(
        charge_id=charge.charge_id,
        hold_id=charge.hold_id,
        agreement_id=charge.agreement_id,
        status=charge.status,
        amount=money(charge.amount_units, asset),
        released=money(charge.released_units, asset),
        fee=money(charge.fee_units, asset),
        refunded=money(charge.refunded_units, asset),
        lines=lines,
        result_sha256=charge.result_sha256,
        captured_at=format_time(charge.captured_at_us),
        window_closes_at=format_time(charge.window_closes_at_us),
        seq=charge.seq,
        session_id=charge.session_id,
    )


def lines_view(record: Record) -> tuple[LineView, ...]:
    """The priced lines of a hold's or a capture's record."""
    decided = record.decided
    assert decided is not None
    asset = str(record.changed[0].after["asset"])
    lines = cast("list[Json]", decided["lines"])
    return tuple(LineView.of(parse_line(line), asset) for line in lines)


def quantities(usage: tuple[Usage, ...]) -> dict[str, int]:
    """Usage as a mapping; quantities of a meter that is named twice add up."""
    totals: dict[str, int] = {}
    for each in usage:
        totals[each.meter] = totals.get(each.meter, 0) + int(each.quantity)
    return totals


def _hold_answer(record: Record, lines: tuple[LineView, ...]) -> HoldAnswer:
    hold = Hold.from_document(record.changed[0].after)
    return HoldAnswer(
        hold_id=hold.hold_id,
        agreement_id=hold.agreement_id,
        status=hold.status,
        amount=money(hold.amount_units, hold.asset),
        expires_at=format_time(hold.expires_at_us),
        lines=lines,
    )


class _Price(NamedTuple):
    """What usage costs, and its lines as records hold them."""

    total_units: int
    lines: list[Json]


def _rate(
    state: State,
    agreement: Agreement,
    position: Mapping[str, int],
    usage: Mapping[str, int],
    path: str = "workload",
) -> _Price | Refusal:
    if not usage:
        return refuse(Code.USAGE_INVALID, path=path, message="No usage is named.")
    card = state.cards[agreement.rate_card_sha256]
    try:
        return _price(card, tuple(position.items()), tuple(usage.items()))
    except RatingError as found:
        error = first_fault(card, position, usage) or found
        if error.code is RatingCode.AMOUNT_OVERFLOW:
            return refuse(Code.AMOUNT_OVERFLOW, path=path)
        return refuse(Code.USAGE_INVALID, path=path, message=str(error))


# A capture of what was held, and holds beside each other, ask the same again.
@lru_cache(maxsize=4096)
def _price(
    card: RateCard, position: tuple[tuple[str, int], ...], usage: tuple[tuple[str, int], ...]
) -> _Price:
    rating = rate(card, dict(position), dict(usage))
    return _Price(rating.total_units, [line_document(line) for line in rating.lines])


def _lifetime_s(body: PlaceHold, agreement: Agreement) -> int:
    longest_s = agreement.delivery_deadline_s
    return min(body.expires_in_s, longest_s) if body.expires_in_s > 0 else longest_s


def _payees_hold(state: State, call: Call, hold_id: str) -> Hold | Refusal:
    hold = state.holds.get(hold_id)
    if hold is None or hold.vendor_id != call.principal_id:
        return refuse(Code.NOT_FOUND, path="hold_id")
    return hold


def _over(hold: Hold, now_us: int) -> Refusal | None:
    """Why nothing more can be done to a hold, None where it is open."""
    if hold.status == "expired" or (hold.status == "open" and hold.expires_at_us <= now_us):
        text = "The hold has expired: the money is its buyer's again."
        return refuse(Code.HOLD_EXPIRED, path="hold_id", message=text, next_action=NextAction.NONE)
    return None if hold.status == "open" else refuse(Code.HOLD_RESOLVED, path="hold_id")


def _misfit(delivery: DeliveryRecord, hold: Hold, agreement: Agreement) -> str:
    """The first field of a delivery record that does not fit its hold; empty when all do."""
    pairs = (
        ("hold_id", delivery.hold_id, hold.hold_id),
        ("agreement_id", delivery.agreement_id, agreement.agreement_id),
        ("vendor_id", delivery.vendor_id, hold.vendor_id),
        ("listing_id", delivery.listing_id, agreement.listing_id),
        ("args_sha256", delivery.args_sha256, hold.args_sha256),
        (
            "output_schema_sha256",
            delivery.output_schema_sha256,
            agreement.output_schema_sha256,
        ),
    )
    return next((name for name, given, expected in pairs if given != expected), "")


def _charge(
    hold: Hold,
    agreement: Agreement,
    delivery: DeliveryRecord,
    units: int,
    *,
    now_us: int,
    seq: int,
) -> Charge:
    charge = Charge(
        charge_id=derive_id("chg", hold.hold_id),
        hold_id=hold.hold_id,
        agreement_id=agreement.agreement_id,
        buyer_id=hold.buyer_id,
        operator_id=hold.operator_id,
        vendor_id=hold.vendor_id,
        asset=hold.asset,
        rate_card_sha256=agreement.rate_card_sha256,
        amount_units=units,
        fee_units=share_ppm(units, agreement.fee_ppm),
        released_units=hold.amount_units - units,
        status="pending",
        position=hold.position,
        usage=dict(delivery.usage),
        result_sha256=delivery.result_sha256,
        captured_at_us=now_us,
        window_closes_at_us=now_us + agreement.dispute_window_s * SECOND_US,
        seq=seq,
    )
    return shares.shared(charge, hold.drawn, agreement)


def _advanced(state: State, agreement: Agreement, usage: Mapping[str, int]) -> Change:
    position = dict(state.positions.get(agreement.agreement_id, {}))
    for meter, quantity in usage.items():
        position[meter] = position.get(meter, 0) + quantity
    return advanced(agreement.agreement_id, position)


def _aside(movement: Movement, hold: Hold) -> list[Transfer]:
    if hold.drawn:
        return shares.aside(movement, hold)
    return transfer(
        movement,
        account_name(hold.operator_id, AccountKind.PREPAID, hold.asset),
        account_name(hold.vendor_id, AccountKind.VENDOR_PENDING, hold.asset),
        hold.asset,
        hold.amount_units,
    )


def _counted(hold: Hold, units: int) -> tuple[Count, ...]:
    return (Count(grant_id=hold.grant_id, day=hold.day, units=units),) if units else ()
