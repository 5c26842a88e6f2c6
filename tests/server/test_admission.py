"""What never reaches a door: foreign names, bad bytes, too much, and callers without a proof."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
import pytest_asyncio
from starlette.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs

from farthing.protocol.errors import Code
from farthing.protocol.messages.http import BODY_BYTES_MAX
from farthing.settlement.engine.questions import FiguresNow
from tests.papers import signing_key
from tests.patience import patiently
from tests.server.admitting import door, gone, passed, post, taken, whole
from tests.server.listening import Wire, envelope, held, wire_of
from tests.serving import serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALL = envelope("search_catalog", {"query": "text"})
DEEP = b'{"a":' * 40 + b"1" + b"}" * 40


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wire(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Wire]:
    async with held(serving(tmp_path_factory.mktemp("market"))) as server:
        await server.organisation("operator", "Operator One")
        yield wire_of(server)


async def records(wire: Wire) -> int:
    return (await wire.server.service.market.ask(FiguresNow())).seq


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param(b"", Code.MALFORMED, id="nothing"),
        pytest.param(CALL[:-1], Code.MALFORMED, id="cut short"),
        pytest.param(CALL + b"}", Code.MALFORMED, id="something behind it"),
        pytest.param(CALL + CALL, Code.MALFORMED, id="two"),
        pytest.param(b"\xef\xbb\xbf" + CALL, Code.MALFORMED, id="a byte order mark"),
        pytest.param(b'{"a":"\xff"}', Code.MALFORMED, id="not UTF-8"),
        pytest.param(b'{"a":"\\ud800"}', Code.MALFORMED, id="half a surrogate pair"),
        pytest.param(b'{"a":"\x01"}', Code.MALFORMED, id="a control character"),
        pytest.param(b'{"a":NaN}', Code.MALFORMED, id="NaN"),
        pytest.param(b'{"a":-Infinity}', Code.MALFORMED, id="infinity"),
        pytest.param(b'{"a":01}', Code.MALFORMED, id="a leading zero"),
        pytest.param(b'{"a":9007199254740993}', Code.MALFORMED, id="an integer above 2^53"),
        pytest.param(b'{"a":1' + b"0" * 5000 + b"}", Code.MALFORMED, id="a huge integer"),
        pytest.param(b"{'a':1}", Code.MALFORMED, id="single quotes"),
        pytest.param(b'{"a":1,}', Code.MALFORMED, id="a trailing comma"),
        pytest.param(DEEP, Code.MALFORMED, id="too deep"),
        pytest.param(b'{"a":1,"a":1}', Code.DUPLICATE_KEY, id="one member twice"),
        pytest.param(
            b'{"method":"tools/call","params":{"name":"search_catalog","name":"get_balance"}}',
            Code.DUPLICATE_KEY,
            id="two names",
        ),
        pytest.param(
            CALL.replace(b'{"query":"text"}', b'{"query":"text","qu\\u0065ry":"other"}'),
            Code.DUPLICATE_KEY,
            id="one member twice, spelled otherwise",
        ),
    ],
)
async def test_bytes_that_are_not_strict_json_are_refused(
    wire: Wire, body: bytes, code: Code
) -> None:
    before = await records(wire)

    response = await wire.send(body)

    shape = response.json()
    assert (response.status_code, shape["code"]) == (400, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert shape["request_id"] == response.headers["request-id"]
    assert await records(wire) == before


async def test_a_body_larger_than_the_door_is_refused_before_it_is_read(wire: Wire) -> None:
    for size in (BODY_BYTES_MAX + 1, 10**15):
        response = await wire.send(b"{}", headers={"content-length": str(size)})

        assert (response.status_code, response.json()["code"]) == (413, Code.PAYLOAD_TOO_LARGE)
        assert response.json()["required"] == str(BODY_BYTES_MAX)


@pytest.mark.parametrize("stated", ["-1", "1e3", "one", "1" * 5000])
async def test_a_length_that_is_none_is_refused(wire: Wire, stated: str) -> None:
    response = await wire.send(b"{}", headers={"content-length": stated})

    assert response.json()["code"] == Code.PAYLOAD_TOO_LARGE


async def test_a_body_without_a_length_is_refused_as_soon_as_it_is_too_large(wire: Wire) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b" " * 65_536

    issuer = wire.server.service.issuer
    answers: list[Message] = []

    async def send(message: Message) -> None:
        answers.append(message)

    await wire.server.service.app(post(issuer), receive_from(endless()), send)

    assert answers[0]["status"] == 413
    assert sent == BODY_BYTES_MAX // 65_536 + 1


async def test_the_largest_body_is_read(wire: Wire) -> None:
    body = CALL + b" " * (BODY_BYTES_MAX - len(CALL))

    assert (await wire.send(body)).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_body_of_another_kind_is_refused(wire: Wire, kind: str) -> None:
    response = await wire.send(CALL, headers={"content-type": kind})

    assert (response.status_code, response.json()["code"]) == (415, Code.MALFORMED)
    assert response.json()["path"] == "content-type"


async def test_a_tool_above_a0_without_a_credential_says_where_to_learn_to_sign(
    wire: Wire,
) -> None:
    response = await wire.call("get_balance", {})

    challenge = response.headers["www-authenticate"]
    url = challenge.removeprefix('Bearer resource_metadata="').removesuffix('"')
    metadata = (await wire.server.http.get(url)).json()
    assert (response.status_code, response.json()["code"]) == (401, Code.UNAUTHENTICATED)
    assert "error=" not in challenge
    assert metadata["resource"] == wire.server.service.issuer
    assert metadata["org.farthing/commerce"]["aud"] == wire.server.service.issuer


@pytest.mark.parametrize(
    "arguments", [{}, {"hold_id": "hld_00000000000000000000000000"}, {"nonsense": 1}, None]
)
async def test_without_a_credential_arguments_are_not_looked_at(wire: Wire, arguments: Any) -> None:
    response = await wire.call("get_hold", arguments)

    assert (response.status_code, response.json()["code"]) == (401, Code.UNAUTHENTICATED)


@pytest.mark.parametrize(
    ("headers", "status", "path"),
    [
        pytest.param({"host": "evil.example"}, 421, "host", id="another host"),
        pytest.param({"host": "127.0.0.1:8322"}, 421, "host", id="another port"),
        pytest.param({"host": ""}, 421, "host", id="no host"),
        pytest.param({"origin": "https://evil.example"}, 403, "origin", id="another origin"),
        pytest.param({"origin": "null"}, 403, "origin", id="an opaque origin"),
        pytest.param({"origin": "file://127.0.0.1:8321"}, 403, "origin", id="another scheme"),
    ],
)
async def test_what_was_meant_for_another_name_is_refused(
    wire: Wire, headers: dict[str, str], status: int, path: str
) -> None:
    for send in (
        wire.send(CALL, headers=headers),
        wire.server.http.get(f"{wire.server.service.issuer}/v1/terms", headers=headers),
    ):
        response = await send

        assert (response.status_code, response.json()["path"]) == (status, path)


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "localhost:8321"},
        {"host": "LOCALHOST:8321"},
        {"host": "[::1]:8321"},
        {"host": " 127.0.0.1:8321 "},
        {"origin": "http://localhost:8321"},
    ],
)
async def test_every_name_of_loopback_is_ours(wire: Wire, headers: dict[str, str]) -> None:
    assert (await wire.send(CALL, headers=headers)).status_code == 200


async def test_health_is_told_under_any_name(wire: Wire) -> None:
    response = await wire.server.http.get(
        f"{wire.server.service.issuer}/healthz", headers={"host": "10.0.0.1"}
    )

    assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_every_request_gets_an_id_of_its_own(wire: Wire) -> None:
    ids = {(await wire.send(CALL)).headers["request-id"] for _ in range(3)}

    assert len(ids) == 3
    assert all(each.startswith("req_") for each in ids)


async def test_the_unproven_are_metered_by_address_and_the_proven_are_not(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, anonymous_per_minute=20) as server:
        wire = wire_of(server)
        await server.organisation("operator", "Operator One")
        key, stranger = signing_key("Operator One"), signing_key("Stranger")
        body = envelope("get_balance", {})

        async def signed(by: Any) -> httpx2.Response:
            return await wire.send(body, name="get_balance", proof=wire.proof(by, body))

        await signed(key)
        unproven = [(await wire.send(CALL)).status_code for _ in range(20)]
        limited = await wire.send(CALL)
        made_up = await signed(stranger)
        proven = await signed(key)
        server.clock.ahead_us += 3_000_000
        later = await wire.send(CALL)

        assert unproven.count(429) > 0
        assert limited.status_code == 429
        assert limited.headers["retry-after"] == "1"
        assert limited.json()["code"] == made_up.json()["code"] == Code.RATE_LIMITED
        assert (proven.status_code, later.status_code) == (200, 200)


@pytest.mark.parametrize(
    ("one", "other", "status"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::2", 429),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", 200),
        ("::ffff:192.0.2.1", "192.0.2.1", 429),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", 200),
        ("fe80::1%eth0", "fe80::2%eth0", 429),
        ("192.0.2.1", "192.0.2.2", 200),
    ],
)
async def test_who_has_many_addresses_has_one_allowance(one: str, other: str, status: int) -> None:
    app = door(taken, per_minute=1)
    statuses: list[int] = []

    async def receive() -> Message:
        raise AssertionError("a GET has no body that is read")

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    for address in (one, one, other):
        await app({**post(), "method": "GET", "client": (address, 1)}, receive, send)

    assert statuses == [200, 429, status]


async def test_what_nobody_signed_is_metered_by_its_size_before_it_is_parsed(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, anonymous_per_minute=260) as server:
        wire = wire_of(server)
        await server.organisation("operator", "Operator One")
        key = signing_key("Operator One")
        whole = b"[" + b"1," * (BODY_BYTES_MAX // 2 - 1) + b"1"
        proof = wire.proof(key, whole)
        await wire.send(whole, proof=proof)
        server.clock.ahead_us += 60_000_000

        unsigned = [(await wire.send(whole)).json()["code"] for _ in range(2)]
        stranger = await wire.send(whole, proof=wire.proof(signing_key("Stranger"), whole))
        signed = await wire.send(whole, proof=wire.proof(key, whole))

        assert unsigned == [Code.PAYLOAD_TOO_LARGE, Code.RATE_LIMITED]
        assert stranger.json()["code"] == Code.RATE_LIMITED
        assert signed.json()["code"] == Code.PAYLOAD_TOO_LARGE


async def test_a_proof_is_checked_before_its_body_is_parsed(wire: Wire) -> None:
    key = signing_key("Operator One")
    body = b'{"a":1,"a":1}'

    forged = await wire.send(body, proof=wire.proof(key, b"another"))
    proven = await wire.send(body, proof=wire.proof(key, body))

    assert forged.json()["code"] == Code.PROOF_INVALID
    assert proven.json()["code"] == Code.DUPLICATE_KEY


def receive_from(chunks: AsyncIterator[bytes]) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": await anext(chunks), "more_body": True}

    return receive


async def unreachable(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive, send
    raise AssertionError("nothing is admitted")


async def test_a_body_that_does_not_arrive_is_not_waited_for() -> None:
    async def never() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    sent = await passed(door(unreachable, body_s_max=0.01), never)

    assert sent[0]["status"] == 400
    assert orjson.loads(sent[1]["body"])["code"] == Code.MALFORMED


async def test_nobody_is_answered_who_has_gone() -> None:
    with capture_logs() as lines:
        assert await passed(door(unreachable), gone) == []

    assert [(line["event"], line["status"]) for line in lines] == [("request", 0)]


async def test_what_fails_behind_the_door_leaves_as_the_error_shape_and_nothing_else() -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive, send
        raise RuntimeError("the inside of the server")

    sent = await passed(door(failing), whole)

    assert sent[0]["status"] == 500
    assert orjson.loads(sent[1]["body"])["code"] == Code.INTERNAL_ERROR
    assert b"inside" not in sent[1]["body"]


async def test_whom_a_stop_cuts_off_is_told_that_it_may_have_been_done() -> None:
    begun, sent = asyncio.Event(), list[Message]()

    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive, send
        begun.set()
        await asyncio.Event().wait()

    async def send(message: Message) -> None:
        sent.append(message)

    async with patiently():
        call = asyncio.create_task(door(waiting)(post(), whole, send))
        await begun.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    assert sent[0]["status"] == 503
    told = orjson.loads(sent[1]["body"])
    assert (told["code"], told["retryable"]) == (Code.UNAVAILABLE, True)
    assert "not known" in told["message"]


async def test_beyond_the_calls_that_run_at_once_a_call_is_told_when_to_come_again() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        if scope["path"] != "/healthz":
            await go_on.wait()
        await taken(scope, receive, send)

    async def unread() -> Message:
        raise AssertionError("nothing is read of it")

    admission = door(slow, calls_max=1)
    async with patiently():
        running = asyncio.create_task(passed(admission, whole))
        await begun.wait()
        refused = await passed(admission, unread)
        health = await passed(admission, unread, {**post(path="/healthz"), "method": "GET"})
        go_on.set()
        ended = await running
        after = await passed(admission, whole)

    told, headers = orjson.loads(refused[1]["body"]), dict(refused[0]["headers"])
    assert refused[0]["status"] == 503
    assert (told["code"], told["retryable"], told["retry_after"]) == (Code.OVERLOADED, True, 1)
    assert (headers[b"retry-after"], headers[b"cache-control"]) == (b"1", b"no-store")
    assert told["request_id"] == headers[b"request-id"].decode()
    assert [each[0]["status"] for each in (health, ended, after)] == [200, 200, 200]


@pytest.mark.parametrize("path", ["/mcp", "/webhooks/stripe"])
async def test_a_body_that_is_long_in_coming_gives_way_to_the_next_call(path: str) -> None:
    reading: asyncio.Queue[None] = asyncio.Queue()

    async def never() -> Message:
        reading.put_nowait(None)
        await asyncio.Event().wait()
        raise AssertionError

    admission = door(taken, calls_max=2)
    async with patiently():
        slow = []
        for _ in range(2):
            slow.append(asyncio.create_task(passed(admission, never, post(path=path))))
            await reading.get()
        answered = await passed(admission, whole)
        gave_way = await slow[0]
        assert not slow[1].done()
        slow[1].cancel()
        await asyncio.wait(slow)

    assert answered[0]["status"] == 200
    told = orjson.loads(gave_way[1]["body"])
    assert (told["code"], told["retryable"], told["retry_after"]) == (Code.OVERLOADED, True, 1)


async def test_bodies_that_are_coming_do_not_fill_the_memory() -> None:
    reading: asyncio.Queue[None] = asyncio.Queue()

    def beginning(size: int) -> Receive:
        begun = False

        async def receive() -> Message:
            nonlocal begun
            if begun:
                reading.put_nowait(None)
                await asyncio.Event().wait()
            begun = True
            return {"type": "http.request", "body": b" " * size, "more_body": True}

        return receive

    admission = door(taken, coming=100)
    slow = []
    async with patiently():
        for _ in range(3):
            slow.append(asyncio.create_task(passed(admission, beginning(40))))
            await reading.get()
        gave_way = await slow[0]
        assert not any(each.done() for each in slow[1:])
        after = await passed(admission, whole)
        for each in slow[1:]:
            each.cancel()
        await asyncio.wait(slow)

    assert orjson.loads(gave_way[1]["body"])["code"] == Code.OVERLOADED
    assert after[0]["status"] == 200


async def test_a_call_that_fails_or_whose_caller_left_makes_room_for_the_next() -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive, send
        raise RuntimeError

    admission = door(failing, calls_max=1)
    await passed(admission, gone)
    codes = [orjson.loads((await passed(admission, whole))[1]["body"])["code"] for _ in range(2)]

    assert codes == [Code.INTERNAL_ERROR, Code.INTERNAL_ERROR]


async def test_the_body_is_handed_on_to_the_byte() -> None:
    seen: list[bytes] = []

    async def reading(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, send
        seen.append((await receive())["body"])

    chunks = iter([(b'{"a"', True), (b":1", True), (b"}", False)])

    async def in_parts() -> Message:
        body, more = next(chunks)
        return {"type": "http.request", "body": body, "more_body": more}

    await passed(door(reading), in_parts)

    assert seen == [b'{"a":1}']


async def test_addresses_are_forgotten_before_they_fill_the_memory() -> None:
    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": 200, "headers": []})

    admission = door(answering, per_minute=1)
    statuses = []
    for number in (*range(10_001), 10_000, 0):
        scope = {**post(), "client": (f"address {number}", 1)}
        statuses.append((await passed(admission, whole, scope))[0]["status"])

    assert statuses[-2:] == [429, 200]
    assert set(statuses[:-2]) == {200}
