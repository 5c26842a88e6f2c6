"""What the records of a spend session must say: the session as opened, its charges, their money.

Boundary: makes what follows and compares nothing; `sessions` holds it against a whole journal,
`billing` against the records of one charge. Source: spec/sessions.md.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from farthing.protocol.canonical import Json
from farthing.protocol.ids import derive_id
from farthing.protocol.ledger import AccountKind, Movement, Transfer, account_name
from farthing.protocol.money import parse_units, share_ppm
from farthing.protocol.records import Record
from farthing.protocol.replay.keys import PLATFORM
from farthing.protocol.replay.reading import JsonObject, integer, member, units
from farthing.protocol.replay.shares import payer_parts, tail_of
from farthing.protocol.shares import Part, spread
from farthing.protocol.times import SECOND_US

__all__ = ["amount_of", "asset_of", "billed", "charged", "end_us", "opened", "reserved"]

_LIFE_S: Final = 3600
"""The life of a session whose opener names none."""


def opened(record: Record, agreement: JsonObject) -> JsonObject:
    """A session as its opening makes it, before anything is set aside."""
    asked, buyer_id = record.asked, record.by.principal_id
    asset = member(agreement, "asset")
    life_s = integer({"expires_in_s": _LIFE_S, **asked}, "expires_in_s")
    key = record.request.key if record.request else ""
    return {
        "session_id": derive_id("ses", buyer_id, record.operation, key),
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
    fee_units = share_ppm(amount_units, integer(agreement, "fee_ppm"))
    window_us = integer(agreement, "dispute_window_s") * SECOND_US
    charge: JsonObject = {
        "charge_id": derive_id("chg", member(session, "session_id"), str(record.seq)),
        "hold_id": "",
        "session_id": session["session_id"],
        **{name: session[name] for name in ("agreement_id", "asset", "rate_card_sha256")},
        **{name: session[name] for name in ("buyer_id", "operator_id", "vendor_id")},
        "amount_units": str(amount_units),
        "fee_units": str(fee_units),
        "released_units": "0",
        "refunded_units": "0",
        "fee_returned_units": "0",
        "status": "pending",
        "usage": {meter: str(quantity) for meter, quantity in usage.items()},
        "result_sha256": "",
        "captured_at_us": record.at_us,
        "window_closes_at_us": record.at_us + window_us,
        "dispute_id": "",
        "seq": record.seq,
        "trail_seqs": [],
    }
    tail = tail_of(agreement, amount_units, fee_units)
    return charge if tail is None else {**charge, "tail": tail}


def billed(charge: JsonObject, used: Sequence[JsonObject]) -> list[Transfer]:
    """The transfers of a charge: out of what was set aside, to whom it is due.

    Args:
        charge: The charge as it was made.
        used: What it consumes of the lots that its session drew on.
    """
    amount_units, fee_units = units(charge, "amount_units"), units(charge, "fee_units")
    parts = payer_parts(charge, used, amount_units)
    tail = charge.get("tail")
    partner: list[Part] = []
    if isinstance(tail, dict):
        account = _account(member(tail, "partner_id"), AccountKind.PARTNER_PENDING, charge)
        partner.append(Part(account, units(tail, "amount_units")))
    net_units = amount_units - fee_units - sum(part.units for part in partner)
    takers = [
        Part(_vendor_pending(charge), net_units),
        Part(_account(PLATFORM, AccountKind.PLATFORM_FEE, charge), fee_units),
        *partner,
    ]
    posted = spread(parts, takers, member(charge, "asset"))
    return [*reserved(charge, parts, Movement.VOID), *posted]


def reserved(thing: JsonObject, parts: Iterable[Part], movement: Movement) -> list[Transfer]:
    """The transfers that set parts aside for a thing's vendor, or give them back."""
    parts = list(parts)
    taken = Part(_vendor_pending(thing), sum(part.units for part in parts))
    return spread(parts, [taken], member(thing, "asset"), movement)


def end_us(session: JsonObject) -> int:
    """When it was closed, or else expires; reports are taken for a while longer."""
    return integer({"ended_at_us": session["expires_at_us"], **session}, "ended_at_us")


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


def _account(owner: str, kind: AccountKind, thing: JsonObject) -> str:
    return account_name(owner, kind, member(thing, "asset"))


def _vendor_pending(thing: JsonObject) -> str:
    return _account(member(thing, "vendor_id"), AccountKind.VENDOR_PENDING, thing)
