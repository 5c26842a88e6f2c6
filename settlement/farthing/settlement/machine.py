"""The engine as the journal runs it: the pure functions, put together."""

from typing import Final

from farthing.settlement.engine.decide import decide
from farthing.settlement.engine.due import due, next_due_us
from farthing.settlement.engine.memory import connect, entries, forget, settled
from farthing.settlement.engine.packing import pack, unpack
from farthing.settlement.engine.standing import answer
from farthing.settlement.engine.state import State, evolve
from farthing.settlement.journal.machine import Machine, Memory

__all__ = ["MACHINE"]

MACHINE: Final[Machine[State]] = Machine(
    new_state=State,
    decide=decide,
    evolve=evolve,
    answer=answer,
    due=due,
    next_due_us=next_due_us,
    memory=Memory(
        connect=connect,
        settled=settled,
        forget=forget,
        entries=entries,
        pack=pack,
        unpack=unpack,
    ),
)
