"""`farthing serve` as a process: what it says, what it refuses to start with, how it ends."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import orjson
import pytest

from farthing.identity.keyring import Purpose
from farthing.server.app import build
from farthing.server.settings import Settings
from farthing.settlement.journal.remote import RemoteEngine
from tests.patience import PATIENCE_S
from tests.processes import ServerProcess, free_port
from tests.server.listening import envelope, listening

FARTHING = (sys.executable, "-m", "farthing.clients.cli")
FIRST_START_LINES = 6


@contextmanager
def served(data_dir: Path, *options: str) -> Iterator[tuple["subprocess.Popen[str]", list[str]]]:
    """A server process and what it said until it took calls."""
    command = [*FARTHING, "serve", "--data-dir", str(data_dir), "--port", "0", *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=data_dir.parent
    )
    said: list[str] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line.rstrip("\n"))
            if line.startswith("Journal key"):
                break
        assert process.poll() is None, said
        yield process, said
    finally:
        process.kill()
        process.communicate()


async def failed(*words: str) -> str:
    """What a command that must fail with 1 says at last."""
    process = await asyncio.create_subprocess_exec(
        *FARTHING, *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    assert (process.returncode, out) == (1, b""), err
    assert b"Traceback" not in err
    return err.decode().splitlines()[-1]


async def done(*words: str) -> None:
    """A command that must end with 0."""
    process = await asyncio.create_subprocess_exec(*FARTHING, *words)
    assert await process.wait() == 0


def test_it_says_where_it_is_and_at_the_first_start_where_the_keys_are(tmp_path: Path) -> None:
    folder, ready = tmp_path / "market", tmp_path / "ready.json"
    with served(folder, "--ready-file", str(ready)) as (process, first):
        facts = json.loads(ready.read_text())
        health = httpx2.get(f"{facts['issuer']}/healthz").json()
        process.terminate()
        ended = process.wait(timeout=PATIENCE_S)
    with served(folder) as (process, second):
        process.send_signal(signal.SIGINT)
        interrupted = process.wait(timeout=PATIENCE_S)

    assert health == {"status": "ok"}
    assert (ended, interrupted) == (0, 0)
    assert first[0] == f"Farthing serves MCP at {facts['mcp']}"
    assert first[-1].endswith(facts["journal_thumbprint"])
    assert len(first) == FIRST_START_LINES
    for role in ("admin", "treasurer"):
        path = Path(facts[f"{role}_key"])
        assert path.is_absolute()
        assert path.is_file()
        assert any(str(path) in line for line in first)
    # Another port is another URL, and the same journal.
    assert second == [second[0], first[-1]]


def test_what_it_writes_is_its_owners_alone_whoever_made_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "market"
    folder.mkdir(mode=0o755)
    with served(folder):
        modes = {path.name: path.stat().st_mode & 0o077 for path in folder.iterdir()}

    assert "journal.sqlite" in modes
    assert set(modes.values()) == {0}


async def test_a_damaged_file_of_calls_ends_the_start_with_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "market"
    folder.mkdir()
    (folder / "results.sqlite").write_bytes(b"no database" * 1000)

    said = await failed("serve", "--data-dir", str(folder), "--port", "0")

    assert said.startswith(f"farthing: the file of calls, {folder / 'results.sqlite'}, cannot be")
    assert "move it away" in said


def test_told_to_stop_it_answers_what_it_has_begun_to_read(tmp_path: Path) -> None:
    body = envelope("search_catalog", {"query": "text"})
    head = (
        "POST /mcp HTTP/1.1\r\nhost: {host}\r\nexpect: 100-continue\r\n"
        "content-type: application/json\r\naccept: application/json, text/event-stream\r\n"
        "mcp-protocol-version: 2026-07-28\r\nmcp-method: tools/call\r\n"
        "mcp-name: search_catalog\r\ncontent-length: {size}\r\n\r\n"
    )
    with served(tmp_path / "market") as (process, said):
        url = urlsplit(said[0].rpartition(" ")[2])
        assert url.hostname is not None
        assert url.port is not None
        with closing(
            socket.create_connection((url.hostname, url.port), timeout=PATIENCE_S)
        ) as call:
            call.sendall(head.format(host=url.netloc, size=len(body)).encode())
            # The server asks for the body: from now on the call is in flight.
            asked = call.recv(1024)
            process.terminate()
            while _takes_connections(url.hostname, url.port):
                pass
            call.sendall(body)
            answer = b"".join(iter(lambda: call.recv(65_536), b""))
        ended = process.wait(timeout=PATIENCE_S)

    status, _, rest = answer.partition(b"\r\n")
    reply = orjson.loads(rest.rpartition(b"\r\n\r\n")[2])
    assert asked.startswith(b"HTTP/1.1 100")
    assert status == b"HTTP/1.1 200 OK"
    assert reply["result"]["structuredContent"]["results"] == []
    assert ended == 0


def _takes_connections(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


async def test_what_it_cannot_start_with_is_one_line(tmp_path: Path) -> None:
    folder, other = tmp_path / "market", tmp_path / "other"
    async with listening(folder) as server:
        port = str(urlsplit(server.service.issuer).port)
        second = await failed("serve", "--data-dir", str(folder), "--port", "0")
        taken = await failed("serve", "--data-dir", str(other), "--port", port)
    (folder / "keys" / "journal.jwk").unlink()
    lost = await failed("serve", "--data-dir", str(folder), "--port", "0")
    reach = await failed("serve", "--host", "0.0.0.0")  # noqa: S104

    assert second.startswith("farthing: database_in_use: ")
    assert second.endswith("name another folder with --data-dir")
    assert taken == f"farthing: port {port} is taken; use --port"
    assert "journal.jwk: put back the keys of this journal" in lost
    assert "set public_url to an https URL" in reach
    assert not other.exists()


async def test_what_no_front_end_can_start_with_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FARTHING_STRIPE_KEY_FILE", str(tmp_path / "no-such-file"))

    alone = await failed("serve", "--data-dir", str(tmp_path), "--port", "0")

    assert alone == "farthing: stripe_key_file and stripe_webhook_secret_file: both or none"


@pytest.mark.parametrize("is_empty", [True, False])
async def test_where_the_journal_is_gone_none_begins_under_its_keys(
    tmp_path: Path, *, is_empty: bool
) -> None:
    server, copy = ServerProcess(tmp_path, free_port()), tmp_path / "copy"
    data_dir = ("--data-dir", str(tmp_path))
    await server.start()
    await done("backup", str(copy), *data_dir)
    server.stop()
    for end in ("", "-wal", "-shm"):
        (tmp_path / f"journal.sqlite{end}").unlink(missing_ok=True)
    if is_empty:
        (tmp_path / "journal.sqlite").touch()

    gone = await failed("serve", *data_dir, "--port", "0")

    assert f"the journal of the keys in {tmp_path / 'keys'} is not there" in gone
    await done("restore", str(copy), *data_dir)
    await server.start()
    server.stop()


def test_the_engines_process_loads_no_door() -> None:
    program = "import farthing.server.engine, sys; print(*sys.modules)"
    ran = subprocess.run(  # our own interpreter
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )

    loaded = {name.partition(".")[0] for name in ran.stdout.split()}
    assert (
        loaded & {"httpx2", "mcp", "starlette", "structlog", "typer", "uvicorn", "uvloop"} == set()
    )


def test_each_process_holds_no_other_key_than_it_signs_with(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    remote = RemoteEngine(tmp_path / "engine.sock", in_flight_max=1)

    service = build(settings, port=1, remote=remote)

    assert service.keyring.keys.keys() == {Purpose.PLATFORM, Purpose.PAYER}
    assert service.keyring.public(Purpose.JOURNAL).jwk() == service.market.journal_jwk
