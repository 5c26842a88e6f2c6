"""Counts as they are answered, and back: so that answers can be added up and judged as one.

Boundary: pure. Source: spec/metering.md#reconciliation.
"""

from collections.abc import Sequence
from dataclasses import replace

from farthing.protocol.messages.reconciliation import (
    MeterTally,
    PassedCalls,
    Tally,
    UsageReconciliation,
)
from farthing.protocol.reconciliation import Compared, Counted, Reconciliation, together
from farthing.protocol.wire import Money, money, usage_of

__all__ = ["counted_of", "merged", "meters_of", "tally_of"]


def tally_of(count: Counted) -> Tally:
    """A count as it is answered."""
    return Tally(
        reported=str(count.platform.one),
        billed=str(count.platform.other),
        acknowledged=str(count.buyer.other),
        over=str(count.buyer.over),
        under=str(count.buyer.under),
        rejected=str(count.platform.over),
        gateway=str(count.gateway.other),
        gateway_over=str(count.gateway.over),
        gateway_under=str(count.gateway.under),
    )


def counted_of(tally: Tally) -> Counted:
    """The count that `tally_of` wrote."""
    reported, billed = int(tally.reported), int(tally.billed)
    seen, over, under = int(tally.gateway), int(tally.gateway_over), int(tally.gateway_under)
    return Counted(
        buyer=Compared(billed, int(tally.acknowledged), int(tally.over), int(tally.under)),
        platform=Compared(reported, billed, int(tally.rejected), 0),
        gateway=Compared(seen + over - under, seen, over, under),
    )


def meters_of(found: Reconciliation) -> tuple[MeterTally, ...]:
    """The counts of all meters as they are answered."""
    return tuple(
        MeterTally(meter=meter, count=tally_of(count)) for meter, count in found.meters.items()
    )


def merged(answers: Sequence[UsageReconciliation]) -> UsageReconciliation:
    """The answers on parts of an agreement as one, judged over all of it.

    Args:
        answers: in their order, at least one, all of one agreement.
    """
    first, last = answers[0], answers[-1]
    found = together(map(_found, answers))
    asset = first.billed.asset
    sessions = tuple(each for answer in answers for each in answer.sessions)
    is_whole = all(each.compared for each in sessions)
    return replace(
        first,
        calls=tally_of(found.calls),
        meters=meters_of(found),
        billed=money(found.units.one, asset),
        acknowledged=money(found.units.other, asset),
        over=money(found.units.over, asset),
        under=money(found.units.under, asset),
        sessions=sessions,
        passed=_passed([each.passed for each in answers]),
        differences=tuple(each for answer in answers for each in answer.differences),
        differences_in_all=sum(each.differences_in_all for each in answers),
        other_results=found.other_results,
        within=is_whole and found.is_within(first.tolerance_ppm),
        as_of_seq=last.as_of_seq,
        cursor=last.cursor,
    )


def _found(answer: UsageReconciliation) -> Reconciliation:
    return Reconciliation(
        calls=counted_of(answer.calls),
        units=Compared(
            answer.billed.units,
            answer.acknowledged.units,
            answer.over.units,
            answer.under.units,
        ),
        meters={each.meter: counted_of(each.count) for each in answer.meters},
        other_results=answer.other_results,
    )


def _passed(all_passed: Sequence[PassedCalls]) -> PassedCalls:
    usage: dict[str, int] = {}
    for each in all_passed:
        for meter in each.usage:
            usage[meter.meter] = usage.get(meter.meter, 0) + int(meter.quantity)
    return PassedCalls(
        asked=sum(each.asked for each in all_passed),
        captured=sum(each.captured for each in all_passed),
        released=sum(each.released for each in all_passed),
        expired=sum(each.expired for each in all_passed),
        open=sum(each.open for each in all_passed),
        charged=_sum([each.charged for each in all_passed]),
        usage=usage_of(usage),
    )


def _sum(amounts: Sequence[Money]) -> Money:
    return money(sum(each.units for each in amounts), amounts[0].asset)
