"""A front end: the process that callers reach. It admits, reads, signs, and asks the engine.

Boundary: HTTP and asyncio; what is served is put together in `app`.
"""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Final, cast

import uvicorn

from farthing.server.acceptor import Acceptor, Share
from farthing.server.app import Service, build
from farthing.server.connections import (
    CONNECTIONS_MAX,
    BoundedConnection,
    end_unread,
    may_open_all,
)
from farthing.server.settings import Settings
from farthing.server.siblings import Siblings
from farthing.settlement.journal.remote import RemoteEngine

__all__ = ["GRACE_S", "run_front"]

# How long calls in flight may take to end once the server was told to stop.
GRACE_S: Final = 10
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def run_front(
    settings: Settings,
    listener: socket.socket,
    address: Path,
    *,
    number: int,
    share: Share,
    ready: Callable[[str], None],
) -> int:
    """Serve callers from this process until SIGTERM or SIGINT.

    Args:
        settings: the configuration.
        listener: the socket that calls arrive at, shared with the other front ends.
        address: where the engine's socket lies.
        number: which of the front ends this is, from 1.
        share: of all connections, beside theirs.
        ready: told "" once calls are taken.

    Returns:
        The exit code.
    """
    engine = RemoteEngine(address, in_flight_max=settings.queue_max)
    end_unread(listener)
    may_open_all()
    port = listener.getsockname()[1]
    siblings = Siblings(number=number, count=settings.workers, address=address)
    service = build(settings, port=port, remote=engine, siblings=siblings)
    config = uvicorn.Config(
        service.app,
        lifespan="off",
        http=BoundedConnection,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    server = _Server(config, service, share, ready)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_run(server, service, listener))
    return 0


class _Server(uvicorn.Server):
    """Says when it takes calls, and ends by returning."""

    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
        share: Share,
        ready: Callable[[str], None],
    ) -> None:
        super().__init__(config)
        self._service = service
        self._share = share
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        assert sockets, "it is given the socket that the front ends share"
        # uvicorn would take all connections that wait, and is given no socket to take them from.
        await super().startup([])
        self._acceptor = Acceptor(
            sockets[0],
            partial(BoundedConnection, self.config, self.server_state, self.lifespan.state),
            share=self._share,
            held=lambda: len(self.server_state.connections),
            held_max=CONNECTIONS_MAX,
        )
        self.servers.append(cast("asyncio.Server", self._acceptor))
        if not self.should_exit:
            self._ready("")

    async def on_tick(self, counter: int) -> bool:
        self._acceptor.tell()
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.stop_streams()
        super().handle_exit(sig, frame)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn raises a signal again once the last call has ended. That would end the process
        # before the engine was let go, and report a failure where there was none.
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
