"""Spend sessions from a terminal: what was kept of them here, and the platform's own view."""

import json
from pathlib import Path

import pytest

from farthing.clients.callbooks import CallBook, Called, CallState
from farthing.clients.spool import Spool
from farthing.clients.usage_spool import (
    BatchState,
    KeptCall,
    KeptSession,
    Rejected,
    Settled,
    UsageSpool,
)
from farthing.protocol.canonical import Json
from farthing.protocol.ids import derive_id
from farthing.protocol.usage import UsageOutcome
from tests.clients.cli.running import answer, run
from tests.clients.settling import kept_batch

SESSION_ID = derive_id("ses", "one")


def called(seq: int, state: CallState, *, fault: str = "", said_units: int = 2_000_000) -> Called:
    return Called(
        seq=seq,
        args_sha256="a" * 64,
        state=state,
        place=seq if state is CallState.ANSWERED else 0,
        usage={"page": 1},
        units=2_000_000,
        said_units=said_units,
        result_sha256="b" * 64,
        fault=fault,
    )


def kept(seq: int) -> KeptCall:
    return KeptCall(
        session_id=SESSION_ID,
        seq=seq,
        args_sha256="a" * 64,
        at_us=seq,
        place=seq,
        outcome=UsageOutcome.SUCCEEDED,
        usage={"page": 1},
        amount_units=2_000_000,
        spent_units=seq * 2_000_000,
        result_sha256="b" * 64,
    )


def test_a_session_s_calls_are_listed_from_the_home_s_own_book_while_it_is_in_use(
    tmp_path: Path,
) -> None:
    book = CallBook(tmp_path / "sessions" / f"{SESSION_ID}.sqlite")
    book.write([
        called(1, CallState.ANSWERED),
        called(2, CallState.ANSWERED, fault="amount", said_units=2_000_001),
        {"asset": "USD"},
    ])  # fmt: skip

    everything = answer("session", "calls", SESSION_ID, "--home", str(tmp_path))
    wrong = answer("session", "calls", SESSION_ID, "--wrong", "--home", str(tmp_path))
    shown = run("session", "calls", SESSION_ID, "--home", str(tmp_path))
    unknown = run("session", "calls", derive_id("ses", "two"), "--home", str(tmp_path))
    book.close()

    assert [each["seq"] for each in everything] == ["1", "2"]
    assert [(each["seq"], each["amount"], each["vendor_says"]) for each in wrong] == [
        ("2", *({"amount": amount, "asset": "USD"} for amount in ("0.002", "0.002000001")))
    ]
    assert "0.002000001 USD" in shown.out
    assert unknown.code == 2


def test_what_a_vendor_s_spool_holds_is_shown_while_its_server_runs(tmp_path: Path) -> None:
    home = str(tmp_path)
    spool = Spool(tmp_path / "spool.sqlite")
    before = run("usage", "--home", home)
    usage = UsageSpool(spool.file)
    nothing = run("usage", "--home", home)
    session = KeptSession(session_id=SESSION_ID, payer="p", ends_at_us=9, at_us=1, document={})
    usage.write([session, *map(kept, range(1, 7))])
    usage.write([kept_batch(SESSION_ID, 1, 1, 2)])
    usage.write([
        Settled(number=1, state=BatchState.TAKEN, at_us=2, charge_id="chg_x"),
        Rejected(session_id=SESSION_ID, seq=2, reason="over_cap"),
        kept_batch(SESSION_ID, 2, 3, 5),
    ])  # fmt: skip

    ran = run("usage", "--home", home, "--json")
    shown = run("usage", "--home", home)
    spool.close()

    assert before.out == nothing.out == "No calls of sessions.\n"
    found = json.loads(ran.out)
    assert found["sessions"] == [
        {
            "session_id": SESSION_ID,
            "ended": 6,
            "unsent": 1,
            "unanswered": 3,
            "rejected": 1,
            "units": "12000000",
        }
    ]
    assert [(each["seq"], each["reason"]) for each in found["rejected"]] == [(2, "over_cap")]
    assert "over_cap" in shown.out
    assert "2000000 units" in shown.out
    nowhere = run("usage", "--home", str(tmp_path / "nowhere"))
    assert (nowhere.code, "FARTHING_HOME" in nowhere.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "file"),
    [
        (("usage",), "spool.sqlite"),
        (("session", "calls", SESSION_ID), f"sessions/{SESSION_ID}.sqlite"),
        (("session", "reconcile", SESSION_ID), f"sessions/{SESSION_ID}.sqlite"),
        (("reconcile", "agr_x"), "spool.sqlite"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, words: tuple[str, ...], file: str
) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"garbage" * 100)

    ran = run(*words, "--home", str(tmp_path), "--json")

    told = json.loads(ran.out)
    assert (ran.code, told["code"]) == (1, "unverified")
    assert told["message"].startswith(f"{path} cannot be read")


@pytest.mark.parametrize(("asset", "shown"), [("USD", "0.002 USD"), ("JPY", "2 JPY"), ("", "")])
def test_a_vendor_s_usage_is_in_the_asset_of_each_session(
    tmp_path: Path, asset: str, shown: str
) -> None:
    spool = Spool(tmp_path / "spool.sqlite")
    usage = UsageSpool(spool.file)
    document: dict[str, Json] = {"asset": asset} if asset else {}
    session = KeptSession(
        session_id=SESSION_ID, payer="p", ends_at_us=9, at_us=1, document=document
    )
    usage.write([session, kept(1)])
    usage.write([kept_batch(SESSION_ID, 1, 1, 1)])
    usage.write([Rejected(session_id=SESSION_ID, seq=1, reason="over_cap")])

    told = run("usage", "--home", str(tmp_path)).out
    found = answer("usage", "--home", str(tmp_path))
    spool.close()

    assert told.count(shown or "2000000 units") == 2
    amount = shown.partition(" ")[0]
    money = {"amount": amount, "asset": asset} if shown else None
    for kind in ("sessions", "rejected"):
        assert found[kind][0].get("amount") == money
        assert found[kind][0].get("units") == (None if shown else "2000000")
