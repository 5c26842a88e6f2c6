"""Meters are read as they were declared, and the least price is never above the real one."""

import inspect
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.clients.metering import Meters, least_units
from farthing.protocol.rating import parse_card, rate
from tests.protocol.rating.cards import PAGES

CARD = parse_card({
    **PAGES,
    "dimensions": [
        {
            "rule_id": "pages",
            "meter": "page",
            "unit": "page",
            "model": "graduated",
            "tiers": [
                {"up_to": "10", "amount": "0.000000007", "per_quantity": "3"},
                {"up_to": "20", "amount": "0.000000001", "per_quantity": "2"},
                {"amount": "0.000000009", "per_quantity": "2"},
            ],
        },
        {
            "rule_id": "calls",
            "meter": "call",
            "unit": "call",
            "model": "per_unit",
            "tiers": [{"amount": "0.001", "per_quantity": "1"}],
        },
    ],
})  # fmt: skip


def tool(pages: list[int], title: str) -> str:
    return f"{title}{pages}"


def meters(**readers: Any) -> Meters:
    return Meters(readers, inspect.signature(tool), CARD)


def test_meters_are_read_from_arguments_results_and_nothing() -> None:
    before = meters(page=lambda pages: len(pages), call=1)  # noqa: PLW0108 # the name is the point
    after = meters(page=lambda title, result: len(title) + len(result), call=1)

    assert before.before({"pages": [1, 2], "title": "x"}) == {"page": 2, "call": 1}
    assert after.before({"pages": [1, 2], "title": "x"}) is None
    assert after.after({"pages": [], "title": "abc"}, "four") == {"page": 7, "call": 1}
    assert (before.fixed(), meters(page=2, call=1).fixed()) == (None, {"page": 2, "call": 1})
    assert before.smallest() == {"page": 1, "call": 1}


@pytest.mark.parametrize("quantity", [-1, 1.0, "1", None, True])
def test_what_is_no_quantity_is_not_charged_for(quantity: Any) -> None:
    with pytest.raises(ValueError, match="meter 'page'"):
        meters(page=lambda: quantity, call=1).after({}, None)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 10))
def test_the_least_price_holds_from_every_position(start: int, pages: int, calls: int) -> None:
    usage = {"page": pages, "call": calls}

    assert least_units(CARD, usage) <= rate(CARD, {"page": start}, usage).total_units
