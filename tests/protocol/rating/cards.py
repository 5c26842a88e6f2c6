"""Rate card documents for the tests of rating: one to read, and a strategy for all others."""

from itertools import accumulate
from typing import Any

from hypothesis import strategies as st

PAGES: dict[str, Any] = {
    "schema": "farthing-rate-card/1",
    "card_id": "pdf-text",
    "version": 1,
    "asset": "USD",
    "rounding": "half_even",
    "period": "agreement",
    "dimensions": [
        {
            "rule_id": "pages",
            "meter": "page",
            "unit": "page",
            "model": "graduated",
            "tiers": [
                {"up_to": "10", "amount": "0.001", "per_quantity": "1"},
                {"up_to": "100", "amount": "0.0007", "per_quantity": "1"},
                {"amount": "0.000000001", "per_quantity": "3"},
            ],
        },
    ],
}

METERS = ("character", "page", "pixel")
RULES = ("half_even", "half_up", "floor", "ceiling")


def amounts(places: int) -> st.SearchStrategy[str]:
    """Canonical decimals from zero up, most of them far finer than a cent."""

    def text(units: int) -> str:
        digits = str(units).rjust(places + 1, "0")
        return f"{digits[:-places]}.{digits[-places:]}".rstrip("0").rstrip(".")

    return st.one_of(st.integers(0, 12), st.integers(0, 10**7)).map(text)


@st.composite
def tiers(draw: st.DrawFn, places: int, count: int) -> list[dict[str, str]]:
    widths = draw(st.lists(st.integers(1, 60), min_size=count - 1, max_size=count - 1))
    prices = [
        {
            "amount": draw(amounts(places)),
            "per_quantity": str(draw(st.one_of(st.integers(1, 12), st.integers(1, 10**7)))),
        }
        for _ in range(count)
    ]
    for price, end in zip(prices, accumulate(widths), strict=False):
        price["up_to"] = str(end)
    return prices


@st.composite
def card_documents(draw: st.DrawFn) -> dict[str, Any]:
    asset = draw(st.sampled_from(["USD", "EUR", "JPY", "XTS"]))
    places = 6 if asset == "JPY" else 9
    dimensions = []
    for meter in draw(st.lists(st.sampled_from(METERS), min_size=1, unique=True)):
        model = draw(st.sampled_from(["per_unit", "graduated"]))
        count = 1 if model == "per_unit" else draw(st.integers(1, 4))
        dimensions.append(
            {
                "rule_id": f"{meter}-rule",
                "meter": meter,
                "unit": meter,
                "model": model,
                "tiers": draw(tiers(places, count)),
            }
        )
    return {
        "schema": "farthing-rate-card/1",
        "card_id": "any",
        "version": draw(st.integers(1, 2**53 - 1)),
        "asset": asset,
        "rounding": draw(st.sampled_from(RULES)),
        "period": "agreement",
        "dimensions": dimensions,
    }
