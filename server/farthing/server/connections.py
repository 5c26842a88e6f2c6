"""A caller's connection, with the bounds that uvicorn leaves to a proxy in front of it.

Boundary: bytes and time before a body, and of an answer that nobody reads; what a body may be,
admission says. uvicorn's fast protocol keeps whatever comes as a head, and waits for ever: for the
end of one, and for an answer to be taken. What is no request leaves in the one error shape too.
Source: spec/transport-mcp.md#admission.
"""

import contextlib
import os
import resource
import socket
from asyncio import AbstractEventLoop, TimerHandle, Transport
from typing import Final, cast

import structlog
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from farthing.protocol.errors import Code, refuse
from farthing.server.doors.admission import CALLS_MAX, new_request_id
from farthing.server.doors.render import problem
from farthing.server.engine import now_us

__all__ = [
    "CONNECTIONS_MAX",
    "HEAD_BYTES_MAX",
    "HEAD_S_MAX",
    "HELD_BYTES_MAX",
    "PIPELINED_MAX",
    "UNREAD_S_MAX",
    "BoundedConnection",
    "OneWrite",
    "end_unread",
    "may_open_all",
]

log = structlog.get_logger(__name__)

# Health and refusals always have some to themselves.
CONNECTIONS_MAX: Final = CALLS_MAX + 256
# What a front end opens beside them: files, and connections to vendors.
_OTHERS_MAX: Final = 1024
HEAD_BYTES_MAX: Final = 64 * 1024
HEAD_S_MAX: Final = 20
# Requests that came before the answer to another; one piece of what is read holds thousands.
PIPELINED_MAX: Final = 16
UNREAD_S_MAX: Final = 60
HELD_BYTES_MAX: Final = 64 * 1024


def end_unread(listener: socket.socket, *, unread_s_max: float = UNREAD_S_MAX) -> None:
    """Have the system end connections whose other side takes nothing any more (RFC 5482).

    Args:
        listener: whose connections; those that it takes from now on inherit it.
        unread_s_max: how long what was sent may wait to be taken.
    """
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None:
        listener.setsockopt(socket.IPPROTO_TCP, option, int(unread_s_max * 1000))


def may_open_all() -> None:
    """Let this process have a descriptor for each connection, as far as the system's limit goes.

    Many systems give 1024 unasked, of which streams alone may hold a thousand.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS_MAX + _OTHERS_MAX
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # Some systems have a limit below the one that they tell.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class OneWrite:
    """A transport that writes at once what is said in one turn of the loop.

    uvicorn writes a head and its body apart: two packets, and the other side is woken twice.

    Args:
        transport: what it writes to.
        loop: whose turns.
    """

    def __init__(self, transport: Transport, loop: AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        self._held_bytes = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write soon; at once where much waits."""
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > HELD_BYTES_MAX:
            self._flush()

    def close(self) -> None:
        """Close once everything is written."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._held and not self._transport.is_closing():
            self._transport.write(b"".join(self._held))
        self._held.clear()
        self._held_bytes = 0


class BoundedConnection(HttpToolsProtocol):
    """Ends where a head, or trailers, are too large, or a head does not come in time."""

    _head_bytes = 0
    # Behind what is no request comes none.
    _is_over = False
    _late: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(cast("Transport", OneWrite(transport, self.loop)))
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; what of it is neither a whole head nor of a body is counted."""
        self._head_bytes += len(data)
        if not self._is_over:
            super().data_received(data)
        if self._head_bytes <= HEAD_BYTES_MAX or self.transport.is_closing():
            return
        self.send_400_response(f"A head has at most {HEAD_BYTES_MAX} bytes.")
        if not self.transport.is_closing():
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, or no body; what came before it whole has its own answer."""
        cycle = self.cycle
        is_whole = self._is_answering() and (cycle.response_started or not cycle.more_body)
        if is_whole or self.pipeline:
            # A refusal here would be taken for the answer to a call that was made.
            cycle.keep_alive = False
            self._is_over = True
            return
        request_id = new_request_id(now_us(), os.urandom)
        log.info("no_request", request_id=request_id, reason=msg)
        refused = problem(refuse(Code.MALFORMED, message=msg), request_id)
        headers = [
            *self.server_state.default_headers,
            *refused.raw_headers,
            (b"request-id", request_id.encode()),
            (b"connection", b"close"),
        ]
        head = b"".join(b"%b: %b\r\n" % header for header in headers)
        body = b"" if self.parser.get_method() == b"HEAD" else bytes(refused.body)
        self.transport.write(STATUS_LINE[400] + head + b"\r\n" + body)
        self.transport.close()

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._wait_for_head()

    def on_headers_complete(self) -> None:
        """A head is whole."""
        self._head_bytes = 0
        self._stop_waiting()
        if len(self.pipeline) >= PIPELINED_MAX:
            raise ValueError("too many requests wait for their turn")
        super().on_headers_complete()
        if len(self.connections) >= CONNECTIONS_MAX:
            # Others wait to be taken: with one answer a connection, each of them has its turn.
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Some of a body: it is admission's to bound."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is whole."""
        self._head_bytes = 0
        super().on_message_complete()

    def _wait_for_head(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(HEAD_S_MAX, self._too_late)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_late(self) -> None:
        self._late = None
        if self._is_answering():
            # What comes next is not read meanwhile, so that it cannot be late.
            self._wait_for_head()
        elif not self.transport.is_closing():
            self.transport.close()

    def _is_answering(self) -> bool:
        # There is no cycle before the first request.
        return not getattr(self.cycle, "response_complete", True)
