"""Back up, restore and audit a journal from the command line."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from farthing.protocol.errors import Code, Refused
from farthing.protocol.platform_keys import PURPOSE
from tests.clients.cli.running import run
from tests.serving import Shop, serving


async def traded(folder: Path) -> bytes:
    """Open a market, and give the key set that it publishes."""
    async with serving(folder) as server:
        await Shop.opened(server)
        published = await server.http.get(f"{server.service.issuer}/.well-known/jwks.json")
        return published.content


async def test_a_whole_journal_is_audited_from_its_database_alone(tmp_path: Path) -> None:
    folder = tmp_path / "market"
    keys = tmp_path / "jwks.json"
    keys.write_bytes(await traded(folder))
    database = str(folder / "journal.sqlite")

    own = run("audit", "verify", "--data-dir", str(folder))
    elsewhere = run(
        "audit", "verify", database, "--keys", str(keys), "--data-dir", str(tmp_path / "none")
    )

    assert own.code == elsewhere.code == 0
    assert own.out == elsewhere.out
    assert "debits equal credits" in own.out
    assert not (tmp_path / "none").exists()


async def test_an_audit_names_the_first_bad_record(tmp_path: Path) -> None:
    await traded(tmp_path)
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as database, database:
        for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type='trigger'"):
            database.execute(f"DROP TRIGGER {trigger}")
        seq, records = database.execute(
            "SELECT first_seq, records FROM journal_batch WHERE instr(records, 'fund_account')"
        ).fetchone()
        database.execute(
            "UPDATE journal_batch SET records = ? WHERE first_seq = ?",
            (records.replace(b"fund_account", b"find_account"), seq),
        )

    ran = run("audit", "verify", "--data-dir", str(tmp_path))

    assert ran.code == 1
    assert f"Fault (record at record {seq}:" in ran.out


async def test_an_audit_trusts_no_other_key(tmp_path: Path) -> None:
    keys = tmp_path / "jwks.json"
    await traded(tmp_path / "one")
    keys.write_bytes(await traded(tmp_path / "two"))

    database = str(tmp_path / "one" / "journal.sqlite")
    ran = run("audit", "verify", database, "--keys", str(keys))

    assert ran.code == 1
    assert "Fault (head at record 1:" in ran.out


@pytest.mark.parametrize("purposes", [{}, {"platform": "journal", "journal": "platform"}])
async def test_an_audit_judges_by_each_key_only_what_it_is_published_for(
    tmp_path: Path, purposes: dict[str, str]
) -> None:
    keys, folder = tmp_path / "jwks.json", tmp_path / "market"
    published = json.loads(await traded(folder))
    for jwk in published["keys"]:
        if purpose := purposes.get(jwk.pop(PURPOSE)):
            jwk[PURPOSE] = purpose
    keys.write_text(json.dumps(published))

    ran = run("audit", "verify", str(folder / "journal.sqlite"), "--keys", str(keys))

    assert ran.code == 1
    assert ("Fault (head at record 1:" if purposes else "is no key set") in ran.out + ran.err


@pytest.mark.parametrize("content", [b"", b"hello", b"PAR1\x00", b"\xff"])
def test_what_holds_no_journal_is_not_taken_for_a_bundle_that_is_damaged(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)

    ran = run("audit", "verify", str(file))
    folder = run("audit", "verify", str(tmp_path))

    assert ran.code == 1
    assert "neither a database nor a backup nor a bundle" in ran.err
    assert folder.code == 2


@pytest.mark.parametrize("content", ["", "{}", '{"keys": 1}', '{"keys": [{"kty": "RSA"}]}'])
async def test_an_audit_takes_nothing_else_for_a_key_set(tmp_path: Path, content: str) -> None:
    await traded(tmp_path)
    keys = tmp_path / "jwks.json"
    keys.write_text(content)

    ran = run("audit", "verify", str(tmp_path / "journal.sqlite"), "--keys", str(keys))

    assert ran.code == 1
    assert "is no key set" in ran.err


async def test_a_restore_says_what_was_lost_and_takes_no_proof_from_before(tmp_path: Path) -> None:
    folder, copy = tmp_path / "market", tmp_path / "copy"
    await traded(folder)

    backed_up = run("backup", str(copy), "--data-dir", str(folder))
    async with serving(folder) as server:
        await server.organisation("operator", "Operator Two")
    restored = run("restore", str(copy), "--data-dir", str(folder))

    async with serving(folder) as server:
        server.clock.ahead_us -= 60_000_000
        with pytest.raises(Refused) as refused:
            await server.admin.approve("org_00000000000000000000000000")
        # A proof says the second in which it was made; the one of the restore is over.
        server.clock.ahead_us = 1_000_000
        with pytest.raises(Refused) as later:
            await server.admin.approve("org_00000000000000000000000000")
    assert (backed_up.code, restored.code) == (0, 0)
    assert "Backed up 10 records" in backed_up.out
    assert "Restored 10 records" in restored.out
    assert "Lost: records 11 to 12" in restored.out
    assert (folder / "journal.sqlite.before-epoch-3").exists()
    assert refused.value.code is Code.PROOF_INVALID
    assert later.value.code is Code.NOT_FOUND


async def test_a_restore_needs_the_journals_own_keys(tmp_path: Path) -> None:
    folder, copy = tmp_path / "market", tmp_path / "copy"
    await traded(folder)
    run("backup", str(copy), "--data-dir", str(folder))

    elsewhere = run("restore", str(copy), "--data-dir", str(tmp_path / "elsewhere"))

    assert elsewhere.code == 1
    assert "put back the keys of this journal" in elsewhere.err
    assert not (tmp_path / "elsewhere" / "journal.sqlite").exists()


async def test_nothing_is_restored_under_a_server_that_runs(tmp_path: Path) -> None:
    folder, copy = tmp_path / "market", tmp_path / "copy"
    async with serving(folder):
        backed_up = run("backup", str(copy), "--data-dir", str(folder))
        again = run("backup", str(copy), "--data-dir", str(folder))
        restored = run("restore", str(copy), "--data-dir", str(folder))

    assert backed_up.code == 0
    assert (again.code, restored.code) == (2, 1)
    assert "database_in_use" in restored.err
