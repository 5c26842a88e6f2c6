"""The processor that is a person: the treasurer looks at the bank and says what came and left."""

from collections.abc import Mapping

from farthing.server.ports import InvalidEvent, PaymentProcessor
from farthing.settlement.engine.payments import Processed
from farthing.settlement.engine.things import Payout, TopUp

__all__ = ["MANUAL", "ManualProcessor", "processors_of"]

MANUAL = "manual"


class ManualProcessor:
    """Takes any amount, tells nobody, and never says anything by itself."""

    def accepts(self, asset: str, units: int) -> bool:
        """Any amount."""
        del asset, units
        return True

    def knows(self, destination: str) -> bool:
        """Whatever the treasurer understands."""
        del destination
        return True

    async def begin(self, top_up: TopUp) -> str:
        """Nothing to do: the operator sends the money as it was told."""
        del top_up
        return ""

    async def pay(self, payout: Payout) -> None:
        """Nothing to do: the treasurer sends the money."""
        del payout

    async def event(self, body: bytes, headers: Mapping[str, str]) -> Processed | None:
        """A person sends no events."""
        del body, headers
        raise InvalidEvent

    async def gone_back(self, top_up: TopUp, reference: str) -> Processed | None:
        """The treasurer knows, and says so."""
        del top_up, reference
        return None


def processors_of(*others: tuple[str, PaymentProcessor]) -> Mapping[str, PaymentProcessor]:
    """The processors by name; the manual one is always among them."""
    return {MANUAL: ManualProcessor(), **dict(others)}
