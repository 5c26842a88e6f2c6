"""What records must say: holds and sessions as they begin, their charges, their money.

Boundary: makes what follows and compares nothing; `spending` and `sessions` hold it against a whole
journal, `trade` and `billing` against the records of one charge. Source: spec/holds.md,
spec/sessions.md.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from farthing.protocol.canonical import Json
from farthing.protocol.ids import derive_id
from farthing.protocol.ledger import AccountKind, Movement, Transfer, account_name
from farthing.protocol.money import parse_units, share_ppm
from farthing.protocol.records import Record
from farthing.protocol.refunds import Split
from farthing.protocol.replay.reading import JsonObject, integer, member, units
from farthing.protocol.replay.shares import consumed, payees, payers, tail_of
from farthing.protocol.shares import Part, spread
from farthing.protocol.times import SECOND_US, parse_time, utc_day

__all__ = [
    "amount_of",
    "asset_of",
    "billed",
    "captured",
    "charged",
    "end_us",
    "ends_us",
    "opened",
    "placed",
    "posted",
    "reserved",
    "workload_of",
]

_LIFE_S: Final = 3600
"""The life of a session whose opener names none."""


def placed(
    record: Record, agreement: JsonObject, workload: Mapping[str, int], amount_units: int
) -> JsonObject:
    """What a hold must say as it begins, but for its position and the lots that it draws on."""
    asked, buyer_id = record.asked, record.by.principal_id
    asset = member(agreement, "asset")
    longest_s = integer(agreement, "delivery_deadline_s")
    asked_s = integer({"expires_in_s": 0, **asked}, "expires_in_s")
    life_s = min(asked_s, longest_s) if asked_s > 0 else longest_s
    hold: JsonObject = {
        "hold_id": record.new_id("hld"),
        "agreement_id": asked["agreement_id"],
        "buyer_id": buyer_id,
        **{name: agreement[name] for name in ("operator_id", "vendor_id", "asset")},
        "amount_units": str(amount_units),
        "status": "open",
        "workload": {meter: str(quantity) for meter, quantity in workload.items()},
        "args_sha256": member(asked, "args_sha256"),
        "grant_id": derive_id("gnt", buyer_id, asset),
        "day": utc_day(record.at_us),
        "expires_at_us": record.at_us + life_s * SECOND_US,
        "charge_id": "",
        "seq": record.seq,
    }
    return {**hold, "on_answer": True} if record.operation == "call_service" else hold


def workload_of(asked: Mapping[str, Json]) -> dict[str, int]:
    """The most that may be used, as it was asked for; quantities of one meter add up."""
    workload: dict[str, int] = {}
    listed = asked["workload"]
    if not isinstance(listed, list):
        raise TypeError("a workload is a list")
    for each in listed:
        if not isinstance(each, dict):
            raise TypeError("a quantity is an object")
        meter = member(each, "meter")
        workload[meter] = workload.get(meter, 0) + units(each, "quantity")
    return workload


def captured(
    record: Record,
    hold: JsonObject,
    agreement: JsonObject,
    *,
    amount_units: int,
    usage: Mapping[str, int],
    result_sha256: str,
) -> JsonObject:
    """What the charge of a capture must say."""
    held_units, used = units(hold, "amount_units"), consumed(hold, amount_units)
    charge: JsonObject = {
        **_charge(record, hold, agreement, amount_units),
        "charge_id": derive_id("chg", member(hold, "hold_id")),
        "hold_id": hold["hold_id"],
        "position": hold["position"],
        "released_units": str(held_units - amount_units),
        "usage": {meter: str(quantity) for meter, quantity in usage.items()},
        "result_sha256": result_sha256,
    }
    return {**charge, "drawn": used} if used else charge


def opened(record: Record, agreement: JsonObject) -> JsonObject:
    """A session as its opening makes it, before anything is set aside."""
    asked, buyer_id = record.asked, record.by.principal_id
    asset = member(agreement, "asset")
    life_s = integer({"expires_in_s": _LIFE_S, **asked}, "expires_in_s")
    return {
        "session_id": record.new_id("ses"),
        "agreement_id": agreement["agreement_id"],
        **{name: agreement[name] for name in ("buyer_id", "operator_id", "vendor_id")},
        "asset": asset,
        "status": "open",
        "cap_units": "0",
        "per_call_units": str(amount_of(asked, "per_call")),
        "low_water_units": str(amount_of(asked, "low_water")),
        "unsigned_units": str(amount_of(asked, "unsigned")),
        "final_action": asked.get("final_action", "refuse"),
        "spent_units": "0",
        "calls": 0,
        "rejected": 0,
        "top": 0,
        "seen": "0",
        "voucher_seq": 0,
        "max_cum_units": "0",
        "rate_card_sha256": agreement["rate_card_sha256"],
        "payer_thumbprint": record.by.key_thumbprint,
        "grant_id": derive_id("gnt", buyer_id, asset),
        "counted": {},
        "opened_at_us": record.at_us,
        "expires_at_us": record.at_us + life_s * SECOND_US,
        "seq": record.seq,
    }


def charged(
    record: Record,
    session: JsonObject,
    agreement: JsonObject,
    amount_units: int,
    usage: Mapping[str, int],
) -> JsonObject:
    """What the charge of a report must say, but for the position that it is rated from."""
    return {
        **_charge(record, session, agreement, amount_units),
        "charge_id": derive_id("chg", member(session, "session_id"), str(record.seq)),
        "hold_id": "",
        "session_id": session["session_id"],
        "released_units": "0",
        "usage": {meter: str(quantity) for meter, quantity in usage.items()},
        "result_sha256": "",
    }


def _charge(
    record: Record, paid_by: JsonObject, agreement: JsonObject, amount_units: int
) -> JsonObject:
    """What every charge says as it begins, whatever it was set aside by."""
    fee_units = share_ppm(amount_units, integer(agreement, "fee_ppm"))
    window_us = integer(agreement, "dispute_window_s") * SECOND_US
    charge: JsonObject = {
        **{name: paid_by[name] for name in ("agreement_id", "asset")},
        **{name: paid_by[name] for name in ("buyer_id", "operator_id", "vendor_id")},
        "rate_card_sha256": agreement["rate_card_sha256"],
        "amount_units": str(amount_units),
        "fee_units": str(fee_units),
        "refunded_units": "0",
        "fee_returned_units": "0",
        "status": "pending",
        "captured_at_us": record.at_us,
        "window_closes_at_us": record.at_us + window_us,
        "dispute_id": "",
        "seq": record.seq,
        "trail_seqs": [],
    }
    tail = tail_of(agreement, amount_units, fee_units)
    return charge if tail is None else {**charge, "tail": tail}


def billed(charge: JsonObject) -> list[Transfer]:
    """The transfers of a session's charge: out of what was set aside, to whom it is due."""
    return [*reserved(charge, payers(charge), Movement.VOID), *posted(charge)]


def posted(charge: JsonObject) -> list[Transfer]:
    """The posts of a charge as it begins: from who pays, to whom it is due."""
    fee_units, tail = units(charge, "fee_units"), charge.get("tail")
    partner_units = units(tail, "amount_units") if isinstance(tail, dict) else 0
    net_units = units(charge, "amount_units") - fee_units - partner_units
    split = Split(net_units, fee_units, partner_units)
    return spread(payers(charge), payees(charge, split), member(charge, "asset"))


def reserved(thing: JsonObject, parts: Iterable[Part], movement: Movement) -> list[Transfer]:
    """The transfers that set parts aside for a thing's vendor, or give them back."""
    parts = list(parts)
    vendor_id, asset = member(thing, "vendor_id"), member(thing, "asset")
    pending = account_name(vendor_id, AccountKind.VENDOR_PENDING, asset)
    taken = Part(pending, sum(part.units for part in parts))
    return spread(parts, [taken], asset, movement)


def end_us(session: JsonObject) -> int:
    """When it was closed, or else expires; reports are taken for a while longer."""
    return integer({"ended_at_us": session["expires_at_us"], **session}, "ended_at_us")


def ends_us(asked: Mapping[str, Json]) -> int:
    """The end that was asked for; 0 where none was."""
    expires_at = asked.get("expires_at")
    return parse_time(str(expires_at)) if expires_at else 0


def amount_of(asked: Mapping[str, Json], name: str) -> int:
    """The units of an amount that was asked for; 0 where none was."""
    money = asked.get(name)
    if money is None:
        return 0
    if not isinstance(money, dict):
        raise TypeError(f"{name} is no amount")
    return parse_units(member(money, "amount"), member(money, "asset"))


def asset_of(asked: Mapping[str, Json], name: str) -> str:
    """The asset of an amount that was asked for."""
    money = asked[name]
    if not isinstance(money, dict):
        raise TypeError(f"{name} is no amount")
    return member(money, "asset")
