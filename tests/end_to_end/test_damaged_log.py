"""A server does not go on from a log in which a changed byte hides what it had acknowledged."""

from pathlib import Path

import httpx2

from tests.clients.cli.running import run
from tests.processes import ServerProcess, free_port, not_served
from tests.remote import opened


async def test_a_server_does_not_fork_its_journal_where_a_byte_of_the_log_changed(
    tmp_path: Path,
) -> None:
    server = ServerProcess(tmp_path, free_port())
    async with httpx2.AsyncClient() as http:
        await opened(await server.start(), http)
    server.kill()
    log = server.data_dir / "journal.sqlite-wal"
    whole = log.read_bytes()
    damaged = bytearray(whole)
    damaged[len(damaged) // 3] ^= 1
    log.write_bytes(damaged)

    ended = not_served(server.data_dir)

    assert ended.returncode == 1
    assert "batches that were acknowledged stand in it and cannot be read" in ended.stderr
    assert log.read_bytes() == damaged

    log.write_bytes(whole)
    await server.start()
    server.stop()


async def test_what_a_changed_byte_of_the_log_hides_is_left_out_of_no_copy_and_not_destroyed(
    tmp_path: Path,
) -> None:
    server, copies = ServerProcess(tmp_path, free_port()), tmp_path / "copies"
    copies.mkdir()
    own = ("--data-dir", str(server.data_dir))
    async with httpx2.AsyncClient() as http:
        facts = await server.start()
        assert run("backup", str(copies / "early"), *own).code == 0
        await opened(facts, http)
    server.kill()
    log = server.data_dir / "journal.sqlite-wal"
    damaged = bytearray(log.read_bytes())
    damaged[len(damaged) * 2 // 3] ^= 1
    log.write_bytes(damaged)

    refused = [
        run("backup", str(copies / "late"), *own),
        run("audit", "export", "--out", str(copies / "lines"), *own),
        run("audit", "export", "--bundle", "--out", str(copies / "bundle"), *own),
    ]
    unusable = run("restore", str(server.data_dir / "ready.json"), *own)
    restored = run("restore", str(copies / "early"), *own)

    assert [each.code for each in (*refused, unusable)] == [1, 1, 1, 1]
    assert all("cannot be read" in each.err for each in refused)
    assert [each.name for each in copies.iterdir()] == ["early"]
    assert restored.code == 0
    assert "hides" in restored.out
    assert log.with_name("journal.sqlite-wal.damaged").read_bytes() == damaged
