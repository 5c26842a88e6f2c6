"""Rating: equal to the oracle to the last unit, blind to how usage is cut, and explained."""

import copy
import json
from importlib.resources import files
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.protocol.canonical import canonical_bytes, parse_json
from farthing.protocol.money import INT64_MAX
from farthing.protocol.rating import (
    START,
    InvalidLine,
    Line,
    Portion,
    RateCard,
    RatingCode,
    RatingError,
    compile_card,
    line_document,
    parse_card,
    parse_line,
    rate,
)
from farthing.protocol.rating.card import QUANTITY_MAX
from tests.protocol.rating import oracle
from tests.protocol.rating.cards import METERS, PAGES, card_documents

VECTORS = json.loads((files("farthing.spec") / "vectors" / "rating.json").read_bytes())
QUANTITIES = st.one_of(st.integers(0, 200), st.integers(0, 10**6))
POSITIONS = st.dictionaries(st.sampled_from(METERS), QUANTITIES)


def meters_of(document: dict[str, Any]) -> list[str]:
    return [dimension["meter"] for dimension in document["dimensions"]]


def line(document: dict[str, Any], start: int, quantity: int) -> Line:
    (meter,) = meters_of(document)
    return rate(parse_card(document), {meter: start}, {meter: quantity}).lines[0]


def per_unit(amount: str, per_quantity: str, rounding: str = "half_even") -> dict[str, Any]:
    document = copy.deepcopy(PAGES)
    document["rounding"] = rounding
    document["dimensions"][0]["model"] = "per_unit"
    document["dimensions"][0]["tiers"] = [{"amount": amount, "per_quantity": per_quantity}]
    return document


def rerate(card: RateCard, line: Line) -> Line:
    """The line as the card has it."""
    return rate(card, {line.meter: line.from_quantity}, {line.meter: line.quantity}).lines[0]


@given(card_documents(), POSITIONS, st.data())
def test_a_rating_equals_the_oracle(
    document: dict[str, Any], position: dict[str, int], data: st.DataObject
) -> None:
    usage = data.draw(st.dictionaries(st.sampled_from(meters_of(document)), QUANTITIES))

    rating = rate(parse_card(document), position, usage)

    for each in rating.lines:
        start, end = each.from_quantity, each.to_quantity
        assert start == position.get(each.meter, 0)
        assert end == start + usage[each.meter]
        assert each.amount_units == oracle.line_units(document, each.meter, start, end)
        exact = oracle.exact_price(document, each.meter, end) - oracle.exact_price(
            document, each.meter, start
        )
        assert each.exact == exact.as_integer_ratio()
    assert [each.meter for each in rating.lines] == sorted(usage)
    assert rating.total_units == oracle.total_units(document, position, usage)
    assert rating.position_after == position | {
        meter: position.get(meter, 0) + quantity for meter, quantity in usage.items()
    }


@given(card_documents(), POSITIONS, st.lists(QUANTITIES, min_size=1, max_size=12), st.data())
def test_cutting_usage_in_pieces_never_changes_the_total(
    document: dict[str, Any], position: dict[str, int], pieces: list[int], data: st.DataObject
) -> None:
    card = parse_card(document)
    meter = data.draw(st.sampled_from(meters_of(document)))
    whole = rate(card, position, {meter: sum(pieces)})

    total_units, reached = 0, dict(position)
    for piece in pieces:
        step = rate(card, reached, {meter: piece})
        total_units += step.total_units
        reached = step.position_after

    assert (total_units, reached) == (whole.total_units, whole.position_after)


@given(card_documents(), POSITIONS, QUANTITIES, QUANTITIES, st.data())
def test_a_hold_for_the_most_covers_every_capture_from_the_same_position(
    document: dict[str, Any], position: dict[str, int], one: int, two: int, data: st.DataObject
) -> None:
    card = parse_card(document)
    meter = data.draw(st.sampled_from(meters_of(document)))
    used, most = sorted((one, two))

    held_units = rate(card, position, {meter: most}).total_units

    assert 0 <= rate(card, position, {meter: used}).total_units <= held_units


@given(card_documents(), POSITIONS, st.data())
def test_a_line_survives_its_document_and_rates_to_itself(
    document: dict[str, Any], position: dict[str, int], data: st.DataObject
) -> None:
    card = parse_card(document)
    usage = data.draw(st.dictionaries(st.sampled_from(meters_of(document)), QUANTITIES))

    for each in rate(card, position, usage).lines:
        assert parse_line(parse_json(canonical_bytes(line_document(each)))) == each
        assert rerate(card, each) == each


@given(card_documents(), POSITIONS, st.data())
def test_a_compiled_card_rates_like_the_card(
    document: dict[str, Any], position: dict[str, int], data: st.DataObject
) -> None:
    usage = data.draw(st.dictionaries(st.sampled_from(meters_of(document)), QUANTITIES))
    card = parse_card(document)

    assert rate(compile_card(card), position, usage) == rate(card, position, usage)


@pytest.mark.parametrize("vector", VECTORS["ratings"], ids=lambda vector: vector["name"])
def test_a_rating_of_the_vectors_comes_out_as_written(vector: dict[str, Any]) -> None:
    document = VECTORS["cards"][vector["card"]]["document"]
    position = {meter: int(quantity) for meter, quantity in vector["position"].items()}
    usage = {meter: int(quantity) for meter, quantity in vector["usage"].items()}

    rating = rate(parse_card(document), position, usage)

    assert [line_document(each) for each in rating.lines] == vector["lines"]
    assert str(rating.total_units) == vector["total_units"]
    assert rating.total_units == oracle.total_units(document, position, usage)
    assert rating.position_after == {
        meter: int(quantity) for meter, quantity in vector["position_after"].items()
    }


@pytest.mark.parametrize("vector", VECTORS["refused_ratings"], ids=lambda vector: vector["name"])
def test_usage_that_cannot_be_rated_is_refused_by_code(vector: dict[str, Any]) -> None:
    card = parse_card(VECTORS["cards"][vector["card"]]["document"])
    position = {meter: int(quantity) for meter, quantity in vector["position"].items()}
    usage = {meter: int(quantity) for meter, quantity in vector["usage"].items()}

    with pytest.raises(RatingError) as caught:
        rate(card, position, usage)

    assert (caught.value.code, caught.value.meter) == (vector["code"], vector["meter"])


def test_a_meter_without_a_price_is_named_in_words() -> None:
    with pytest.raises(RatingError, match=r"^The rate card has no price for the meter pages\.$"):
        rate(parse_card(PAGES), {}, {"pages": 1})


def test_the_vectors_show_every_code() -> None:
    assert {vector["code"] for vector in VECTORS["refused_ratings"]} == set(RatingCode)


@pytest.mark.parametrize("vector", VECTORS["refused_lines"], ids=lambda vector: vector["name"])
def test_a_line_that_does_not_add_up_is_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(InvalidLine):
        parse_line(vector["line"])


@pytest.mark.parametrize("value", [True, -1, QUANTITY_MAX + 1, "3", 3.0, None])
def test_what_is_no_quantity_is_refused_in_usage_and_position(value: object) -> None:
    card, quantity = parse_card(PAGES), cast("int", value)

    for position, usage in (({}, {"page": quantity}), ({"page": quantity}, {"page": 1})):
        with pytest.raises(RatingError) as caught:
            rate(card, position, usage)
        assert caught.value.code is RatingCode.INVALID_QUANTITY


def test_usage_at_the_very_end_of_the_range_is_rated() -> None:
    free = per_unit("0", "1")

    assert line(free, QUANTITY_MAX - 1, 1).portions == (
        Portion(QUANTITY_MAX - 1, QUANTITY_MAX, 0, 1),
    )
    assert line(free, QUANTITY_MAX, 0).portions == ()


def test_a_million_tiny_calls_cost_what_they_are_worth_together() -> None:
    document = per_unit("0.000000002", "5")  # 0.4 units each
    card = compile_card(parse_card(document))

    total_units = sum(
        rate(card, {"page": done}, {"page": 1}).total_units for done in range(100_000)
    )

    assert total_units == 40_000


@pytest.mark.parametrize(
    ("rounding", "steps"),
    [
        ("half_even", [0, 1, 1, 0, 0]),
        ("half_up", [1, 0, 1, 0, 1]),
        ("floor", [0, 1, 0, 1, 0]),
        ("ceiling", [1, 0, 1, 0, 1]),
    ],
)
def test_the_card_says_where_a_half_goes(rounding: str, steps: list[int]) -> None:
    document = per_unit("0.000000001", "2", rounding)  # half a unit each

    assert [line(document, done, 1).amount_units for done in range(5)] == steps


@pytest.mark.parametrize(
    ("start", "quantity", "touched"),
    [
        (0, 10, [(0, 10)]),
        (0, 11, [(0, 10), (10, 11)]),
        (9, 1, [(9, 10)]),
        (10, 1, [(10, 11)]),
        (10, 0, []),
        (5, 200, [(5, 10), (10, 100), (100, 205)]),
        (100, 1, [(100, 101)]),
    ],
)
def test_a_line_names_each_tier_it_touches(
    start: int, quantity: int, touched: list[tuple[int, int]]
) -> None:
    portions = line(PAGES, start, quantity).portions

    assert [(portion.from_quantity, portion.to_quantity) for portion in portions] == touched


def test_an_amount_may_reach_the_end_of_int64_and_no_further() -> None:
    document = per_unit("9223372036.854775807", "2")

    assert line(document, 0, 2).amount_units == INT64_MAX
    for start, quantity in ((0, 3), (2, 1)):
        with pytest.raises(RatingError) as caught:
            line(document, start, quantity)
        assert caught.value.code is RatingCode.AMOUNT_OVERFLOW


def test_no_usage_costs_nothing_and_leaves_the_position() -> None:
    rating = rate(parse_card(PAGES), {"page": 3}, {})

    assert (rating.lines, rating.total_units, rating.position_after) == ((), 0, {"page": 3})


def test_a_position_is_read_and_never_written() -> None:
    position = {"page": 1, "of-another-card": 7}

    rating = rate(parse_card(PAGES), position, {"page": 2})

    assert position == {"page": 1, "of-another-card": 7}
    assert rating.position_after == {"page": 3, "of-another-card": 7}
    assert START == {}


@pytest.mark.parametrize("amount_units", [5_999_999, 6_000_001, 0])
def test_a_line_charged_wrongly_differs_from_the_card(amount_units: int) -> None:
    wrong = line(PAGES, 4, 6)._replace(amount_units=amount_units)

    assert rerate(parse_card(PAGES), wrong) == line(PAGES, 4, 6) != wrong


def test_a_line_of_another_card_differs_from_this_one() -> None:
    other = line({**copy.deepcopy(PAGES), "version": 2}, 4, 6)

    assert rerate(parse_card(PAGES), other) != other
