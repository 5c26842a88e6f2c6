"""The engine as the journal sees it: pure functions over a state that it never looks into."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from farthing.protocol.canonical import Json
from farthing.protocol.errors import Refusal
from farthing.protocol.records import Record
from farthing.settlement.engine.commands import Command, Question, Seen

__all__ = ["Machine", "Memory"]

State = TypeVar("State")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory(Generic[State]):
    """How a state lets go of what the journal holds, finds it again, and is written down whole.

    Args:
        connect: (state, seq_of, record_at): from now on, look keys up here and read records there.
        settled: what can be forgotten, as (key of 16 bytes, seq of the record that says it).
        forget: let go of all of that.
        entries: what a record would have settled, from the record alone.
        pack: the state as a document. What is settled must have been forgotten.
        unpack: (document, record_at): the state that `pack` wrote.
    """

    connect: Callable[[State, Callable[[bytes], int | None], Callable[[int], Record]], None]
    settled: Callable[[State], list[tuple[bytes, int]]]
    forget: Callable[[State], None]
    entries: Callable[[Record], Iterable[tuple[bytes, int]]]
    pack: Callable[[State], dict[str, Json]]
    unpack: Callable[[dict[str, Json], Callable[[int], Record]], State]


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
        memory: how its memory is bounded; None for a state that keeps everything.
    """

    new_state: Callable[[], State]
    decide: Callable[[State, Command, int], Record | Refusal | Seen]
    evolve: Callable[[State, Record], None]
    answer: Callable[[State, Question[Any], int], object]
    due: Callable[[State, int], Command | None]
    next_due_us: Callable[[State], int | None]
    memory: Memory[State] | None = None
