"""Connections over a real socket: what is not yet a request is bounded, in bytes and in time."""

import asyncio
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest
import pytest_asyncio
import uvicorn
from starlette.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs
from uvicorn.server import ServerState

from farthing.protocol.errors import Code
from farthing.protocol.wire import Role
from farthing.server import connections
from tests.patience import patiently, until
from tests.server.listening import held, listening
from tests.serving import Serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024
HEALTH = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"
POST = b"POST /v1/search_catalog HTTP/1.1\r\nhost: %b\r\ntransfer-encoding: chunked\r\n"
CODED = b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: %b\r\n\r\n0\r\n\r\n"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    async with held(listening(tmp_path_factory.mktemp("market"))) as server:
        yield server


@asynccontextmanager
async def connected(server: Serving) -> AsyncIterator[Streams]:
    port = int(server.service.issuer.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with patiently():
            yield reader, writer
    finally:
        writer.close()


async def sent_before_the_end(streams: Streams, endless: bytes) -> int:
    """How much of something without end is taken."""
    reader, writer = streams
    ended = asyncio.create_task(reader.read())
    sent = 0
    try:
        while not ended.done() and sent < 16 * MIB:
            writer.write(endless)
            await writer.drain()
            sent += len(endless)
    except ConnectionError:
        pass
    finally:
        ended.cancel()
        await asyncio.wait({ended})
    return sent


@pytest.mark.parametrize(
    ("begun", "endless"),
    [
        pytest.param(b"GET /", b"a" * MIB, id="a URL"),
        pytest.param(HEALTH[:-2], b"x: %b\r\n" % (b"a" * MIB), id="header after header"),
        pytest.param(HEALTH[:-2] + b"x: ", b"a" * MIB, id="one header"),
        pytest.param(
            POST % b"localhost" + b"\r\n0\r\n", b"x: %b\r\n" % (b"a" * MIB), id="trailers"
        ),
    ],
)
async def test_what_is_no_body_is_not_taken_without_end(
    server: Serving, begun: bytes, endless: bytes
) -> None:
    async with connected(server) as streams:
        streams[1].write(begun)

        assert await sent_before_the_end(streams, endless) < 16 * MIB


NO_REQUESTS = [
    pytest.param(b"\x16\x03\x01 secret\r\n\r\n", id="TLS"),
    pytest.param(b"GET /\xff HTTP/1.1\r\nhost: secret\r\n\r\n", id="a URL that is none"),
    pytest.param(HEALTH[:-2] + b"secret\r\n\r\n", id="a header that is none"),
    pytest.param(POST % b"localhost" + b"content-length: 6\r\n\r\nsecret", id="two lengths"),
    pytest.param(CODED % b"gzip, chunked", id="packed chunks"),
    pytest.param(CODED % b"gzip\r\ntransfer-encoding: chunked", id="packed chunks in two lines"),
    pytest.param(b"GET /secret".ljust(connections.HEAD_BYTES_MAX + 1, b"t"), id="a large URL"),
    pytest.param(
        (HEALTH[:-2] + b"x: secret").ljust(connections.HEAD_BYTES_MAX + 1, b"t"),
        id="a large head",
    ),
]


@pytest.mark.parametrize("sent", NO_REQUESTS)
async def test_what_is_no_request_is_refused_in_the_error_shape_and_not_repeated(
    server: Serving, sent: bytes
) -> None:
    async with connected(server) as (reader, writer):
        writer.write(sent)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")

    status, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    shape = orjson.loads(body)
    assert status == "HTTP/1.1 400 Bad Request"
    assert headers["content-type"] == "application/problem+json"
    assert (headers["cache-control"], headers["connection"]) == ("no-store", "close")
    assert int(headers["content-length"]) == len(body)
    assert (shape["code"], shape["status"]) == (Code.MALFORMED, 400)
    assert shape["request_id"] == headers["request-id"]
    assert b"secret" not in body


async def test_a_refusal_of_a_head_that_asked_for_no_body_has_none(server: Serving) -> None:
    async with connected(server) as (reader, writer):
        writer.write(b"HEAD /healthz HTTP/1.1\r\nno header\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400")
    assert body == b""


@pytest.mark.parametrize(
    ("breaks", "rest"),
    [
        pytest.param(b"secret\r\n", b"", id="at once"),
        pytest.param(b"2\r\n{}\r\n", b"secret\r\n", id="in the middle"),
        pytest.param(b"2\r\n{}\r\n0\r\n", b"no trailer\r\n\r\n", id="at its end"),
    ],
)
@pytest.mark.parametrize("calls", [0, 1])
async def test_a_body_that_breaks_is_refused_in_its_turn_and_told_in_one_line_of_the_log(
    server: Serving, breaks: bytes, rest: bytes, calls: int
) -> None:
    host = server.service.issuer.removeprefix("http://").encode()
    head = POST % host + b"content-type: application/json\r\n\r\n"
    with capture_logs() as lines:
        async with connected(server) as (reader, writer):
            writer.write((head + b"2\r\n{}\r\n0\r\n\r\n") * calls + head + breaks)
            await writer.drain()
            writer.write(rest)
            answers = (await reader.read()).split(b"HTTP/1.1 ")[1:]

    assert [answer[:3] for answer in answers] == [b"200"] * calls + [b"400"]
    assert b"\r\nconnection: close\r\n" in answers[-1]
    assert b"secret" not in answers[-1]
    assert b"Invalid HTTP" in answers[-1]
    told = [line for line in lines if line["log_level"] != "debug"]
    assert [line["event"] for line in told] == ["request"] * len(answers)
    assert told[-1]["status"] == 400


@pytest.mark.parametrize("calls", [1, 2])
async def test_a_call_that_came_whole_has_its_own_answer_whatever_comes_behind_it(
    server: Serving, calls: int
) -> None:
    port = server.service.issuer.rpartition(":")[2].encode()
    call = b"POST /v1/search_catalog HTTP/1.1\r\nhost: localhost:%b\r\n" % port
    call += b"content-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    async with connected(server) as (reader, writer):
        writer.write(call * calls + b"more than was stated\r\n\r\n")
        answers = (await reader.read()).split(b"HTTP/1.1 ")[1:]

    assert [answer[:3] for answer in answers] == [b"200"] * calls


async def test_what_breaks_behind_its_own_answer_has_no_other(server: Serving) -> None:
    async with connected(server) as (reader, writer):
        writer.write(POST % b"elsewhere" + b"\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"no chunk\r\n")
        rest = await reader.read()

    assert head.startswith(b"HTTP/1.1 421")
    assert b"HTTP/1.1" not in rest


async def test_what_asks_for_another_protocol_is_answered_as_it_is_and_alone(
    server: Serving,
) -> None:
    upgrade = HEALTH[:-2] + b"connection: upgrade\r\nupgrade: h2c\r\n\r\n"
    async with connected(server) as (reader, writer):
        writer.write(upgrade + HEALTH)
        answers = await reader.read()

    assert answers.count(b"HTTP/1.1 200") == answers.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("is_chunked", [True, False])
@pytest.mark.parametrize("is_cut", [True, False])
async def test_what_asks_for_another_protocol_keeps_its_body(
    server: Serving, *, is_chunked: bool, is_cut: bool
) -> None:
    """Java's client asks for HTTP/2 with every first call; its body was taken for that."""
    body = b'{"query": "text"}'
    port = server.service.issuer.rpartition(":")[2].encode()
    call = b"POST /v1/search_catalog HTTP/1.1\r\nhost: 127.0.0.1:%b\r\n" % port
    call += b"content-type: application/json\r\nconnection: upgrade\r\nupgrade: h2c\r\n"
    if is_chunked:
        call += b"transfer-encoding: Chunked\r\n\r\n11\r\n%b\r\n0\r\n\r\n" % body
    else:
        call += b"content-length: 17\r\n\r\n%b" % body
    async with connected(server) as (reader, writer):
        if is_cut:
            for byte in call:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0)
        else:
            writer.write(call + HEALTH)
        answers = await reader.read()

    assert answers.count(b"HTTP/1.1 200") == answers.count(b"HTTP/1.1") == 1
    assert b'"results"' in answers


async def test_what_comes_behind_what_is_no_request_is_not_judged_again(
    server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[str] = []
    judge = connections.BoundedConnection.send_400_response

    def send_400_response(self: connections.BoundedConnection, msg: str) -> None:
        judged.append(msg)
        judge(self, msg)

    monkeypatch.setattr(connections.BoundedConnection, "send_400_response", send_400_response)
    admin = server.staff(Role.ADMIN)
    assert admin.auth is not None
    asked = server.http.build_request("GET", f"{server.service.issuer}/v1/events")
    proof = next(admin.auth.auth_flow(asked)).headers["authorization"]
    port = server.service.issuer.rpartition(":")[2]
    head = f"GET /v1/events HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: {proof}\r\n\r\n"
    async with connected(server) as (reader, writer):
        writer.write(head.encode())
        status = await reader.readline()
        for _ in range(9):
            writer.write(b"\x16")
            for _ in range(9):
                await asyncio.sleep(0)

    assert status == b"HTTP/1.1 200 OK\r\n"
    assert len(judged) == 1


async def test_what_comes_before_it_is_its_turn_is_bounded(server: Serving) -> None:
    async with connected(server) as (reader, writer):
        writer.write(HEALTH * (connections.PIPELINED_MAX + 9))
        answers = await reader.read()

    assert answers.count(b"HTTP/1.1 200") == connections.PIPELINED_MAX + 1


async def test_a_connection_ends_with_its_answer_where_others_wait_for_one(
    server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "CONNECTIONS_MAX", 1)
    async with connected(server) as (reader, writer):
        writer.write(HEALTH)
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 200")
    assert b"\r\nconnection: close\r\n" in answer


async def test_a_head_up_to_the_bound_is_taken_however_it_is_cut(server: Serving) -> None:
    large = HEALTH[:-2] + b"x: " + b"a" * (connections.HEAD_BYTES_MAX - len(HEALTH) - 8)
    async with connected(server) as (reader, writer):
        for part in (large[:1], large[1:1000], large[1000:], b"\r\n\r", b"\n"):
            writer.write(part)
            await writer.drain()
        status = await reader.readline()

    assert status == b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize("begun", [b"", b"GET / HT", HEALTH[:-2]])
async def test_who_sends_no_whole_head_in_time_is_let_go(
    server: Serving, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(connections, "HEAD_S_MAX", 0.05)
    async with connected(server) as (reader, writer):
        writer.write(begun)

        assert await reader.read() == b""


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such bound")
async def test_an_answer_that_nobody_reads_does_not_wait_for_ever() -> None:
    closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        writer.write(b"a" * 32 * MIB)
        writer.close()
        try:
            await writer.wait_closed()
        except OSError:
            closed.set_result(None)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        connections.end_unread(listener, unread_s_max=0.2)
        async with await asyncio.start_server(answer, sock=listener), patiently():
            with socket.create_connection(listener.getsockname()):
                await closed


async def test_a_front_end_may_have_a_descriptor_for_every_connection() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections.CONNECTIONS_MAX
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        connections.may_open_all()
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert allowed[0] >= (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard))
    assert allowed[1] == hard


UNFINISHED = POST % b"elsewhere" + b"\r\n5\r\nab"


@pytest.mark.parametrize(
    ("asked", "answered", "then"),
    [
        pytest.param(HEALTH, b"}", HEALTH[:10], id="half a head"),
        pytest.param(HEALTH, b"}", b"\r\n", id="an empty line"),
        pytest.param(UNFINISHED, b"}", b"c", id="more of a body that has its answer"),
        pytest.param(UNFINISHED, b"}", b"cde\r\n0\r\n\r\n", id="its end"),
    ],
)
async def test_after_an_answer_whatever_is_no_whole_head_is_not_waited_for(
    server: Serving, monkeypatch: pytest.MonkeyPatch, asked: bytes, answered: bytes, then: bytes
) -> None:
    async with connected(server) as (reader, writer):
        monkeypatch.setattr(connections, "HEAD_S_MAX", 0.5)
        writer.write(asked)
        await reader.readuntil(answered)
        writer.write(then)

        assert await reader.read() == b""


async def test_the_connection_that_has_been_silent_longest_gives_way(server: Serving) -> None:
    silent = connections.Silent()
    state, loop = ServerState(), asyncio.get_running_loop()
    config = uvicorn.Config(
        server.service.app, http=connections.BoundedConnection, lifespan="off", log_config=None
    )
    async with await loop.create_server(
        lambda: connections.BoundedConnection(config, state, {}, silent=silent), "127.0.0.1", 0
    ) as listening:
        address = listening.sockets[0].getsockname()
        streams = [await asyncio.open_connection(*address) for _ in range(3)]
        async with patiently():
            await until(lambda: len(silent) == 3)
            # The first speaks, and is silent again behind the others.
            streams[0][1].write(HEALTH)
            await streams[0][0].readuntil(b"}")
            streams[2][1].write(UNFINISHED[:-9])
            await until(lambda: len(silent) == 2)
            silent.end_one()
            assert await streams[1][0].read() == b""
            silent.end_one()
            assert await streams[0][0].read() == b""
        assert len(silent) == 0
        for _, writer in streams:
            writer.close()
        await until(lambda: not state.connections)


async def test_a_stream_ends_with_its_connection_where_another_request_waits_behind_it() -> None:
    begun: asyncio.Queue[None] = asyncio.Queue()
    ended: asyncio.Queue[Message] = asyncio.Queue()

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await receive()
        begun.put_nowait(None)
        ended.put_nowait(await receive())

    state, loop = ServerState(), asyncio.get_running_loop()
    config = uvicorn.Config(stream, lifespan="off", log_config=None)
    async with await loop.create_server(
        lambda: connections.BoundedConnection(config, state, {}), "127.0.0.1", 0
    ) as listening:
        _, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
        async with patiently():
            writer.write(HEALTH + HEALTH)
            await begun.get()
            writer.close()
            assert (await ended.get())["type"] == "http.disconnect"


class Recording(asyncio.Transport):
    """Records what is written, and does no more."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.pieces.append(bytes(data))

    def is_closing(self) -> bool:
        return False


async def test_an_answer_leaves_in_one_piece(
    server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = Recording()

    class Recorded(connections.OneWrite):
        def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
            super().__init__(transport, loop)
            send = transport.write

            def write(data: bytes) -> None:
                recording.write(data)
                send(data)

            monkeypatch.setattr(transport, "write", write)

    monkeypatch.setattr(connections, "OneWrite", Recorded)
    async with connected(server) as (reader, writer):
        writer.write(HEALTH)
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readuntil(b"}")

    assert recording.pieces == [head + body]


async def test_what_waits_to_be_written_is_bounded() -> None:
    recording = Recording()
    transport = connections.OneWrite(recording, asyncio.get_running_loop())
    half = b"a" * (connections.HELD_BYTES_MAX // 2)
    for _ in range(3):
        transport.write(half)
    assert recording.pieces == [3 * half]

    transport.write(b"the end")
    assert recording.pieces == [3 * half]
    await asyncio.sleep(0)
    assert recording.pieces == [3 * half, b"the end"]
