"""The demo's own witnesses: what they say must be able to be no."""

import asyncio
import sys

import pytest

from farthing.clients.demo import flips
from farthing.clients.demo.narration import Narrator, cents, shown
from farthing.protocol.evidence import Findings, gather, verify
from farthing.protocol.wire import Money
from tests.protocol.evidence_market import JOURNAL_KEY, Told

PINNED = frozenset({JOURNAL_KEY.thumbprint})


@pytest.fixture(scope="module")
def pack() -> bytes:
    return gather(Told.of().evidence())


def test_a_changed_byte_that_nobody_notices_is_reported(
    monkeypatch: pytest.MonkeyPatch, pack: bytes
) -> None:
    blind = {0, 1, 2}

    def half_blind(data: bytes, trusted: frozenset[str]) -> Findings:
        changed = {place for place in blind if data[place] != pack[place]}
        return verify(pack if changed else data, trusted)

    monkeypatch.setattr(flips, "verify", half_blind)

    found = flips.flip(pack[:200], PINNED, ns_max=10**12)

    assert found["accepted"] == [0, 1, 2]


def test_where_time_is_short_the_stride_is_told(pack: bytes) -> None:
    found = flips.flip(pack, PINNED, ns_max=10_000_000)

    assert isinstance(found["stride"], int)
    assert found["stride"] > 1
    assert found["tried"] == len(range(0, len(pack), found["stride"]))
    assert found["accepted"] == []


@pytest.mark.parametrize(
    "attempt",
    [
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import subprocess; subprocess.run(['true'])",
    ],
)
async def test_what_runs_offline_reaches_nobody(attempt: str) -> None:
    program = f"from farthing.clients.demo.offline import shut_off; shut_off(); {attempt}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", program, stderr=asyncio.subprocess.PIPE
    )

    _, errors = await process.communicate()

    assert process.returncode == 1
    assert b"PermissionError: offline: " in errors


def test_a_promise_that_does_not_hold_is_told_and_remembered(
    capsys: pytest.CaptureFixture[str],
) -> None:
    narrator = Narrator()

    narrator.promise("water runs downhill", holds=True)
    narrator.promise("all is well", holds=False, seen="\x1b[2Jsmoke")
    narrator.end("failed", 1234)

    told = capsys.readouterr().out
    assert narrator.failures == ["all is well (seen: \x1b[2Jsmoke)"]
    assert "✓ water runs downhill" in told
    assert "✗ NOT SO: all is well (seen: \ufffd[2Jsmoke)" in told
    assert "something did not hold; 1.2 s" in told


def test_a_quiet_narrator_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    narrator = Narrator(quiet=True)

    narrator.act("An act")
    narrator.say("Something.")
    narrator.command("true")
    narrator.promise("all is well", holds=False)

    assert capsys.readouterr().out == ""
    assert narrator.failures


def test_amounts_are_exact_to_the_last_digit() -> None:
    amount = Money(amount="0.00038448", asset="USD")

    assert (shown(amount), cents(amount)) == ("0.00038448 USD", "0.038448 cents")
