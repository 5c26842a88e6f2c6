"""Rating that goes on gives what rating at once gives, however the usage is cut."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.protocol.money import INT64_MAX
from farthing.protocol.rating import (
    START,
    CompiledCard,
    Position,
    RateCard,
    RatingCode,
    RatingError,
    compile_card,
    parse_card,
    rate,
)
from farthing.protocol.rating.card import QUANTITY_MAX
from farthing.protocol.rating.running import Running
from tests.protocol.rating.cards import METERS, PAGES, card_documents

QUANTITIES = st.one_of(st.integers(0, 200), st.integers(0, 10**6))
EDGES = st.sampled_from((-1, 0, 1, QUANTITY_MAX // 2, QUANTITY_MAX, QUANTITY_MAX + 1, True))
USAGES = st.dictionaries(st.sampled_from((*METERS, "unheard")), QUANTITIES | EDGES, max_size=3)
POSITIONS = st.dictionaries(st.sampled_from((*METERS, "unheard")), QUANTITIES)


def rated(
    card: CompiledCard, position: Position, usage: dict[str, int]
) -> tuple[int, Position] | tuple[RatingCode, str, str]:
    try:
        rating = rate(card, position, usage)
    except RatingError as error:
        return error.code, error.meter, "refused"
    return rating.total_units, rating.position_after


def priced(running: Running, usage: dict[str, int]) -> tuple[int] | tuple[RatingCode, str, str]:
    try:
        return (running.price(usage),)
    except RatingError as error:
        return error.code, error.meter, "refused"


def at_one_price(amount: str) -> RateCard:
    document = copy.deepcopy(PAGES)
    document["dimensions"][0] |= {
        "meter": "page",
        "model": "per_unit",
        "tiers": [{"amount": amount, "per_quantity": "1"}],
    }
    return parse_card(document)


@given(card_documents(), POSITIONS | st.dictionaries(st.sampled_from(METERS), EDGES), st.data())
def test_every_step_is_what_rating_gives_errors_included(
    document: dict[str, Any], position: dict[str, int], data: st.DataObject
) -> None:
    card = compile_card(parse_card(document))
    running = Running(card, position)
    reached: Position = dict(position)
    for usage in data.draw(st.lists(USAGES, max_size=12)):
        expected = rated(card, reached, usage)
        assert priced(running, usage) == (expected[:1] if len(expected) == 2 else expected)
        if data.draw(st.booleans()):
            running.take()
            reached = expected[1] if isinstance(expected[1], dict) else reached
        assert running.position == reached


@given(card_documents(), POSITIONS, st.data())
def test_any_split_and_merge_comes_to_the_same_sum(
    document: dict[str, Any], position: dict[str, int], data: st.DataObject
) -> None:
    card = parse_card(document)
    meters = [each.meter for each in card.dimensions]
    parts = data.draw(st.lists(st.dictionaries(st.sampled_from(meters), QUANTITIES), max_size=20))
    whole: dict[str, int] = {}
    for part in parts:
        for meter, quantity in part.items():
            whole[meter] = whole.get(meter, 0) + quantity

    running = Running(card, position)
    total_units = 0
    for part in data.draw(st.permutations(parts)):
        total_units += running.price(part)
        running.take()

    rating = rate(card, position, whole)
    assert (total_units, running.position) == (rating.total_units, rating.position_after)


@given(card_documents(), POSITIONS, st.data())
def test_many_at_once_cost_what_they_cost_one_by_one(
    document: dict[str, Any], position: dict[str, int], data: st.DataObject
) -> None:
    card = compile_card(parse_card(document))
    meters = data.draw(st.sets(st.sampled_from((*METERS, "unheard")), min_size=1, max_size=3))
    count = data.draw(st.integers(1, 8))
    column = st.lists(
        QUANTITIES | st.sampled_from((QUANTITY_MAX // 2, QUANTITY_MAX, QUANTITY_MAX + 1)),
        min_size=count,
        max_size=count,
    )
    usage = {meter: data.draw(column) for meter in sorted(meters)}
    one_by_one, at_once = Running(card, position), Running(card, position)
    amounts: list[int] = []
    for place in range(count):
        step = priced(one_by_one, {meter: each[place] for meter, each in usage.items()})
        if len(step) > 1:
            break
        amounts.append(step[0])
        one_by_one.take()
    try:
        given_at_once: list[int] | None = at_once.take_all(usage)
    except RatingError:
        given_at_once = None
        assert at_once.position == position
    else:
        assert at_once.position == one_by_one.position
    assert given_at_once == (amounts if len(amounts) == count else None)


def test_what_was_priced_and_not_taken_leaves_no_trace() -> None:
    running = Running(at_one_price("0.0004"), START)
    assert running.price({"page": 7}) == running.price({"page": 7}) == 2_800_000
    assert running.position == {}
    running.take()
    running.take()
    assert running.position == {"page": 7}


def test_splitting_is_no_way_around_an_overflow() -> None:
    running = Running(at_one_price("9000000000"), START)
    assert running.price({"page": 1}) == 9 * 10**18 <= INT64_MAX
    running.take()
    with pytest.raises(RatingError) as refused:
        running.price({"page": 1})
    assert refused.value.code is RatingCode.AMOUNT_OVERFLOW
