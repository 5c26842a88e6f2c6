"""What time alone brings about: expiring holds, closing windows, overdue evidence.

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
    """When the next platform command is due; None when nothing is waiting for time."""
    _forget_resolved(state)
    return state.due[0][0] if state.due else None


def due(state: State, now_us: int) -> Command | None:
    """The platform command that is due now, oldest first."""
    due_us = next_due_us(state)
    if due_us is None or due_us > max(now_us, state.at_us):
        return None
    _, noun, thing_id = state.due[0]
    match noun:
        case "hold":
            return platform_command("expire_hold", ExpireHold(hold_id=thing_id))
        case "charge":
            return platform_command("settle_charge", SettleCharge(charge_id=thing_id))
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
