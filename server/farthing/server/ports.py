"""What the server needs of the world outside: ports, each a protocol with its duties.

Boundary: no implementation; those are in `adapters`. Source: spec/ledger.md, spec/services.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from farthing.protocol.canonical import LooseJson
from farthing.protocol.errors import Refusal
from farthing.protocol.listing import InterfaceKind
from farthing.settlement.engine.payments import Processed
from farthing.settlement.engine.things import Payout, TopUp

__all__ = [
    "Delivered",
    "InvalidEvent",
    "NotSent",
    "PaidCall",
    "PaymentProcessor",
    "ProcessorBusy",
    "ProcessorFailed",
    "Progress",
    "VendorCaller",
    "VendorFailed",
    "VendorLost",
    "VendorRefused",
]

T = TypeVar("T")


class ProcessorFailed(Exception):
    """The processor did not do what it was asked, or did not say so: ask again, it does it once."""


class ProcessorBusy(ProcessorFailed):
    """It was not asked: too many wait for it here."""


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

    async def event(self, body: bytes, headers: Mapping[str, str]) -> Processed | None:
        """What an event says of a top-up or payout; None for one that says nothing of either.

        Raises:
            InvalidEvent: it is not the processor's.
            ProcessorFailed: what it is about could not be asked for.
        """
        ...

    async def gone_back(self, top_up: TopUp, reference: str) -> Processed | None:
        """How much of a top-up's payment, by the processor's own id, has gone back by now, if any.

        Raises:
            ProcessorFailed: it could not be asked for.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidCall:
    """One call of a vendor's tool or route; `payment` is what pays for it, in x402's form."""

    kind: InterfaceKind
    url: str
    tool: str
    arguments: Mapping[str, LooseJson]
    input_schema: Mapping[str, object]
    payment: Mapping[str, object]
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """What a vendor answered, and what it signed for it; nothing of it is believed."""

    hold_id: str
    result: LooseJson
    content: tuple[LooseJson, ...]
    delivery: Mapping[str, object]
    delivery_signature: str


class NotSent(Exception):
    """The call never left: the vendor cannot have taken it. `again`: a moment later it may."""

    again = True


class VendorLost(Exception):
    """The call left, and no whole answer came: whether it was done is not known."""


class VendorFailed(Exception):
    """An answer came that is none, and another one would be no better."""


class VendorRefused(Exception):
    """The vendor said no, with a refusal of its own."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code.value)
        self.refusal = refusal


Progress = Callable[[float, float | None, str], None]
"""Told of a call's progress: how far, of how much if that is known, and the vendor's own words."""


class VendorCaller(Protocol):
    """Who calls vendors' tools.

    It makes one attempt for each call of it, follows nowhere, and keeps nothing.
    """

    def check(self, url: str) -> None:
        """Judge an address before anything is held for it.

        Raises:
            NotSent: it is none to send a payment to.
        """
        ...

    async def call(self, call: PaidCall, progress: Progress) -> Delivered:
        """Call a tool once, and pass on what it says of its progress.

        Raises:
            NotSent, VendorLost, VendorFailed, VendorRefused: as each says.
        """
        ...

    async def beside(self, work: Callable[[], T]) -> T:
        """Judge what goes to a vendor, or came from one, where it holds nobody else up.

        How long it takes is the vendor's to say, who wrote the schema.
        """
        ...

    async def aclose(self) -> None:
        """Let go of what is open."""
        ...
