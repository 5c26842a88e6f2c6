"""The postings of sessions, and of holds with more to them: a partner's share, or credit lots.

Boundary: a plain hold is set aside and captured in `holds`. The order of everything is the law's
(`protocol.shares`). Source: spec/ledger.md.
"""

from msgspec.structs import replace

from farthing.protocol.ledger import AccountKind, Movement, Transfer, account_name
from farthing.protocol.refunds import Split
from farthing.protocol.shares import Part, back_of, first_of, partner_share, spread
from farthing.settlement.engine import lots
from farthing.settlement.engine.commands import PLATFORM
from farthing.settlement.engine.things import Agreement, Charge, Drawn, Hold, Session, Tail

__all__ = ["aside", "back", "capture", "escrow", "payees", "reserve", "ruling", "shared"]


def shared(charge: Charge, drawn: tuple[Drawn, ...], agreement: Agreement) -> Charge:
    """The charge with its partner's share and what it consumed of the lots that were drawn on."""
    partner = agreement.partner
    if partner is None and not drawn:
        return charge
    tail = None
    if partner is not None:
        units = partner_share(charge.amount_units, charge.fee_units, partner.ppm)
        tail = Tail(partner_id=partner.partner_id, amount_units=units)
    return replace(charge, tail=tail, drawn=lots.consumed(drawn, charge.amount_units))


def aside(movement: Movement, hold: Hold) -> list[Transfer]:
    """A hold's transfers, from each account that pays for it."""
    return reserve(movement, hold, hold.drawn, hold.amount_units)


def reserve(
    movement: Movement, thing: Hold | Session, drawn: tuple[Drawn, ...], units: int
) -> list[Transfer]:
    """The transfers of what is set aside, or of a part of it: credit lots first, then money."""
    vendor = account_name(thing.vendor_id, AccountKind.VENDOR_PENDING, thing.asset)
    payers = _payers(thing.operator_id, thing.asset, drawn, units)
    return spread(payers, [Part(vendor, units)], thing.asset, movement)


def capture(charge: Charge) -> list[Transfer]:
    """The posts of a capture: payers in the order of consumption, then who is paid."""
    payers = _payers(charge.operator_id, charge.asset, charge.drawn, charge.amount_units)
    partner_units = charge.tail.amount_units if charge.tail else 0
    net_units = charge.amount_units - charge.fee_units - partner_units
    split = Split(net_units, charge.fee_units, partner_units)
    return spread(first_of(payers, charge.amount_units), payees(charge, split), charge.asset)


def back(charge: Charge, split: Split) -> list[Transfer]:
    """The posts of a refund: each share gives, the last that was consumed takes first."""
    return spread(payees(charge, split), _taken_back(charge, sum(split)), charge.asset)


def escrow(charge: Charge, split: Split) -> list[Transfer]:
    """The posts that take a charge's shares into the dispute escrow."""
    return spread(payees(charge, split), [Part(_escrow(charge), sum(split))], charge.asset)


def ruling(charge: Charge, credit_units: int, kept: Split) -> list[Transfer]:
    """The posts of a ruling: the credit to where the charge was paid from, the rest back."""
    out = [Part(_escrow(charge), credit_units + sum(kept))]
    return spread(out, [*_taken_back(charge, credit_units), *payees(charge, kept)], charge.asset)


def payees(charge: Charge, split: Split) -> list[Part]:
    """Who is paid of a charge: vendor, platform, partner, where their shares lie now."""
    payable = charge.status == "payable"
    vendor = AccountKind.VENDOR_PAYABLE if payable else AccountKind.VENDOR_PENDING
    partner = AccountKind.PARTNER_PAYABLE if payable else AccountKind.PARTNER_PENDING
    parts = [
        Part(account_name(charge.vendor_id, vendor, charge.asset), split.net_units),
        Part(account_name(PLATFORM, AccountKind.PLATFORM_FEE, charge.asset), split.fee_units),
    ]
    if charge.tail is not None:
        owner = charge.tail.partner_id
        parts.append(Part(account_name(owner, partner, charge.asset), split.partner_units))
    return parts


def _payers(operator_id: str, asset: str, drawn: tuple[Drawn, ...], units: int) -> list[Part]:
    parts = [
        Part(account_name(operator_id, AccountKind(each.kind), asset), each.amount_units)
        for each in drawn
    ]
    rest_units = units - sum(part.units for part in parts)
    return [*parts, Part(account_name(operator_id, AccountKind.PREPAID, asset), rest_units)]


def _taken_back(charge: Charge, units: int) -> list[Part]:
    payers = _payers(charge.operator_id, charge.asset, charge.drawn, charge.amount_units)
    return back_of(payers, charge.refunded_units, units)


def _escrow(charge: Charge) -> str:
    return account_name(PLATFORM, AccountKind.DISPUTE_ESCROW, charge.asset)
