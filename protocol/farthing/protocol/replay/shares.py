"""Who paid a charge and who was paid, as its documents say: the parts that postings follow from.

Boundary: reads documents; the arithmetic is the law's (`protocol.shares`, `protocol.refunds`).
Source: spec/ledger.md.
"""

from collections.abc import Iterable, Mapping

from farthing.protocol.canonical import Json
from farthing.protocol.ledger import AccountKind, Transfer, account_name
from farthing.protocol.money import PPM
from farthing.protocol.refunds import Split, split_refund
from farthing.protocol.replay.keys import PLATFORM
from farthing.protocol.replay.reading import JsonObject, integer, member, units
from farthing.protocol.shares import Part, back_of, partner_share, spread

__all__ = [
    "consumed",
    "drawn_of",
    "in_escrow",
    "partner_of",
    "payees",
    "payer_parts",
    "payers",
    "refunded",
    "split_of",
    "tail_after",
    "tail_of",
    "taken_back",
]

_LOTS = {AccountKind.DEFERRED_REVENUE.value, AccountKind.PROMOTIONAL_CREDIT.value}


def partner_of(agreement: Mapping[str, Json]) -> JsonObject | None:
    """The partner that an agreement names, whose share and the fee are at most the whole."""
    partner = agreement.get("partner")
    if partner is None:
        return None
    if not isinstance(partner, dict) or partner.keys() != {"partner_id", "ppm"}:
        raise TypeError("the partner is not one")
    member(partner, "partner_id")
    if not 0 < integer(partner, "ppm") <= PPM - integer(agreement, "fee_ppm"):
        raise ValueError("the shares are more than the whole")
    return partner


def tail_of(agreement: JsonObject, amount_units: int, fee_units: int) -> JsonObject | None:
    """The partner's share as it must stand in a charge; None where there is no partner."""
    partner = partner_of(agreement)
    if partner is None:
        return None
    share_units = partner_share(amount_units, fee_units, integer(partner, "ppm"))
    return {
        "amount_units": str(share_units),
        "partner_id": partner["partner_id"],
        "returned_units": "0",
    }


def tail_after(charge: JsonObject, split: Split) -> dict[str, Json]:
    """The member of a charge that holds its partner's share, after part was given back."""
    tail = charge.get("tail")
    if not isinstance(tail, dict):
        return {}
    returned_units = units(tail, "returned_units") + split.partner_units
    return {"tail": {**tail, "returned_units": str(returned_units)}}


def consumed(hold: JsonObject, amount_units: int) -> list[Json]:
    """What a capture consumes of the lots that its hold drew, in the same order."""
    used: list[Json] = []
    for each in drawn_of(hold):
        drawn_units = min(units(each, "amount_units"), amount_units)
        amount_units -= drawn_units
        if drawn_units:
            used.append({**each, "amount_units": str(drawn_units)})
    return used


def payers(thing: JsonObject) -> list[Part]:
    """Who pays a hold or paid a charge, in the order of consumption: lots, then money."""
    return payer_parts(thing, drawn_of(thing), units(thing, "amount_units"))


def payer_parts(house: JsonObject, drawn: Iterable[JsonObject], amount_units: int) -> list[Part]:
    """Who pays an amount: the lots that it drew on, and money for the rest.

    Args:
        house: A thing that names the operator and the asset.
        drawn: What is drawn on lots, in the order of consumption.
        amount_units: The whole.
    """
    operator_id, asset = member(house, "operator_id"), member(house, "asset")
    parts: list[Part] = []
    for each in drawn:
        kind = member(each, "kind")
        if kind not in _LOTS:
            raise ValueError("a lot lies on no such account")
        account = account_name(operator_id, AccountKind(kind), asset)
        parts.append(Part(account, units(each, "amount_units")))
    rest_units = amount_units - sum(part.units for part in parts)
    if rest_units < 0:
        raise ValueError("more is drawn on lots than is held")
    return [*parts, Part(account_name(operator_id, AccountKind.PREPAID, asset), rest_units)]


def payees(charge: JsonObject, split: Split) -> list[Part]:
    """Who is paid of a charge, where their shares lie now."""
    asset, payable = member(charge, "asset"), charge["status"] == "payable"
    vendor = AccountKind.VENDOR_PAYABLE if payable else AccountKind.VENDOR_PENDING
    partner = AccountKind.PARTNER_PAYABLE if payable else AccountKind.PARTNER_PENDING
    parts = [
        Part(account_name(member(charge, "vendor_id"), vendor, asset), split.net_units),
        Part(account_name(PLATFORM, AccountKind.PLATFORM_FEE, asset), split.fee_units),
    ]
    tail = charge.get("tail")
    if isinstance(tail, dict):
        account = account_name(member(tail, "partner_id"), partner, asset)
        parts.append(Part(account, split.partner_units))
    return parts


def taken_back(charge: JsonObject, back_units: int) -> list[Part]:
    """Who takes what is given back of a charge: the last consumed comes first."""
    return back_of(payers(charge), units(charge, "refunded_units"), back_units)


def refunded(charge: JsonObject, split: Split) -> list[Transfer]:
    """The transfers that give part of a charge back, from each share to who paid."""
    takers = taken_back(charge, sum(split))
    return spread(payees(charge, split), takers, member(charge, "asset"))


def split_of(charge: JsonObject, back_units: int) -> Split:
    """How giving back part of a charge divides."""
    found = charge.get("tail")
    nothing: JsonObject = {"amount_units": "0", "returned_units": "0"}
    tail = found if isinstance(found, dict) else nothing
    return split_refund(
        amount_units=units(charge, "amount_units"),
        fee_units=units(charge, "fee_units"),
        refunded_units=units(charge, "refunded_units"),
        fee_returned_units=units(charge, "fee_returned_units"),
        back_units=back_units,
        partner_units=units(tail, "amount_units"),
        partner_returned_units=units(tail, "returned_units"),
    )


def in_escrow(dispute: JsonObject) -> Split:
    """What a dispute holds of each share."""
    return Split(
        units(dispute, "held_net_units"),
        units(dispute, "held_fee_units"),
        units({"held_partner_units": "0", **dispute}, "held_partner_units"),
    )


def drawn_of(thing: JsonObject) -> list[JsonObject]:
    """What a thing drew on lots, in the order of consumption."""
    drawn = thing.get("drawn", [])
    if not isinstance(drawn, list):
        raise TypeError("what was drawn is a list")
    found: list[JsonObject] = []
    for each in drawn:
        if not isinstance(each, dict) or each.keys() != {"amount_units", "kind", "lot_id"}:
            raise TypeError("what was drawn is no part of a lot")
        found.append(each)
    return found
