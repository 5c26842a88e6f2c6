"""The published schema of rate cards takes every card of the vectors and refuses what it can say.

What a schema cannot say stays with the reader: that tiers rise and only the last is open, that no
meter stands twice, that a character can be seen.
"""

import json
from importlib.resources import files
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from farthing.protocol.money import ASSETS, Rounding
from tests.catalog.corpus import CORPUS, publication
from tests.protocol.vectors import vectors

VECTORS = vectors("rating")
DOCUMENT = json.loads((files("farthing.spec") / "schemas" / "rate-card.schema.json").read_bytes())
SCHEMA = Draft202012Validator(DOCUMENT)
BEYOND_A_SCHEMA = {
    "a tier in the middle without end",
    "a unit that cannot be shown",
    "two rules of one name",
    "two prices of one meter",
    "a tier that ends before it begins",
    "a last tier that ends",
}


def test_every_card_of_vectors_and_corpus_keeps_the_schema() -> None:
    documents = [card["document"] for card in VECTORS["cards"].values()]
    documents += [publication(row).rate_card for row in CORPUS]
    assert all(SCHEMA.is_valid(document) for document in documents)


@pytest.mark.parametrize(
    "vector",
    [each for each in VECTORS["refused_cards"] if each["name"] not in BEYOND_A_SCHEMA],
    ids=lambda vector: vector["name"],
)
def test_a_defective_card_does_not_keep_it(vector: dict[str, Any]) -> None:
    assert not SCHEMA.is_valid(vector["document"])


def test_what_is_beyond_a_schema_is_in_the_vectors() -> None:
    assert {each["name"] for each in VECTORS["refused_cards"]} >= BEYOND_A_SCHEMA


def test_the_schema_knows_every_asset_and_rounding_rule() -> None:
    assert set(DOCUMENT["properties"]["asset"]["enum"]) == set(ASSETS)
    assert set(DOCUMENT["properties"]["rounding"]["enum"]) == {rule.value for rule in Rounding}
