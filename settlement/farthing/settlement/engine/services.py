"""Calls that the platform makes for a buyer: the hold they are paid from, and its two ends.

Boundary: such a hold is captured by a delivery record that its payee signed, like every other; but
when, the platform says, which sees what comes: once it has accepted that very answer. Where it
does not, it gives the hold back. Source: spec/services.md, spec/design/16-paid-on-acceptance.md.
"""

from dataclasses import dataclass

from msgspec.structs import replace

from farthing.protocol.canonical import Json
from farthing.protocol.contracts import DeliveryRecord
from farthing.protocol.errors import Code, Refusal, refuse
from farthing.protocol.messages.holds import PlaceHold
from farthing.protocol.signatures import Typ
from farthing.protocol.wire import document_of
from farthing.settlement.engine import holds
from farthing.settlement.engine.commands import Command, platform_command
from farthing.settlement.engine.drafts import Call, Draft
from farthing.settlement.engine.principals import signs
from farthing.settlement.engine.state import State
from farthing.settlement.engine.things import Hold

__all__ = ["AbandonHold", "AcceptAnswer", "ServiceCall", "abandon", "accept", "call", "objection"]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptAnswer:
    """The platform's command: a call that it made was answered, and the answer is good.

    Args:
        delivery: what the vendor signed; it names the hold and the digest of the answer.
        signature: as it came, checked.
        signed_by: the thumbprint of the key that it is by.
    """

    delivery: DeliveryRecord
    signature: str
    signed_by: str

    @property
    def command(self) -> Command:
        """The command; what was signed stands in its record."""
        delivery = self.delivery
        asked = {"hold_id": delivery.hold_id, "result_sha256": delivery.result_sha256}
        facts = {"delivery": delivery.document(), "delivery_signature": self.signature}
        return replace(platform_command("accept_answer", self), asked=asked, facts=facts)


def call(state: State, asked: Call) -> Draft | Refusal:
    """Set aside the price of a call."""
    body = asked.command.body
    assert isinstance(body, ServiceCall)
    place = replace(asked, command=replace(asked.command, body=body.place))
    return holds.place(state, place, on_answer=True)


def accept(state: State, asked: Call) -> Draft | Refusal:
    """Capture for an answer; whatever has ended the hold in the meantime stands."""
    body = asked.command.body
    assert isinstance(body, AcceptAnswer)
    draft = _paid(state, body, now_us=asked.now_us, seq=asked.seq)
    return Draft() if isinstance(draft, Refusal) else draft


def objection(state: State, answer: AcceptAnswer, now_us: int) -> Refusal | None:
    """Why an answer could not be paid for now, None where it could."""
    draft = _paid(state, answer, now_us=now_us, seq=state.seq + 1)
    return draft if isinstance(draft, Refusal) else None


def abandon(state: State, asked: Call) -> Draft | Refusal:
    """Give the hold of a call back; one that has ended stands, and a buyer's own is not touched."""
    body = asked.command.body
    assert isinstance(body, AbandonHold)
    hold = _open(state, body.hold_id, asked.now_us)
    if hold is None or not hold.on_answer:
        return Draft()
    return holds.give_back(state, hold, "released")


def _paid(state: State, answer: AcceptAnswer, *, now_us: int, seq: int) -> Draft | Refusal:
    hold = _open(state, answer.delivery.hold_id, now_us)
    if hold is None:
        ended = state.holds.get(answer.delivery.hold_id)
        is_late = ended is not None and ended.status in {"open", "expired"}
        code = Code.HOLD_EXPIRED if is_late else Code.HOLD_RESOLVED
        return refuse(code, path="delivery.hold_id")
    if not hold.on_answer:
        return refuse(Code.DELIVERY_INVALID, path="delivery.hold_id")
    if not signs(state, hold.vendor_id, answer.signed_by, Typ.DELIVERY):
        return refuse(Code.SIGNATURE_INVALID, path="delivery_signature")
    return holds.captured(state, hold, answer.delivery, now_us=now_us, seq=seq)


def _open(state: State, hold_id: str, now_us: int) -> Hold | None:
    hold = state.holds.get(hold_id)
    is_over = hold is None or hold.status != "open" or hold.expires_at_us <= now_us
    return None if is_over else hold
