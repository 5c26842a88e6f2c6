"""Calls that the platform makes for a buyer: the hold they are paid from, and its end.

Boundary: such a hold is one like every other. Only the payee captures it; what is more is that the
platform, which made the call itself, gives it back where it was told that nothing was delivered.
Source: spec/services.md.
"""

from dataclasses import dataclass

from msgspec.structs import replace

from farthing.protocol.canonical import Json
from farthing.protocol.errors import Refusal
from farthing.protocol.messages.holds import PlaceHold
from farthing.protocol.wire import document_of
from farthing.settlement.engine import holds
from farthing.settlement.engine.drafts import Call, Draft
from farthing.settlement.engine.state import State

__all__ = ["AbandonHold", "ServiceCall", "abandon", "call"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceCall:
    """What a call sets aside; of its arguments only the digest is here."""

    place: PlaceHold

    @property
    def asked(self) -> dict[str, Json]:
        """What stands in the record: never the arguments."""
        asked = document_of(self.place)
        del asked["idempotency_key"]
        return asked


@dataclass(frozen=True, slots=True, kw_only=True)
class AbandonHold:
    """The platform's command: a call that it made came to nothing; `reason` is a code."""

    hold_id: str
    reason: str


def call(state: State, asked: Call) -> Draft | Refusal:
    """Set aside the price of a call."""
    body = asked.command.body
    assert isinstance(body, ServiceCall)
    return holds.place(state, replace(asked, command=replace(asked.command, body=body.place)))


def abandon(state: State, asked: Call) -> Draft | Refusal:
    """Give a hold back; whatever has ended it in the meantime stands, and nothing changes."""
    body = asked.command.body
    assert isinstance(body, AbandonHold)
    hold = state.holds.get(body.hold_id)
    if hold is None or hold.status != "open" or hold.expires_at_us <= asked.now_us:
        return Draft()
    return holds.give_back(state, hold, "released")
