"""What time alone brings about: what expires, windows that close, overdue evidence.

Boundary: names the next platform command that is due; the writer submits it like any other.
"""

import heapq

from farthing.settlement.engine.charges import SettleCharge
from farthing.settlement.engine.commands import Command, platform_command
from farthing.settlement.engine.disputes import CloseEvidence
from farthing.settlement.engine.holds import ExpireHold
from farthing.settlement.engine.lots import ExpireLot
from farthing.settlement.engine.payments import ExpireTopUp
from farthing.settlement.engine.sessions import ExpireSession
from farthing.settlement.engine.state import State, waits

__all__ = ["due", "next_due_us"]


def next_due_us(state: State) -> int | None:
    """When the next platform command is due at the earliest; None when nothing waits for time."""
    _forget_resolved(state)
    ends_us = [heap[0][0] for heap in (state.due, state.windows) if heap]
    return min(ends_us, default=None)


def due(state: State, now_us: int) -> Command | None:
    """The platform command that is due now, oldest first."""
    now_us = max(now_us, state.at_us)
    _forget_settled(state, now_us)
    due_us = next_due_us(state)
    if due_us is None or due_us > now_us:
        return None
    if state.windows and state.windows[0][0] == due_us:
        return platform_command("settle_charge", SettleCharge(charge_id=state.windows[0][1]))
    _, noun, thing_id = state.due[0]
    match noun:
        case "hold":
            return platform_command("expire_hold", ExpireHold(hold_id=thing_id))
        case "session":
            return platform_command("expire_session", ExpireSession(session_id=thing_id))
        case "lot":
            return platform_command("expire_lot", ExpireLot(lot_id=thing_id))
        case "top_up":
            return platform_command("expire_top_up", ExpireTopUp(top_up_id=thing_id))
        case _:
            return platform_command("close_evidence", CloseEvidence(dispute_id=thing_id))


def _forget_resolved(state: State) -> None:
    """Drop waiting entries whose thing has moved on; they are hints, the things decide."""
    while state.due and not waits(state, *state.due[0]):
        heapq.heappop(state.due)


def _forget_settled(state: State, now_us: int) -> None:
    """Drop windows that are over and whose charge is payable, or disputed."""
    windows = state.windows
    while windows and windows[0][0] <= now_us and state.charges[windows[0][1]].status != "pending":
        heapq.heappop(windows)
