"""Corrections in a simulated market: of calls that were billed, and of some that were not so.

Boundary: makes commands as the doors would. Whether they may be done is for others to say.
"""

import json
from dataclasses import dataclass
from typing import Any

from farthing.protocol.canonical import Json, sha256_hex
from farthing.protocol.corrections import CallBack, Correction, calls_document
from farthing.protocol.errors import Code, refuse
from farthing.protocol.messages import corrections
from farthing.protocol.signatures import Typ, sign_detached
from farthing.settlement.engine.commands import Command
from farthing.settlement.engine.corrections import Corrected
from tests.simulation.allowances import Allowing

__all__ = ["Correcting"]


@dataclass(slots=True)
class Correcting(Allowing):
    """A crowd whose vendors take back what they should not have billed."""

    def correct(self) -> Command | None:
        """Some calls of a charge, mostly one of a session, mostly by no more than they used."""
        charge = self._charge()
        if charge is None:
            return None
        vendor = self._of(self.vendors, charge["vendor_id"])
        billed = self._billed(charge)
        calls = tuple(self._taken_back(billed))
        correction = Correction(charge_id=charge["charge_id"], calls=calls)
        key = vendor.keys[-1]
        if self.chance.random() < 0.05:
            # One of its own that may be out of force, or another's.
            key = self.chance.choice((*vendor.keys, self.chance.choice(self.vendors).keys[0]))
        facts: dict[str, Json] = {
            "billed": calls_document(billed),
            "correction": correction.document(),
            "correction_signature": sign_detached(key, Typ.CORRECTION, correction.signed_bytes()),
        }
        ask = corrections.CorrectUsage(
            charge_id=charge["charge_id"],
            corrections=tuple(
                corrections.CallCorrection(
                    call=str(each.seq), usage={meter: str(n) for meter, n in each.usage.items()}
                )
                for each in calls
            ),
            signature=str(facts["correction_signature"]),
            idempotency_key=self._id(),
        )
        is_forged = self.chance.random() < 0.03
        fault = refuse(Code.SIGNATURE_INVALID, path="signature") if is_forged else None
        wanted = {each.seq for each in calls}
        body = Corrected(
            charge_id=charge["charge_id"],
            sha256=sha256_hex(correction.signed_bytes()),
            correction=correction,
            billed={each.seq: each.usage for each in billed if each.seq in wanted},
            key_thumbprint=key.thumbprint,
            fault=fault,
        )
        return self._ask(
            vendor.caller(),
            corrections.CORRECT_USAGE,
            ask,
            body=body,
            facts=None if is_forged else facts,
        )

    def _charge(self) -> dict[str, Any] | None:
        charges = self.books.things["charge"].values()
        of_sessions = [each for each in charges if each.get("session_id")]
        if of_sessions and self.chance.random() < 0.97:
            return self.chance.choice(of_sessions)
        return self._any("charge")

    def _billed(self, charge: dict[str, Any]) -> list[CallBack]:
        """What the calls used that the charge bills, as its record says."""
        if not charge.get("session_id"):
            return []
        record = self.books.records[charge["seq"] - 1]
        rejected = {place for place, *_ in record["decided"]["rejected"]}
        return [
            CallBack(
                int(event["id"]),
                {meter: int(n) for meter, n in event["data"]["usage"].items() if int(n)},
            )
            for place, event in enumerate(json.loads(record["facts"]["usage"]))
            if place not in rejected and event["data"]["outcome"] == "succeeded"
        ]

    def _taken_back(self, billed: list[CallBack]) -> list[CallBack]:
        """Less than they used, or all of it; now and then more, or of a call that is not there."""
        used = [each for each in billed if each.usage]
        if not used or self.chance.random() < 0.05:
            return [CallBack(self.chance.randint(1, 30), {"page": 1})]
        some = self.chance.sample(used, self.chance.randint(1, min(3, len(used))))
        taken = []
        for each in sorted(some, key=lambda call: call.seq):
            meters = sorted(each.usage)
            back = {}
            for meter in self.chance.sample(meters, self.chance.randint(1, len(meters))):
                most = each.usage[meter]
                back[meter] = self.chance.choice((1, most, self.chance.randint(1, most)))
                if self.chance.random() < 0.02:
                    back[meter] = most + 1
            taken.append(CallBack(each.seq, back))
        return taken
