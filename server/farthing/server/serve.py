"""Running a server: take the port, say where things are, serve, stop gracefully.

Boundary: sockets, signals and what a person reads; what is served is put together in `app`.
"""

import asyncio
import errno
import json
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import uvicorn

from farthing.identity.keyring import Purpose
from farthing.server.app import Service, build
from farthing.server.settings import Settings
from farthing.server.telemetry import set_up_logs

__all__ = ["serve"]

_BACKLOG: Final = 2048
# Connections and calls at once; whoever comes above is answered 503 by the HTTP server itself.
_CONCURRENCY_MAX: Final = 4096
# How long calls in flight may take to end once the server was told to stop.
_GRACE_S: Final = 10
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def serve(settings: Settings, *, ready_file: Path | None = None) -> None:
    """Serve until told to stop.

    Args:
        settings: the configuration.
        ready_file: written, as JSON, once the server takes calls; for programs that start one.

    Raises:
        DatabaseInUse: another server has the database.
        UnusableKeys: the journal's keys are missing or open to others.
        Unverified: the journal does not verify.
        OSError: the port is taken.
    """
    set_up_logs(settings.log_level)
    with _listening(settings) as listener:
        service = build(settings, port=listener.getsockname()[1])
        config = uvicorn.Config(
            service.app,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=_CONCURRENCY_MAX,
            timeout_graceful_shutdown=_GRACE_S,
        )
        server = _Server(config, service, ready_file)
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_run(server, service, listener))


class _Server(uvicorn.Server):
    """Says when it takes calls, and ends by returning."""

    def __init__(self, config: uvicorn.Config, service: Service, ready_file: Path | None) -> None:
        super().__init__(config)
        self._service = service
        self._ready_file = ready_file

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            _announce(self._service, self._ready_file)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn raises a signal again once the last call has ended. That would end the process
        # before the writer has given its storage free, and report a failure where there was none.
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)


async def _run(server: _Server, service: Service, listener: socket.socket) -> None:
    async with service.running():
        await server.serve(sockets=[listener])


def _listening(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    address = (settings.host, settings.port)
    try:
        return socket.create_server(address, family=family, backlog=_BACKLOG)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise OSError(f"port {settings.port} is taken; use --port") from error


def _announce(service: Service, ready_file: Path | None) -> None:
    """Tell a person where to connect, and at the first start where the keys are."""
    keyring = service.keyring
    lines = [f"Farthing serves MCP at {service.issuer}/mcp"]
    if keyring.created:
        lines += [
            "First start. These keys were made and are readable by you alone:",
            f"  admin      {keyring.path(Purpose.ADMIN)}",
            f"  treasurer  {keyring.path(Purpose.TREASURER)}",
            "Keep them safe: the admin approves organisations, the treasurer credits accounts.",
        ]
    lines.append(f"Journal key, to pin when verifying: {keyring[Purpose.JOURNAL].thumbprint}")
    if ready_file is not None:
        facts = {
            "admin_key": str(keyring.path(Purpose.ADMIN).absolute()),
            "issuer": service.issuer,
            "journal_thumbprint": keyring[Purpose.JOURNAL].thumbprint,
            "mcp": f"{service.issuer}/mcp",
            "treasurer_key": str(keyring.path(Purpose.TREASURER).absolute()),
        }
        part = ready_file.with_suffix(".part")
        part.write_text(json.dumps(facts))
        part.replace(ready_file)
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
