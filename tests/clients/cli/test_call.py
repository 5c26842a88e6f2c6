"""`farthing call-service` against a real server and a real vendor, and what it shows."""

import asyncio
import json
from pathlib import Path

import pytest

from farthing.clients.home import Home
from tests.clients.cli.running import Ran, run
from tests.clients.test_processes import SHOP, heard, running, world
from tests.processes import free_port


async def typed(home: Home, url: str, *words: str, stdin: str = "") -> Ran:
    """Run the command as a person would, beside the processes of the test."""
    return await asyncio.to_thread(
        run, *words, "--home", str(home.path), stdin=stdin, FARTHING_URL=url
    )


async def test_a_call_from_a_terminal_is_one_call_however_often_it_is_typed(tmp_path: Path) -> None:
    port = free_port()
    async with world(tmp_path) as market:
        home = await market.vendor(port)
        listing_id = str(home.offer("pdf-text").listing["listing_id"])
        agreement = await market.buyer.accept(await market.buyer.quote(listing_id, {"page": 3}))
        call = ("call-service", agreement.agreement_id, '{"pdf": "one|two"}', "-w", "page=3")
        key = ("--idempotency-key", "typed-a-second-time")
        agent = Home(tmp_path / "agent")
        async with running(
            str(SHOP), str(port), str(tmp_path), env={"FARTHING_HOME": str(home.path)}
        ) as vendor:
            await heard(vendor, b"serving")
            shown = await typed(agent, market.url, *call, *key)
            told = await typed(agent, market.url, *call, *key, "--json")

        assert (shown.code, told.code) == (0, 0), (shown.err, told.err)
        answer = json.loads(told.out)
        assert answer["untrusted_result"] == {"pages": ["one", "two"]}
        assert answer["charge"]["charge_id"] in shown.out
        assert "vendor's words, not checked" in shown.out
        assert '"one",' in shown.out
        assert (tmp_path / "runs").read_text().count("run") == 1
        # Nobody is there any more: a new call costs nothing.
        failed = await typed(agent, market.url, *call, "--json")
        assert (failed.code, json.loads(failed.out)["code"]) == (1, "vendor_failed")


@pytest.mark.parametrize(
    "words",
    [
        ("call-service", "agr_x", '{"pdf": "x"}'),
        ("call-service", "agr_x", '{"pdf": 1.5}', "-w", "page=1"),
        ("call-service", "agr_x", "[]", "-w", "page=1"),
        ("call-service", "agr_x", "@/nowhere/at/all", "-w", "page=1"),
        ("outcome", "fund_acount", "first-funding-0001"),
    ],
)
def test_what_was_typed_wrongly_is_said_before_anything_is_sent(words: tuple[str, ...]) -> None:
    assert run(*words).code == 2
