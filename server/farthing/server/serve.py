"""Running a server: take the port, start the engine and its front ends, say where things are.

Boundary: what a person reads, and which process does what. `supervise` keeps them running, `engine`
and `front` are what runs in them. Source: spec/configuration.md.
"""

import errno
import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from farthing.identity.keyring import Keyring, Purpose
from farthing.server.acceptor import Shares
from farthing.server.engine import DRAIN_S, keyring_of, run_engine
from farthing.server.settings import Settings
from farthing.server.supervise import Job, Ready, Supervisor
from farthing.server.telemetry import set_up_logs
from farthing.server.upkeep import keep_freed_memory

__all__ = ["serve"]

_BACKLOG: Final = 2048
# Beyond what a process gives itself to end.
_SPARE_S: Final = 5
# What every system takes as the path of a socket, with a front end's number behind it; Linux takes
# 107 bytes, macOS 103.
_ADDRESS_BYTES_MAX: Final = 100
# What nobody but the owner may do with what is written here: the journal is everybody's business,
# and the folder may be an older one, or not the data folder at all.
_OTHERS: Final = 0o077
ENGINE: Final = "engine"
FRONT_END: Final = "front end"


def serve(settings: Settings, *, ready_file: Path | None = None) -> None:
    """Serve until told to stop: an engine, and front ends that share one listening socket.

    Args:
        settings: the configuration.
        ready_file: written, as JSON, once the server takes calls, and again whenever a process
            was replaced; for programs that start one.

    Raises:
        DidNotStart: another server has the database, its journal does not verify, no front end
            can start with the settings, or a process ends whenever it is started.
        DidNotEnd: told to stop, a process failed or had to be killed.
        UnusableKeys: the journal's keys are missing or open to others.
        OSError: the port is taken.
    """
    set_up_logs(settings.log_level)
    keep_freed_memory()
    with _listening(settings) as listener:
        issuer = settings.issuer(listener.getsockname()[1])
        # Each process opens the keys it signs with by itself.
        keyring = keyring_of(settings, issuer).only()
        announced = False
        shares = Shares(settings.workers)

        def changed(pids: Mapping[str, list[int]]) -> None:
            nonlocal announced
            if ready_file is not None:
                _write_ready(ready_file, keyring, issuer, pids)
            if not announced:
                announced = True
                _announce(keyring, issuer)

        with _address(settings) as address:

            def engine(ready: Ready) -> int:
                _see_the_journal(settings, begun=announced)
                os.umask(_OTHERS)
                listener.close()
                return run_engine(settings, issuer, address, ready=ready)

            def front(number: int, ready: Ready) -> int:
                from farthing.server.front import run_front  # noqa: PLC0415  # as in `_load`

                _see_the_journal(settings, begun=announced)
                os.umask(_OTHERS)
                return run_front(
                    settings, listener, address, number=number, share=shares.of(number), ready=ready
                )

            Supervisor(
                first=Job(name=ENGINE, run=engine, grace_s=DRAIN_S + _SPARE_S),
                others=tuple(
                    Job(name=FRONT_END, run=partial(front, number), grace_s=DRAIN_S + _SPARE_S)
                    for number in range(1, settings.workers + 1)
                ),
                between=_load,
                changed=changed,
                stopping=listener.close,
            ).run()


def _load() -> None:
    """Load what front ends share. The engine was forked before: it needs none of it."""
    import farthing.server.front  # noqa: F401, PLC0415


def _see_the_journal(settings: Settings, *, begun: bool) -> None:
    """Wait for a journal that was there before: in a folder without, keys and another would begin.

    Raises:
        FileNotFoundError: it is not there, as where its volume is not mounted any more.
    """
    if begun and not settings.database_path.exists():
        text = "the journal is not there any more"
        raise FileNotFoundError(errno.ENOENT, text, str(settings.database_path))


@contextmanager
def _address(settings: Settings) -> Iterator[Path]:
    """Where the engine's socket lies: beside the database, as its lock does."""
    database = settings.database_path
    address = database.with_name(f"{database.name}.sock")
    if len(os.fsencode(address)) <= _ADDRESS_BYTES_MAX:
        yield address
        return
    with TemporaryDirectory(prefix="farthing-", ignore_cleanup_errors=True) as folder:
        yield Path(folder) / "engine.sock"


def _listening(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    address = (settings.host, settings.port)
    try:
        return socket.create_server(address, family=family, backlog=_BACKLOG)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise OSError(f"port {settings.port} is taken; use --port") from error


def _announce(keyring: Keyring, issuer: str) -> None:
    """Tell a person where to connect, and at the first start where the keys are."""
    lines = [f"Farthing serves MCP at {issuer}/mcp"]
    if keyring.created:
        lines += [
            "First start. These keys were made and are readable by you alone:",
            f"  admin      {keyring.path(Purpose.ADMIN)}",
            f"  treasurer  {keyring.path(Purpose.TREASURER)}",
            "Keep them safe: the admin approves organisations, the treasurer credits accounts.",
        ]
    journal = keyring.public(Purpose.JOURNAL).thumbprint
    lines.append(f"Journal key, to pin when verifying: {journal}")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _write_ready(
    ready_file: Path, keyring: Keyring, issuer: str, pids: Mapping[str, list[int]]
) -> None:
    facts = {
        "admin_key": str(keyring.path(Purpose.ADMIN).absolute()),
        "engine_pid": pids[ENGINE][0],
        "front_end_pids": pids[FRONT_END],
        "issuer": issuer,
        "journal_thumbprint": keyring.public(Purpose.JOURNAL).thumbprint,
        "mcp": f"{issuer}/mcp",
        "treasurer_key": str(keyring.path(Purpose.TREASURER).absolute()),
    }
    part = ready_file.with_suffix(".part")
    part.write_text(json.dumps(facts))
    part.replace(ready_file)
