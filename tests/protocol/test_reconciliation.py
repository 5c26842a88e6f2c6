"""Two countings of one session: every way in which they can differ is named, and only then."""

from collections.abc import Sequence
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.protocol.calls import ReportedCall
from farthing.protocol.reconciliation import (
    Acknowledged,
    DifferenceKind,
    proven_of,
    reconcile,
)
from farthing.protocol.usage import UsageOutcome
from farthing.protocol.vouchers import ack_after

RESULT = "b" * 64


def call(seq: int, units: int = 100, **other: object) -> ReportedCall:
    members: dict[str, object] = {
        "seq": seq,
        "place": seq - 1,
        "at_us": 1,
        "outcome": UsageOutcome.SUCCEEDED,
        "usage": {"page": units // 10},
        "args_sha256": "a" * 64,
        "result_sha256": RESULT,
        "amount_units": units,
        "fault": "",
    }
    return ReportedCall(**(members | other))  # type: ignore[arg-type]


def answer(seq: int, units: int = 100, result_sha256: str = RESULT) -> Acknowledged:
    return Acknowledged(seq=seq, units=units, result_sha256=result_sha256)


def chain(acknowledged: Sequence[Acknowledged]) -> list[str]:
    return list(
        accumulate(
            acknowledged,
            lambda ack, each: ack_after(ack, each.seq, each.units, each.result_sha256),
            initial="",
        )
    )


def test_two_countings_of_the_same_agree() -> None:
    acknowledged = [answer(2), answer(1)]

    found = reconcile([call(1), call(2)], acknowledged, {chain(acknowledged)[-1]})

    assert found.within
    assert found.differences == ()
    assert (found.billed_units, found.acknowledged_units, found.proven) == (200, 200, 2)
    assert found.meters["page"].reported == found.meters["page"].acknowledged == 20


@pytest.mark.parametrize(
    ("calls", "acknowledged", "kind", "billed_units", "acknowledged_units"),
    [
        ([call(1)], [], DifferenceKind.UNACKNOWLEDGED, 100, 0),
        ([], [answer(1)], DifferenceKind.UNREPORTED, 0, 100),
        (
            [call(1, 0, outcome=UsageOutcome.FAILED_VENDOR, result_sha256="")],
            [answer(1)],
            DifferenceKind.NOT_BILLED,
            0,
            100,
        ),
        ([call(1, 0, fault="over_cap")], [answer(1)], DifferenceKind.NOT_BILLED, 0, 100),
        ([call(1)], [answer(1, 90)], DifferenceKind.AMOUNT_DIFFERS, 100, 90),
        ([call(1)], [answer(1, 100, "c" * 64)], DifferenceKind.RESULT_DIFFERS, 100, 100),
    ],
)
def test_each_way_to_differ_has_its_name(
    calls: list[ReportedCall],
    acknowledged: list[Acknowledged],
    kind: DifferenceKind,
    billed_units: int,
    acknowledged_units: int,
) -> None:
    found = reconcile(calls, acknowledged, ())

    (difference,) = found.differences
    assert (difference.seq, difference.kind) == (1, kind)
    assert difference.billed_units == billed_units
    assert difference.acknowledged_units == acknowledged_units
    assert not found.within


def test_what_costs_nothing_needs_no_acknowledgement() -> None:
    failed = call(1, 0, outcome=UsageOutcome.TIMED_OUT, result_sha256="")

    found = reconcile([failed, call(2, 0)], [], ())

    assert found.within
    assert found.differences == ()


def test_a_call_that_was_taken_after_it_was_rejected_is_the_one_that_was_taken() -> None:
    early = call(1, 0, fault="beyond_voucher")
    again = call(1, 0, fault="duplicate")

    found = reconcile([early, call(1), again], [answer(1)], ())

    assert found.within
    assert (found.reported_calls, found.billed_calls) == (1, 1)


def test_what_the_vendor_delivered_and_could_not_bill_is_seen_by_meter() -> None:
    found = reconcile([call(1), call(2, 0, usage={"page": 7}, fault="over_cap")], [answer(1)], ())

    assert (found.meters["page"].reported, found.meters["page"].billed) == (17, 10)
    assert not found.within


@pytest.mark.parametrize(
    ("tolerance_ppm", "within"), [(0, False), (9_999, False), (10_000, True), (1_000_000, True)]
)
def test_sums_may_be_apart_by_the_tolerance_and_no_more(
    tolerance_ppm: int, *, within: bool
) -> None:
    found = reconcile([call(1, 100)], [answer(1, 99)], (), tolerance_ppm=tolerance_ppm)

    assert found.within is within
    assert len(found.differences) == 1


def test_no_tolerance_covers_another_result() -> None:
    found = reconcile([call(1)], [answer(1, 100, "c" * 64)], (), tolerance_ppm=1_000_000)

    assert not found.within


@given(st.lists(st.integers(0, 50), max_size=12), st.data())
def test_a_list_is_proven_as_far_as_a_voucher_acknowledges_it(
    units: list[int], data: st.DataObject
) -> None:
    acknowledged = [answer(seq, each) for seq, each in enumerate(units, 1)]
    acks = chain(acknowledged)
    signed = data.draw(st.sets(st.integers(0, len(units))))

    assert proven_of(acknowledged, {acks[each] for each in signed}) == max(signed, default=0)


def test_a_list_with_a_call_left_out_changed_or_moved_is_not_proven() -> None:
    whole = [answer(1), answer(2), answer(3)]
    signed = {chain(whole)[-1]}

    assert proven_of(whole, signed) == 3
    assert proven_of([whole[0], whole[2]], signed) == 0
    assert proven_of([whole[1], whole[0], whole[2]], signed) == 0
    assert proven_of([whole[0], answer(2, 99), whole[2]], signed) == 0
