"""Runs the `farthing` command in this process, and a real server of it in another."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from farthing.clients.cli import application

__all__ = ["Ran", "Server", "answer", "run", "serving"]

APPLICATION = application(entry_points(group="farthing.commands"))
# What a person's shell may hold must not reach a test.
NO_ENVIRONMENT = {"FARTHING_URL": "", "FARTHING_KEY": "", "FARTHING_HOME": "/nonexistent"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server in a process of its own."""

    url: str
    journal_thumbprint: str
    admin_key: str
    treasurer_key: str


def run(*words: str, stdin: str = "", **environment: str) -> Ran:
    """Run `farthing` with these words."""
    result = CliRunner().invoke(
        APPLICATION, words, input=stdin, env={**NO_ENVIRONMENT, **environment}
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(code=result.exit_code, out=result.stdout, err=result.stderr)


def answer(*words: str, **environment: str) -> Any:
    """The JSON answer of a command that must succeed."""
    ran = run(*words, "--json", **environment)
    assert ran.code == 0, (words, ran)
    return json.loads(ran.out)


@contextmanager
def serving(data_dir: Path) -> Iterator[Server]:
    """Serve with `farthing serve` on a free port until the block ends."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "farthing.clients.cli", "serve"),
            *("--port", "0", "--data-dir", str(data_dir)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout is not None
        said: dict[str, str] = {}
        try:
            # Its last line when it takes calls; a server that does not start closes its output.
            for line in process.stdout:
                before, _, word = line.strip().rpartition(" ")
                said[before] = word
                if before.startswith("Journal key"):
                    break
            yield Server(
                url=said["Farthing serves MCP at"].removesuffix("/mcp"),
                journal_thumbprint=said["Journal key, to pin when verifying:"],
                admin_key=str(data_dir / "keys" / "admin.jwk"),
                treasurer_key=str(data_dir / "keys" / "treasurer.jwk"),
            )
        finally:
            process.terminate()
