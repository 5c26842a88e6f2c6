"""Countings of the same usage compared: a vendor's events, a buyer's acknowledgements, a gateway.

Boundary: pure; whoever has the receipts of the reports and the list of what was acknowledged can
compute it alone. The list is proven by a voucher that the buyer signed, whose `ack` is the digest
of the chain over it. Over and under are the vendor's, beside whoever counted too; they are summed
apart, so that one call too many does not make up for one too few.
Source: spec/metering.md#reconciliation.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, cast

from msgspec import structs

from farthing.protocol import base64url
from farthing.protocol.calls import ReportedCall
from farthing.protocol.canonical import Json, parse_json
from farthing.protocol.corrections import correction_of
from farthing.protocol.money import PPM
from farthing.protocol.records import Record
from farthing.protocol.usage import BILLED
from farthing.protocol.vouchers import ack_after

__all__ = [
    "Acknowledged",
    "Compared",
    "Counted",
    "Difference",
    "DifferenceKind",
    "Direction",
    "GatewayCount",
    "Reconciliation",
    "TakenBack",
    "ack_of",
    "proven_of",
    "reconcile",
    "taken_back_by",
    "together",
]

_TAKEN_BACK: Final = "taken_back"


class Direction(StrEnum):
    """To which side the vendor's counting is wrong, if the other is right."""

    OVER = "over"
    UNDER = "under"


class DifferenceKind(StrEnum):
    """How the countings of one call differ."""

    UNACKNOWLEDGED = "unacknowledged"
    """It was billed, and its buyer acknowledged no answer."""
    UNREPORTED = "unreported"
    """Its answer was acknowledged, and no event of it was reported."""
    NOT_BILLED = "not_billed"
    """Its answer was acknowledged; its event is of no success, was rejected, or all taken back."""
    REJECTED = "rejected"
    """Its event is of a success and was rejected; its buyer acknowledged no answer either."""
    AMOUNT_DIFFERS = "amount_differs"
    """What was billed is not what the buyer's own rating gives."""
    USAGE_DIFFERS = "usage_differs"
    """What was billed used other quantities than the answer said that its buyer acknowledged."""
    RESULT_DIFFERS = "result_differs"
    """The vendor signed the digest of another result than the buyer received."""
    CORRECTED_DIFFERS = "corrected_differs"
    """What corrected calls cost in the end, together, is not the buyer's own rating of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """An answer as the buyer took it into the chain; `units` by the buyer's own rating.

    `usage` is what the answer said, which the chain does not hold; None is not told.
    """

    seq: int
    units: int
    result_sha256: str
    usage: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayCount:
    """What a gateway saw of a session: calls that were answered, and what they used."""

    calls: int
    usage: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenBack:
    """What corrections took back of a session: quantities by call and meter, and their price."""

    calls: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    units: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A call of which the countings differ; number 0 is all corrected calls together.

    `fault` is why its event was rejected, or `taken_back`.
    `direction` is None where only the result differs, or one meter is over and another under.
    """

    session_id: str
    seq: int
    kind: DifferenceKind
    direction: Direction | None
    billed_units: int
    acknowledged_units: int
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Compared:
    """Two sums of the same thing, and how far the one is over and under the other in its parts."""

    one: int = 0
    other: int = 0
    over: int = 0
    under: int = 0

    @classmethod
    def of(cls, one: int, other: int) -> "Compared":
        """Two countings of one part."""
        return cls(one, other, max(one - other, 0), max(other - one, 0))

    def __add__(self, more: "Compared") -> "Compared":
        return Compared(
            self.one + more.one,
            self.other + more.other,
            self.over + more.over,
            self.under + more.under,
        )

    def is_near(self, tolerance_ppm: int) -> bool:
        """Whether neither way is further than so many millionths of the larger sum."""
        larger = max(self.one, self.other)
        return max(self.over, self.under) * PPM <= larger * tolerance_ppm


@dataclass(frozen=True, slots=True)
class Counted:
    """One meter, or the calls.

    Args:
        buyer: what was billed, and what the buyer acknowledged.
        platform: what the vendor signed as delivered, and what was billed of it.
        gateway: what the vendor signed as delivered, and what a gateway saw.
    """

    buyer: Compared = Compared()
    platform: Compared = Compared()
    gateway: Compared = Compared()

    def __add__(self, more: "Counted") -> "Counted":
        return Counted(
            self.buyer + more.buyer, self.platform + more.platform, self.gateway + more.gateway
        )

    def is_near(self, tolerance_ppm: int) -> bool:
        """Whether no two of the countings are further apart."""
        each = (self.buyer, self.platform, self.gateway)
        return all(one.is_near(tolerance_ppm) for one in each)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """What a comparison found.

    Args:
        calls: calls, each once.
        units: what was billed beside the buyer's own rating of what it acknowledged.
        meters: quantities by meter.
        proven: how many acknowledgements a signed voucher proves.
        differences: every call that is told differently.
        other_results: calls of which the result differs.
    """

    calls: Counted = Counted()
    units: Compared = Compared()
    meters: Mapping[str, Counted] = field(default_factory=dict)
    proven: int = 0
    differences: tuple[Difference, ...] = ()
    other_results: int = 0

    def is_within(self, tolerance_ppm: int) -> bool:
        """Whether no result differs, and no sum by more than so many millionths of the larger."""
        counted = (self.calls, *self.meters.values())
        return (
            not self.other_results
            and self.units.is_near(tolerance_ppm)
            and all(each.is_near(tolerance_ppm) for each in counted)
        )


def ack_of(record: Record) -> str:
    """The `ack` of the voucher that an accepted report came with: it was verified for that."""
    payload = str((record.facts or {})["voucher"]).split(".")[1]
    claims = cast("Mapping[str, Json]", parse_json(base64url.decode(payload)))
    return cast("str", claims["ack"])


def taken_back_by(records: Iterable[Record]) -> TakenBack:
    """What corrections of one session took back, each call once."""
    calls: dict[int, Mapping[str, int]] = {}
    units = 0
    for record in records:
        calls |= {each.seq: each.usage for each in correction_of(record).calls}
        units += int(cast("str", (record.decided or {})["units"]))
    return TakenBack(calls=calls, units=units)


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
    gateway: GatewayCount | None = None,
    *,
    taken_back: TakenBack | None = None,
    session_id: str = "",
) -> Reconciliation:
    """Compare all that was reported of a session with all that was acknowledged in it.

    Args:
        calls: the events of every accepted report of the session.
        acknowledged: the buyer's list, each call once, in the order of receipt.
        acks: as for `proven_of`.
        gateway: what a gateway saw of the session, where one did.
        taken_back: what corrections took back of its calls.
        session_id: named in each difference.
    """
    told = _told(calls)
    back = taken_back or TakenBack()
    corrected_units = _corrected(told, back)
    known = {each.seq: each for each in acknowledged}
    assert len(known) == len(acknowledged), "a call is acknowledged once"
    both = [
        _Both(told.get(seq), known.get(seq), is_corrected=seq in back.calls)
        for seq in sorted(told.keys() | known.keys())
    ]
    corrected = Compared.of(
        corrected_units, sum(each.known_units for each in both if each.is_priced_together)
    )
    differences = [
        differs for each in both if (differs := _difference(session_id, each)) is not None
    ]
    if corrected.over or corrected.under:
        differences.append(_together_differ(session_id, corrected))
    found = Reconciliation(
        calls=Counted(
            buyer=_summed((each.billed is not None, each.answer is not None) for each in both),
            platform=_summed((each.signed is not None, each.billed is not None) for each in both),
        ),
        units=corrected
        + _summed(
            (each.billed_units, each.known_units) for each in both if not each.is_priced_together
        ),
        meters=_meters(both),
        proven=proven_of(acknowledged, acks),
        differences=tuple(differences),
        other_results=sum(each.kind is DifferenceKind.RESULT_DIFFERS for each in differences),
    )
    return found if gateway is None else together((found, _beside(found, gateway)))


def together(found: Iterable[Reconciliation]) -> Reconciliation:
    """The sums of comparisons of several sessions, and all their differences."""
    calls, units, meters = Counted(), Compared(), dict[str, Counted]()
    proven = other_results = 0
    differences: list[Difference] = []
    for each in found:
        calls += each.calls
        units += each.units
        for meter, count in each.meters.items():
            meters[meter] = meters.get(meter, Counted()) + count
        proven += each.proven
        other_results += each.other_results
        differences += each.differences
    return Reconciliation(
        calls=calls,
        units=units,
        meters=dict(sorted(meters.items())),
        proven=proven,
        differences=tuple(differences),
        other_results=other_results,
    )


@dataclass(frozen=True, slots=True)
class _Both:
    """One call as it was reported and as it was acknowledged; one of them at least."""

    call: ReportedCall | None
    answer: Acknowledged | None
    is_corrected: bool = False

    @property
    def is_priced_together(self) -> bool:
        """Whether its price is known only with that of all corrected calls."""
        return self.is_corrected and self.billed is not None

    @property
    def seq(self) -> int:
        return self.call.seq if self.call else cast("Acknowledged", self.answer).seq

    @property
    def signed(self) -> ReportedCall | None:
        """The event, where the vendor signed that it delivered, and stands by it."""
        call = self.call
        stands = call is not None and call.outcome in BILLED and call.fault != _TAKEN_BACK
        return call if stands else None

    @property
    def billed(self) -> ReportedCall | None:
        return self.call if self.signed and self.signed.is_taken else None

    @property
    def billed_units(self) -> int:
        return self.call.amount_units if self.call and self.billed else 0

    @property
    def known_units(self) -> int:
        return self.answer.units if self.answer else 0

    @property
    def known_usage(self) -> Mapping[str, int]:
        """What the buyer acknowledged the use of; where it does not tell, what is signed."""
        if self.answer is None:
            return {}
        return _usage(self.signed) if self.answer.usage is None else self.answer.usage


def _told(calls: Iterable[ReportedCall]) -> dict[int, ReportedCall]:
    """Each call once: as it was taken or, where it never was, as it was rejected last."""
    told: dict[int, ReportedCall] = {}
    for call in calls:
        if (known := told.get(call.seq)) is None or not known.is_taken:
            told[call.seq] = call
    return told


def _corrected(told: dict[int, ReportedCall], back: TakenBack) -> int:
    """Take back of each call what was corrected, and give what all of them cost in the end."""
    units = -back.units
    for seq, usage in back.calls.items():
        call = told[seq]
        units += call.amount_units
        left = {meter: used - usage.get(meter, 0) for meter, used in call.usage.items()}
        if any(left.values()):
            told[seq] = structs.replace(call, usage=left)
        else:
            told[seq] = structs.replace(call, usage={}, amount_units=0, fault=_TAKEN_BACK)
    return units


def _usage(call: ReportedCall | None) -> Mapping[str, int]:
    return call.usage if call else {}


def _summed(pairs: Iterable[tuple[int, int]]) -> Compared:
    one = other = over = under = 0
    for mine, theirs in pairs:
        one += mine
        other += theirs
        over += max(mine - theirs, 0)
        under += max(theirs - mine, 0)
    return Compared(one, other, over, under)


def _meters(both: Iterable[_Both]) -> dict[str, Counted]:
    buyer = defaultdict[str, list[tuple[int, int]]](list)
    platform = defaultdict[str, list[tuple[int, int]]](list)
    for each in both:
        signed, billed, known = _usage(each.signed), _usage(each.billed), each.known_usage
        for meter in signed.keys() | known.keys():
            buyer[meter].append((billed.get(meter, 0), known.get(meter, 0)))
            platform[meter].append((signed.get(meter, 0), billed.get(meter, 0)))
    return {
        meter: Counted(buyer=_summed(buyer[meter]), platform=_summed(platform[meter]))
        for meter in sorted(buyer)
    }


def _beside(found: Reconciliation, gateway: GatewayCount) -> Reconciliation:
    """What a gateway's count of a session adds."""
    signed = {meter: count.platform.one for meter, count in found.meters.items()}
    return Reconciliation(
        calls=Counted(gateway=Compared.of(found.calls.platform.one, gateway.calls)),
        meters={
            meter: Counted(gateway=Compared.of(signed.get(meter, 0), gateway.usage.get(meter, 0)))
            for meter in signed.keys() | gateway.usage.keys()
        },
    )


def _difference(session_id: str, both: _Both) -> Difference | None:
    found = _kind(both)
    if found is None:
        return None
    kind, direction = found
    return Difference(
        session_id=session_id,
        seq=both.seq,
        kind=kind,
        direction=direction,
        billed_units=both.billed_units,
        acknowledged_units=both.known_units,
        fault=both.call.fault if both.call else "",
    )


def _together_differ(session_id: str, corrected: Compared) -> Difference:
    return Difference(
        session_id=session_id,
        seq=0,
        kind=DifferenceKind.CORRECTED_DIFFERS,
        direction=Direction.OVER if corrected.over else Direction.UNDER,
        billed_units=corrected.one,
        acknowledged_units=corrected.other,
    )


def _kind(both: _Both) -> tuple[DifferenceKind, Direction | None] | None:
    call, answer = both.billed, both.answer
    if answer is None:
        if call is not None:
            return DifferenceKind.UNACKNOWLEDGED, Direction.OVER
        return (DifferenceKind.REJECTED, Direction.OVER) if both.signed else None
    if call is None:
        kind = DifferenceKind.NOT_BILLED if both.call else DifferenceKind.UNREPORTED
        return kind, Direction.UNDER
    if call.result_sha256 != answer.result_sha256:
        return DifferenceKind.RESULT_DIFFERS, None
    if not both.is_corrected and call.amount_units != answer.units:
        is_over = call.amount_units > answer.units
        return DifferenceKind.AMOUNT_DIFFERS, Direction.OVER if is_over else Direction.UNDER
    known = both.known_usage
    over = any(quantity > known.get(meter, 0) for meter, quantity in call.usage.items())
    under = any(quantity > call.usage.get(meter, 0) for meter, quantity in known.items())
    if not over and not under:
        return None
    either = Direction.OVER if over else Direction.UNDER
    return DifferenceKind.USAGE_DIFFERS, None if over and under else either
