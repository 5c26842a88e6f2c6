"""The platform's keys are retired while its vendor runs on: what was signed stands, trade goes on.

Platform and vendor are real processes; the vendor and the buyer pinned the old keys and are told of
nothing.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from farthing.clients.buyers import Buyer
from farthing.clients.home import Home
from farthing.identity.keyring import open_keyring
from farthing.protocol.errors import Unverified
from farthing.protocol.keys import PublicKey
from farthing.protocol.messages.charges import Receipt
from farthing.protocol.receipts import verify_receipt
from tests.vendor import selling

PDF = {"pdf": "one|two"}
PAGES = {"page": 3}


async def farthing(*arguments: str) -> tuple[int, str]:
    """Run a command; gives its exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "farthing.clients.cli",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


def signers(receipt: Receipt, keys: Mapping[str, PublicKey]) -> set[str]:
    """The keys that a receipt verifies with."""
    found = set()
    for thumbprint, key in keys.items():
        try:
            verify_receipt(receipt, key)
        except Unverified:
            continue
        found.add(thumbprint)
    return found


async def test_who_pinned_a_key_that_is_retired_trades_on_and_every_receipt_verifies(
    tmp_path: Path,
) -> None:
    async with selling(tmp_path) as place:
        await place.vendor.start()
        connection = place.market.buyer.connection
        pinned = await connection.platform_keys()
        buyer = Buyer(connection, platform_keys=pinned)
        listing_id = str(place.offers["extract_text"].listing["listing_id"])
        folder = str(place.platform.data_dir)
        home = Home(tmp_path / "home")
        await home.meet(connection.url)

        first = await buyer.call_service(listing_id, PDF, PAGES)
        held = await buyer.quote(listing_id, PAGES)
        agreement = await buyer.accept(held)
        while_serving = await farthing("retire-key", "platform", "--data-dir", folder)
        place.platform.stop()
        told = [
            await farthing("retire-key", each, "--data-dir", folder)
            for each in ("platform", "journal")
        ]
        await place.platform.start()
        second = await buyer.call_service(listing_id, PDF, PAGES)
        third = await buyer.buy(agreement, PDF, PAGES)
        old = await buyer.receipt(first.charge.charge_id)
        published = await connection.platform_keys()
        shown = await farthing("keys", "platform", "--json", "--home", str(home.path))
        place.platform.stop()
        audited = await farthing("audit", "verify", "--data-dir", folder)

        assert while_serving[0] == 1
        assert "process" in while_serving[1]
        assert [code for code, _ in told] == [0, 0], told
        assert second.result == third.result == {"pages": ["one", "two"]}
        assert place.vendor.runs == 3
        assert (len(pinned.platform), len(pinned.journal)) == (1, 1)
        assert pinned.platform.keys() < published.platform.keys()
        heads = published.journal
        before, after = signers(first.receipt, heads), signers(second.receipt, heads)
        assert len(before) == len(after) == 1
        assert before == pinned.journal.keys()
        assert after == published.journal.keys() - before
        assert signers(old, heads) == after
        assert not signers(old, published.platform)
        assert json.loads(shown[1]) == {
            each: f"{purpose}, {'pinned' if each in old_ones else 'named by one that is pinned'}"
            for purpose, keys, old_ones in (
                ("platform", published.platform, pinned.platform),
                ("journal", published.journal, pinned.journal),
            )
            for each in keys
        }
        assert audited[0] == 0, audited[1]


@pytest.mark.parametrize("name", ["admin", "payer", "nobody"])
async def test_only_what_the_platform_signs_with_can_be_retired(tmp_path: Path, name: str) -> None:
    open_keyring(tmp_path / "keys", os.urandom, origin="market/journal", begun=False)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.jwk")}

    code, said = await farthing("retire-key", name, "--data-dir", str(tmp_path))

    assert code == 1
    assert said.startswith(f"farthing: {name} is not a key to retire")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.jwk")} == before
