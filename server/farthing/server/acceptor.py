"""Which front end takes a new connection: none that has more of them than another.

Boundary: the listening socket that front ends share, and how many connections each has; what comes
over one is its protocol's. A loop's own server takes all that waits at once, so that the first to
wake had every caller and the others none.
Source: spec/design/09-engine-process.md.
"""

import asyncio
import contextlib
import mmap
import socket
from asyncio import BaseProtocol, Task, TimerHandle
from collections.abc import Callable
from typing import Final, Protocol

import structlog

__all__ = ["Acceptor", "Giving", "Share", "Shares"]

log = structlog.get_logger(__name__)

_COUNT_BYTES: Final = 8
# Far more than another that is idle takes to wake, and less than a caller notices.
_LEAVE_S: Final = 0.005
# Where the system has no descriptor or memory left, some end meanwhile.
_PAUSE_S: Final = 1.0


class Shares:
    """How many connections each front end has, in memory that all of them see.

    Args:
        count: how many front ends there are; made before they are forked.
    """

    def __init__(self, count: int) -> None:
        self._held = memoryview(mmap.mmap(-1, count * _COUNT_BYTES)).cast("Q")

    def of(self, number: int) -> "Share":
        """That of a front end, which are numbered from 1."""
        return Share(self._held, number - 1)


class Share:
    """What one front end says of itself, and sees of the others."""

    def __init__(self, held: memoryview, place: int) -> None:
        self._held = held
        self._place = place

    def tell(self, connections: int) -> None:
        """Tell the others how many this one has."""
        self._held[self._place] = connections

    def is_greater(self) -> bool:
        """Whether another has fewer."""
        return self._held[self._place] > min(self._held)


class Giving(Protocol):
    """Connections that give way to a new one."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def end_one(self) -> None:
        """End the first of them."""
        ...


class Acceptor:
    """Takes connections one at a time, and leaves each for a moment to a front end with fewer.

    It is taken all the same where that one does not: it may be busy, or gone. Where all have as
    many as they may, one that is silent gives way to it; while none is, it waits for room: a
    refusal would itself take a connection.

    Args:
        listener: the socket that the front ends share; it is not closed here.
        protocol: makes what serves a connection.
        share: which of the front ends this is, beside the others.
        held: how many connections it has.
        held_max: how many it may have.
        silent: which of them give way.
    """

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[], BaseProtocol],
        *,
        share: Share,
        held: Callable[[], int],
        held_max: int,
        silent: Giving,
    ) -> None:
        self._listener = listener
        self._protocol = protocol
        self._share = share
        self._held = held
        self._held_max = held_max
        self._silent = silent
        self._loop = asyncio.get_running_loop()
        self._beginning: set[Task[None]] = set()
        self._later: TimerHandle | None = None
        self._is_closed = False
        # Another may take what both were woken for.
        listener.settimeout(0)
        self.tell()
        self._listen()

    def tell(self) -> None:
        """Tell the others how many connections are here now."""
        self._share.tell(self._count())

    def close(self) -> None:
        """Take no more; what is just being taken ends."""
        self._is_closed = True
        self._leave()
        if self._later is not None:
            self._later.cancel()

    async def wait_closed(self) -> None:
        """Wait for nothing: connections that were taken are their protocols'."""

    def _count(self) -> int:
        return self._held() + len(self._beginning)

    def _is_full(self) -> bool:
        return self._count() >= self._held_max

    def _has_room(self) -> bool:
        return not self._is_full() or len(self._silent) > 0

    def _listen(self) -> None:
        self._loop.add_reader(self._listener, self._coming)

    def _leave(self) -> None:
        self._loop.remove_reader(self._listener)

    def _coming(self) -> None:
        self.tell()
        if self._share.is_greater() or not self._has_room():
            self._leave()
            self._later = self._loop.call_later(_LEAVE_S, self._left)
        else:
            self._take()

    def _left(self) -> None:
        self._listen()
        if self._has_room():
            self._take()

    def _take(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another has it, or nobody wants it any more
        except OSError as error:
            log.error("cannot_accept", reason=str(error))  # noqa: TRY400 - nothing of ours
            self._leave()
            self._later = self._loop.call_later(_PAUSE_S, self._left)
            return
        if self._is_full():
            self._silent.end_one()
        task = self._loop.create_task(self._begin(connection))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)
        self.tell()

    async def _begin(self, connection: socket.socket) -> None:
        connection.settimeout(0)
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport, _ = await self._loop.connect_accepted_socket(self._protocol, connection)
            if self._is_closed:
                # Who ends connections has been here already.
                transport.close()
