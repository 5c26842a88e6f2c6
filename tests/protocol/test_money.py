"""Amounts have one spelling, and rounding follows its rule to the unit."""

from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.protocol.money import (
    ASSETS,
    INT64_MAX,
    PPM,
    AmountFault,
    InvalidAmount,
    Rounding,
    divide,
    format_units,
    parse_units,
    share_ppm,
)
from tests.protocol.vectors import vectors

VECTORS = vectors("money")
DECIMAL_RULES = {
    Rounding.HALF_EVEN: ROUND_HALF_EVEN,
    Rounding.HALF_UP: ROUND_HALF_UP,
    Rounding.FLOOR: ROUND_FLOOR,
    Rounding.CEILING: ROUND_CEILING,
}
CODES = st.sampled_from(sorted(ASSETS))


def test_the_assets_are_those_of_the_vectors() -> None:
    assert {code: asset.scale for code, asset in ASSETS.items()} == VECTORS["assets"]
    assert all(asset.code == code for code, asset in ASSETS.items())


def test_the_table_of_assets_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        ASSETS["GBP"] = ASSETS["USD"]  # type: ignore[index]


@pytest.mark.parametrize("case", VECTORS["amounts"])
def test_an_amount_and_its_units_are_two_names_of_one_thing(case: dict[str, str]) -> None:
    assert parse_units(case["amount"], case["asset"]) == int(case["units"])
    assert format_units(int(case["units"]), case["asset"]) == case["amount"]


@pytest.mark.parametrize("case", VECTORS["refused"])
def test_any_other_text_is_refused_for_its_reason(case: dict[str, str]) -> None:
    with pytest.raises(InvalidAmount) as refused:
        parse_units(case["amount"], case["asset"])
    assert refused.value.reason == case["reason"]


@pytest.mark.parametrize("case", VECTORS["debts"])
def test_a_debt_is_written_with_a_minus_sign_and_never_read(case: dict[str, str]) -> None:
    assert format_units(int(case["units"]), case["asset"]) == case["amount"]
    with pytest.raises(InvalidAmount):
        parse_units(case["amount"], case["asset"])


def test_units_of_an_unknown_asset_have_no_text() -> None:
    with pytest.raises(InvalidAmount) as refused:
        format_units(1, "BTC")
    assert refused.value.reason is AmountFault.UNKNOWN_ASSET


@given(st.integers(0, INT64_MAX), CODES)
def test_every_amount_survives_the_wire(units: int, asset: str) -> None:
    text = format_units(units, asset)
    assert parse_units(text, asset) == units
    assert Decimal(text).scaleb(ASSETS[asset].scale) == units


@given(st.text(alphabet="0123456789.-+eE_ ", max_size=24), CODES)
def test_whatever_is_read_is_written_as_it_was(text: str, asset: str) -> None:
    try:
        units = parse_units(text, asset)
    except InvalidAmount:
        return
    assert format_units(units, asset) == text


@pytest.mark.parametrize("case", VECTORS["divisions"])
@pytest.mark.parametrize("rule", Rounding)
def test_a_division_is_rounded_by_its_rule(case: dict[str, str], rule: Rounding) -> None:
    assert divide(int(case["numerator"]), int(case["denominator"]), rule) == int(case[rule])


@given(st.integers(-(2**70), 2**70), st.integers(1, 2**40), st.sampled_from(Rounding))
def test_rounding_agrees_with_decimal_arithmetic(
    numerator: int, denominator: int, rule: Rounding
) -> None:
    # Decimal cannot hold every quotient, so that it is given the whole part and where in the
    # interval of the remainder the rest lies: below, at or above the middle.
    whole, remainder = divmod(numerator, denominator)
    side = Decimal((2 * remainder > denominator) - (2 * remainder < denominator))
    rest = Decimal(0) if remainder == 0 else Decimal("0.5") + side * Decimal("0.25")
    expected = (Decimal(whole) + rest).to_integral_value(rounding=DECIMAL_RULES[rule])
    assert divide(numerator, denominator, rule) == expected


@given(st.integers(-(2**70), 2**70), st.integers(1, 2**40), st.sampled_from(Rounding))
def test_rounding_moves_less_than_one_unit(
    numerator: int, denominator: int, rule: Rounding
) -> None:
    moved = divide(numerator, denominator, rule) - Fraction(numerator, denominator)
    assert abs(moved) < 1
    if rule in {Rounding.HALF_EVEN, Rounding.HALF_UP}:
        assert abs(moved) <= Fraction(1, 2)


@given(st.integers(0, 2**70), st.integers(1, 2**40))
def test_a_credit_undoes_its_charge_to_the_unit(numerator: int, denominator: int) -> None:
    for rule in (Rounding.HALF_EVEN, Rounding.HALF_UP):
        assert divide(-numerator, denominator, rule) == -divide(numerator, denominator, rule)


@pytest.mark.parametrize("denominator", [0, -1])
def test_a_denominator_that_is_not_positive_is_refused(denominator: int) -> None:
    with pytest.raises(ValueError):
        divide(1, denominator, Rounding.FLOOR)


@pytest.mark.parametrize("case", VECTORS["shares"])
def test_a_share_is_rounded_half_even(case: dict[str, Any]) -> None:
    assert share_ppm(int(case["units"]), case["ppm"]) == int(case["share"])


@given(st.integers(0, INT64_MAX), st.integers(0, PPM))
def test_a_share_and_its_rest_differ_from_the_whole_by_a_unit_at_most(units: int, ppm: int) -> None:
    assert abs(share_ppm(units, ppm) + share_ppm(units, PPM - ppm) - units) <= 1
