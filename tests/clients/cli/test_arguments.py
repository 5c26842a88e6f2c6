"""What is typed is read exactly, or is a usage error before anything is sent."""

from pathlib import Path

import pytest
import typer

from farthing.clients.cli.arguments import calls_of, money_of, object_of, time_of, workload_of
from farthing.protocol.wire import Money, Usage


def test_what_calls_used_too_much_is_gathered_by_call_and_meter() -> None:
    typed = ["17:page=2", "3:page=1", "17:word=40"]
    assert calls_of(typed) == {17: {"page": 2, "word": 40}, 3: {"page": 1}}


@pytest.mark.parametrize(
    "typed", ["17", "17:page", "0:page=1", "17:page=0", "17:page=-1", "x:page=1", "17:Page=1", ""]
)
def test_what_says_nothing_of_a_call_is_a_usage_error(typed: str) -> None:
    with pytest.raises(typer.BadParameter):
        calls_of([typed])


@pytest.mark.parametrize(
    ("typed", "amount"),
    [("5.00", "5"), ("0.050", "0.05"), ("100", "100"), ("0", "0"), ("0.0", "0")],
)
def test_an_amount_is_canonical_text(typed: str, amount: str) -> None:
    assert money_of(typed, "USD") == Money(amount=amount, asset="USD")


@pytest.mark.parametrize(
    ("typed", "asset", "says"),
    [
        ("1e3", "USD", "is written as"),
        ("-1", "USD", "no sign"),
        ("", "USD", "is written as"),
        (".5", "USD", "is written as"),
        ("1,5", "USD", "is written as"),
        ("01", "USD", "is written as"),
        ("NaN", "USD", "is written as"),
        ("0.0000000001", "USD", "The smallest amount is 0.000000001 USD"),
        ("99999999999999999999", "USD", "is written as"),
        ("9223372037", "USD", "The largest amount is 9223372036.854775807 USD"),
        ("1", "usd", "one of USD, EUR"),
        ("1", "GBP", "one of USD, EUR"),
    ],
)
def test_what_is_no_amount_is_a_usage_error(typed: str, asset: str, says: str) -> None:
    with pytest.raises(typer.BadParameter, match=says):
        money_of(typed, asset)


def test_a_workload_names_its_meters() -> None:
    assert workload_of(["page=030", "ocr.page=1"]) == (
        Usage(meter="page", quantity="30"),
        Usage(meter="ocr.page", quantity="1"),
    )


@pytest.mark.parametrize(
    "pair", ["page", "page=", "=3", "page=-1", "page=1.5", "page=²", "page=٣", "page=" + "9" * 5000]
)
def test_what_is_no_workload_is_a_usage_error(pair: str) -> None:
    with pytest.raises(typer.BadParameter):
        workload_of([pair])


def test_an_object_comes_from_the_words_or_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "ask.json"
    file.write_text('{"a": [1]}', encoding="utf-8")

    assert object_of('{"a": [1]}', "JSON") == object_of(f"@{file}", "JSON") == {"a": [1]}


@pytest.mark.parametrize(
    "text", ["", "[]", "1", '{"a": 0.5}', '{"a": null}', '{"a": 1, "a": 2}', "@/nonexistent"]
)
def test_what_is_no_object_of_the_protocol_is_a_usage_error(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        object_of(text, "JSON")


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("", ""),
        ("2026-11-21", "2026-11-21T00:00:00.000000Z"),
        ("2026-11-21T09:30:00Z", "2026-11-21T09:30:00.000000Z"),
        ("2026-11-21T09:30:00.5+02:00", "2026-11-21T07:30:00.500000Z"),
    ],
)
def test_a_time_is_typed_as_people_write_it(typed: str, sent: str) -> None:
    assert time_of(typed) == sent


@pytest.mark.parametrize("typed", ["yesterday", "2026-11-21T09:30:00", "2026-02-30", "0001-01-01T"])
def test_what_is_no_time_is_said_before_anything_is_sent(typed: str) -> None:
    with pytest.raises(typer.BadParameter):
        time_of(typed)
