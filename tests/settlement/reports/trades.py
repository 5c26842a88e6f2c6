"""Trades that hypothesis draws: a journal of any length, with deliveries told late and early."""

from typing import Any

from hypothesis import strategies as st

from farthing.protocol.messages.charges import REFUND_CHARGE, RefundCharge
from farthing.protocol.messages.disputes import INITIATE_DISPUTE, InitiateDispute
from farthing.protocol.messages.holds import RELEASE_HOLD, ReleaseHold
from farthing.protocol.times import SECOND_US
from farthing.protocol.wire import money
from farthing.settlement.engine.commands import Committed
from tests.construction import Trade

__all__ = ["STEPS", "Steps", "committed", "traded"]

# What happens next, and a number that says how much, which one, how long.
Steps = list[tuple[str, int]]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["deliver", "hold", "capture", "release", "refund", "dispute", "wait", "fund"]
        ),
        st.integers(min_value=0, max_value=40),
    ),
    min_size=1,
    max_size=30,
)


def traded(steps: Steps) -> Trade:
    """A market after some steps; what is not possible is left out."""
    trade = Trade.opened(funds=400_000_000)
    held: list[str] = []
    charged: list[str] = []
    for what, number in steps:
        match what:
            case "deliver":
                # Two holds, and one is captured a while after its delivery: what happens between
                # is recorded before it and takes effect after it.
                held += [trade.held(number % 5 + 1), trade.held(1)]
                # Late, or by less than what is late.
                delivered_us = trade.room.now_us + number * SECOND_US * 21 // 41
                trade.room.advance(21)
                trade.room.fund(trade.operator, 1)
                record = trade.room.capture(
                    trade.vendor, held.pop(-2), 1, delivered_at_us=delivered_us
                )
                charged += [each.id for each in record.changed if each.noun == "charge"]
            case "hold":
                record = trade.room.hold(trade.agent, trade.agreement_id, number + 1)
                if record.refusal is None:
                    held.append(record.changed[0].id)
            case "capture" if held:
                # Told to have been delivered long before the hold, within it, or in time to come.
                delivered_us = trade.room.now_us + (number - 30) * 7 * SECOND_US
                hold_id = held.pop(number % len(held))
                record = trade.room.capture(trade.vendor, hold_id, 1, delivered_at_us=delivered_us)
                charged += [each.id for each in record.changed if each.noun == "charge"]
            case "release" if held:
                ask: Any = ReleaseHold(
                    hold_id=held.pop(number % len(held)), idempotency_key=trade.room.key()
                )
                trade.room.submit(trade.vendor, RELEASE_HOLD, ask)
            case "refund" if charged:
                ask = RefundCharge(
                    charge_id=charged[number % len(charged)],
                    amount=money(number * 10_000 + 1, "USD"),
                    idempotency_key=trade.room.key(),
                )
                trade.room.submit(trade.vendor, REFUND_CHARGE, ask)
            case "dispute" if charged:
                ask = InitiateDispute(
                    charge_id=charged[number % len(charged)],
                    reason="not_delivered",
                    idempotency_key=trade.room.key(),
                )
                trade.room.submit(trade.agent, INITIATE_DISPUTE, ask)
            case "wait":
                trade.room.advance(number)
            case "fund":
                trade.room.fund(trade.operator, number + 1)
            case _:
                pass
    return trade


def committed(trade: Trade) -> list[Committed]:
    """A market's journal as followers get it."""
    return [Committed(seq=seq, data=data) for seq, data in enumerate(trade.room.journal, 1)]
