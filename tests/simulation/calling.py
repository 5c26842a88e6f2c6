"""Calls that a simulated platform makes: held for, answered well or badly, paid or given back.

Boundary: makes commands as the doors, and the platform itself, would. Whether they may be done is
for others to say.
"""

from dataclasses import dataclass
from typing import Any

from farthing.protocol.canonical import Json
from farthing.protocol.contracts import DeliveryRecord
from farthing.protocol.keys import PrivateKey
from farthing.protocol.messages import holds
from farthing.protocol.messages.services import CALL_SERVICE, CallService
from farthing.protocol.signatures import Typ
from farthing.protocol.wire import Usage
from farthing.settlement.engine.commands import Command, platform_command
from farthing.settlement.engine.holds import Capture
from farthing.settlement.engine.services import AbandonHold, AcceptAnswer, ServiceCall
from tests.simulation.cards import UNKNOWN, some_of
from tests.simulation.machines import Manning
from tests.simulation.parties import ARGS, BODY, signed

__all__ = ["Calling"]


@dataclass(slots=True)
class Calling(Manning):
    """A crowd that holds, and lets the platform call for it."""

    def place(self) -> Command | None:
        """A hold of a buyer's own, or for a call."""
        agreement = self._any("agreement")
        if agreement is None:
            return None
        pages = self.chance.choice((0, 1, 2, 3, 9, 40, 1_000, 10**14))
        card = self.books.documents[agreement["rate_card_sha256"]]
        wanted = some_of(self.chance, card, pages)
        workload = [Usage(meter=meter, quantity=str(n)) for meter, n in wanted.items()]
        if self.chance.random() < 0.05:
            workload.append(Usage(meter=self.chance.choice(("page", UNKNOWN)), quantity="2"))
        ask = holds.PlaceHold(
            agreement_id=agreement["agreement_id"],
            workload=tuple(workload),
            args_sha256=ARGS,
            expires_in_s=self.chance.choice((0, 0, 1, 20, 10**6)),
            idempotency_key=self._id(),
        )
        buyer = self._of(self.buyers, agreement["buyer_id"])
        if self.chance.random() < 0.7:
            return self._ask(buyer.caller(), holds.PLACE_HOLD, ask)
        call = CallService(
            agreement_id=ask.agreement_id,
            workload=ask.workload,
            arguments={},
            deliver_within_s=ask.expires_in_s,
            idempotency_key=ask.idempotency_key,
        )
        return self._ask(buyer.caller(), CALL_SERVICE, call, body=ServiceCall(place=ask))

    def capture(self) -> Command | None:
        """A vendor's capture, or the answer that it gave to a call."""
        hold = self._any("hold", waiting=0.9)
        if hold is None:
            return None
        vendor = self._of(self.vendors, hold["vendor_id"])
        delivery, key = self._delivered(hold), self._hand(vendor)
        document = delivery.document()
        signature = signed(key, Typ.DELIVERY, document)
        if self.chance.random() < (0.9 if hold.get("on_answer") else 0.02):
            return self._answered(delivery, signature, key)
        facts: dict[str, Json] = {"delivery": document, "delivery_signature": signature}
        ask = holds.CaptureHold(
            hold_id=hold["hold_id"],
            idempotency_key=self._id(),
            **facts,  # type: ignore[arg-type]
        )
        body = Capture(ask=ask, delivery=delivery, key_thumbprint=key.thumbprint)
        caller = vendor.caller(self._hand(vendor))
        return self._ask(caller, holds.CAPTURE_HOLD, ask, body=body, facts=facts)

    def _answered(self, delivery: DeliveryRecord, signature: str, key: PrivateKey) -> Command:
        """What the platform makes of an answer: mostly it is good."""
        if self.chance.random() < 0.2:
            body = AbandonHold(hold_id=delivery.hold_id, reason="vendor_failed")
            return platform_command("abandon_hold", body)
        return AcceptAnswer(
            delivery=delivery, signature=signature, signed_by=key.thumbprint
        ).command

    def _delivered(self, hold: dict[str, Any]) -> DeliveryRecord:
        agreement = self.books.things["agreement"][hold["agreement_id"]]
        usage = {meter: int(n) for meter, n in hold["workload"].items()}
        for meter, held in usage.items() if self.chance.random() < 0.6 else ():
            usage[meter] = self.chance.choice((held, held // 2, 0, min(1, held)))
        if self.chance.random() < 0.12:
            meter = self.chance.choice((*usage, UNKNOWN))
            usage[meter] = usage.get(meter, 0) + 1
        return DeliveryRecord(
            hold_id=hold["hold_id"],
            agreement_id=hold["agreement_id"],
            vendor_id=hold["vendor_id"],
            listing_id=agreement["listing_id"],
            args_sha256=ARGS if self.chance.random() < 0.97 else BODY,
            result_sha256=BODY,
            output_schema_sha256=agreement["output_schema_sha256"],
            usage=usage,
            delivered_at_us=self.now_us,
        )
