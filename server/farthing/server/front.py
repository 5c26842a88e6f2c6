"""A front end: the process that callers reach. It admits, reads, signs, and asks the engine.

Boundary: HTTP and asyncio; what is served is put together in `app`.
"""

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Final, cast

import uvicorn

from farthing.protocol.errors import Refused
from farthing.server.acceptor import Acceptor, Share
from farthing.server.app import Service, build
from farthing.server.connections import (
    CONNECTIONS_MAX,
    BoundedConnection,
    Silent,
    end_unread,
    may_open_all,
)
from farthing.server.settings import InvalidSetting, Settings
from farthing.server.siblings import Siblings
from farthing.server.storage import may_pass
from farthing.server.supervise import EXIT_FINAL
from farthing.settlement.engine.questions import FiguresNow
from farthing.settlement.journal.remote import RemoteEngine
from farthing.settlement.journal.store import Unreadable

__all__ = ["run_front"]

logger = logging.getLogger(__name__)

# How long calls in flight may take to end once the server was told to stop.
_GRACE_S: Final = 10
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
# How often the engine is asked whether it answers, and how long it may take to.
_ASK_EVERY_S: Final = 1
_ANSWER_S_MAX: Final = 2
# Things made between two collections. A call makes thousands: at the interpreter's 700 those in
# flight are looked through, found alive and kept as old ones.
_YOUNG: Final = 20_000


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
        ready: told "" once calls are taken, or why they never will.

    Returns:
        The exit code.
    """
    engine = RemoteEngine(address, in_flight_max=settings.queue_max)
    end_unread(listener)
    may_open_all()
    port = listener.getsockname()[1]
    siblings = Siblings(number=number, count=settings.workers, address=address)
    try:
        service = build(settings, port=port, remote=engine, siblings=siblings)
    except InvalidSetting as error:
        ready(str(error))
        return EXIT_FINAL
    config = uvicorn.Config(
        service.app,
        lifespan="off",
        http=BoundedConnection,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = _Server(config, service, share, ready)
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])
    try:
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_run(server, service, listener, engine if number == 1 else None))
    except Unreadable as error:
        if may_pass(error):
            raise
        ready(str(error))
        return 1
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
        silent = Silent()
        state = self.server_state, self.lifespan.state
        self._acceptor = Acceptor(
            sockets[0],
            partial(BoundedConnection, self.config, *state, silent=silent),
            share=self._share,
            held=lambda: len(self.server_state.connections),
            held_max=CONNECTIONS_MAX,
            silent=silent,
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


async def _run(
    server: _Server, service: Service, listener: socket.socket, told_of: RemoteEngine | None
) -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(service.running())
        if told_of is not None:
            await stack.enter_async_context(_telling(told_of))
        await server.serve(sockets=[listener])


@asynccontextmanager
async def _telling(engine: RemoteEngine) -> AsyncIterator[None]:
    """Log once when the engine answers no more, and once when it answers again."""
    task = asyncio.create_task(_tell(engine))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _tell(engine: RemoteEngine) -> None:
    answered = True
    while True:
        await asyncio.sleep(_ASK_EVERY_S)
        answers = await _answers(engine)
        if answered and not answers:
            logger.error("the engine does not answer")
        elif answers and not answered:
            logger.info("the engine answers again")
        answered = answers


async def _answers(engine: RemoteEngine) -> bool:
    try:
        async with asyncio.timeout(_ANSWER_S_MAX):
            await engine.ask(FiguresNow())
    except (Refused, TimeoutError):
        return False
    return True
