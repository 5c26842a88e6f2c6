"""An instant has one spelling, and a day is a UTC day."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.protocol.times import DAY_US, SECOND_US, format_time, parse_time, utc_day

FIRST_US = -62_135_596_800 * SECOND_US
LAST_US = 253_402_300_800 * SECOND_US - 1
INSTANTS = st.integers(FIRST_US, LAST_US)


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1, "1970-01-01T00:00:00.000001Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (1_785_000_000_123_456, "2026-07-25T17:20:00.123456Z"),
        (951_782_400 * SECOND_US, "2000-02-29T00:00:00.000000Z"),
        (FIRST_US, "0001-01-01T00:00:00.000000Z"),
        (LAST_US, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_an_instant_and_its_text_are_two_names_of_one_thing(us: int, text: str) -> None:
    assert format_time(us) == text
    assert parse_time(text) == us


@given(INSTANTS)
def test_every_instant_survives_the_wire(us: int) -> None:
    assert parse_time(format_time(us)) == us


@given(INSTANTS, INSTANTS)
def test_texts_sort_as_instants_do(one: int, other: int) -> None:
    assert (format_time(one) < format_time(other)) == (one < other)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-07-25",
        "2026-07-25T17:20:00Z",
        "2026-07-25T17:20:00.123Z",
        "2026-07-25T17:20:00.1234567Z",
        "2026-07-25T17:20:00.123456",
        "2026-07-25T17:20:00.123456+00:00",
        "2026-07-25T17:20:00.123456-00:00",
        "2026-07-25T19:20:00.123456+02:00",
        "2026-07-25t17:20:00.123456z",
        "2026-07-25 17:20:00.123456Z",
        "2026-07-25T17:20:00,123456Z",
        "2026-7-25T17:20:00.123456Z",
        "20260725T172000.123456Z",
        "2026-07-25T17:20:00.123456Z\n",
        " 2026-07-25T17:20:00.123456Z",
        "2026-07-25T17:20:60.000000Z",
        "2026-07-25T24:00:00.000000Z",
        "2026-02-29T00:00:00.000000Z",
        "2026-13-01T00:00:00.000000Z",
        "2026-00-01T00:00:00.000000Z",
        "0000-01-01T00:00:00.000000Z",
        "-026-07-25T17:20:00.123456Z",
        "2026-07-25T17:20:00.12345١Z",  # noqa: RUF001 - a digit beyond ASCII is the point
    ],
)
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_time(text)


@pytest.mark.parametrize("us", [FIRST_US - 1, LAST_US + 1, 2**63 - 1, -(10**30)])
def test_an_instant_without_a_four_digit_year_has_no_text(us: int) -> None:
    with pytest.raises(ValueError):
        format_time(us)
    with pytest.raises(ValueError):
        utc_day(us)


@pytest.mark.parametrize(
    ("us", "day"),
    [
        (0, "1970-01-01"),
        (DAY_US - 1, "1970-01-01"),
        (DAY_US, "1970-01-02"),
        (-1, "1969-12-31"),
        (1_785_000_000_123_456, "2026-07-25"),
    ],
)
def test_a_day_begins_at_midnight_utc(us: int, day: str) -> None:
    assert utc_day(us) == day
