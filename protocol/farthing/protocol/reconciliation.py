"""Two countings of one session compared: the vendor's signed events, the buyer's acknowledgements.

Boundary: pure; whoever has the receipts of the reports and the list of what was acknowledged can
compute it alone. The list is proven by a voucher that the buyer signed, whose `ack` is the digest
of the chain over it. Source: spec/metering.md#reconciliation.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from farthing.protocol.calls import ReportedCall
from farthing.protocol.usage import BILLED
from farthing.protocol.vouchers import ack_after

__all__ = [
    "Acknowledged",
    "Difference",
    "DifferenceKind",
    "MeterCount",
    "Reconciliation",
    "proven_of",
    "reconcile",
]

_PPM: Final = 1_000_000


class DifferenceKind(StrEnum):
    """How the two countings of one call differ."""

    UNACKNOWLEDGED = "unacknowledged"
    """It was billed, and its buyer acknowledged no answer."""
    UNREPORTED = "unreported"
    """Its answer was acknowledged, and no event of it was reported."""
    NOT_BILLED = "not_billed"
    """Its answer was acknowledged; its event is of no success, or was rejected."""
    AMOUNT_DIFFERS = "amount_differs"
    """What was billed is not what the buyer's own rating gives."""
    RESULT_DIFFERS = "result_differs"
    """The vendor signed the digest of another result than the buyer received."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """An answer as the buyer took it into the chain; `units` by the buyer's own rating."""

    seq: int
    units: int
    result_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A call of which the two say different things. `fault` is why its event was rejected."""

    seq: int
    kind: DifferenceKind
    billed_units: int
    acknowledged_units: int
    fault: str = ""


@dataclass(slots=True, kw_only=True)
class MeterCount:
    """Quantities of one meter: signed by the vendor as delivered, billed, acknowledged of that."""

    reported: int = 0
    billed: int = 0
    acknowledged: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """What a comparison found.

    Args:
        reported_calls: calls that the vendor signed as delivered, each once.
        billed_calls, billed_units: what the platform billed of them.
        acknowledged_calls, acknowledged_units: what the buyer's list says.
        proven: how many of the list, from its begin, a signed voucher proves.
        meters: quantities by meter.
        differences: every call that the two tell differently, by its number.
        within: no result differs, and no sum by more than the tolerance.
    """

    reported_calls: int
    billed_calls: int
    billed_units: int
    acknowledged_calls: int
    acknowledged_units: int
    proven: int
    meters: Mapping[str, MeterCount] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()
    within: bool


def proven_of(acknowledged: Sequence[Acknowledged], acks: Collection[str]) -> int:
    """How many acknowledgements, from the first on, are proven by the `ack` of signed vouchers.

    Args:
        acknowledged: in the order of receipt.
        acks: the `ack` of each voucher whose signature was checked.
    """
    ack, proven = "", 0
    for number, each in enumerate(acknowledged, 1):
        ack = ack_after(ack, each.seq, each.units, each.result_sha256)
        if ack in acks:
            proven = number
    return proven


def reconcile(
    calls: Iterable[ReportedCall],
    acknowledged: Sequence[Acknowledged],
    acks: Collection[str],
    *,
    tolerance_ppm: int = 0,
) -> Reconciliation:
    """Compare all that was reported of a session with all that was acknowledged in it.

    Args:
        calls: the events of every accepted report of the session.
        acknowledged: the buyer's list, each call once, in the order of receipt.
        acks: as for `proven_of`.
        tolerance_ppm: how far apart two sums may be, in millionths of the larger.
    """
    told = _told(calls)
    known = {each.seq: each for each in acknowledged}
    assert len(known) == len(acknowledged), "a call is acknowledged once"
    meters = _meters(told.values(), known)
    differences = tuple(
        difference
        for seq in sorted(told.keys() | known.keys())
        if (difference := _difference(seq, told.get(seq), known.get(seq))) is not None
    )
    billed = [each for each in told.values() if _is_billed(each)]
    billed_units = sum(each.amount_units for each in billed)
    acknowledged_units = sum(each.units for each in acknowledged)
    pairs = [(billed_units, acknowledged_units)]
    pairs += [(each.billed, each.acknowledged) for each in meters.values()]
    pairs += [(each.reported, each.billed) for each in meters.values()]
    return Reconciliation(
        reported_calls=sum(each.outcome in BILLED for each in told.values()),
        billed_calls=len(billed),
        billed_units=billed_units,
        acknowledged_calls=len(known),
        acknowledged_units=acknowledged_units,
        proven=proven_of(acknowledged, acks),
        meters=meters,
        differences=differences,
        within=all(_is_near(one, other, tolerance_ppm) for one, other in pairs)
        and all(each.kind is not DifferenceKind.RESULT_DIFFERS for each in differences),
    )


def _told(calls: Iterable[ReportedCall]) -> dict[int, ReportedCall]:
    """Each call once: as it was taken or, where it never was, as it was rejected last."""
    told: dict[int, ReportedCall] = {}
    for call in calls:
        if (known := told.get(call.seq)) is None or not known.is_taken:
            told[call.seq] = call
    return told


def _is_billed(call: ReportedCall) -> bool:
    return call.is_taken and call.outcome in BILLED


def _meters(
    calls: Iterable[ReportedCall], known: Mapping[int, Acknowledged]
) -> dict[str, MeterCount]:
    meters: dict[str, MeterCount] = {}
    for call in calls:
        if call.outcome not in BILLED:
            continue
        for meter, quantity in call.usage.items():
            count = meters.setdefault(meter, MeterCount())
            count.reported += quantity
            if _is_billed(call):
                count.billed += quantity
                count.acknowledged += quantity if call.seq in known else 0
    return dict(sorted(meters.items()))


def _difference(
    seq: int, call: ReportedCall | None, known: Acknowledged | None
) -> Difference | None:
    if known is None:
        kind = None
        if call is not None and _is_billed(call) and call.amount_units:
            kind = DifferenceKind.UNACKNOWLEDGED
    elif call is None:
        kind = DifferenceKind.UNREPORTED
    elif not _is_billed(call):
        kind = DifferenceKind.NOT_BILLED
    elif call.result_sha256 != known.result_sha256:
        kind = DifferenceKind.RESULT_DIFFERS
    else:
        kind = DifferenceKind.AMOUNT_DIFFERS if call.amount_units != known.units else None
    if kind is None:
        return None
    return Difference(
        seq=seq,
        kind=kind,
        billed_units=call.amount_units if call else 0,
        acknowledged_units=known.units if known else 0,
        fault=call.fault if call else "",
    )


def _is_near(one: int, other: int, tolerance_ppm: int) -> bool:
    return abs(one - other) * _PPM <= max(one, other) * tolerance_ppm
