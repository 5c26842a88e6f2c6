"""The engine as the journal sees it: six pure functions over a state that it never looks into."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from farthing.protocol.errors import Refusal
from farthing.protocol.records import Record
from farthing.settlement.engine.commands import Command, Question, Seen

__all__ = ["Machine"]

State = TypeVar("State")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine(Generic[State]):
    """A deterministic state machine.

    Args:
        new_state: the state before the first record.
        decide: (state, command, now_us) to the next record, a refusal or an earlier record's seq;
            changes nothing.
        evolve: (state, record): applies the record; the only function that changes state.
        answer: (state, question, now_us) to the answer; changes nothing.
        due: (state, now_us) to a platform command that is due, or None. Once its record is applied,
            the same thing is no longer due.
        next_due_us: when something will be due at the earliest, or None.
    """

    new_state: Callable[[], State]
    decide: Callable[[State, Command, int], Record | Refusal | Seen]
    evolve: Callable[[State, Record], None]
    answer: Callable[[State, Question[Any], int], object]
    due: Callable[[State, int], Command | None]
    next_due_us: Callable[[State], int | None]
