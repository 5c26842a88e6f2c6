"""An auditor from outside: a real trade, a published key, files, and nothing of the server's."""

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytest_asyncio

from farthing.identity.keyring import Purpose, retire
from farthing.protocol.canonical import canonical_bytes, sha256_hex
from farthing.protocol.platform_keys import PURPOSE
from farthing.protocol.records import entries_in
from farthing.protocol.wire import document_of
from farthing.settlement.audit import media
from farthing.settlement.journal.sqlite import SqliteStore
from tests.clients.cli.running import Ran, run
from tests.serving import Shop, serving


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """A folder with a market in which there was a trade, and what was published of it."""

    folder: Path
    keys: Path
    receipt: Path
    thumbprint: str
    records: int
    verifier: Path

    @property
    def database(self) -> str:
        return str(self.folder / "journal.sqlite")


@pytest_asyncio.fixture
async def market(tmp_path: Path) -> Market:
    folder = tmp_path / "market"
    async with serving(folder) as server:
        shop = await Shop.opened(server)
        agreement = await shop.buyer.accept(await shop.buyer.quote(shop.listing_id, {"page": 2}))
        for _ in range(2):
            hold = (await shop.buyer.hold(agreement.agreement_id, {"page": 3}, {"x": 1})).answer
            charge_id = await shop.captured(
                agreement, hold.hold_id, {"page": 2}, sha256_hex(b"result")
            )
        receipt = await shop.buyer.receipt(charge_id)
        await server.organisation("operator", "Operator Two")
        for name in ("/.well-known/jwks.json", "/farthing_verify.py"):
            published = await server.http.get(f"{server.service.issuer}{name}")
            (tmp_path / name.rpartition("/")[2]).write_bytes(published.content)
        thumbprint = server.service.keyring[Purpose.JOURNAL].thumbprint
    (tmp_path / "receipt.json").write_bytes(canonical_bytes(document_of(receipt)) + b"\n")
    last = SqliteStore(folder / "journal.sqlite").last()
    assert last is not None
    return Market(
        folder=folder,
        keys=tmp_path / "jwks.json",
        receipt=tmp_path / "receipt.json",
        thumbprint=thumbprint,
        records=last.last_seq,
        verifier=tmp_path / "farthing_verify.py",
    )


def exported(market: Market, *words: str) -> Path:
    out = market.folder.parent / "export"
    ran = run("audit", "export", market.database, "--out", str(out), *words)
    assert ran.code == 0, ran
    assert f"{market.records} records" in ran.out
    return out


def verified(market: Market, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", str(market.verifier), *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=market.folder.parent,
    )


def test_an_outsider_checks_a_receipt_with_the_downloaded_verifier(market: Market) -> None:
    bundle = exported(market, "--bundle", "--data-dir", str(market.folder))

    alone = verified(
        market, "--receipt", market.receipt, "--keys", market.keys, "--trust", market.thumbprint
    )
    held = verified(market, bundle, "--receipt", market.receipt, "--trust", market.thumbprint)

    assert (alone.returncode, alone.stderr) == (0, "")
    assert (held.returncode, held.stderr) == (0, "")
    assert f"{market.records} records of" in held.stdout
    assert "is the one in the bundle" in held.stdout


def exchanged(key_set: str) -> str:
    """A key set in which each key is said to be for what the other is."""
    for old, new in (("platform", "?"), ("journal", "platform"), ("?", "journal")):
        key_set = key_set.replace(f'"{PURPOSE}":"{old}"', f'"{PURPOSE}":"{new}"')
    return key_set


def test_a_bundle_names_the_keys_for_what_they_are_published_for(market: Market) -> None:
    own = exported(market, "--bundle", "--data-dir", str(market.folder)).read_bytes()
    market.folder.with_name("export").unlink()

    assert exported(market, "--bundle", "--keys", str(market.keys)).read_bytes() == own


def test_a_bundle_is_audited_with_no_database(market: Market) -> None:
    bundle = exported(market, "--bundle", "--keys", str(market.keys), "--data-dir", "nowhere")
    shutil.rmtree(market.folder)

    swapped = market.keys.with_name("swapped.json")
    swapped.write_text(exchanged(market.keys.read_text()))
    pinned = run("audit", "verify", str(bundle), "--trust", market.thumbprint)
    published = run("audit", "verify", str(bundle), "--keys", str(market.keys))
    misled = run("audit", "verify", str(bundle), "--keys", str(swapped))
    unpinned = run("audit", "verify", str(bundle))
    stranger = run("audit", "verify", str(bundle), "--trust", "A" * 43)

    assert (pinned.code, unpinned.code, stranger.code) == (0, 0, 1)
    assert (published.code, published.out, misled.code) == (0, pinned.out, 1)
    assert f"pinned: the newest head is signed by {market.thumbprint}" in pinned.out
    assert "integrity only" in unpinned.out
    assert "not a trusted key" in stranger.out


async def test_who_pinned_a_journal_s_key_that_was_retired_audits_with_the_published_set(
    market: Market, tmp_path: Path
) -> None:
    retire(market.folder / "keys", Purpose.JOURNAL, os.urandom)
    async with serving(market.folder) as server:
        await server.organisation("operator", "Operator Three")
        new = server.service.keyring[Purpose.JOURNAL].thumbprint
        published = await server.http.get(f"{server.service.issuer}/.well-known/jwks.json")
        market.keys.write_bytes(published.content)
    # Who answered may have left out what the old key said, and put in keys of its own.
    bare = tmp_path / "bare.json"
    bare.write_text(json.dumps({"keys": published.json()["keys"]}))
    bundle, data_dir = tmp_path / "bundle", ("--data-dir", str(market.folder))
    assert run("audit", "export", "--bundle", "--out", str(bundle), *data_dir).code == 0

    def audited(*words: str) -> Ran:
        return run("audit", "verify", str(bundle), "--trust", market.thumbprint, *words)

    followed = audited("--keys", str(market.keys))
    unled, alone = audited("--keys", str(bare)), audited()

    assert followed.code == 0, followed
    assert f"pinned: the newest head is signed by {new}" in followed.out
    assert (unled.code, alone.code) == (1, 1)
    assert f"signed by {new}, which is not a trusted key" in unled.out


def test_a_damaged_bundle_is_named_by_its_record(market: Market) -> None:
    bundle = exported(market, "--bundle", "--data-dir", str(market.folder))
    data = bundle.read_bytes()
    bundle.write_bytes(data.replace(b'"operation":"fund_account"', b'"operation":"fund_accounts"'))

    ran = run("audit", "verify", str(bundle), "--trust", market.thumbprint)

    assert ran.code == 1
    assert "Fault (record at record " in ran.out


def test_a_market_that_was_traded_in_passes_every_rule(market: Market) -> None:
    ran = run("audit", "verify", "--data-dir", str(market.folder))

    assert ran.code == 0, ran
    assert f"{market.records} records verify" in ran.out
    assert "tables agree with the journal" in ran.out


@pytest.fixture
def nothing_writable(market: Market) -> Iterator[Callable[[], None]]:
    """Makes the market's folder one that nothing can be written to, as of a disc, until the end."""
    folder, undo = str(market.folder), list[Callable[[], object]]()

    def close() -> None:
        if os.geteuid():
            undo.append(lambda: market.folder.chmod(0o700))
            market.folder.chmod(0o500)
            return
        # Permissions bind everybody but root.
        mounted = subprocess.run(["mount", "--bind", folder, folder], check=False)  # noqa: S607
        if mounted.returncode:
            pytest.skip("nothing may be mounted here")
        undo.append(lambda: subprocess.run(["umount", "--lazy", folder], check=True))  # noqa: S607
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)  # noqa: S607

    yield close
    for each in undo:
        each()


def folded(market: Market) -> list[Path]:
    """Its databases, as a server that has stopped leaves them: with no log."""
    paths = [market.folder / "journal.sqlite", market.folder / "reports.sqlite"]
    for path in paths:
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for left in ("-wal", "-shm"):
            path.with_name(f"{path.name}{left}").unlink(missing_ok=True)
    return paths


@pytest.mark.parametrize("log", [None, b""])
def test_a_stopped_server_s_database_is_audited_where_nothing_can_be_written(
    market: Market, nothing_writable: Callable[[], None], log: bytes | None
) -> None:
    for path in folded(market):
        if log is not None:
            path.with_name(f"{path.name}-wal").write_bytes(log)
    nothing_writable()
    with pytest.raises(OSError, match="new"):
        (market.folder / "new").touch()

    ran = run("audit", "verify", "--data-dir", str(market.folder))

    assert (ran.code, ran.err) == (0, "")
    assert f"{market.records} records verify" in ran.out
    assert "tables agree with the journal" in ran.out
    exported(market, "--bundle", "--data-dir", str(market.folder))
    copy = market.folder.with_name("copy")
    assert run("backup", str(copy), "--data-dir", str(market.folder)).code == 0
    assert run("audit", "verify", str(copy), "--keys", str(market.keys)).code == 0


async def test_who_judges_by_another_platform_s_keys_is_told_to_look_at_them(
    market: Market, tmp_path: Path
) -> None:
    async with serving(tmp_path / "other") as server:
        await server.organisation("operator", "Operator One")

    other = run("audit", "verify", market.database, "--data-dir", str(tmp_path / "other"))
    own = run("audit", "verify", market.database, "--data-dir", str(market.folder))

    assert (other.code, own.code) == (1, 0)
    assert "no head is by these keys: see that they are this platform's" in other.out
    assert "no head" not in own.out


def test_a_log_where_nothing_can_be_written_is_read_and_not_passed_over(
    market: Market, nothing_writable: Callable[[], None]
) -> None:
    folded(market)
    log = Path(f"{market.database}-wal")
    with closing(sqlite3.connect(market.database)) as database:
        with database:
            database.execute("UPDATE epoch SET number = 0")
        written = log.read_bytes()
        file = Path(market.database).read_bytes()
    Path(market.database).write_bytes(file)
    log.write_bytes(written)
    nothing_writable()

    ran = run("audit", "verify", "--data-dir", str(market.folder))

    assert ran.code == 1
    assert "Fault (table: table epoch: it is below that of the last batch)" in ran.out


def test_without_room_for_a_copy_it_is_said_where_to_name_some(
    market: Market, nothing_writable: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    folded(market)
    nothing_writable()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))

    ran = run("audit", "verify", "--data-dir", str(market.folder))

    assert ran.code == 1
    assert "name a folder that has in TMPDIR" in ran.err


def test_no_copy_is_judged_that_was_made_while_the_database_was_written(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(_: object) -> SimpleNamespace:
        os.utime(market.database, ns=(0, 0))
        return SimpleNamespace(free=2**60)

    monkeypatch.setattr(media, "_readable_in_place", lambda _: False)
    monkeypatch.setattr(shutil, "disk_usage", written)

    ran = run("audit", "verify", "--data-dir", str(market.folder))

    assert (ran.code, "is being written to" in ran.err) == (1, True)


@pytest.mark.parametrize("words", [("audit", "verify", "--json"), ("--json", "audit", "verify")])
def test_an_audit_is_told_to_a_program_too(market: Market, words: tuple[str, ...]) -> None:
    ran = run(*words, "--data-dir", str(market.folder))
    told = json.loads(ran.out)

    assert (ran.code, told["verified"]) == (0, True)
    assert any(f"{market.records} records verify" in each for each in told["findings"])


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet", "hledger", "beancount"])
def test_the_books_can_be_taken_out(market: Market, form: str) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")

    out = exported(market, "--format", form, "--data-dir", str(market.folder))
    assert stat.S_IMODE(out.stat().st_mode) == 0o600

    assert out.stat().st_size > 0
    again = run("audit", "export", market.database, "--out", str(out), "--format", form)
    assert (again.code, out.stat().st_size > 0) == (2, True)
    assert "name a new file" in again.err


def test_nothing_is_left_of_an_export_that_failed(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    out = market.folder.parent / "export"
    words = ("--format", "parquet", "--data-dir", str(market.folder))

    ran = run("audit", "export", market.database, "--out", str(out), *words)

    assert ran.code == 1
    assert "farthing[export]" in ran.err
    assert not out.exists()


@pytest.mark.parametrize("form", [["--bundle"], ["--format", "jsonl"], ["--format", "beancount"]])
def test_a_changed_record_is_exported_in_no_form_and_is_named(
    market: Market, form: list[str]
) -> None:
    old = b'"operation":"fund_account"'
    first_seq, records = damaged(market, "records", old, old.replace(b"account", b"accounts"))
    place = next(at for at, each in enumerate(entries_in(records)) if old in each)

    ran, out = refused_export(market, *form)

    assert (ran.code, out.exists()) == (1, False)
    assert f"not exported: record at record {first_seq + place}: " in ran.err


def test_a_journal_whose_signed_head_was_changed_is_made_no_bundle(market: Market) -> None:
    first_seq, _ = damaged(market, "note", b"/journal\n9\n", b"/journal\n8\n")

    ran, out = refused_export(market, "--bundle")

    assert (ran.code, out.exists()) == (1, False)
    assert f"not exported: head at record {first_seq}: " in ran.err


def damaged(market: Market, column: str, old: bytes, new: bytes) -> tuple[int, bytes]:
    """Change a value of the first batch that has these bytes in it; its first record, and it."""
    with closing(sqlite3.connect(market.database)) as database, database:
        database.execute("DROP TRIGGER journal_batch_stays")
        rows = database.execute(f"SELECT first_seq, CAST({column} AS BLOB) FROM journal_batch")  # noqa: S608
        first_seq, value = next(row for row in rows.fetchall() if old in row[1])
        changed = value.replace(old, new, 1)
        database.execute(
            f"UPDATE journal_batch SET {column} = ? WHERE first_seq = ?",  # noqa: S608
            (changed if column == "records" else changed.decode(), first_seq),
        )
    return first_seq, value


def refused_export(market: Market, *form: str) -> tuple[Ran, Path]:
    out = market.folder.parent / "export"
    own = ("--data-dir", str(market.folder))
    return run("audit", "export", market.database, "--out", str(out), *form, *own), out


def test_where_there_is_no_database_the_command_asks_for_its_folder(tmp_path: Path) -> None:
    nowhere = ("--data-dir", str(tmp_path))
    for words in (("audit", "verify"), ("audit", "export", "--out", "x"), ("backup", "x")):
        ran = run(*words, *nowhere)

        assert ran.code == 2
        assert "there is no database" in ran.err
    retired = run("retire-key", "journal", *nowhere)
    assert (retired.code, "name its folder with --data-dir" in retired.err) == (1, True)


@pytest.mark.parametrize("words", [("verify",), ("export", "--out", "x")])
def test_who_names_a_server_s_folder_or_no_keys_is_told_the_option_for_it(
    market: Market, words: tuple[str, ...]
) -> None:
    folder = run("audit", *words, str(market.folder))
    keyless = run("audit", *words, market.database, "--data-dir", str(market.folder.parent))

    assert folder.code == 2
    assert "--data-dir" in folder.err
    assert keyless.code == 1
    assert "with --keys the key set that its platform publishes" in keyless.err


def test_what_is_no_journal_or_no_key_set_is_told_from_a_fault(market: Market) -> None:
    receipt = run("audit", "verify", str(market.receipt))
    keys = run("audit", "verify", market.database, "--keys", str(market.receipt))
    bundle = exported(market, "--bundle", "--data-dir", str(market.folder))
    again = run("audit", "export", str(bundle), "--out", str(bundle.with_name("books")))

    assert (receipt.code, receipt.out, keys.code, keys.out) == (1, "", 1, "")
    assert "A receipt is for the one-file verifier" in receipt.err
    assert (again.code, "is neither a database nor a backup" in again.err) == (1, True)
    assert "is no key set: a platform publishes it at /.well-known/jwks.json" in keys.err


@pytest.mark.parametrize("text", ["foo", "A" * 42, ""])
def test_what_is_no_thumbprint_is_said_and_nothing_judged(tmp_path: Path, text: str) -> None:
    bundle = tmp_path / "bundle"
    bundle.touch()

    ran = run("audit", "verify", str(bundle), "--trust", text)

    assert (ran.code, ran.out) == (2, "")


def test_a_pin_is_for_a_bundle(market: Market) -> None:
    ran = run("audit", "verify", market.database, "--trust", market.thumbprint)

    assert ran.code == 1
    assert "judged by --keys" in ran.err


def test_an_unknown_format_is_called_that(market: Market) -> None:
    ran = run("audit", "export", market.database, "--out", "x", "--format", "xlsx")

    assert ran.code == 2
    assert "jsonl, csv, parquet, hledger, beancount" in ran.err


def test_a_bundle_with_a_format_is_refused(market: Market) -> None:
    out = market.folder.parent / "both"

    ran = run("audit", "export", market.database, "--out", str(out), "--format", "csv", "--bundle")

    assert ran.code == 2
    assert "a bundle has no format" in ran.err
    assert not out.exists()


def test_the_command_prints_the_verifier_that_the_server_gives(market: Market) -> None:
    assert run("audit", "verifier").out == market.verifier.read_text()
