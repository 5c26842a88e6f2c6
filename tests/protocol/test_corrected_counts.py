"""Countings compared after the vendor took something back."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.protocol.reconciliation import (
    Compared,
    DifferenceKind,
    Direction,
    Reconciliation,
    TakenBack,
    reconcile,
)
from tests.protocol.test_reconciliation import call, failed, used

PRICE = 10
OVER, UNDER = Direction.OVER, Direction.UNDER


def corrected(
    reported: Mapping[int, int],
    known: Mapping[int, int],
    back: Mapping[int, int],
    *,
    given_back: int | None = None,
) -> Reconciliation:
    """Pages of each call as the vendor reported them, the buyer knows them, and taken back."""
    units = sum(back.values()) * PRICE if given_back is None else given_back
    return reconcile(
        [call(seq, pages * PRICE, usage={"page": pages}) for seq, pages in reported.items()],
        [used(seq, pages * PRICE, page=pages) for seq, pages in known.items()],
        (),
        taken_back=TakenBack(calls={seq: {"page": n} for seq, n in back.items()}, units=units),
    )


@given(st.dictionaries(st.integers(1, 20), st.tuples(st.integers(0, 9), st.integers(0, 9))))
def test_what_was_too_much_and_is_taken_back_is_no_difference(
    session: dict[int, tuple[int, int]],
) -> None:
    session = {seq: (pages, more) for seq, (pages, more) in session.items() if pages + more}
    known = {seq: pages for seq, (pages, _) in session.items() if pages}
    back = {seq: more for seq, (_, more) in session.items() if more}
    reported = {seq: sum(both) for seq, both in session.items()}

    found = corrected(reported, known, back)
    before = corrected(reported, known, {})

    assert found.differences == ()
    assert found.is_within(0)
    assert found.calls.buyer == Compared(len(known), len(known))
    assert len(before.differences) == len(back)
    assert {each.direction for each in before.differences} <= {OVER}


@pytest.mark.parametrize(
    ("reported", "known", "back", "found"),
    [
        ({1: 5}, {1: 5}, {1: 2}, [(0, DifferenceKind.CORRECTED_DIFFERS), (1, "usage")]),
        ({1: 5}, {1: 5}, {1: 5}, [(1, DifferenceKind.NOT_BILLED)]),
        ({1: 5}, {}, {1: 5}, []),
        ({1: 5, 2: 4}, {1: 3, 2: 4}, {1: 2}, []),
    ],
)
def test_what_is_taken_back_of_what_was_acknowledged_is_too_little(
    reported: dict[int, int],
    known: dict[int, int],
    back: dict[int, int],
    found: list[tuple[int, str]],
) -> None:
    read = corrected(reported, known, back)
    kinds = sorted((each.seq, each.kind.value) for each in read.differences)

    assert kinds == [(seq, "usage_differs" if kind == "usage" else kind) for seq, kind in found]
    assert {each.direction for each in read.differences} <= {UNDER}
    assert {each.fault for each in read.differences if each.kind == "not_billed"} <= {"taken_back"}
    assert read.is_within(0) is (not found)


@pytest.mark.parametrize(("given_back", "direction"), [(19, OVER), (21, UNDER)])
def test_the_price_of_what_was_taken_back_is_held_against_the_buyer_s_rating(
    given_back: int, direction: Direction
) -> None:
    found = corrected({1: 5, 2: 3, 3: 1}, {1: 4, 2: 2, 3: 1}, {1: 1, 2: 1}, given_back=given_back)

    (difference,) = found.differences
    assert (difference.seq, difference.kind) == (0, DifferenceKind.CORRECTED_DIFFERS)
    assert difference.direction is direction
    assert (difference.billed_units, difference.acknowledged_units) == (80 - given_back, 60)
    assert found.units.one == 90 - given_back
    assert found.meters["page"].buyer == Compared(7, 7)


def test_what_never_counted_is_not_touched_by_a_correction_of_another_call() -> None:
    back = TakenBack(calls={1: {"page": 10}}, units=100)

    found = reconcile([call(1), failed(2)], [], (), taken_back=back)

    assert found.differences == ()
    assert found.calls.platform == Compared()
