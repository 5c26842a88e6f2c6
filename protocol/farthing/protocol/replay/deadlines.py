"""What time alone brings about, of a whole journal: whatever is due is done before all else.

Boundary: that it is done; that it is done right, and not before its time, is for the others.
Source: spec/audit.md.
"""

import heapq
from typing import Final

from farthing.protocol.faults import FaultKind, RuleBroken
from farthing.protocol.records import Change, Record
from farthing.protocol.replay.blocks import end_us
from farthing.protocol.replay.reading import integer, units
from farthing.protocol.usage import REPORT_WINDOW_US

__all__ = ["Deadlines"]

_DONE_IN_TIME: Final = {
    "charge": "settle_charge",
    "dispute": "close_evidence",
    "hold": "expire_hold",
    "lot": "expire_lot",
    "session": "expire_session",
    "top_up": "expire_top_up",
}
_OPERATIONS: Final = frozenset(_DONE_IN_TIME.values())
_WAITS: Final = {
    "charge": {"pending"},
    "dispute": {"needs_evidence"},
    "hold": {"open"},
    "session": {"closing", "open"},
    "top_up": {"pending"},
}
_ENDS: Final = {
    "charge": "window_closes_at_us",
    "dispute": "evidence_due_at_us",
    "hold": "expires_at_us",
    "lot": "expires_at_us",
    "top_up": "expires_at_us",
}


class Deadlines:
    """What waits for time, as the records so far leave it."""

    def __init__(self) -> None:
        self._waiting: dict[str, int] = {}
        self._due: list[tuple[int, str, str]] = []

    def check(self, record: Record) -> None:
        """Require all that was due before a record to be done. Raises `RuleBroken`."""
        if record.operation in _OPERATIONS:
            return
        # What is due at the very time may have begun in the same batch.
        while self._due and self._due[0][0] < record.at_us:
            due_us, thing_id, noun = heapq.heappop(self._due)
            if self._waiting.get(thing_id) == due_us:
                why = f"{_DONE_IN_TIME[noun]} of {thing_id} was due before it and is not done"
                raise RuleBroken(FaultKind.RECORD, why)

    def learn(self, record: Record) -> None:
        """What waits for time after a record."""
        for change in record.changed:
            if change.noun not in _DONE_IN_TIME:
                continue
            due_us = _due_us(change)
            if due_us is None:
                self._waiting.pop(change.id, None)
                continue
            # What is over already, as a lot that something comes back to, is due from now on.
            due_us = max(due_us, record.at_us)
            if self._waiting.get(change.id) != due_us:
                self._waiting[change.id] = due_us
                heapq.heappush(self._due, (due_us, change.id, change.noun))


def _due_us(change: Change) -> int | None:
    """When something is due to be done for a thing; None where it waits for nothing."""
    thing, noun = change.after, change.noun
    if noun == "lot":
        ends_us = integer(thing, _ENDS[noun])
        return ends_us if ends_us and units(thing, "free_units") else None
    if thing["status"] not in _WAITS[noun]:
        return None
    if noun == "session":
        return end_us(thing) + REPORT_WINDOW_US
    return integer(thing, _ENDS[noun])
