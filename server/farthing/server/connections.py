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
from typing import Any, Final, cast

import httptools
import structlog
from uvicorn import Config
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from farthing.protocol.errors import Code, refuse
from farthing.server.doors.admission import CALLS_MAX, new_request_id
from farthing.server.doors.bodies import BROKEN
from farthing.server.doors.render import problem
from farthing.server.engine import now_us

__all__ = [
    "CONNECTIONS_MAX",
    "HEAD_BYTES_MAX",
    "HELD_BYTES_MAX",
    "PIPELINED_MAX",
    "BoundedConnection",
    "OneWrite",
    "Silent",
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
# What says where a body ends.
_CODED: Final = b"transfer-encoding"
_FRAMING: Final = (b"content-length", _CODED)


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


class Silent:
    """The connections of a front end from which a head has to come, longest waited for first."""

    def __init__(self) -> None:
        self._connections: dict[BoundedConnection, None] = {}

    def add(self, connection: "BoundedConnection") -> None:
        """Its head is waited for from now on."""
        self._connections[connection] = None

    def discard(self, connection: "BoundedConnection") -> None:
        """Nothing is waited for."""
        self._connections.pop(connection, None)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._connections)

    def end_one(self) -> None:
        """End the one that has been silent longest."""
        longest = next(iter(self._connections))
        self.discard(longest)
        # It may have an answer that it does not take, for which a close would wait.
        longest.transport.abort()


class _BodyAlone:
    """What a parser tells that is given a body behind a head that was read before."""

    def __init__(self, connection: "BoundedConnection") -> None:
        self.on_body = connection.on_body
        self.on_message_complete = connection.end_behind_body


class BoundedConnection(HttpToolsProtocol):
    """Ends where a head, or trailers, are too large, or a head does not come in time.

    Args:
        config, server_state, app_state, _loop: uvicorn's own.
        silent: where it is while it waits for a head.
    """

    _head_bytes = 0
    # Behind what is no request comes none.
    _is_over = False
    _is_in_body = False
    _late: TimerHandle | None = None
    _running: RequestResponseCycle | None = None

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: AbstractEventLoop | None = None,
        *,
        silent: Silent | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._silent = Silent() if silent is None else silent

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(cast("Transport", OneWrite(transport, self.loop)))
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more; what runs is told, also where another request waits."""
        self._stop_waiting()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; what of it is neither a whole head nor of a body is counted."""
        if self._is_over:
            return
        self._head_bytes += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            if not self._is_over:
                self.send_400_response("Invalid HTTP request received.")
        except httptools.HttpParserUpgrade as asked:
            self._read_body_alone(data[asked.args[0] :])
        if self._head_bytes > HEAD_BYTES_MAX and not self._is_over:
            self.send_400_response(f"A head has at most {HEAD_BYTES_MAX} bytes.")

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request; what came before it whole has its own answer.

        A request whose body is no body is refused by admission, in its turn and under its own id.
        """
        if self._is_in_body or self._is_answering():
            if self._is_in_body and self._is_answering():
                cast("dict[str, object]", self.cycle.scope["state"])[BROKEN] = msg
                self.cycle.more_body = False
                self.cycle.message_event.set()
            # A refusal here would be taken for the answer to a call that was made.
            self._end_with_answer()
            return
        self._is_over = True
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

    def on_headers_complete(self) -> None:
        """A head is whole."""
        self._head_bytes = 0
        self._stop_waiting()
        if len(self.pipeline) >= PIPELINED_MAX:
            raise ValueError("too many requests wait for their turn")
        # The parser unpacks nothing, and takes for the body what is packed (RFC 9112, 6.1).
        codings = (value for name, value in self.headers if name == _CODED)
        if any(each.strip().lower() != b"chunked" for each in codings):
            raise ValueError("the body is coded in another way than in chunks")
        super().on_headers_complete()
        self._is_in_body = True
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
        if self.parser.should_upgrade():
            # The parser believes that what comes now is of another protocol.
            return
        self._is_in_body = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer is given; uvicorn's own wait for what comes next ends with any byte."""
        super().on_response_complete()
        if not self._is_answering():
            self._wait_for_head()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _read_body_alone(self, data: bytes) -> None:
        """Read the body of what asked for another protocol; none comes behind it.

        Nothing else is spoken here, so that it is answered as it is (RFC 9110, 7.8).
        """
        framing = [b"%b: %b\r\n" % header for header in self.headers if header[0] in _FRAMING]
        self.parser = httptools.HttpRequestParser(_BodyAlone(self))
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(framing))
        if data:
            self.data_received(data)

    def end_behind_body(self) -> None:
        """A body that was read alone is whole."""
        if not self._is_over:
            self.on_message_complete()
            self._end_with_answer()

    def _end_with_answer(self) -> None:
        self._is_over = True
        if self._is_answering():
            self.cycle.keep_alive = False
        else:
            self.transport.close()

    def _wait_for_head(self) -> None:
        self._silent.add(self)
        self._late = self.loop.call_later(HEAD_S_MAX, self._too_late)

    def _stop_waiting(self) -> None:
        self._silent.discard(self)
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_late(self) -> None:
        self._late = None
        if not self.transport.is_closing():
            self.transport.close()

    def _is_answering(self) -> bool:
        # There is no cycle before the first request.
        return not getattr(self.cycle, "response_complete", True)
