"""The commands about accounts against a real `farthing serve`."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from farthing.clients.cli.statements import time_of
from tests.clients.cli.running import Ran, Server, answer, run, serving


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Market]":
    root = tmp_path_factory.mktemp("statements")
    with serving(root / "data") as server:
        at = {"FARTHING_URL": server.url}
        home = ("--home", str(root / "operator"))
        enrolled = answer(
            *("enrol", "--kind", "operator", "--name", "Acme"),
            *("--trust", server.journal_thumbprint, *home),
            **at,
        )
        answer("approve", enrolled["principal_id"], "--key", server.admin_key, **at)
        for amount in ("5", "7", "9"):
            fund = ("fund", enrolled["principal_id"], amount, "USD", "--reference", "wire")
            answer(*fund, "--key", server.treasurer_key, **at)
        yield Market(server, home)


class Market:
    """A served market with one operator that was credited three times."""

    def __init__(self, server: Server, home: tuple[str, str]) -> None:
        self.server = server
        self.home = home

    def run(self, *words: str) -> Ran:
        return run(*words, *self.home, FARTHING_URL=self.server.url)

    def answer(self, *words: str) -> Any:
        return answer(*words, *self.home, FARTHING_URL=self.server.url)


def test_a_statement_is_read_page_by_page(market: Market) -> None:
    first = market.answer("statement", "--limit", "2")
    second = market.answer("statement", "--limit", "2", "--cursor", first["cursor"])

    amounts = [line["amount"]["amount"] for page in (first, second) for line in page["lines"]]
    assert amounts == ["5", "7", "9"]
    assert "cursor" not in second
    assert first["accounts"][0]["closing"]["posted"] == {"amount": "21", "asset": "USD"}


def test_a_person_is_shown_lines_and_how_to_go_on(market: Market) -> None:
    ran = market.run("statement", "--limit", "1", "--account", "prepaid")

    assert "fund_account" in ran.out
    assert "funding fnd_" in ran.out
    assert "--cursor" in ran.err


def test_a_line_opens_to_a_record_that_is_verified(market: Market) -> None:
    line = market.answer("statement")["lines"][0]
    opened = market.answer("record", str(line["seq"]))
    shown = market.run("record", str(line["seq"]))

    assert opened["postings"][0]["units"] == "5000000000"
    assert opened["receipt"]["seq"] == line["seq"]
    assert "external_clearing" in shown.out
    assert market.run("record", "1").code == 1


def test_balances_of_earlier_moments_are_shown(market: Market) -> None:
    line = market.answer("statement")["lines"][1]
    at_seq = market.answer("balance", "--at-seq", str(line["seq"]))
    at = market.answer("balance", "--at", line["recorded_at"])
    shown = market.run("balance", "--effective-at", "2020-01-01")

    assert at_seq["accounts"] == at["accounts"]
    assert at["accounts"][0]["posted"]["amount"] == "12"
    assert "0 USD" in shown.out


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
