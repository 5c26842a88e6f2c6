"""What the server needs of the world outside: ports, each a protocol with its duties.

Boundary: no implementation; those are in `adapters`. Source: spec/ledger.md.
"""

from typing import Protocol

from farthing.settlement.engine.payments import Processed
from farthing.settlement.engine.things import Payout, TopUp

__all__ = ["InvalidEvent", "PaymentProcessor", "ProcessorFailed"]


class ProcessorFailed(Exception):
    """The processor did not do what it was asked, or did not say so: ask again, it does it once."""


class InvalidEvent(Exception):
    """What came as an event was not signed by the processor, or not now."""


class PaymentProcessor(Protocol):
    """Who brings money in and takes it out.

    What it is asked is asked again after a fault, in the same words: it must do a thing once for
    each id of ours, and never hold anything of ours but those ids and the amounts.
    """

    def accepts(self, asset: str, units: int) -> bool:
        """Whether it can move exactly this amount."""
        ...

    def knows(self, destination: str) -> bool:
        """Whether a payout's destination has the form that it needs."""
        ...

    async def begin(self, top_up: TopUp) -> str:
        """Have a top-up paid; gives the URL where a person does it, or nothing.

        Raises:
            ProcessorFailed: it is not known whether it was begun.
        """
        ...

    async def pay(self, payout: Payout) -> None:
        """Have a payout sent.

        Raises:
            ProcessorFailed: it is not known whether it was sent.
        """
        ...

    def event(self, body: bytes, signature: str) -> Processed | None:
        """What an event says of a top-up or payout; None for one that says nothing of either.

        Raises:
            InvalidEvent: it is not the processor's.
        """
        ...
