"""Billed calls of a session taken back: signed by real keys, decided by the real engine."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from farthing.identity.callers import Caller
from farthing.protocol.canonical import Json, sha256_hex
from farthing.protocol.corrections import CallBack, Correction, billed_by, calls_document
from farthing.protocol.messages.corrections import CORRECT_USAGE, CallCorrection, CorrectUsage
from farthing.protocol.records import Record, parse_record
from farthing.protocol.signatures import Typ, sign_detached
from farthing.settlement.engine.corrections import Corrected
from tests.construction import Trade, vendor_key

__all__ = ["charge_of", "correct", "corrected"]


def charge_of(record: Record) -> str:
    """The charge that a report made."""
    return next(each.id for each in record.changed if each.noun == "charge")


def corrected(trade: Trade, charge_id: str, taken: Mapping[int, int], **how: Any) -> Record:
    """Take pages back of calls; it must be done."""
    record = correct(trade, charge_id, {seq: {"page": n} for seq, n in taken.items()}, **how)
    assert isinstance(record, Record), record
    assert record.refused is None, record.refused
    return record


def correct(
    trade: Trade,
    charge_id: str,
    taken: Mapping[int, Mapping[str, int]],
    *,
    by: Caller | None = None,
    key: str = "",
    **found: Any,
) -> Any:
    """Take usage back of calls; gives whatever the engine decides.

    Args:
        trade: the market.
        charge_id: the charge that the calls were billed in.
        taken: what is taken back, by call and meter.
        by: who asks.
        key: the idempotency key.
        found: what the platform is made to find otherwise than it is.
    """
    room, vendor = trade.room, by or trade.vendor
    calls = tuple(CallBack(seq, dict(usage)) for seq, usage in sorted(taken.items()))
    correction = Correction(charge_id=charge_id, calls=calls)
    signature = sign_detached(vendor_key(vendor), Typ.CORRECTION, correction.signed_bytes())
    charge = room.state.charges.get(charge_id)
    billed: list[CallBack] = []
    if charge is not None and charge.session_id:
        billed = billed_by(parse_record(room.journal[charge.seq - 1])[0])
    body = Corrected(
        charge_id=charge_id,
        sha256=sha256_hex(correction.signed_bytes()),
        correction=correction,
        billed={each.seq: each.usage for each in billed if each.seq in taken},
        key_thumbprint=vendor.key_thumbprint,
    )
    ask = CorrectUsage(
        charge_id=charge_id,
        corrections=tuple(
            CallCorrection(
                call=str(each.seq), usage={meter: str(n) for meter, n in each.usage.items()}
            )
            for each in calls
        ),
        signature=signature,
        idempotency_key=key or room.key(),
    )
    facts: dict[str, Json] = {
        "billed": calls_document(billed),
        "correction": correction.document(),
        "correction_signature": signature,
    }
    return room.submit(vendor, CORRECT_USAGE, ask, body=replace(body, **found), facts=facts)
