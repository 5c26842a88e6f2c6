"""Countings of one session: every way in which they can differ is named, and only then."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from farthing.protocol.calls import ReportedCall
from farthing.protocol.reconciliation import (
    Acknowledged,
    Compared,
    DifferenceKind,
    Direction,
    GatewayCount,
    proven_of,
    reconcile,
    together,
)
from farthing.protocol.usage import UsageOutcome
from farthing.protocol.vouchers import ack_after

RESULT = "b" * 64
OVER, UNDER = Direction.OVER, Direction.UNDER


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


def failed(seq: int) -> ReportedCall:
    return call(seq, 0, outcome=UsageOutcome.FAILED_VENDOR, result_sha256="")


def answer(seq: int, units: int = 100, result_sha256: str = RESULT) -> Acknowledged:
    return Acknowledged(seq=seq, units=units, result_sha256=result_sha256)


def used(seq: int, units: int = 100, **usage: int) -> Acknowledged:
    return replace(answer(seq, units), usage=usage)


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

    assert found.is_within(0)
    assert found.differences == ()
    assert (found.units.one, found.units.other, found.proven) == (200, 200, 2)
    assert found.calls.buyer == found.calls.platform == Compared(2, 2)
    assert found.meters["page"].buyer == found.meters["page"].platform == Compared(20, 20)


@pytest.mark.parametrize(
    ("calls", "acknowledged", "kind", "direction", "units"),
    [
        ([call(1)], [], DifferenceKind.UNACKNOWLEDGED, OVER, (100, 0)),
        ([call(1, 0)], [], DifferenceKind.UNACKNOWLEDGED, OVER, (0, 0)),
        ([], [answer(1)], DifferenceKind.UNREPORTED, UNDER, (0, 100)),
        ([failed(1)], [answer(1)], DifferenceKind.NOT_BILLED, UNDER, (0, 100)),
        ([call(1, 0, fault="over_cap")], [answer(1)], DifferenceKind.NOT_BILLED, UNDER, (0, 100)),
        ([call(1, 0, fault="over_cap")], [], DifferenceKind.REJECTED, OVER, (0, 0)),
        ([call(1)], [answer(1, 90)], DifferenceKind.AMOUNT_DIFFERS, OVER, (100, 90)),
        ([call(1)], [answer(1, 110)], DifferenceKind.AMOUNT_DIFFERS, UNDER, (100, 110)),
        ([call(1)], [answer(1, 100, "c" * 64)], DifferenceKind.RESULT_DIFFERS, None, (100, 100)),
        ([call(1)], [used(1, page=9)], DifferenceKind.USAGE_DIFFERS, OVER, (100, 100)),
        ([call(1)], [used(1, page=10, line=1)], DifferenceKind.USAGE_DIFFERS, UNDER, (100, 100)),
        ([call(1)], [used(1, line=1)], DifferenceKind.USAGE_DIFFERS, None, (100, 100)),
    ],
)
def test_each_way_to_differ_has_its_name_and_direction(
    calls: list[ReportedCall],
    acknowledged: list[Acknowledged],
    kind: DifferenceKind,
    direction: Direction | None,
    units: tuple[int, int],
) -> None:
    found = reconcile(calls, acknowledged, (), session_id="ses_1")

    (difference,) = found.differences
    assert (difference.session_id, difference.seq) == ("ses_1", 1)
    assert (difference.kind, difference.direction) == (kind, direction)
    assert (difference.billed_units, difference.acknowledged_units) == units
    assert not found.is_within(0)


def test_what_was_not_delivered_needs_no_acknowledgement() -> None:
    found = reconcile([failed(1)], [], ())

    assert found.is_within(0)
    assert found.differences == ()


def test_a_call_that_was_taken_after_it_was_rejected_is_the_one_that_was_taken() -> None:
    early = call(1, 0, fault="beyond_voucher")
    again = call(1, 0, fault="duplicate")

    found = reconcile([early, call(1), again], [answer(1)], ())

    assert found.is_within(0)
    assert found.calls.platform == Compared(1, 1)


def test_what_the_vendor_delivered_and_could_not_bill_is_seen_by_meter() -> None:
    found = reconcile([call(1), call(2, 0, usage={"page": 7}, fault="over_cap")], [answer(1)], ())

    assert found.meters["page"].platform == Compared(17, 10, 7, 0)
    assert not found.is_within(0)


@pytest.mark.parametrize(
    ("tolerance_ppm", "within"), [(0, False), (9_999, False), (10_000, True), (1_000_000, True)]
)
def test_sums_may_be_apart_by_the_tolerance_and_no_more(
    tolerance_ppm: int, *, within: bool
) -> None:
    found = reconcile([call(1, 100)], [answer(1, 99)], ())

    assert found.is_within(tolerance_ppm) is within
    assert len(found.differences) == 1


@given(st.integers(0, 10**19), st.integers(0, 10**19), st.integers(0, 1_000_000))
def test_a_tolerance_is_judged_to_the_last_unit(one: int, other: int, tolerance_ppm: int) -> None:
    allowed = Fraction(tolerance_ppm, 1_000_000) * max(one, other)

    assert Compared.of(one, other).is_near(tolerance_ppm) is (abs(one - other) <= allowed)


def test_one_call_too_many_does_not_make_up_for_one_too_few() -> None:
    found = reconcile([call(1), call(2)], [answer(1), answer(3)], ())

    assert found.units == Compared(200, 200, 100, 100)
    assert not found.is_within(499_999)
    assert found.is_within(500_000)


def test_no_tolerance_covers_another_result() -> None:
    found = reconcile([call(1)], [answer(1, 100, "c" * 64)], ())

    assert not found.is_within(1_000_000)


@pytest.mark.parametrize(
    ("gateway", "calls", "pages"),
    [
        (GatewayCount(calls=2, usage={"page": 20}), Compared(2, 2), Compared(20, 20)),
        (GatewayCount(calls=1, usage={"page": 15}), Compared(2, 1, 1, 0), Compared(20, 15, 5, 0)),
        (GatewayCount(calls=3, usage={"page": 23}), Compared(2, 3, 0, 1), Compared(20, 23, 0, 3)),
    ],
)
def test_a_gateway_s_count_is_set_beside_the_vendor_s_both_ways(
    gateway: GatewayCount, calls: Compared, pages: Compared
) -> None:
    found = reconcile([call(1), call(2)], [answer(1), answer(2)], (), gateway)

    assert (found.calls.gateway, found.meters["page"].gateway) == (calls, pages)
    assert found.is_within(0) is (calls.one == calls.other)
    assert found.differences == ()


PARTS = st.tuples(st.integers(0, 1000), st.integers(0, 9))
SESSION = st.dictionaries(st.integers(1, 30), PARTS, max_size=8)


def sides(session: dict[int, tuple[int, int]]) -> tuple[list[ReportedCall], list[Acknowledged]]:
    """A session as an honest vendor and an honest buyer count it."""
    calls = [call(seq, units, usage={"page": page}) for seq, (units, page) in session.items()]
    return calls, [used(seq, units, page=page) for seq, (units, page) in session.items()]


@given(SESSION)
def test_what_both_count_alike_has_no_difference(session: dict[int, tuple[int, int]]) -> None:
    calls, acknowledged = sides(session)
    pages = {"page": sum(page for _, page in session.values())}
    gateway = GatewayCount(calls=len(calls), usage=pages)

    found = reconcile(calls, acknowledged, {chain(acknowledged)[-1]}, gateway)

    assert found.differences == ()
    assert found.is_within(0)
    assert found.proven == len(session)


# What one side does to one call, and what that is found as.
ALTERED: list[tuple[str, dict[str, object], DifferenceKind, Direction | None]] = [
    ("vendor", {"amount_units": 1001}, DifferenceKind.AMOUNT_DIFFERS, OVER),
    ("vendor", {"usage": {"page": 10}}, DifferenceKind.USAGE_DIFFERS, OVER),
    ("vendor", {"result_sha256": "d" * 64}, DifferenceKind.RESULT_DIFFERS, None),
    ("vendor", {"outcome": UsageOutcome.TIMED_OUT}, DifferenceKind.NOT_BILLED, UNDER),
    ("vendor", {"fault": "over_cap"}, DifferenceKind.NOT_BILLED, UNDER),
    ("buyer", {"units": 1001}, DifferenceKind.AMOUNT_DIFFERS, UNDER),
    ("buyer", {"usage": {"page": 10}}, DifferenceKind.USAGE_DIFFERS, UNDER),
    ("buyer", {"result_sha256": "d" * 64}, DifferenceKind.RESULT_DIFFERS, None),
]


@given(SESSION.filter(bool), st.sampled_from(ALTERED), st.data())
def test_a_call_that_one_side_changes_is_found_named_and_has_its_direction(
    session: dict[int, tuple[int, int]],
    change: tuple[str, dict[str, object], DifferenceKind, Direction | None],
    data: st.DataObject,
) -> None:
    who, members, kind, direction = change
    calls, acknowledged = sides(session)
    whole = {chain(acknowledged)[-1]}
    place = data.draw(st.integers(0, len(session) - 1))
    seq = acknowledged[place].seq
    if who == "vendor":
        calls[place] = structs.replace(calls[place], **members)
    else:
        acknowledged[place] = replace(acknowledged[place], **members)  # type: ignore[arg-type]

    found = reconcile(calls, acknowledged, whole)

    (difference,) = found.differences
    assert (difference.seq, difference.kind, difference.direction) == (seq, kind, direction)
    assert not found.is_within(0)
    # The chain holds amounts and results, not the usage.
    assert found.proven == (0 if who == "buyer" and "usage" not in members else len(session))


@given(SESSION, st.data())
def test_a_call_that_only_one_side_has_is_found_named_and_has_its_direction(
    session: dict[int, tuple[int, int]], data: st.DataObject
) -> None:
    calls, acknowledged = sides(session)
    more = data.draw(st.integers(1, 31).filter(lambda seq: seq not in session))
    units = data.draw(st.integers(0, 1000))
    place = data.draw(st.integers(0, len(session)))

    reported = reconcile([*calls, call(more, units)], acknowledged, ())
    known = [*acknowledged[:place], answer(more, units), *acknowledged[place:]]
    received = reconcile(calls, known, {chain(acknowledged)[-1]} - {""})

    (over,), (under,) = reported.differences, received.differences
    assert (over.seq, over.kind, over.direction) == (more, DifferenceKind.UNACKNOWLEDGED, OVER)
    assert (under.seq, under.kind, under.direction) == (more, DifferenceKind.UNREPORTED, UNDER)
    assert not reported.is_within(0)
    assert not received.is_within(0)
    assert received.proven == (len(session) if place == len(session) else 0)


@given(st.lists(SESSION, max_size=4), st.data())
def test_what_is_compared_in_parts_comes_to_the_sum_and_loses_no_difference(
    parts: list[dict[int, tuple[int, int]]], data: st.DataObject
) -> None:
    found = []
    for number, session in enumerate(parts):
        calls, acknowledged = sides(session)
        kept = data.draw(st.integers(0, len(acknowledged)))
        found.append(reconcile(calls, acknowledged[:kept], (), session_id=str(number)))

    whole = together(found)

    assert whole.differences == tuple(each for one in found for each in one.differences)
    assert whole.units.one == sum(units for one in parts for units, _ in one.values())
    assert whole.units.over == whole.units.one - whole.units.other
    assert whole.calls.buyer.over == len(whole.differences)
    assert whole.is_within(0) is all(one.is_within(0) for one in found)


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
