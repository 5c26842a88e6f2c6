"""A server does not go on from a log in which a changed byte hides what it had acknowledged."""

import asyncio
import sys
from pathlib import Path

import httpx2

from tests.patience import patiently
from tests.processes import ServerProcess, free_port
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

    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "farthing.clients.cli", "serve", "--port", "0"),
        *("--data-dir", str(server.data_dir)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with patiently():
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()

    assert process.returncode == 1
    assert b"batches that were acknowledged stand in it and cannot be read" in said
    assert log.read_bytes() == damaged

    log.write_bytes(whole)
    await server.start()
    server.stop()
