"""A second server on the same file does not start, says why, and harms nobody."""

from pathlib import Path

import httpx2

from tests.processes import ServerProcess, free_port, not_served


async def test_a_second_server_on_the_same_file_refuses_to_start(tmp_path: Path) -> None:
    first = ServerProcess(tmp_path, free_port())
    ready = tmp_path / "second.json"
    try:
        facts = await first.start()
        second = not_served(tmp_path, "--ready-file", str(ready))
        async with httpx2.AsyncClient() as http:
            health = await http.get(f"{facts['issuer']}/healthz")
        unharmed = health.status_code == 200
    finally:
        first.stop()

    assert second.returncode not in {0, None}
    assert "database_in_use" in second.stderr
    assert "Traceback" not in second.stderr
    assert not ready.exists()
    assert unharmed
