"""Several reports in one request: the same asks, signed together, each answered for itself."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx2
import orjson
import pytest
import pytest_asyncio

from farthing.protocol.errors import Code
from farthing.protocol.messages.sessions import REPORTS_MAX
from tests.server.listening import held
from tests.server.test_http_api import Place, is_problem
from tests.serving import Shop, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

LINES = {"content_type": "application/jsonl"}
PATH = "/v1/report_usage/batches"
KEY = "r" * 22


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    async with held(serving(tmp_path_factory.mktemp("market"))) as server:
        yield Place(server, await Shop.opened(server))


def report(batch: str = "[]", **other: str) -> dict[str, str]:
    members = {
        "session_id": "ses_" + "0" * 26,
        "batch_signature": "e30..e30",
        "voucher": "e30.e30.e30",
        "idempotency_key": KEY,
        **other,
    }
    return {**members, "batch": batch}


def lines(*reports: Mapping[str, str]) -> bytes:
    return b"\n".join(
        b"%b\n%b" % (
            orjson.dumps({name: each[name] for name in each if name != "batch"}),
            each["batch"].encode(),
        )
        for each in reports
    )  # fmt: skip


async def send(place: Place, body: bytes, **headers: str) -> httpx2.Response:
    vendor = place.shop.vendor.connection
    return await place.send("POST", PATH, body, by=vendor, **LINES, **headers)


def told(response: httpx2.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    answers: list[dict[str, Any]] = response.json()["answers"]
    return answers


async def test_a_report_in_lines_means_the_same_as_in_an_ask(place: Place) -> None:
    vendor = place.shop.vendor.connection
    (in_lines,) = told(await send(place, lines(report())))
    wrapped = await place.send("POST", "/v1/report_usage", report(), by=vendor)
    (again,) = told(await send(place, lines(report())))

    assert is_problem(wrapped, 422, Code.USAGE_INVALID)
    assert "replayed" not in in_lines
    assert (again["replayed"], wrapped.headers["idempotent-replayed"]) == (True, "true")
    assert again["problem"] | {"request_id": ""} == wrapped.json() | {"request_id": ""}
    (other,) = told(await send(place, lines(report("[1]"))))
    assert other["problem"]["code"] == Code.IDEMPOTENCY_CONFLICT


async def test_each_of_several_is_answered_in_its_place_whatever_the_others_are(
    place: Place,
) -> None:
    before = await place.records()
    one, bad, two = told(
        await send(
            place,
            lines(
                report(idempotency_key="a" * 22),
                report(idempotency_key="b" * 22, session_id="ses_1"),
                report(idempotency_key="c" * 22),
            ),
        )
    )

    assert one["problem"]["code"] == two["problem"]["code"] == Code.USAGE_INVALID
    assert (bad["problem"]["code"], bad["problem"]["path"]) == (Code.INVALID_ARGUMENT, "session_id")
    assert await place.records() == before + 2


async def test_as_many_as_may_be_are_taken_under_one_proof(place: Place) -> None:
    before = await place.records()
    reports = [report(idempotency_key=f"many-{number:017}") for number in range(REPORTS_MAX)]
    answers = told(await send(place, lines(*reports)))

    assert [each["problem"]["code"] for each in answers] == [Code.USAGE_INVALID] * REPORTS_MAX
    assert await place.records() == before + REPORTS_MAX


async def test_a_proof_is_for_once_for_each_of_several(place: Place) -> None:
    vendor = place.shop.vendor.connection
    assert vendor.auth is not None
    reports = [report(idempotency_key=f"once-{number:017}") for number in range(2)]
    request = place.server.http.build_request(
        "POST",
        f"{place.server.service.issuer}{PATH}",
        content=lines(*reports),
        headers={"content-type": LINES["content_type"]},
    )
    signed = next(vendor.auth.auth_flow(request))
    first = told(await place.server.http.send(signed))
    before = await place.records()
    second = told(await place.server.http.send(signed))

    assert [each["problem"]["code"] for each in first] == [Code.USAGE_INVALID] * 2
    assert [each["problem"]["code"] for each in second] == [Code.PROOF_REPLAYED] * 2
    assert await place.records() == before
    changed = lines(*reports).replace(b"once-", b"more-")
    response = await place.server.http.post(signed.url, content=changed, headers=signed.headers)
    assert is_problem(response, 401, Code.PROOF_INVALID)
    assert await place.records() == before


@pytest.mark.parametrize(
    ("body", "code", "path"),
    [
        (b"", Code.MALFORMED, ""),
        (lines(report()) + b"\n", Code.MALFORMED, ""),
        (lines(report()).partition(b"\n")[0], Code.MALFORMED, ""),
        (lines(*[report()] * (REPORTS_MAX + 1)), Code.MALFORMED, ""),
        (b"[]\n[]", Code.MALFORMED, ""),
        (b"{\n[]", Code.MALFORMED, ""),
        (b'{"voucher":null}\n[]', Code.MALFORMED, ""),
        (b'{"voucher":"","voucher":""}\n[]', Code.DUPLICATE_KEY, ""),
        (b'{"batch":"[]"}\n[]', Code.INVALID_ARGUMENT, "batch"),
        (lines(report()) + b"\n{}\n\xff", Code.MALFORMED, ""),
    ],
)
async def test_a_body_of_another_form_is_refused_and_nothing_of_it_happens(
    place: Place, body: bytes, code: Code, path: str
) -> None:
    before = await place.records()
    response = await send(place, body)

    assert is_problem(response, 400, code)
    assert response.json().get("path", "") == path
    assert await place.records() == before


@pytest.mark.parametrize(
    ("ask", "path"),
    [
        (report(other="1"), "other"),
        (report("[" * 600_001), "batch"),
        ({"batch": "[]"}, "session_id"),
    ],
)
async def test_a_report_with_a_member_of_another_form_is_refused_by_itself(
    place: Place, ask: dict[str, str], path: str
) -> None:
    (answer,) = told(await send(place, lines(ask)))

    assert (answer["problem"]["code"], answer["problem"]["path"]) == (Code.INVALID_ARGUMENT, path)


async def test_a_key_beside_several_asks_is_no_ones(place: Place) -> None:
    response = await send(place, lines(report()), idempotency_key=KEY)

    assert is_problem(response, 400, Code.INVALID_ARGUMENT)
    assert response.json()["path"] == "idempotency-key"


async def test_each_of_several_counts_as_a_call(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    velocity = place.server.service.market.velocity
    take = velocity.take

    def counting(caller: Any, now_us: int, count: int = 1) -> Any:
        counted.append(count)
        allowed, headers = take(caller, now_us, count)
        return allowed and count == 1, headers

    monkeypatch.setattr(velocity, "take", counting)
    before = await place.records()
    reports = [report(idempotency_key=f"fast-{number:017}") for number in range(3)]
    response = await send(place, lines(*reports))

    assert is_problem(response, 429, Code.RATE_LIMITED)
    assert counted == [1, 2]
    assert await place.records() == before


async def test_what_is_left_of_a_quota_is_told_as_of_the_last_of_several(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place.server.clock, "stopped_us", place.server.clock())
    left = []
    for count in (1, 3):
        reports = [report(idempotency_key=f"left-{count}{number:016}") for number in range(count)]
        response = await send(place, lines(*reports))
        assert len(told(response)) == count
        left.append(int(response.headers["ratelimit"].partition("r=")[2].partition(";")[0]))

    assert left[0] - left[1] == 3
