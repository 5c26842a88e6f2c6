"""A server does not go on from a log in which a changed byte hides what it had acknowledged."""

from pathlib import Path

import httpx2

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
