"""The commands about accounts against a real `farthing serve`."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import TypeAdapter

from farthing.clients.home import Home
from farthing.clients.keys import load_key, save_key
from farthing.protocol.errors import Unverified
from farthing.protocol.messages.statements import RecordView
from farthing.protocol.platform_keys import PlatformKeys
from farthing.protocol.records import parse_record
from farthing.protocol.views import check_view
from farthing.spec import farthing_verify
from tests.clients.cli.running import Ran, Server, answer, run, serving
from tests.papers import signing_key

STRANGER = signing_key("stranger")


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


def test_where_there_is_nothing_it_says_so(market: Market) -> None:
    vendor = ("--home", f"{market.home[1]}-2")
    at = {"FARTHING_URL": market.server.url}
    enrolled = answer("enrol", "--kind", "vendor", "--name", "Pages", *vendor, **at)
    answer("approve", enrolled["principal_id"], "--key", market.server.admin_key, **at)

    assert "No accounts" in run("balance", *vendor).out
    assert "No accounts, and no lines." in run("statement", *vendor).out
    assert "No lines." in market.run("statement", "--until", "2020-01-01").out
    assert "key file" in run("keys", "show", *vendor).out


def test_a_line_opens_to_a_record_that_is_verified(market: Market) -> None:
    line = market.answer("statement")["lines"][0]
    opened = market.answer("record", str(line["seq"]))
    shown = market.run("record", str(line["seq"]))

    assert opened["postings"][0]["units"] == "5000000000"
    assert opened["receipt"]["seq"] == line["seq"]
    assert "external_clearing" in shown.out
    assert market.run("record", "1").code == 1


def test_a_head_is_kept_and_each_later_one_grows_out_of_it(market: Market) -> None:
    first = market.answer("head")
    later = market.answer("head")

    assert (first["grown_from"], later["grown_from"]) == ("", first["records"])
    assert Path(market.home[1], "head.note").read_text().startswith(first["origin"])


def test_the_record_behind_a_line_is_proven_by_the_one_file_verifier(
    market: Market,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seq = str(market.answer("statement")["lines"][0]["seq"])
    out, keys = tmp_path / "receipt.json", tmp_path / "jwks.json"
    keys.write_bytes(httpx2.get(f"{market.server.url}/.well-known/jwks.json").content)
    pinned = ("--keys", str(keys), "--trust", market.server.journal_thumbprint)

    written = market.answer("record", seq, "--out", str(out))
    monkeypatch.setattr(sys, "argv", ["farthing_verify.py", "--receipt", str(out), *pinned])
    code = farthing_verify.main()

    assert (written["operation"], written["receipt"]) == ("fund_account", str(out))
    assert code == 0
    assert f"record {seq} is in the journal of" in capsys.readouterr().out


def test_a_record_that_is_shown_otherwise_than_it_is_proven_is_not_believed(
    market: Market,
) -> None:
    seq = market.answer("statement")["lines"][0]["seq"]
    view = TypeAdapter(RecordView).validate_json(market.run("record", str(seq), "--json").out)
    record, _ = parse_record(view.receipt.record.encode())
    (posting,) = view.postings

    check_view(view, seq, record)
    for lie in (
        replace(view, postings=(posting | {"units": "1"},)),
        replace(view, postings=()),
        replace(view, operation="grant_credit"),
        replace(view, recorded_at=view.recorded_at.replace("2", "1")),
        replace(view, effective_at=view.effective_at.replace("2", "1")),
        replace(view, effective_at="yesterday"),
        replace(view, ids={"funding": "fnd_00000000000000000000000000"}),
    ):
        with pytest.raises(Unverified, match="otherwise"):
            check_view(lie, seq, record)
    with pytest.raises(Unverified, match="another record"):
        check_view(view, seq + 1, record)


def test_balances_of_earlier_moments_are_shown(market: Market) -> None:
    line = market.answer("statement")["lines"][1]
    at_seq = market.answer("balance", "--at-seq", str(line["seq"]))
    at = market.answer("balance", "--at", line["recorded_at"])
    shown = market.run("balance", "--effective-at", "2020-01-01")

    assert at_seq["accounts"] == at["accounts"]
    assert at["accounts"][0]["posted"]["amount"] == "12"
    assert "0 USD" in shown.out


def test_a_home_of_the_staff_pins_the_keys_and_opens_records_with_them(
    market: Market, tmp_path: Path
) -> None:
    seq = str(market.answer("statement")["lines"][0]["seq"])
    server = market.server
    at = {"FARTHING_URL": server.url}
    home = tmp_path / "treasurer"
    save_key(home / "key.jwk", load_key(Path(server.treasurer_key)))
    unpinned = run("record", seq, "--home", str(home), **at)
    wrong = run("keys", "pin", "--trust", STRANGER.thumbprint, "--home", str(home), **at)
    pinned = answer("keys", "pin", "--trust", server.journal_thumbprint, "--home", str(home), **at)
    own = run("record", seq, "--home", str(home))
    others = run("record", seq, "--key", server.treasurer_key, *market.home)

    assert (unpinned.code, wrong.code) == (0, 1)
    assert "farthing keys pin" in unpinned.err
    assert (pinned["role"], pinned[server.journal_thumbprint]) == ("treasurer", "journal, pinned")
    assert [(ran.code, ran.err) for ran in (own, others)] == [(0, "")] * 2


@pytest.mark.parametrize("command", ["record", "keys pin"])
def test_who_pinned_another_platform_s_keys_believes_no_record(
    market: Market, tmp_path: Path, command: str
) -> None:
    home = Home(tmp_path)
    save_key(home.key_path, load_key(Path(market.home[1]) / "key.jwk"))
    profile = Home(Path(market.home[1])).profile()
    assert profile is not None
    strange = PlatformKeys.of(journal=[STRANGER.public]).jwks()
    home.save_profile(replace(profile, platform_keys=strange))
    words = [*command.split(), "4"] if command == "record" else command.split()

    ran = run(*words, "--home", str(home.path), "--json")

    assert (ran.code, json.loads(ran.out)["code"]) == (1, "unverified")
