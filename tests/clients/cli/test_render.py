"""What comes over the wire is shown, never obeyed."""

import io
import json
from dataclasses import dataclass

import pytest
from rich.console import Console

from farthing.clients.cli.render import (
    as_json,
    clean,
    facts,
    page,
    percent,
    shown_refusal,
    table,
    vendor_words,
)
from farthing.protocol.errors import Code, NextAction, Refusal, Refused, refuse
from farthing.protocol.messages.accounts import Funding
from farthing.protocol.messages.payments import TopUps
from farthing.protocol.wire import Money


def screen() -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=200, markup=False, emoji=False)
    return console, out


HOSTILE = {
    "an escape sequence": ("\x1b[2Jgone", "\ufffd[2Jgone"),
    "a carriage return": ("100 USD\r1 USD", "100 USD 1 USD"),
    "a backspace": ("9\x08", "9\ufffd"),
    "right to left override": ("abc\u202ecba", "abc\ufffdcba"),
    "a zero width space": ("pay\u200bpal", "pay\ufffdpal"),
    "a tag character": ("a\U000e0041", "a\ufffd"),
    "a line separator": ("a\u2028b", "a\ufffdb"),
    "a C1 control": ("a\x9b31m", "a\ufffd31m"),
    "plain letters": ("Größe 日本", "Größe 日本"),
}


@pytest.mark.parametrize(("text", "shown"), HOSTILE.values(), ids=HOSTILE)
def test_what_a_terminal_would_obey_is_replaced(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_markup_of_a_vendor_is_letters() -> None:
    console, out = screen()

    table(
        console, ("name",), [[vendor_words("[bold red]trust me[/] :moneybag:")], ["[link=x]y[/]"]]
    )

    assert "[bold red]trust me[/] :moneybag:" in out.getvalue()
    assert "[link=x]y[/]" in out.getvalue()


def test_no_answer_brings_an_escape_sequence_of_its_own() -> None:
    console, out = screen()
    funding = Funding(
        funding_id="fnd_1",
        organisation_id="org_1",
        amount=Money(amount="1", asset="USD"),
        reference="\x1b]0;title\x07",
    )

    facts(console, funding)

    assert "\x1b]0" not in out.getvalue()
    assert "\x07" not in out.getvalue()


def test_a_long_text_is_cut_and_says_so() -> None:
    assert clean("x" * 5000) == "x" * 2000 + "…"


def test_json_for_a_program_is_ascii() -> None:
    assert as_json({"a": "\x9b\u202e"}).isascii()
    assert json.loads(as_json({"a": "\u202e"})) == {"a": "\u202e"}


def test_money_is_shown_to_the_last_digit() -> None:
    console, out = screen()

    facts(
        console,
        Funding(
            funding_id="f",
            organisation_id="o",
            amount=Money(amount="9223372036.854775807", asset="USD"),
            reference="",
        ),
    )

    assert "9223372036.854775807 USD" in out.getvalue()


@pytest.mark.parametrize(
    ("ppm", "shown"),
    [(999_000, "99.9 %"), (1_000_000, "100 %"), (0, "0 %"), (1, "0.0001 %"), (50_000, "5 %")],
)
def test_a_share_in_millionths_is_read_as_a_percentage(ppm: int, shown: str) -> None:
    assert percent(ppm) == shown


def test_an_answer_with_nothing_in_it_says_so() -> None:
    console, out = screen()

    page(console, TopUps(top_ups=()))

    assert out.getvalue() == "No top ups.\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    label: str
    parts: tuple[dict[str, object], ...]


def test_documents_of_different_members_share_one_table() -> None:
    console, out = screen()

    facts(console, Shelf(label="x", parts=({"a": 1}, {"b": {"c": "d"}})))

    assert '{"c":"d"}' in out.getvalue()


GRANT = "farthing grants set agt_… --per-call … --per-day …"


def test_a_refusal_says_what_was_needed_what_remains_and_the_way_on() -> None:
    refusal = refuse(Code.BUDGET_EXCEEDED, required="0.05", remaining="0.01", asset="USD")

    shown = shown_refusal(Refused(refusal, "req_1"))

    assert shown.splitlines() == [
        f"Refused: budget_exceeded: {Code.BUDGET_EXCEEDED.says}",
        "  needed: 0.05 USD",
        "  remaining: 0.01 USD",
        f"  next: ask the operator for a wider grant: {GRANT}",
        "  request: req_1",
    ]


@pytest.mark.parametrize(
    ("roles", "signers"),
    [
        ("treasurer", "sign with --key farthing-data/keys/treasurer.jwk"),
        (
            "admin, operator",
            "sign with --key farthing-data/keys/admin.jwk; or with --home DIR, an operator's",
        ),
        ("", "ask whoever approves, limits or freezes you"),
    ],
)
def test_who_is_not_permitted_is_told_whose_key_it_takes(roles: str, signers: str) -> None:
    shown = shown_refusal(Refused(refuse(Code.NOT_PERMITTED, required=roles)))

    assert f"  next: {signers}" in shown.splitlines()


@pytest.mark.parametrize(
    ("code", "way_on"),
    [(Code.SESSION_CLOSED, "farthing session open"), (Code.HOLD_EXPIRED, "another hold")],
)
def test_what_is_over_is_begun_anew_and_not_repeated(code: Code, way_on: str) -> None:
    shown = shown_refusal(Refused(refuse(code)))

    assert way_on in shown
    assert "--idempotency-key" not in shown


def test_who_waits_for_approval_is_told_by_whom_and_how() -> None:
    shown = shown_refusal(Refused(refuse(Code.REGISTRATION_PENDING)))

    assert "by the admin, an agent by its operator: farthing approve ID" in shown


@pytest.mark.parametrize("action", NextAction)
def test_every_next_action_has_words(action: NextAction) -> None:
    refusal = Refusal(code=Code.NOT_FOUND, message="m", next_action=action)

    shown = shown_refusal(Refused(refusal))

    assert ("next: " in shown) is (action is not NextAction.NONE)
