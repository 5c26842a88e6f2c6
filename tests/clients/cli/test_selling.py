"""Selling a tool with nothing but what the command prints: an offer, a server, one paid call."""

import asyncio
import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from threading import Timer
from typing import Any

from farthing.clients.buyers import Buyer
from farthing.clients.callbooks import asked_units, read_book
from farthing.clients.home import Home
from farthing.clients.spenders import book_path
from tests.clients.cli.running import answer, run, serving
from tests.patience import PATIENCE_S
from tests.pdfs import numbered_pdf
from tests.processes import free_port

TOLERANT = {"usage_tolerance_ppm": 1000}
EXAMPLE_PORT = re.compile(r"\b9000\b")


def test_the_example_offer_and_its_server_sell_a_call_as_printed(tmp_path: Path) -> None:
    port = free_port()
    vendor, operator = tmp_path / "vendor", tmp_path / "operator"
    with serving(tmp_path / "data") as market:
        at = {"FARTHING_URL": market.url}
        selling = {**at, "FARTHING_HOME": str(vendor)}
        buying = {**at, "FARTHING_HOME": str(operator)}
        nothing = run("search", "text", **selling)
        enrolled = run("enrol", "--kind", "vendor", "--name", "Pages", **selling)
        answer(
            "approve", answer("whoami", **selling)["principal_id"], "--key", market.admin_key, **at
        )
        offer = printed(tmp_path / "offer.json", port)
        offer.write_text(json.dumps(json.loads(offer.read_text()) | {"terms": TOLERANT}))
        published = answer("listings", "publish", str(offer), **selling)
        server = printed(tmp_path / "server.py", port, "--server")
        agent = funded_agent(operator, market.admin_key, market.treasurer_key, buying)

        reading = {**at, "FARTHING_HOME": str(agent.path)}
        with started(server, selling):
            result, amount, agreement_id = asyncio.run(bought(agent, published["listing_id"]))
            terms = ("--cap", "0.04", "--per-call", "0.005", "--low-water", "0.03")
            session_id = answer("session", "open", agreement_id, *terms, **reading)["session_id"]
            spent = asyncio.run(called(agent, session_id))
            defended(answer("charges", **selling)["charges"][-1]["charge_id"], reading, selling)
        usage = answer("usage", **selling)
        reconciled(agreement_id, session_id, (reading, selling, buying), at)
        proven = answer("session", "receipt", session_id, "2", **selling)
        allowance = limited(agreement_id, reading, selling)
        corrected = answer("correct", proven["charge_id"], "2:page=1", **selling)
        explained = run("explain", proven["charge_id"], **reading)
        shown = answer("session", "show", session_id, **selling)
        topped = answer("session", "top-up", session_id, "0.01", "USD", **reading)
        calls = told(tmp_path / "call.json", session_id, reading, buying)
        listed = run("session", "list", **reading)
        closed = answer("session", "close", session_id, **selling)

    assert nothing.out == "The market has no listings yet.\n"
    assert "farthing --key farthing-data/keys/admin.jwk approve org_" in enrolled.err
    assert len(result["pages"]) == 2
    assert amount == "0.004"
    assert spent == ["0.004", "0.008", "0.012"]
    assert [(each["seq"], each["state"], each["amount"]["amount"]) for each in calls] == [
        (str(seq), "answered", "0.004") for seq in (1, 2, 3)
    ]
    assert [(each["ended"], each["unsent"], each["unanswered"]) for each in usage["sessions"]] == [
        (3, 0, 0)
    ]
    assert (usage["rejected"], usage["sessions"][0]["amount"]["amount"]) == ([], "0.012")
    assert (proven["cost"]["call"], proven["cost"]["amount"]["amount"]) == (2, "0.004")
    assert (corrected["calls"], corrected["amount"]["amount"]) == (1, "0.002")
    assert {"succeeded", corrected["correction_id"]} <= set(explained.out.split())
    assert {"in_force", "500"} <= set(allowance.split())
    assert (shown["calls"], shown["spent"]["amount"], shown["status"]) == (3, "0.012", "open")
    assert "entitlement" not in shown
    assert (topped["cap"]["amount"], asked_for(agent, session_id)) == ("0.05", 50_000_000)
    assert session_id in listed.out
    assert (closed["status"], closed["spent"]["amount"]) == ("closed", "0.012")


def asked_for(agent: Home, session_id: str) -> int:
    """What an agent's book says was asked to be set aside."""
    return asked_units(read_book(book_path(agent.books_path, session_id))[0])


def defended(charge: str, buying: dict[str, str], selling: dict[str, str]) -> None:
    """A dispute is answered with what the running server keeps; no other home has it."""
    dispute = answer("disputes", "file", charge, "not_delivered", **buying)["dispute_id"]
    elsewhere = run("disputes", "answer", dispute, **buying)
    assert elsewhere.code == 2
    assert f"holds no body of {charge}" in elsewhere.err
    assert answer("disputes", "answer", dispute, **selling)["outcome"] == "reject"


def limited(agreement_id: str, buying: dict[str, str], selling: dict[str, str]) -> str:
    """What is shown of an allowance that the buyer proposed and the vendor approved."""
    limits = ("--per-day", "page=500")
    offered = answer("allowance", "propose", agreement_id, *limits, **buying)["proposed"]
    answer("allowance", "approve", agreement_id, offered["allowance_id"], **selling)
    return run("allowance", "show", agreement_id, **buying).out


def told(file: Path, session_id: str, reading: dict[str, str], buying: dict[str, str]) -> Any:
    """The calls by the agent's book, which its operator reads too, and a receipt's file."""
    saved = answer("session", "receipt", session_id, "2", "--out", str(file), **reading)
    shown = run("session", "receipt", session_id, "2", **reading).out
    assert f"Call 2 of {session_id}: 0.004 USD" in shown
    rejected = run("session", "rejected", session_id, **reading).out
    assert rejected == "Nothing was rejected.\n"
    calls = answer("session", "calls", session_id, **reading)

    assert saved == {"call": "2", "amount": "0.004 USD", "receipt": str(file)}
    assert json.loads(file.read_bytes()).keys() == {"event", "path", "place", "receipt"}
    assert answer("session", "calls", session_id, **buying) == calls
    return calls


def reconciled(
    agreement_id: str,
    session_id: str,
    sides: tuple[dict[str, str], ...],
    at: dict[str, str],
) -> None:
    """Agent, vendor and operator compare their own countings, of session and agreement."""
    one = [answer("session", "reconcile", session_id, **side) for side in sides]
    whole = [answer("reconcile", agreement_id, **side) for side in sides]
    booked, spooled, operators = one
    _, selling, operating = sides
    told = run("reconcile", agreement_id, "--since", "2020-01-01", **selling)
    key = Home(Path(operating["FARTHING_HOME"])).key_path
    elsewhere = {**at, "FARTHING_HOME": f"{key.parent}/nothing"}
    alone = run("session", "reconcile", session_id, "--key", str(key), **elsewhere)

    assert (booked["within"], booked["calls"]["billed"]) == (True, "3")
    assert (booked["tolerance_ppm"], booked["sessions"][0]["proven"]) == (1000, 2)
    assert spooled["meters"] == booked["meters"]
    assert operators["calls"] == booked["calls"]
    assert [each["sessions"] for each in whole] == [each["sessions"] for each in one]
    assert (told.code, "0.1 %" in told.out) == (0, True)
    assert alone.code == 1


def printed(file: Path, port: int, *more: str) -> Path:
    """What `listings example` prints, in a file, for a port that is free."""
    text = run("listings", "example", *more).out
    text, count = EXAMPLE_PORT.subn(str(port), text)
    assert count == 1
    file.write_text(text, encoding="utf-8")
    return file


def funded_agent(operator: Path, admin: str, treasurer: str, at: dict[str, str]) -> Home:
    """The home of an agent that may spend."""
    buyer = answer("enrol", "--kind", "operator", "--name", "Acme", **at)["principal_id"]
    answer("approve", buyer, "--key", admin, FARTHING_URL=at["FARTHING_URL"])
    funds = ("fund", buyer, "1", "USD", "--reference", "first money", "--key", treasurer)
    answer(*funds, FARTHING_URL=at["FARTHING_URL"])
    agent = answer("agents", "register", "Reader", **at)["principal_id"]
    answer("approve", agent, **at)
    assert "No grants" in run("grants", "show", agent, **at).out
    assert "A grant is an agent's" in run("grants", "show", **at).out
    answer("grants", "set", agent, "--per-call", "0.05", "--per-day", "1", **at)
    return Home(operator / "agents" / "reader")


@contextmanager
def started(server: Path, environment: dict[str, str]) -> Iterator[None]:
    """Run a server file as it is until the block ends."""
    process = subprocess.Popen(
        [sys.executable, str(server)],
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        patience = Timer(PATIENCE_S, process.kill)
        patience.start()
        try:
            said = next((line for line in process.stderr if "running on" in line), "")
            patience.cancel()
            assert said, "the server did not start"
            yield
        finally:
            process.terminate()
            process.communicate()


PAGES = {"pdf": base64.b64encode(numbered_pdf(2)).decode()}


async def bought(agent: Home, listing_id: str) -> tuple[Any, str, str]:
    """The result of one call for two pages, what it cost, and under which agreement."""
    async with Buyer.from_home(agent) as buyer:
        purchase = await buyer.call_service(listing_id, PAGES, {"page": 2})
    return purchase.result, purchase.charge.amount.amount, purchase.agreement_id


async def called(agent: Home, session_id: str) -> list[str]:
    """What is spent after each of three calls through a session."""
    async with (
        Buyer.from_env({"FARTHING_HOME": str(agent.path)}) as buyer,
        aclosing(await buyer.resume_session(session_id)) as session,
    ):
        return [(await session.call(PAGES)).spent.amount for _ in range(3)]
