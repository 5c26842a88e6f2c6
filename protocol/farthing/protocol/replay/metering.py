"""A batch of usage judged anew, event by event: what is billed, and why the rest is not.

Boundary: the batch, the session as it stood and the agreement's card and position in; amounts out.
That batch and voucher are signed is for `sessions` to check. Source: spec/metering.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from farthing.protocol.allowances import Guard
from farthing.protocol.corrections import CallBack
from farthing.protocol.rating import CompiledCard, Position, RatingError
from farthing.protocol.rating.running import Running
from farthing.protocol.sequences import Window
from farthing.protocol.usage import SKEW_US, Columns, UsageFault

__all__ = ["Bounds", "Judged", "judge"]

# No fault, and the one of a price that an allowance comes before.
_AFTER: Final = (None, UsageFault.OVER_PER_CALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What the events of one batch must keep to.

    `frozen_since_us` is None where the buyer is not frozen; `voucher_seq` and `max_cum_units` are
    the highest that settlement has seen, this batch's voucher included.
    """

    opened_at_us: int
    expires_at_us: int
    now_us: int
    frozen_since_us: int | None
    per_call_units: int
    cap_units: int
    voucher_seq: int
    max_cum_units: int


@dataclass(slots=True, kw_only=True)
class Judged:
    """What became of a batch: an amount for each event, what is rejected, taken and billed."""

    window: Window
    spent_units: int
    amounts: list[int] = field(default_factory=list)
    rejected: list[tuple[int, UsageFault, int]] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    billed: list[CallBack] = field(default_factory=list)
    usage: dict[str, int] = field(default_factory=dict)
    position: dict[str, int] = field(default_factory=dict)


def judge(
    columns: Columns,
    bounds: Bounds,
    *,
    window: Window,
    spent_units: int,
    card: CompiledCard,
    position: Position,
    guard: Guard | None = None,
) -> Judged:
    """Judge every event after all before it.

    Args:
        columns: The batch.
        bounds: What it must keep to.
        window: The numbers taken before.
        spent_units: What was billed of the session before.
        card: The agreement's rate card.
        position: The agreement's position before.
        guard: The agreement's allowance, where it has one.
    """
    judged = Judged(window=window, spent_units=spent_units)
    running = Running(card, position)
    for place, (seq, at_us) in enumerate(zip(columns.seqs, columns.at_us, strict=True)):
        fault = judged.window.fault(seq) or _untimely(at_us, bounds)
        is_billed = columns.is_billed(place)
        usage = columns.usage_of(place) if is_billed else {}
        units = 0
        if fault is None:
            fault, units = _priced(running, usage)
        if fault in _AFTER and is_billed and guard is not None and guard.forbids(usage, at_us):
            fault = UsageFault.OVER_ALLOWANCE
        if fault is None:
            fault = _beyond(seq, units, judged.spent_units, bounds)
        if fault is not None:
            judged.rejected.append((place, fault, seq))
            judged.amounts.append(0)
            continue
        _take(judged, seq, units)
        if is_billed:
            running.take()
            if guard is not None:
                guard.take(usage)
            judged.billed.append(CallBack(seq, usage))
            for meter, quantity in usage.items():
                judged.usage[meter] = judged.usage.get(meter, 0) + quantity
    judged.position = running.position
    return judged


def _untimely(at_us: int, bounds: Bounds) -> UsageFault | None:
    if at_us < bounds.opened_at_us - SKEW_US:
        return UsageFault.BEFORE_SESSION
    if at_us > bounds.expires_at_us:
        return UsageFault.AFTER_END
    if at_us > bounds.now_us + SKEW_US:
        return UsageFault.IN_FUTURE
    if bounds.frozen_since_us is not None and at_us > bounds.frozen_since_us:
        return UsageFault.FROZEN
    return None


def _priced(running: Running, usage: Mapping[str, int]) -> tuple[UsageFault | None, int]:
    try:
        return None, running.price(usage)
    except RatingError:
        # More than any quantity or amount is more than any call may cost.
        is_unknown = running.lacks(usage)
        return UsageFault.UNKNOWN_METER if is_unknown else UsageFault.OVER_PER_CALL, 0


def _beyond(seq: int, units: int, spent_units: int, bounds: Bounds) -> UsageFault | None:
    if units > bounds.per_call_units:
        return UsageFault.OVER_PER_CALL
    if spent_units + units > bounds.cap_units:
        return UsageFault.OVER_CAP
    if seq > bounds.voucher_seq or spent_units + units > bounds.max_cum_units:
        return UsageFault.BEYOND_VOUCHER
    return None


def _take(judged: Judged, seq: int, units: int) -> None:
    taken = judged.window.take(seq)
    assert taken is not None, "asked before"
    judged.window = taken
    judged.taken.append(seq)
    judged.amounts.append(units)
    judged.spent_units += units
