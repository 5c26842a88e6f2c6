"""The first record: the platform's staff keys and the figures that the engine decides with."""

from dataclasses import dataclass

from farthing.protocol.errors import Broken, Refusal
from farthing.protocol.ids import derive_id
from farthing.protocol.money import PPM
from farthing.protocol.records import Change
from farthing.protocol.wire import Role, message
from farthing.settlement.engine.commands import PLATFORM
from farthing.settlement.engine.drafts import Call, Draft, change
from farthing.settlement.engine.state import State
from farthing.settlement.engine.things import Key, Principal

__all__ = ["GENESIS", "Genesis", "StaffKey", "genesis"]

GENESIS = "genesis"


@message
class StaffKey:
    """A member of the platform's staff and its public key."""

    role: Role
    thumbprint: str
    jwk: dict[str, str]


@message
class Genesis:
    """The platform as it starts. `fee_ppm` is its share of every charge, in millionths."""

    staff: tuple[StaffKey, ...]
    fee_ppm: int
    open_enrolment: bool


@dataclass(frozen=True, slots=True)
class _Member:
    principal: Principal
    key: Key


def genesis(state: State, call: Call) -> Draft | Refusal:
    """Register the staff; only an empty journal can begin."""
    body = call.command.body
    assert isinstance(body, Genesis)
    if state.seq or not 0 <= body.fee_ppm <= PPM:
        text = "genesis of a journal that has begun, or with a fee above the whole"
        raise Broken(text)
    members = [_member(staff, call) for staff in body.staff]
    figures = {"fee_ppm": body.fee_ppm, "open_enrolment": body.open_enrolment}
    return Draft(
        changed=(
            Change(noun="platform", id=PLATFORM, after=figures),
            *(change("principal", m.principal.principal_id, m.principal) for m in members),
            *(change("key", m.key.thumbprint, m.key) for m in members),
        )
    )


def _member(staff: StaffKey, call: Call) -> _Member:
    principal_id = derive_id("stf", staff.thumbprint)
    return _Member(
        Principal(
            principal_id=principal_id,
            organisation_id=PLATFORM,
            role=staff.role.value,
            status="active",
        ),
        Key(
            thumbprint=staff.thumbprint,
            principal_id=principal_id,
            jwk=staff.jwk,
            status="active",
            since_us=call.now_us,
            seq=call.seq,
        ),
    )
