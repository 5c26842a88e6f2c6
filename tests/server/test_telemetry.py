"""Logs are JSON lines with the request's id, and hold nothing that was signed or sent."""

import errno
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from farthing.protocol.canonical import sha256_hex
from farthing.protocol.errors import Broken
from farthing.server.telemetry import set_up_logs
from tests.papers import signing_key
from tests.server.listening import envelope, wire_of
from tests.serving import Shop, serving


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where the lines go while a test runs."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    lines = io.StringIO()
    set_up_logs("debug", lines)
    yield lines
    root.handlers[:], root.level = before
    structlog.reset_defaults()


def read(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_every_line_is_one_json_object_with_the_requests_id(stream: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(request_id="req_1"):
        structlog.get_logger("farthing.server").info("one", units=1)
        logging.getLogger("farthing.settlement.journal.writer").info("two %s", 2)
        logging.getLogger("uvicorn.error").warning("three")

    one, two, three = read(stream)
    assert (one["event"], one["units"], one["level"]) == ("one", 1, "info")
    assert (two["event"], two["logger"]) == ("two 2", "farthing.settlement.journal.writer")
    assert three["event"] == "three"
    assert {each["request_id"] for each in (one, two, three)} == {"req_1"}


def test_a_line_is_written_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[str] = []

    class Recording(io.StringIO):
        def write(self, text: str) -> int:
            pieces.append(text)
            return len(text)

    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", root.handlers[:])
    level = root.level
    try:
        set_up_logs("debug", Recording())
        structlog.get_logger("farthing.server").info("one")
        logging.getLogger("farthing.settlement").info("two")
    finally:
        root.setLevel(level)
        structlog.reset_defaults()

    assert [piece[-1:] for piece in pieces] == ["\n", "\n"]


def test_what_others_say_below_a_warning_is_left_out(stream: io.StringIO) -> None:
    logging.getLogger("uvicorn.error").info("started")
    logging.getLogger("sqlalchemy.engine").info("SELECT")

    assert read(stream) == []


def test_what_is_named_as_a_secret_is_left_out(stream: io.StringIO) -> None:
    structlog.get_logger().info("seen", token="abc", body=b"def", authorization="ghi", seq=1)

    (line,) = read(stream)
    assert line.keys() & {"token", "body", "authorization"} == set()
    assert line["seq"] == 1


def test_a_fault_is_told_by_type_and_place_and_its_text_only_where_that_is_ours(
    stream: io.StringIO,
) -> None:
    sent = "what the caller sent"
    try:
        try:
            int(sent)
        except ValueError as error:
            raise Broken("debits are not credits") from error
    except Broken:
        structlog.get_logger().exception("stopped")
        logging.getLogger("farthing.server").exception("stopped")

    for line in read(stream):
        told = str(line["exception"])
        assert "Broken: debits are not credits" in told
        assert "ValueError\n" in told
        assert "test_telemetry.py" in told
        assert sent not in told


async def test_no_log_holds_a_token_a_signature_or_what_was_sent(
    tmp_path: Path, stream: io.StringIO
) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        await shop.buyer.accept(await shop.buyer.quote(shop.listing_id, {"page": 2}))
        wire = wire_of(server)
        key = signing_key("Operator One")
        marked = envelope("get_hold", {"hold_id": "a mark in the body"})
        proofs = [
            wire.proof(key, marked),
            wire.proof(key, b"another body"),
            wire.proof(signing_key("Stranger"), marked),
        ]
        for proof in proofs:
            await wire.send(marked, name="get_hold", proof=proof)
        await wire.send(b'{"broken": "a mark in the body"')
        await wire.call("no such tool", {"query": "a mark in the body"})

    log = stream.getvalue()
    assert len(read(stream)) > 10
    assert "a mark in the body" not in log
    assert "Operator One" not in log
    assert "Bearer" not in log
    assert not [part for proof in proofs for part in proof.split(".")[1:] if part in log]
    assert sha256_hex(marked) not in log


async def test_a_line_says_who_asked_what_became_of_it_and_how_long_that_took(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as server:
        operator = await server.organisation("operator", "Operator One")
        with capture_logs() as lines:
            wire = wire_of(server)
            body = envelope("get_balance", {})
            proof = wire.proof(signing_key("Operator One"), body)
            response = await wire.send(body, name="get_balance", proof=proof)

    (line,) = [line for line in lines if line["event"] == "request"]
    assert line["principal_id"] == operator.principal
    assert (line["method"], line["path"], line["status"]) == ("POST", "/mcp", 200)
    assert line["took_us"] > 0
    assert response.headers["request-id"]


def test_a_log_on_a_full_disk_costs_nobody_a_call() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, text)

    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        set_up_logs("info", Full())
        structlog.get_logger("farthing.server").info("request")
    finally:
        root.handlers[:], root.level = before
        structlog.reset_defaults()
