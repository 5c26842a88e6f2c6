"""A call is typed, forward-compatible, and repeated only where repeating does no harm."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import orjson
import pytest

from farthing.clients.tools import ToolResult
from farthing.clients.transport import Connection, platform_url
from farthing.clients.vendors import Vendor
from farthing.protocol.errors import Code, Refused, Unreachable, Unverified
from farthing.protocol.keys import PrivateKey
from farthing.protocol.messages.accounts import GET_BALANCE, GetBalance
from farthing.protocol.messages.agreements import TERMINATE_AGREEMENT, TerminateAgreement
from farthing.protocol.messages.sessions import UsageReport
from farthing.protocol.messages.trails import GET_TREE_HEAD, GetTreeHead
from farthing.protocol.platform_keys import PlatformKeys, PlatformPurpose, jwk_for
from farthing.protocol.wire import REPLAYED

PLATFORM = "http://127.0.0.1:8321"
KEY = PrivateKey.from_seed(bytes(range(32)))
HEAD = {"origin": "o", "size": 1, "root_sha256": "r", "note": "n"}
TERMINATE = TerminateAgreement(
    agreement_id="agr_00000000000000000000000000", reason="", idempotency_key="k" * 22
)

Answer = dict[str, Any] | Exception


class Platform:
    """Answers in turn what it was told to, and remembers what it was asked."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[httpx2.Request] = []
        self.waits_s: list[float] = []
        self.connection = Connection(
            f"{PLATFORM}/mcp/",
            signer=KEY,
            http=httpx2.AsyncClient(transport=httpx2.MockTransport(self._answer)),
            sleep=self._sleep,
        )

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return httpx2.Response(200, json=answer)

    async def _sleep(self, wait_s: float) -> None:
        self.waits_s.append(wait_s)


def result(structured: object, **members: Any) -> dict[str, Any]:
    return {"result": {"structuredContent": structured, "content": [], **members}}


def refused(code: str, **members: Any) -> dict[str, Any]:
    return result({"code": code, "message": "m", **members}, isError=True)


def body(request: httpx2.Request) -> Any:
    return orjson.loads(request.content)


GONE = httpx2.ReadError("gone")


async def test_an_answer_is_typed_and_members_that_nobody_knows_yet_are_let_be() -> None:
    platform = Platform(result({**HEAD, "witnesses": [{"name": "w"}]}))

    head = await platform.connection.call(GET_TREE_HEAD, GetTreeHead())

    assert (head.size, head.note) == (1, "n")
    (request,) = platform.requests
    assert str(request.url) == f"{PLATFORM}/mcp"
    assert request.headers["mcp-name"] == "get_tree_head"
    assert body(request)["params"]["arguments"] == {}


@pytest.mark.parametrize(
    "structured",
    [
        {**HEAD, "size": "1"},
        {"origin": "o"},
        None,
        [],
    ],
)
async def test_an_answer_of_another_form_is_not_believed(structured: object) -> None:
    with pytest.raises(Unverified):
        await Platform(result(structured)).connection.call(GET_TREE_HEAD, GetTreeHead())


async def test_a_refusal_is_the_same_class_on_both_sides() -> None:
    platform = Platform(refused("insufficient_funds", required="2", remaining="1", request_id="r"))

    with pytest.raises(Refused) as error:
        await platform.connection.call(GET_BALANCE, GetBalance())

    assert error.value.code is Code.INSUFFICIENT_FUNDS
    assert (error.value.refusal.required, error.value.refusal.remaining) == ("2", "1")
    assert error.value.request_id == "r"


async def test_a_refusal_of_a_kind_that_nobody_knows_yet_is_still_one() -> None:
    with pytest.raises(Refused) as error:
        await Platform(*[refused("from_the_future")] * 4).connection.call(GET_BALANCE, GetBalance())

    assert error.value.refusal.message == "m"


def report(session_id: str) -> dict[str, object]:
    return {"session_id": session_id, "batch": "[]", "voucher": "v"}


async def test_reports_of_one_moment_are_one_request_and_each_has_its_own_answer() -> None:
    platform = Platform(
        {
            "answers": [
                {"answer": {"session_id": "a"}, "seq": 1},
                {"problem": {"code": "session_closed", "message": "m", "status": 422}},
                {"answer": {"session_id": "c"}, "seq": 2, "replayed": True},
            ]
        }
    )
    one, two, three = await asyncio.gather(
        *(
            platform.connection.send_raw("report_usage", report(each), repeatable=True)
            for each in ("a", "b", "c")
        ),
        return_exceptions=True,
    )

    (request,) = platform.requests
    assert request.url.path == "/v1/report_usage/batches"
    asks = request.content.split(b"\n")
    assert [orjson.loads(line)["session_id"] for line in asks[::2]] == ["a", "b", "c"]
    assert asks[1::2] == [b"[]"] * 3
    assert isinstance(one, ToolResult)
    assert isinstance(three, ToolResult)
    assert (one.structured, one.meta[REPLAYED]) == ({"session_id": "a"}, False)
    assert (three.structured, three.meta[REPLAYED]) == ({"session_id": "c"}, True)
    assert isinstance(two, Refused)
    assert two.code is Code.SESSION_CLOSED


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"answers": {}},
        {"answers": []},
        {"answers": [{"answer": {}}, {"answer": {}}]},
        {"answers": [{}]},
        {"answers": ["text"]},
        {"answers": [{"problem": {"message": "m"}}]},
    ],
)
async def test_answers_that_are_not_those_of_the_reports_are_none(answer: dict[str, Any]) -> None:
    platform = Platform(answer, {"answers": [{"answer": {}, "seq": 1}]})

    result = await platform.connection.send_raw("report_usage", report("a"), repeatable=True)

    assert result.structured == {}
    assert len(platform.requests) == 2


async def test_an_answer_of_another_form_is_its_own_callers_affair() -> None:
    platform = Platform(
        {"answers": [{"answer": {"session_id": "a"}}, {"answer": None}]},
        {"answers": [{"answer": {"session_id": "b"}}]},
    )

    one, two = await asyncio.gather(
        *(
            platform.connection.send_raw("report_usage", report(each), repeatable=True)
            for each in ("a", "b")
        )
    )

    assert (one.structured, two.structured) == ({"session_id": "a"}, {"session_id": "b"})
    again = platform.requests[1].content.partition(b"\n")[0]
    assert orjson.loads(again)["session_id"] == "b"
    assert len(platform.requests) == 2


async def test_a_report_of_another_session_is_taken_for_nobodys() -> None:
    given = {
        "charge_id": "", "amount": {"amount": "0", "asset": "USD"}, "accepted": 0, "billed": 0,
        "rejected": [], "spent": {"amount": "0", "asset": "USD"}, "low": False, "seq": 1,
        "remaining": {"amount": "0", "asset": "USD"}, "max_cum": {"amount": "0", "asset": "USD"},
        "standing": {
            "balance": {"amount": "0", "asset": "USD"}, "pending": {"amount": "0", "asset": "USD"},
        },
    }  # fmt: skip
    platform = Platform(
        {"answers": [{"answer": {"session_id": each, **given}, "seq": 1} for each in ("b", "b")]}
    )
    vendor = Vendor(platform.connection)

    one, two = await asyncio.gather(
        *(vendor.report_usage(each, "[]", "s", "v", key="k" * 22) for each in ("a", "b")),
        return_exceptions=True,
    )

    assert isinstance(one, Unverified)
    assert isinstance(two, UsageReport)


async def test_a_batch_that_has_a_line_feed_in_itself_is_sent_as_a_member() -> None:
    platform = Platform({"session_id": "a"})
    ask = {**report("a"), "batch": "[\n]"}

    await platform.connection.send_raw("report_usage", ask, repeatable=True)

    (request,) = platform.requests
    assert request.url.path == "/v1/report_usage"
    assert orjson.loads(request.content) == ask


async def test_a_log_that_names_every_request_is_told_no_voucher(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    platform = Platform({"answers": [{"answer": {}, "seq": 1}]})
    usage = {"session_id": "s", "batch": "[]", "signature": "t", "voucher": "v-o-u"}

    await platform.connection.send_raw("report_usage", usage, repeatable=False)

    (request,) = platform.requests
    assert b"v-o-u" in request.content
    assert f"POST {PLATFORM}{request.url.path} " in caplog.text
    assert "v-o-u" not in caplog.text


async def test_a_lost_call_is_repeated_with_its_key_and_a_new_proof() -> None:
    again = result(ended(TERMINATE.agreement_id), _meta={"org.farthing/replayed": True})
    platform = Platform(GONE, refused("unavailable"), again)

    reply = await platform.connection.send(TERMINATE_AGREEMENT, TERMINATE)

    assert reply.replayed
    assert reply.answer.status == "s"
    assert len({request.content for request in platform.requests}) == 1
    assert len({request.headers["authorization"] for request in platform.requests}) == 3
    assert platform.waits_s == sorted(platform.waits_s)


async def test_an_answer_that_names_something_else_than_was_asked_for_is_not_believed() -> None:
    platform = Platform(result(ended("agr_00000000000000000000000001")))

    with pytest.raises(Unverified, match="terminate_agreement is of another agreement_id"):
        await platform.connection.call(TERMINATE_AGREEMENT, TERMINATE)


def ended(agreement_id: str) -> dict[str, Any]:
    return {
        "agreement_id": agreement_id, "status": "s", "buyer_id": "b", "operator_id": "o",
        "vendor_id": "v", "listing_id": "l", "listing_version": 1, "listing_sha256": "1",
        "rate_card_sha256": "2", "terms_sha256": "3", "asset": "USD", "accepted_at": "t",
        "quote_sha256": "4", "acceptance_sha256": "5",
    }  # fmt: skip


@pytest.mark.parametrize("answer", [GONE, refused("overloaded")])
async def test_repeating_ends(answer: Answer) -> None:
    platform = Platform(*[answer] * 10)

    with pytest.raises((Unreachable, Refused)):
        await platform.connection.call(GET_TREE_HEAD, GetTreeHead())

    assert len(platform.requests) == 4


@pytest.mark.parametrize(
    "code", ["registration_pending", "insufficient_funds", "proof_invalid", "idempotency_conflict"]
)
async def test_what_a_moment_does_not_change_is_not_repeated(code: str) -> None:
    platform = Platform(*[refused(code)] * 10)

    with pytest.raises(Refused):
        await platform.connection.call(TERMINATE_AGREEMENT, TERMINATE)

    assert len(platform.requests) == 1


async def test_a_wait_that_is_asked_for_is_kept_or_given_to_the_caller() -> None:
    soon = Platform(refused("rate_limited", retry_after=3), result(HEAD))
    late = Platform(refused("rate_limited", retry_after=60))

    await soon.connection.call(GET_TREE_HEAD, GetTreeHead())
    with pytest.raises(Refused) as error:
        await late.connection.call(GET_TREE_HEAD, GetTreeHead())

    assert soon.waits_s == [3]
    assert error.value.refusal.retry_after_s == 60


@pytest.mark.parametrize("url", [PLATFORM, f"{PLATFORM}/", f"{PLATFORM}/mcp", f"{PLATFORM}/mcp/"])
def test_a_platform_has_one_url(url: str) -> None:
    assert platform_url(url) == PLATFORM


def key_set(respond: Callable[[httpx2.Request], httpx2.Response]) -> Connection:
    return Connection(PLATFORM, http=httpx2.AsyncClient(transport=httpx2.MockTransport(respond)))


async def test_the_platforms_keys_are_read_and_what_is_none_is_left_out() -> None:
    keys = [
        {**jwk_for(PlatformPurpose.JOURNAL, KEY.public), "kid": "k", "use": "sig", "x5c": ["y"]},
        PrivateKey.from_seed(bytes(32)).public.jwk(),
        {"kty": "RSA", "n": "n"},
        "no key",
    ]

    found = await key_set(lambda _: httpx2.Response(200, json={"keys": keys})).platform_keys()

    assert found == PlatformKeys.of(journal=[KEY.public])


@pytest.mark.parametrize(
    "response",
    [
        httpx2.Response(404),
        httpx2.Response(200, content=b"<html>"),
        httpx2.Response(200, json={"keys": 1}),
        httpx2.Response(200, json=[]),
    ],
)
async def test_whatever_else_is_no_key_set(response: httpx2.Response) -> None:
    with pytest.raises(Unreachable):
        await key_set(lambda _: response).platform_keys()


@pytest.mark.parametrize(
    ("chunk", "timeout_s", "found"),
    [(b" ", 0.05, "did not answer: TimeoutError"), (bytes(2**20), 60, "more than 67108864 bytes")],
    ids=["in drips", "of any size"],
)
async def test_a_key_set_without_an_end_is_given_up(
    chunk: bytes, timeout_s: float, found: str
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield chunk
            await asyncio.sleep(0)

    connection = key_set(lambda _: httpx2.Response(200, content=endless()))
    connection.timeout_s = timeout_s

    with pytest.raises(Unreachable, match=found):
        await connection.platform_keys()
