"""Rate cards of a simulated market, and what is used by them: one to three meters, every rounding.

Boundary: draws documents from the chance it is handed. What they cost is for others to say.
"""

from random import Random
from typing import Any, Final

from farthing.protocol.canonical import Json
from tests.papers import card_document

__all__ = ["METERS", "UNKNOWN", "drawn_card", "is_plain", "meters_of", "some_of"]

METERS: Final = ("page", "second", "word")
# No card has a price for it.
UNKNOWN: Final = "token"
_ROUNDINGS: Final = ("half_even", "half_even", "half_up", "floor", "ceiling")
_PLAIN: Final[tuple[tuple[dict[str, Json], ...], ...]] = (
    ({"amount": "0.002", "per_quantity": "1"},),
    ({"amount": "0.000003", "per_quantity": "1"},),
    ({"amount": "0.15", "per_quantity": "1"},),
)
_TIERS: Final[tuple[tuple[dict[str, Json], ...], ...]] = (
    (
        {"up_to": "10", "amount": "0.002", "per_quantity": "1"},
        {"amount": "0.0015", "per_quantity": "1"},
    ),
    ({"amount": "0.0004", "per_quantity": "7"},),
    (
        {"up_to": "3", "amount": "0", "per_quantity": "1"},
        {"up_to": "20", "amount": "1.000001", "per_quantity": "3"},
        {"amount": "0.9", "per_quantity": "1"},
    ),
    ({"amount": "0.000001", "per_quantity": "3"},),
)


def drawn_card(chance: Random, asset: str) -> dict[str, Json]:
    """A card that prices pages, and mostly more; a third of them in whole units alone."""
    prices = _PLAIN if chance.random() < 0.35 else (*_TIERS, *_PLAIN[:2])
    meters = ["page", *chance.sample(METERS[1:], chance.choice((0, 1, 1, 2)))]
    chance.shuffle(meters)
    card = card_document(asset=asset, version=chance.randint(1, 3))
    dimensions: list[Json] = []
    for meter in meters:
        tiers = chance.choice(prices)
        model = "graduated" if len(tiers) > 1 else "per_unit"
        named: dict[str, Json] = {"rule_id": f"by-{meter}", "meter": meter, "unit": meter}
        dimensions.append({**named, "model": model, "tiers": list(tiers)})
    return {**card, "rounding": chance.choice(_ROUNDINGS), "dimensions": dimensions}


def meters_of(card: dict[str, Any]) -> tuple[str, ...]:
    """What a card has a price for."""
    return tuple(each["meter"] for each in card["dimensions"])


def is_plain(card: dict[str, Any]) -> bool:
    """Whether every unit has one whole price, whatever was used before."""
    tiers = [each["tiers"] for each in card["dimensions"]]
    return all(len(each) == 1 and each[0]["per_quantity"] == "1" for each in tiers)


def some_of(chance: Random, card: dict[str, Any], pages: int) -> dict[str, int]:
    """So many pages, and at times some of the other meters; now and then no pages."""
    used = {"page": pages}
    for meter in meters_of(card):
        if meter != "page" and chance.random() < 0.75:
            used[meter] = chance.choice((0, 1, 2, 2, 5, 40))
    if len(used) > 1 and chance.random() < 0.15:
        del used["page"]
    return used
