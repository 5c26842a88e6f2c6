"""Real server processes for tests that kill them."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.patience import PATIENCE_S

__all__ = ["ServerProcess", "free_port", "not_served"]

READY_PAUSE_S = 0.05
READY_TRIES = int(PATIENCE_S / READY_PAUSE_S)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def not_served(data_dir: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """What `farthing serve` says on a data directory on which it must end at once."""
    command = [sys.executable, "-m", "farthing.clients.cli", "serve", "--port", "0"]
    return subprocess.run(
        [*command, "--data-dir", str(data_dir), *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@dataclass(slots=True)
class ServerProcess:
    """`farthing serve` on a data directory, to be started and killed again and again.

    `runs` is what is run instead of it, such as `tests.standing`.
    """

    data_dir: Path
    port: int
    workers: int = 1
    runs: tuple[str, ...] = ("farthing.clients.cli",)
    process: "subprocess.Popen[bytes] | None" = None
    log: "IO[bytes] | None" = None
    facts: "dict[str, Any] | None" = None

    async def start(self) -> dict[str, Any]:
        """Start it and wait until it takes calls; gives the facts of its ready file."""
        ready = self.data_dir / "ready.json"
        ready.unlink(missing_ok=True)
        self.log = (self.data_dir / "server.log").open("ab")
        command = [sys.executable, "-m", *self.runs, "serve"]
        command += ["--data-dir", str(self.data_dir), "--port", str(self.port)]
        command += ["--workers", str(self.workers), "--ready-file", str(ready)]
        self.process = subprocess.Popen(  # noqa: ASYNC220  # starts at once
            command, stdout=self.log, stderr=self.log
        )
        for _ in range(READY_TRIES):
            if ready.exists():
                self.facts = json.loads(ready.read_text())
                assert self.facts is not None
                return self.facts
            assert self.process.poll() is None, (self.data_dir / "server.log").read_text()[-2000:]
            await asyncio.sleep(READY_PAUSE_S)
        raise AssertionError("the server was not ready in time")

    @property
    def pid(self) -> int:
        """The id of the process that keeps the others running."""
        assert self.process is not None
        return self.process.pid

    @property
    def engine_pid(self) -> int:
        """The id of the engine's process now."""
        pid: int = self._now()["engine_pid"]
        return pid

    @property
    def front_end_pids(self) -> list[int]:
        """The ids of the front ends' processes now."""
        pids: list[int] = self._now()["front_end_pids"]
        return pids

    def kill(self) -> None:
        """kill -9 of the process that keeps the others running, now; they end with it."""
        pids = (self.engine_pid, *self.front_end_pids)
        os.kill(self.pid, signal.SIGKILL)
        self._reap()
        for pid in pids:
            _gone(pid)

    def replaced(self, pid: int) -> None:
        """Wait until a process that was killed has been replaced."""
        for _ in range(READY_TRIES):
            if pid not in {self.engine_pid, *self.front_end_pids}:
                return
            time.sleep(READY_PAUSE_S)
        raise AssertionError(f"process {pid} was not replaced in time: {self.said()}")

    def said(self) -> str:
        """The end of its log, without the requests."""
        lines = (self.data_dir / "server.log").read_text().splitlines()
        return "\n".join([line for line in lines if '"event": "request"' not in line][-20:])

    def _now(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.data_dir / "ready.json").read_text())
        return facts

    def stop(self) -> None:
        """Ask it to stop, and wait until it has."""
        if self.process is not None:
            if self.process.poll() is None:
                self.process.terminate()
            self._reap()

    def _reap(self) -> None:
        assert self.process is not None
        self.process.wait(timeout=PATIENCE_S)
        if self.log is not None:
            self.log.close()


def _gone(pid: int) -> None:
    """Wait until a process, which is nobody's child here, has ended."""
    for _ in range(READY_TRIES):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if _is_a_zombie(pid):
            return
        time.sleep(READY_PAUSE_S)
    raise AssertionError(f"process {pid} did not end in time")


def _is_a_zombie(pid: int) -> bool:
    """Whether it has ended and its new parent does not care, as in containers without an init."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False
