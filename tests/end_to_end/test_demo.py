"""The demo, run as a person runs it: real processes, and every promise of the story by its code."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farthing.clients.demo import story
from farthing.clients.demo.__main__ import main
from farthing.clients.demo.errand import measure
from farthing.clients.demo.market import Market, opened
from farthing.clients.demo.narration import Narrator
from farthing.clients.demo.processes import DidNotStart
from farthing.clients.demo.proof import balance_books
from farthing.clients.demo.sample import sample_pdf
from farthing.clients.demo.stage import Stage
from farthing.clients.demo.story import BUDGET, Telling, tell
from farthing.clients.demo.trade import open_market, read_pages
from farthing.clients.demo.work_pdf import extract_text
from farthing.clients.verify import verify_file
from farthing.protocol.canonical import sha256_hex
from farthing.protocol.money import parse_units
from farthing.protocol.wire import Money
from tests.patience import patiently
from tests.pdfs import broken_pdf, encrypted_pdf, numbered_pdf, scanned_pdf

DEMO = (sys.executable, "-m", "farthing.clients.demo")


def units(amount: dict[str, str]) -> int:
    return parse_units(amount["amount"], amount["asset"])


async def test_the_whole_story_holds_and_is_told_to_a_program(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *DEMO, "--json", stdout=asyncio.subprocess.PIPE, cwd=tmp_path
    )
    output, _ = await process.communicate()

    told: dict[str, Any] = json.loads(output)
    assert told["failures"] == []
    assert (process.returncode, told["outcome"], told["held"]) == (0, "delivered", True)
    _check_work(told)
    _check_money(told)
    _check_mishaps(told)
    _check_proof(told, tmp_path)


def _check_work(told: dict[str, Any]) -> None:
    text = "\n".join(extract_text(sample_pdf()).pages)
    assert told["file"]["page_count"] == 30
    assert told["file"]["sha256"] == sha256_hex(sample_pdf())
    assert told["text"]["sha256"] == sha256_hex(text.encode())
    assert (told["text"]["pages"], told["text"]["characters"]) == (30, len(text))
    totals = [each["total"]["amount"] for each in told["search"]["results"]]
    assert totals == ["0.012", "0.024"]
    assert told["quote"]["total"]["amount"] == "0.012"


def _check_money(told: dict[str, Any]) -> None:
    charges = {each["label"]: each for each in told["charges"]}
    # The session has a charge for every report, and how many there are is a matter of time.
    counts = [label for label in charges if label.startswith("counts")]
    assert list(charges) == ["pages", "analysis", *counts, "picture", "translation"]
    session = told["session"]
    assert (session["status"], session["calls"], session.get("rejected", 0)) == ("closed", 200, 0)
    assert sum(units(charges[each]["amount"]) for each in counts) == units(session["spent"])
    assert len(counts) < 10
    assert charges["pages"]["amount"]["amount"] == "0.012"
    assert 0 < units(charges["analysis"]["amount"]) < parse_units("0.01", "USD")
    assert charges["picture"]["amount"]["amount"] == "0.00054"
    captured = sum(units(each["amount"]) for each in told["charges"])
    returned = sum(units(each["refunded"]) for each in told["charges"])
    assert (units(told["captured"]), units(told["given_back"])) == (captured, returned)
    assert units(told["left"]) == units(told["funded"]) - captured + returned
    rows = told["trial_balance"]["rows"]
    for side in ("posted", "pending"):
        debits = sum(parse_units(row[f"debits_{side}"], row["asset"]) for row in rows)
        credits_ = sum(parse_units(row[f"credits_{side}"], row["asset"]) for row in rows)
        assert debits == credits_
    assert told["trial_balance"]["balanced"] is True


def _check_mishaps(told: dict[str, Any]) -> None:
    charges = {each["label"]: each for each in told["charges"]}
    lost = told["lost_reply"]
    assert (lost["lost"], lost["replayed"]) == (["place_hold", "resize_image"], True)
    assert (lost["charges"], lost["charged"]) == (1, charges["picture"]["amount"])
    (refusal,) = told["refusals"]
    assert (refusal["code"], refusal["next_action"]) == (
        "per_call_limit_exceeded",
        "request_approval",
    )
    assert (refusal["required"], refusal["remaining"]) == ("0.097", "0.05")
    killed = told["killed_vendor"]
    assert (killed["exit_code"], killed["hold"]["status"]) == (-signal.SIGKILL, "expired")
    assert killed["charged"]["amount"] == "0"
    assert "charge_id" not in killed["hold"]
    dispute = told["dispute"]
    assert (dispute["status"], dispute["outcome"]) == ("decided", "credit")
    assert dispute["produced_body_sha256"] != dispute["signed_result_sha256"]
    assert dispute["credit"] == dispute["charged"] == charges["translation"]["refunded"]
    assert told["refund"]["amount"] == charges["picture"]["refunded"]


def _check_proof(told: dict[str, Any], folder: Path) -> None:
    packs = sorted((folder / "farthing-demo" / "packs").iterdir())
    assert sorted(told["packs"]) == [str(pack) for pack in packs]
    assert len(packs) == len(told["charges"])
    trusted = frozenset({told["platform"]["journal_thumbprint"]})
    assert {verify_file(pack, trusted).charge_id for pack in packs} == {
        each["charge_id"] for each in told["charges"]
    }
    for each in told["verification"]:
        assert (each["exit_code"], each["verified"], each["trust"]) == (0, True, "pinned")
        assert each["not_provable"]
    flips = told["flips"]
    assert (flips["accepted"], flips["not_covered"]) == ([], [])
    assert flips["tried"] == len(range(0, flips["bytes"], flips["stride"]))


async def test_each_file_ends_in_a_documented_outcome(tmp_path: Path) -> None:
    """One market, many files: nothing is captured where nothing was delivered."""
    dollar = Money(amount="1", asset="USD")
    files = {
        "scanned": (scanned_pdf(), BUDGET, "no_text"),
        "encrypted": (encrypted_pdf("secret"), BUDGET, "encrypted"),
        "broken": (broken_pdf(), BUDGET, "broken"),
        "no_pdf": (b"\x89PNG\r\n", BUDGET, "broken"),
        "dear": (numbered_pdf(500), BUDGET, "over_budget"),
        "long": (numbered_pdf(501), dollar, "too_many_pages"),
        "large": (b"", BUDGET, "too_large"),
    }
    outcomes: dict[str, str] = {}
    async with the_market(tmp_path) as stage:
        for name, (content, budget, _) in files.items():
            path = tmp_path / f"{name}.pdf"
            path.write_bytes(content)
            if name == "large":
                os.truncate(path, 300 * 1024**2)
            errand = await measure(path)
            outcomes[name] = await read_pages(replace(stage, errand=errand, budget=budget))
        await balance_books(stage)
        charges = (await stage.market.operator.charges()).charges
        balance = (await stage.market.agent.balance()).accounts[0]
        errand = await measure(tmp_path / "dear.pdf")
        read = await read_pages(replace(stage, errand=errand, budget=dollar))

    assert outcomes == {name: outcome for name, (_, _, outcome) in files.items()}
    assert charges == ()
    assert (balance.available.amount, balance.held.amount) == ("20", "0")
    assert stage.facts["captured"] == {"amount": "0", "asset": "USD"}
    assert read == "delivered", "five hundred pages, once the budget allows them"
    assert stage.narrator.failures == []


@asynccontextmanager
async def the_market(folder: Path) -> AsyncIterator[Stage]:
    """A market whose agent may spend a dollar a call, ready for errands."""
    home = folder / "market"
    home.mkdir()
    sample = folder / "sample.pdf"
    sample.write_bytes(sample_pdf())
    async with opened(home) as market:
        stage = Stage(
            narrator=Narrator(quiet=True),
            market=market,
            errand=await measure(sample),
            budget=BUDGET,
            per_call=Money(amount="1", asset="USD"),
            packs=folder,
        )
        await open_market(stage)
        yield stage


def test_a_file_that_ends_the_trade_is_no_failure_of_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "secret.pdf"
    path.write_bytes(encrypted_pdf("secret"))

    monkeypatch.setattr(sys, "argv", ["demo", "--json", f"--file={path}", f"--out={tmp_path}"])
    code = main()

    told = json.loads(capsys.readouterr().out)
    assert (code, told["outcome"], told["held"]) == (0, "encrypted", True)
    assert (told["charges"], told["captured"]["amount"], told["packs"]) == ([], "0", [])
    assert told["file"]["page_count"] is None
    (refusal,) = told["refusals"]
    assert (refusal["code"], refusal["reason"]) == ("vendor_failed", "encrypted")
    assert refusal["hold"]["status"] == "released"
    assert told["trial_balance"]["balanced"] is True


def test_a_file_that_is_not_there_starts_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["demo", "--file=none.pdf"])

    assert main() == 2
    assert capsys.readouterr() == ("", "farthing demo: none.pdf: is not there\n")


@pytest.mark.parametrize("budget", ["0.1e1", "0", "-1", "1001", "five"])
def test_a_budget_that_is_no_amount_starts_nothing(
    monkeypatch: pytest.MonkeyPatch, budget: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["demo", f"--budget={budget}"])

    with pytest.raises(SystemExit) as stopped:
        main()

    assert stopped.value.code == 2


async def test_what_breaks_the_story_off_is_told_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @asynccontextmanager
    async def nobody_comes(folder: Path) -> AsyncIterator[Market]:
        raise DidNotStart(f"the server did not start in {folder.name}")
        yield

    monkeypatch.setattr(story, "opened", nobody_comes)

    told = await tell(Telling())

    assert (told["outcome"], told["held"]) == ("failed", False)
    assert "the server did not start" in capsys.readouterr().out


async def test_a_demo_that_is_stopped_ends_every_process_that_it_started(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *DEMO,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "TMPDIR": str(tmp_path)},
        cwd=tmp_path,
    )
    assert process.stdout is not None
    async with patiently():
        while b"Three vendors open" not in await process.stdout.readline():
            pass
        seen = left_behind(f"TMPDIR={tmp_path}")
        process.send_signal(signal.SIGTERM)
        await process.communicate()

    assert len(seen) > 1 or not Path("/proc").exists()
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []
    assert left_behind(f"TMPDIR={tmp_path}") == []


def left_behind(variable: str) -> list[str]:
    """The processes that have inherited a variable, where the system shows them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if variable.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(process.name)
    return found
