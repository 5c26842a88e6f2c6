"""What a noun's decision gives: the effects of a record that `decide` will number and date."""

from collections.abc import Mapping

import msgspec

from farthing.protocol.authority.grant import Grant
from farthing.protocol.canonical import Json
from farthing.protocol.errors import Code, Refusal, refuse
from farthing.protocol.ids import derive_id
from farthing.protocol.ledger import Transfer
from farthing.protocol.records import Change, Count
from farthing.protocol.times import parse_time
from farthing.settlement.engine.commands import Command
from farthing.settlement.engine.things import Thing

__all__ = ["Call", "Draft", "advanced", "change", "ends_at"]

JsonObject = dict[str, Json]


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A command on its way to a decision: when it is decided, and as which record."""

    command: Command
    now_us: int
    seq: int

    @property
    def principal_id(self) -> str:
        """Who asks."""
        return self.command.by.principal_id

    @property
    def organisation_id(self) -> str:
        """The organisation that whoever asks acts for."""
        return self.command.by.organisation_id

    def new_id(self, prefix: str) -> str:
        """The id of what the call makes: asked for once more it is the same."""
        command = self.command
        return derive_id(prefix, self.principal_id, command.operation, command.idempotency_key)


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """Effects, all of them or none."""

    moved: tuple[Transfer, ...] = ()
    counted: tuple[Count, ...] = ()
    changed: tuple[Change, ...] = ()
    decided: JsonObject | None = None


def change(
    noun: str, thing_id: str, after: Thing | Grant, before: Thing | Grant | None = None
) -> Change:
    """The change of one thing; `before` where the trail must show what it was."""
    return Change(
        noun=noun,
        id=thing_id,
        after=after.document(),
        before=None if before is None else before.document(),
    )


def ends_at(call: Call, expires_at: str) -> int | Refusal:
    """The end that was asked for, 0 for none; one that has passed is a mistake."""
    ends_at_us = parse_time(expires_at) if expires_at else 0
    if expires_at and ends_at_us <= call.now_us:
        text = "It would have ended before it begins."
        return refuse(Code.INVALID_ARGUMENT, path="expires_at", message=text)
    return ends_at_us


def advanced(agreement_id: str, position: Mapping[str, int]) -> Change:
    """The change of an agreement's position to the quantities used by then."""
    after: JsonObject = {meter: str(quantity) for meter, quantity in position.items()}
    return Change(noun="position", id=agreement_id, after=after)
