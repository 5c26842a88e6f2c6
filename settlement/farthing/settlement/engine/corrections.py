"""Billed usage that its vendor takes back: the position goes back, and so does what it had cost.

Boundary: the correction was read and its signature verified before, and what the charge's calls had
used was read from the charge's own record; whether the key is in force, and what is given back, is
decided here. Source: spec/metering.md#corrections.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from msgspec.structs import replace

from farthing.protocol.canonical import Json
from farthing.protocol.corrections import CHANGES_MAX, Correction, misfit, worth
from farthing.protocol.errors import Code, Refusal, refuse
from farthing.protocol.messages.corrections import UsageCorrection
from farthing.protocol.rating import line_document, parse_line
from farthing.protocol.records import Record
from farthing.protocol.signatures import Typ
from farthing.protocol.wire import Usage, money
from farthing.settlement.engine import allowances
from farthing.settlement.engine.charges import give_back
from farthing.settlement.engine.drafts import Call, Draft, advanced, change
from farthing.settlement.engine.holds import lines_view
from farthing.settlement.engine.principals import signs
from farthing.settlement.engine.state import State
from farthing.settlement.engine.things import Charge

__all__ = ["Corrected", "correct", "correction_answer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrected:
    """A correction as the platform found it.

    Args:
        charge_id: the charge that it is of.
        sha256: the digest of what is signed.
        correction: what is taken back, where it can be read.
        billed: what the billed calls of the charge used, by number and meter.
        key_thumbprint: the key of the caller's by which its signature verifies.
        fault: what is wrong with the correction or its signature.
    """

    charge_id: str
    sha256: str
    correction: Correction | None = None
    billed: dict[int, dict[str, int]] = field(default_factory=dict)
    key_thumbprint: str = ""
    fault: Refusal | None = None

    @property
    def asked(self) -> dict[str, Json]:
        """What stands in the record, refused or not; what is signed is a fact."""
        calls = len(self.correction.calls) if self.correction else 0
        return {"calls": calls, "charge_id": self.charge_id, "correction_sha256": self.sha256}


def correct(state: State, call: Call) -> Draft | Refusal:
    """Take back what billed calls used too much, and give back what it comes to now."""
    body = call.command.body
    assert isinstance(body, Corrected)
    charge = _correctable(state, call, body)
    if isinstance(charge, Refusal):
        return charge
    assert body.correction is not None
    if wrong := misfit(body.correction, body.billed, charge.corrected):
        return refuse(
            Code.USAGE_INVALID, path=wrong.path, message=wrong.says, remaining=wrong.remaining
        )
    totals = body.correction.totals()
    card = state.cards[charge.rate_card_sha256]
    back = worth(card, state.positions[charge.agreement_id], totals)
    draft = give_back(state, call, charge, back.units, path="corrections")
    if isinstance(draft, Refusal):
        return draft
    first, *others = draft.changed
    after = Charge.from_document(first.after)
    numbers = sorted((*after.corrected, *(each.seq for each in body.correction.calls)))
    return replace(
        draft,
        changed=(
            change("charge", charge.charge_id, replace(after, corrected=tuple(numbers)), charge),
            *others,
            advanced(charge.agreement_id, back.position),
            *allowances.taken_back(state, charge, totals, call.now_us),
        ),
        decided={
            **cast("Mapping[str, Json]", draft.decided),
            "lines": [line_document(line) for line in back.lines],
        },
    )


def correction_answer(record: Record) -> UsageCorrection:
    """The answer, from the record alone."""
    charge = Charge.from_document(record.changed[0].after)
    decided = record.decided
    assert decided is not None
    lines = [parse_line(each) for each in cast("list[Json]", decided["lines"])]
    return UsageCorrection(
        correction_id=record.new_id("cor"),
        charge_id=charge.charge_id,
        session_id=charge.session_id,
        calls=cast("int", record.asked["calls"]),
        lines=lines_view(record),
        position=tuple(Usage(meter=line.meter, quantity=str(line.from_quantity)) for line in lines),
        amount=money(int(str(decided["units"])), charge.asset),
        fee_returned=money(int(str(decided["fee_units"])), charge.asset),
        refunded_in_all=money(charge.refunded_units, charge.asset),
        seq=record.seq,
    )


def _correctable(state: State, call: Call, body: Corrected) -> Charge | Refusal:
    """The charge, where this correction can be of it."""
    charge = state.charges.get(body.charge_id)
    if charge is None or charge.vendor_id != call.principal_id:
        return refuse(Code.NOT_FOUND, path="charge_id")
    fault = body.fault
    if fault is not None and fault.code is Code.SIGNATURE_INVALID:
        return fault
    if not signs(state, call.principal_id, body.key_thumbprint, Typ.CORRECTION):
        return refuse(Code.SIGNATURE_INVALID, path="signature")
    if not charge.session_id:
        text = "The charge is of a hold; it can be refunded."
        return refuse(Code.USAGE_INVALID, path="charge_id", message=text)
    if len(charge.trail_seqs) >= CHANGES_MAX:
        text = "The charge has changed too often to be corrected; it can be refunded."
        return refuse(Code.USAGE_INVALID, path="charge_id", message=text)
    return fault or charge
