"""Running a server: take the port, say where things are, serve, stop gracefully."""

import asyncio
import json
import socket
import sys
from pathlib import Path

import uvicorn

from farthing.identity.keyring import Purpose
from farthing.server.app import Service, build
from farthing.server.settings import Settings
from farthing.server.telemetry import set_up_logs

__all__ = ["serve"]

_BACKLOG = 2048
# How long calls in flight may take to end once the server was told to stop.
_GRACE_S = 10


def serve(settings: Settings, *, ready_file: Path | None = None) -> None:
    """Serve until told to stop.

    Args:
        settings: the configuration.
        ready_file: written, as JSON, once the server takes calls; for programs that start one.

    Raises:
        DatabaseInUse: another server has the database.
        OSError: the port is taken.
    """
    set_up_logs(settings.log_level)
    with _listening(settings) as listener:
        service = build(settings, port=listener.getsockname()[1])
        config = uvicorn.Config(
            service.app,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
        uvicorn_run(config, service, listener, ready_file)


def uvicorn_run(
    config: uvicorn.Config, service: Service, listener: socket.socket, ready_file: Path | None
) -> None:
    """Run one server on a socket that is already bound."""

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            _announce(service, ready_file)

    async def run() -> None:
        async with service.running():
            await Announcing(config).serve(sockets=[listener])

    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(run())


def _listening(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((settings.host, settings.port))
    listener.listen(_BACKLOG)
    return listener


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
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
    if ready_file is not None:
        facts = {
            "admin_key": str(keyring.path(Purpose.ADMIN)),
            "issuer": service.issuer,
            "journal_thumbprint": keyring[Purpose.JOURNAL].thumbprint,
            "mcp": f"{service.issuer}/mcp",
            "treasurer_key": str(keyring.path(Purpose.TREASURER)),
        }
        part = ready_file.with_suffix(".part")
        part.write_text(json.dumps(facts))
        part.replace(ready_file)
