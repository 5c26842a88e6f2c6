"""The commands that the engine's figures are taken with, and a market to give them to.

The market is made of fixed seeds, so that every process of a run makes the very same one.
"""

from dataclasses import replace

from farthing.identity.callers import Caller
from farthing.protocol.contracts import DeliveryRecord
from farthing.protocol.messages.holds import (
    CAPTURE_HOLD,
    PLACE_HOLD,
    RELEASE_HOLD,
    CaptureHold,
    PlaceHold,
    ReleaseHold,
)
from farthing.protocol.times import SECOND_US
from farthing.protocol.wire import Usage
from farthing.server.engine import now_us
from farthing.server.market import command_of
from farthing.settlement.engine.commands import Command
from farthing.settlement.engine.holds import Capture
from tests.construction import Trade

__all__ = ["Load", "market"]

# The engine does not look at it: the door has verified the delivery record before.
SIGNATURE = "e30." + "A" * 22 + "." + "A" * 86


def market(at_us: int) -> Trade:
    """One agent under one agreement, with money and authority without end."""
    return Trade.opened(funds=2**60, per_call=2**60, per_day=2**60, now_us=at_us)


class Load:
    """Commands with a key and a proof of their own; `lane` keeps two loads apart."""

    def __init__(self, trade: Trade, lane: int = 0) -> None:
        self.trade = trade
        self.lane = lane
        self.number = 0

    def hold(self) -> Command:
        """The next hold."""
        ask = PlaceHold(
            agreement_id=self.trade.agreement_id,
            workload=(Usage(meter="page", quantity="1"),),
            args_sha256="a" * 64,
            idempotency_key=self._key(),
        )
        return command_of(self._proven(self.trade.agent), PLACE_HOLD, ask)

    def release(self, hold_id: str) -> Command:
        """Give a hold back."""
        ask = ReleaseHold(hold_id=hold_id, idempotency_key=self._key())
        return command_of(self._proven(self.trade.vendor), RELEASE_HOLD, ask)

    def capture(self, hold_id: str) -> Command:
        """Capture a hold whole."""
        agreement = self.trade.room.state.agreements[self.trade.agreement_id]
        delivery = DeliveryRecord(
            hold_id=hold_id,  # type: ignore[arg-type]
            agreement_id=agreement.agreement_id,  # type: ignore[arg-type]
            vendor_id=agreement.vendor_id,  # type: ignore[arg-type]
            listing_id=agreement.listing_id,  # type: ignore[arg-type]
            args_sha256="a" * 64,
            result_sha256="b" * 64,
            output_schema_sha256=agreement.output_schema_sha256,
            usage={"page": 1},
            delivered_at_us=agreement.accepted_at_us,
        )
        document = delivery.document()
        ask = CaptureHold(
            hold_id=hold_id,
            delivery=dict(document),
            delivery_signature=SIGNATURE,
            idempotency_key=self._key(),
        )
        return command_of(
            self._proven(self.trade.vendor),
            CAPTURE_HOLD,
            ask,
            body=Capture(ask=ask, delivery=delivery),
            facts={"delivery": document, "delivery_signature": SIGNATURE},
        )

    def _key(self) -> str:
        self.number += 1
        return f"bench-{self.lane:04d}-{self.number:012d}"

    def _proven(self, caller: Caller) -> Caller:
        return replace(
            caller,
            proof_jti=f"{self.lane}-{self.number}",
            proof_expires_at_us=now_us() + 30 * SECOND_US,
        )
