"""Every number of a session is taken once, in whatever order, as far as the window reaches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.protocol.sequences import WINDOW, Window
from farthing.protocol.usage import UsageFault


def taken(*numbers: int) -> Window:
    window = Window()
    for number in numbers:
        after = window.take(number)
        assert after is not None
        window = after
    return window


near = st.integers(-3, 3 * WINDOW)
edges = st.sampled_from((1, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW, 2 * WINDOW + 1))


@given(st.lists(near | edges, max_size=80))
def test_a_window_takes_what_a_set_of_all_numbers_would(numbers: list[int]) -> None:
    window, seen, top = Window(), set[int](), 0
    for number in numbers:
        is_near = max(1, top - WINDOW + 1) <= number <= top + WINDOW
        fault = window.fault(number)
        if not is_near:
            assert fault is UsageFault.OUT_OF_WINDOW
        elif number in seen:
            assert fault is UsageFault.DUPLICATE
        else:
            assert fault is None
        after = window.take(number)
        assert (after is None) == (fault is not None)
        if after is not None:
            window, top = after, max(top, number)
            seen.add(number)
        assert window.top == top
        assert Window.of(window.top, window.text) == window


@given(st.permutations(range(1, 65)))
def test_calls_in_flight_land_in_any_order(numbers: list[int]) -> None:
    assert taken(*numbers) == Window(64, 2**64 - 1)


@given(st.integers(0, 2 * WINDOW), st.integers(1, 40), st.lists(st.integers(-5, 5), max_size=4))
def test_a_batch_of_numbers_is_taken_as_one_after_the_other(
    top: int, count: int, jumps: list[int]
) -> None:
    start = Window(top, 1 if top else 0)
    numbers = (*range(top + 1, top + count + 1), *(top + count + jump for jump in jumps))
    window: Window | None = start
    for number in numbers:
        window = window.take(number) if window else None
    assert start.take_all(numbers) == window


def test_a_number_is_refused_where_the_window_ends() -> None:
    window = taken(WINDOW, 2 * WINDOW)
    assert window.fault(WINDOW) is UsageFault.OUT_OF_WINDOW
    assert window.fault(WINDOW + 1) is None
    assert window.fault(3 * WINDOW) is None
    assert window.fault(3 * WINDOW + 1) is UsageFault.OUT_OF_WINDOW


@pytest.mark.parametrize(
    ("top", "text"),
    [
        (0, "1"),  # number 0
        (1, "3"),  # number 0 as well
        (1, "2"),  # the highest number taken is not taken
        (1, "0"),
        (1, "01"),
        (1, ""),
        (1, "0x1"),
        (5, "1F"),
        (5, "1_1"),
        (5, " 1"),
        (-1, "0"),
        (2 * WINDOW, "1" + "0" * (WINDOW // 4 - 1) + "1"),
    ],
)
def test_a_document_that_holds_no_window_is_refused(top: int, text: str) -> None:
    with pytest.raises(ValueError, match=r"window|literal"):
        Window.of(top, text)
