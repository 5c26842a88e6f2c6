"""Rate cards: what is read, what is refused and where, and that a card is its bytes."""

import copy
import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from farthing.protocol.canonical import Json, canonical_bytes, parse_json, sha256_hex
from farthing.protocol.rating.card import (
    CardError,
    CardFault,
    card_document,
    card_sha256,
    compile_card,
    parse_card,
)
from farthing.protocol.rating.rate import RatingCode
from tests.protocol.rating.cards import PAGES, card_documents

VECTORS = json.loads((files("farthing.spec") / "vectors" / "rating.json").read_bytes())


@given(card_documents())
def test_a_card_writes_back_the_document_it_was_read_from(document: dict[str, Any]) -> None:
    card = parse_card(document)

    assert card_document(card) == document
    assert card.card_sha256 == card_sha256(document) == sha256_hex(canonical_bytes(document))


def test_a_card_survives_its_own_bytes() -> None:
    assert parse_card(parse_json(canonical_bytes(PAGES))) == parse_card(PAGES)


@pytest.mark.parametrize("name", VECTORS["cards"])
def test_a_card_of_the_vectors_has_its_digest(name: str) -> None:
    vector = VECTORS["cards"][name]
    plain = json.dumps(vector["document"], sort_keys=True, separators=(",", ":"))

    assert parse_card(vector["document"]).card_sha256 == vector["card_sha256"]
    assert hashlib.sha256(plain.encode()).hexdigest() == vector["card_sha256"]


@pytest.mark.parametrize("vector", VECTORS["refused_cards"], ids=lambda vector: vector["name"])
def test_a_defective_card_of_the_vectors_is_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(CardError) as caught:
        parse_card(vector["document"])

    assert (caught.value.path, caught.value.reason) == (vector["path"], vector["reason"])


def test_the_vectors_show_every_fault() -> None:
    assert {vector["reason"] for vector in VECTORS["refused_cards"]} == set(CardFault)


def test_the_chapter_shows_a_card_of_the_vectors_and_names_every_fault() -> None:
    chapter = (Path(__file__).parents[3] / "spec" / "rating.md").read_text(encoding="utf-8")
    shown = chapter.split("```json\n")[1].split("```")[0]

    assert json.loads(shown) == VECTORS["cards"]["pages"]["document"]
    assert [fault for fault in (*CardFault, *RatingCode) if f"`{fault}`" not in chapter] == []


def changed(path: str, value: object) -> dict[str, Any]:
    document = copy.deepcopy(PAGES)
    *steps, last = (int(step) if step.isdigit() else step for step in path.split("."))
    place: Any = document
    for step in steps:
        place = place[step]
    place[last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("version", True, CardFault.WRONG_TYPE),
        ("version", "1", CardFault.WRONG_TYPE),
        ("version", 2**53, CardFault.INVALID_VERSION),
        ("rounding", ["floor"], CardFault.WRONG_TYPE),
        ("rounding", "HALF_EVEN", CardFault.UNKNOWN_VALUE),
        ("period", "month", CardFault.UNKNOWN_VALUE),
        ("card_id", "Pages", CardFault.INVALID_SLUG),
        ("card_id", "a" * 65, CardFault.INVALID_SLUG),
        ("card_id", "pages\n", CardFault.INVALID_SLUG),
        ("dimensions", {}, CardFault.WRONG_TYPE),
        ("dimensions", [PAGES["dimensions"][0]] * 65, CardFault.WRONG_COUNT),
        ("dimensions.0.unit", "page\u202e", CardFault.INVALID_TEXT),
        ("dimensions.0.unit", "pa\x00ge", CardFault.INVALID_TEXT),
        ("dimensions.0.unit", " page", CardFault.INVALID_TEXT),
        ("dimensions.0.unit", "\ud800", CardFault.INVALID_TEXT),
        ("dimensions.0.tiers.0.up_to", "0", CardFault.INVALID_QUANTITY),
        ("dimensions.0.tiers.0.up_to", "010", CardFault.INVALID_QUANTITY),
        ("dimensions.0.tiers.0.up_to", "1_0", CardFault.INVALID_QUANTITY),
        ("dimensions.0.tiers.0.up_to", "\u0661\u0662", CardFault.INVALID_QUANTITY),
        ("dimensions.0.tiers.0.up_to", "1000000000000001", CardFault.INVALID_QUANTITY),
        ("dimensions.0.tiers.0.up_to", 10, CardFault.WRONG_TYPE),
        ("dimensions.0.tiers.0.per_quantity", "0", CardFault.INVALID_QUANTITY),
        ("dimensions.0.tiers.0.per_quantity", "-1", CardFault.INVALID_QUANTITY),
        ("dimensions.0.tiers.0.amount", "0.10", CardFault.INVALID_AMOUNT),
        ("dimensions.0.tiers.0.amount", "-1", CardFault.INVALID_AMOUNT),
        ("dimensions.0.tiers.0.amount", "1e-3", CardFault.INVALID_AMOUNT),
        ("dimensions.0.tiers.0.amount", "NaN", CardFault.INVALID_AMOUNT),
        ("dimensions.0.tiers.0.amount", "0.0000000001", CardFault.INVALID_AMOUNT),
        ("dimensions.0.tiers.0.amount", "9223372036.854775808", CardFault.INVALID_AMOUNT),
        ("dimensions.0.tiers.0.amount", 1, CardFault.WRONG_TYPE),
    ],
)
def test_a_field_out_of_form_is_named(path: str, value: object, reason: CardFault) -> None:
    with pytest.raises(CardError) as caught:
        parse_card(changed(path, value))

    assert (caught.value.path, caught.value.reason) == (path, reason)


@pytest.mark.parametrize("document", [[], "card", 1, True])
def test_what_is_no_object_is_no_card(document: Json) -> None:
    with pytest.raises(CardError) as caught:
        parse_card(document)

    assert (caught.value.path, caught.value.reason) == ("", CardFault.WRONG_TYPE)


def test_a_per_unit_price_has_one_tier() -> None:
    with pytest.raises(CardError) as caught:
        parse_card(changed("dimensions.0.model", "per_unit"))

    assert (caught.value.path, caught.value.reason) == (
        "dimensions.0.tiers",
        CardFault.WRONG_COUNT,
    )


def test_two_readings_of_one_card_are_compiled_once() -> None:
    assert compile_card(parse_card(PAGES)) is compile_card(parse_card(copy.deepcopy(PAGES)))


def test_another_version_is_another_card() -> None:
    other = parse_card(changed("version", 2))

    assert other != parse_card(PAGES)
    assert other.card_sha256 != parse_card(PAGES).card_sha256
