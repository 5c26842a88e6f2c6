"""A call that the platform makes is made once, paid once, and told truthfully."""

import asyncio
from pathlib import Path
from typing import Literal

import httpx2
import orjson
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from farthing.clients.documents import result_sha256
from farthing.protocol.canonical import Json
from farthing.protocol.errors import Code, Refused
from farthing.protocol.keys import PublicKey
from farthing.protocol.receipts import verify_receipt
from farthing.server.adapters.outbound import Outbound
from farthing.settlement.engine.questions import FiguresNow, RecordAt
from tests.patience import until
from tests.server.calling import KEY, Selling, answering, selling, usd

ONCE: dict[str, Json] = {"idempotent": False, "side_effects": True}
NOTHING_HELD = ("1", "0")
PAID = ("0.996", "0")


async def refused(market: Selling, **asked: object) -> Refused:
    with pytest.raises(Refused) as found:
        await market.call(**asked)  # type: ignore[arg-type]
    return found.value


async def journal(market: Selling) -> str:
    """Every record, as text."""
    figures = await market.serving.service.market.ask(FiguresNow())
    found = [
        await market.serving.service.market.ask(RecordAt(seq=seq))
        for seq in range(1, figures.seq + 1)
    ]
    return b"\n".join(each for each in found if each).decode()


async def test_one_ask_gives_the_result_its_charge_and_its_receipt(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        answer = (await market.call()).answer

        assert answer.untrusted_result == {"pages": ["one", "two"]}
        assert answer.untrusted_content == ()
        assert answer.result_sha256 == result_sha256(answer.untrusted_result)
        assert answer.result_sha256 == answer.charge.result_sha256
        assert answer.delivery["result_sha256"] == answer.result_sha256
        assert answer.charge.amount.amount == "0.004"
        assert answer.standing is not None
        assert answer.standing.balance == usd("0.996")
        assert await market.balance() == PAID
        key = PublicKey.from_jwk(market.serving.service.market.journal_jwk)
        assert verify_receipt(answer.receipt, key).record.operation == "accept_answer"


async def test_what_is_called_and_what_comes_back_is_nowhere_in_the_journal(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        answer = (await market.call({"pdf": "a-secret-page|another"})).answer

        written = await journal(market)
        assert answer.hold_id in written
        assert answer.result_sha256 in written
        assert "a-secret-page" not in written
        kept = (tmp_path / "platform" / "results.sqlite").read_bytes()
        kept += (tmp_path / "platform" / "results.sqlite-wal").read_bytes()
        assert answer.hold_id.encode() in kept
        assert b"a-secret-page" not in kept


async def test_a_retry_is_answered_from_what_is_kept(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        first, second = await market.call(), await market.call()

        assert (first.replayed, second.replayed) == (False, True)
        assert second.answer.untrusted_result == first.answer.untrusted_result
        assert second.answer.charge.charge_id == first.answer.charge.charge_id
        assert (market.desk.requests, market.desk.runs) == (1, 1)


async def test_two_asks_at_once_are_one_call(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        market.desk.slow = True
        asking = [asyncio.create_task(market.call()) for _ in range(2)]
        await market.desk.begun()
        market.desk.go.set()

        one, other = await asyncio.gather(*asking)

        assert one.answer.untrusted_result == other.answer.untrusted_result
        assert (market.desk.requests, market.desk.runs) == (1, 1)
        assert await market.balance() == PAID


async def test_other_arguments_under_one_key_are_a_conflict_that_names_them(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        await market.call()

        found = await refused(market, arguments={"pdf": "other"})

        assert (found.code, found.refusal.path) == (Code.IDEMPOTENCY_CONFLICT, "arguments")
        found = await refused(market, pages=4)
        assert (found.code, found.refusal.path) == (Code.IDEMPOTENCY_CONFLICT, "workload")
        assert market.desk.requests == 1


async def test_after_its_time_a_result_is_erased_and_its_digest_remains(tmp_path: Path) -> None:
    async with selling(tmp_path, results_kept_s=60) as market:
        answer = (await market.call()).answer
        market.serving.clock.ahead_us += 200_000_000

        found = await refused(market)

        assert found.code is Code.RESULT_EXPIRED
        assert found.refusal.remaining == answer.result_sha256
        assert found.refusal.path == answer.charge.charge_id
        assert market.desk.requests == 1
        flights = market.serving.service.market.flights
        assert await flights._results.forget(market.serving.clock()) == 1  # noqa: SLF001
        found = await refused(market)
        assert (found.code, found.refusal.remaining) == (Code.RESULT_EXPIRED, answer.result_sha256)
        assert market.desk.requests == 1


async def test_a_failed_tool_costs_nothing_and_fails_the_same_again(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        market.desk.fail = "the PDF is broken"

        first, second = await refused(market), await refused(market)

        assert first.code is second.code is Code.VENDOR_FAILED
        assert "the PDF is broken" in first.refusal.message
        assert await market.balance() == NOTHING_HELD
        assert (market.desk.requests, market.desk.runs) == (1, 1)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (307, b""),
        (404, b"<html>"),
        (200, b'{"jsonrpc":"2.0","id":1,"result":{"content":[],"structuredContent":{"pages":[]}}}'),
        (200, b'{"jsonrpc":"2.0","id":1,"result":{"content":[],"isError":true}}'),
        (200, b'{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no such tool"}}'),
        (200, b'{"jsonrpc":"2.0","id":1,"result":{"content":["' + b"x" * 70_000 + b'"]}}'),
        (401, b'{"code":"unauthenticated","message":"who are you"}'),
        (200, b"no JSON"),
        (202, b""),
        (200, b"[]"),
        (200, b'{"jsonrpc":"2.0","id":1,"result":[]}'),
        (200, b'{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"no disk"}}'),
        (404, b'{"detail":"Not Found"}'),
    ],
)
async def test_an_answer_that_is_none_gives_the_money_back_at_once(
    tmp_path: Path, status: int, body: bytes
) -> None:
    async with selling(tmp_path, vendor_answer_bytes_max=65_536) as market:
        market.desk.instead = answering(status, body)

        found = await refused(market)

        assert found.code is Code.VENDOR_FAILED
        assert "Nothing is charged" in found.refusal.message
        assert await market.balance() == NOTHING_HELD
        assert market.desk.requests == 1


async def test_a_reply_of_a_stream_that_is_no_result_gives_the_money_back_at_once(
    tmp_path: Path,
) -> None:
    async with selling(tmp_path) as market:
        body = b'data: {"jsonrpc":"2.0","id":1,"error":{"code":0,"message":"no disk"}}\n\n'
        market.desk.instead = answering(200, body, "text/event-stream")

        found = await refused(market)

        assert found.code is Code.VENDOR_FAILED
        assert "no disk" in found.refusal.message
        assert await market.balance() == NOTHING_HELD
        assert market.desk.requests == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, b"later"),
        (502, b"<html>"),
        (503, b'{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"stopping"}}'),
    ],
)
async def test_what_somebody_on_the_way_may_have_said_is_no_answer_of_the_vendors(
    tmp_path: Path, status: int, body: bytes
) -> None:
    async with selling(tmp_path) as market:
        market.desk.instead = answering(status, body)
        asking = asyncio.create_task(market.call())
        await until(lambda: market.desk.requests > 1)
        market.desk.instead = None

        assert (await asking).answer.untrusted_result == {"pages": ["one", "two"]}
        assert await market.balance() == PAID


async def test_a_vendor_cannot_speak_with_the_platforms_codes(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        body = b'{"jsonrpc":"2.0","id":1,"error":{"code":"key_revoked","message":"a\x1b[2J lie"}}'
        market.desk.instead = answering(200, body.replace(b"\x1b", b"\\u001b"))

        found = await refused(market)

        assert found.code is Code.VENDOR_FAILED
        assert found.refusal.reasons == (Code.KEY_REVOKED,)
        assert "\x1b" not in found.refusal.message


async def test_a_lost_answer_is_asked_for_again_where_that_does_no_harm(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        market.desk.lose_replies = 1

        answer = (await market.call()).answer

        assert answer.untrusted_result == {"pages": ["one", "two"]}
        assert (market.desk.requests, market.desk.runs) == (2, 1)
        assert await market.balance() == PAID


async def test_where_it_may_not_be_repeated_a_lost_answer_costs_nothing(tmp_path: Path) -> None:
    async with selling(tmp_path, listing=ONCE) as market:
        market.desk.lose_replies = 1

        first, second = await refused(market), await refused(market)

        assert first.code is second.code is Code.VENDOR_FAILED
        assert await market.balance() == NOTHING_HELD
        assert (market.desk.requests, market.desk.runs) == (1, 1)


async def test_the_vendor_learns_what_it_was_paid_by_capturing(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        answer = (await market.call()).answer

        told = await market.vendor.capture_signed(
            answer.hold_id, dict(answer.delivery), answer.delivery_signature
        )

        assert told.answer == answer.charge
        assert await market.balance() == PAID
        await market.spooled("captured")


async def test_a_call_that_takes_longer_than_one_ask_goes_on_without_it(tmp_path: Path) -> None:
    async with selling(tmp_path, service_wait_s=1) as market:
        market.desk.slow = True
        asking = asyncio.create_task(market.attempt())
        await market.desk.begun()

        found = await asking

        assert isinstance(found, Refused)
        assert (found.code, found.refusal.retry_after_s) == (Code.UNAVAILABLE, 1)
        market.desk.go.set()
        assert (await market.call()).answer.untrusted_result == {"pages": ["one", "two"]}
        assert (market.desk.requests, market.desk.runs) == (1, 1)


async def test_a_vendor_that_is_late_is_not_paid(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        market.desk.slow = True
        asking = asyncio.create_task(market.attempt())
        await market.desk.begun()
        # The terms give it 60 seconds.
        market.serving.clock.ahead_us += 61_000_000
        market.desk.go.set()

        found = await asking

        assert isinstance(found, Refused)
        assert found.code is Code.VENDOR_FAILED
        assert await market.balance() == NOTHING_HELD


@pytest.mark.parametrize(
    ("arguments", "code", "path"),
    [
        ({"pdf": 1}, Code.INVALID_ARGUMENT, "arguments.pdf"),
        ({"pdf": 1.5}, Code.INVALID_ARGUMENT, "arguments"),
        ({"pdf": None}, Code.INVALID_ARGUMENT, "arguments"),
        ({"pdf": "x" * 2_000}, Code.PAYLOAD_TOO_LARGE, "arguments"),
    ],
)
async def test_arguments_that_the_tool_would_not_take_are_refused_before_anything_is_held(
    tmp_path: Path, arguments: dict[str, object], code: Code, path: str
) -> None:
    limits: dict[str, Json] = {"limits": {"input_bytes_max": 1_000, "concurrency_max": 1}}
    async with selling(tmp_path, listing=limits) as market:
        found = await refused(market, arguments=arguments)

        assert (found.code, found.refusal.path) == (code, path)
        assert market.desk.requests == 0
        assert await market.balance() == NOTHING_HELD


@pytest.mark.parametrize(
    "url",
    ["https://10.0.0.1/mcp", "https://169.254.169.254/mcp", "https://[::ffff:192.168.0.1]/mcp"],
)
async def test_an_address_that_is_not_called_holds_no_money(tmp_path: Path, url: str) -> None:
    async with selling(tmp_path, url=url) as market:
        found = await refused(market)

        assert (found.code, found.refusal.path) == (Code.VENDOR_FAILED, "interface.url")
        assert await market.balance() == NOTHING_HELD
        assert KEY not in await journal(market)


async def test_a_name_that_resolves_inside_is_not_called_and_costs_nothing(tmp_path: Path) -> None:
    async def resolver(host: str, port: int) -> list[str]:
        del host, port
        return ["10.0.0.1"]

    outbound = Outbound(resolver=resolver)
    async with selling(tmp_path, url="https://vendor.example/mcp", outbound=outbound) as market:
        found = await refused(market)

        assert found.code is Code.VENDOR_FAILED
        assert await market.balance() == NOTHING_HELD


async def test_a_vendor_that_is_not_there_costs_nothing(tmp_path: Path) -> None:
    async with selling(tmp_path, url="http://127.0.0.1:1/mcp") as market:
        found = await refused(market)

        assert found.code is Code.VENDOR_FAILED
        assert await market.balance() == NOTHING_HELD


async def test_a_refusal_of_the_engines_calls_nobody(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        found = await refused(market, pages=1_000)

        assert found.code is Code.PER_CALL_LIMIT_EXCEEDED
        assert market.desk.requests == 0


async def test_what_is_full_begins_nothing_and_still_answers(tmp_path: Path) -> None:
    async with selling(tmp_path, results_bytes_max=65_536) as market:
        await market.call({"pdf": "x" * 100_000})

        found = await refused(market, key="another-key-00001")

        assert (found.code, market.desk.requests) == (Code.OVERLOADED, 1)
        assert (await market.call({"pdf": "x" * 100_000})).replayed


async def test_the_vendors_progress_reaches_who_asked_for_it(tmp_path: Path) -> None:
    async with selling(tmp_path, json_response=False) as market:
        market.desk.progress = True
        streams: list[bytes] = []

        async def record(response: httpx2.Response) -> None:
            streams.append(await response.aread())

        market.serving.http.event_hooks["response"].append(record)

        answer = (await market.call(meta={"progressToken": "mine"})).answer

        assert answer.untrusted_result == {"pages": ["one", "two"]}
        lines = [line for line in streams[-1].splitlines() if line.startswith(b"data:")]
        told, replied = (orjson.loads(line[5:]) for line in lines)
        assert told["method"] == "notifications/progress"
        assert told["params"] == {
            "progressToken": "mine", "progress": 1, "total": 2, "message": "half [2J done",
        }  # fmt: skip
        assert replied["result"]["structuredContent"]["hold_id"] == answer.hold_id


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_clients_of_both_revisions_hear_of_progress(
    tmp_path: Path, mode: Literal["auto", "legacy"]
) -> None:
    async with selling(tmp_path, json_response=False) as market:
        market.desk.progress = True
        heard: list[tuple[float, float | None, str | None]] = []

        async def hear(progress: float, total: float | None, message: str | None) -> None:
            heard.append((progress, total, message))

        connection = market.buyer.connection
        transport = httpx2.ASGITransport(app=market.serving.service.app)
        asked = market.asked_for()
        async with (
            httpx2.AsyncClient(transport=transport, auth=connection.auth) as http,
            Client(
                streamable_http_client(f"{connection.url}/mcp", http_client=http), mode=mode
            ) as client,
        ):
            result = await client.call_tool("call_service", asked, progress_callback=hear)

        assert result.structured_content is not None
        assert result.structured_content["untrusted_result"] == {"pages": ["one", "two"]}
        assert heard == [(1, 2, "half [2J done")]
