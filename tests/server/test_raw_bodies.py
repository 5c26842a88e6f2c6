"""A batch as the whole body of a request: the same ask, signed as a whole, with the same answer."""

from collections.abc import AsyncIterator
from urllib.parse import parse_qsl, urlencode

import pytest
import pytest_asyncio

from farthing.protocol.errors import Code
from tests.server.listening import held
from tests.server.test_http_api import Place, is_problem
from tests.serving import Shop, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

RAW = {"content_type": "application/cloudevents-batch+json"}
RAW_PATH = "/v1/report_usage/batch"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    async with held(serving(tmp_path_factory.mktemp("market"))) as server:
        yield Place(server, await Shop.opened(server))


def report(**other: str) -> str:
    members = {
        "session_id": "ses_" + "0" * 26,
        "batch_signature": "e30..e30",
        "voucher": "e30.e30.e30",
        "idempotency_key": "r" * 22,
        **other,
    }
    return f"{RAW_PATH}?{urlencode(members)}"


async def test_a_batch_is_sent_as_it_is_and_means_the_same_as_in_an_ask(place: Place) -> None:
    vendor = place.shop.vendor.connection
    raw = await place.send("POST", report(), b"[]", by=vendor, **RAW)
    ask = dict(parse_qsl(report().partition("?")[2])) | {"batch": "[]"}
    wrapped = await place.send("POST", "/v1/report_usage", ask, by=vendor)

    assert is_problem(raw, 422, Code.USAGE_INVALID)
    assert raw.headers.get("idempotent-replayed") is None
    assert wrapped.json()["code"] == raw.json()["code"]
    other = await place.send("POST", report(), b"[1]", by=vendor, **RAW)
    assert is_problem(other, 409, Code.IDEMPOTENCY_CONFLICT)


@pytest.mark.parametrize(
    ("target", "body", "code", "path"),
    [
        (report(batch="[]"), b"[]", Code.INVALID_ARGUMENT, "batch"),
        (report() + "&voucher=e30", b"[]", Code.DUPLICATE_KEY, "voucher"),
        (report(other="1"), b"[]", Code.INVALID_ARGUMENT, "other"),
        (RAW_PATH, b"[]", Code.INVALID_ARGUMENT, "session_id"),
        (report(), b"\xff", Code.MALFORMED, ""),
        (report(), b"[" * 600_001, Code.INVALID_ARGUMENT, "batch"),
    ],
)
async def test_a_raw_body_that_is_none_is_refused_and_nothing_happens(
    place: Place, target: str, body: bytes, code: Code, path: str
) -> None:
    before = await place.records()
    vendor = place.shop.vendor.connection
    response = await place.send("POST", target, body, by=vendor, **RAW)

    assert is_problem(response, 400, code)
    assert response.json().get("path", "") == path
    assert await place.records() == before


async def test_the_members_beside_a_raw_body_are_signed(place: Place) -> None:
    before = await place.records()
    vendor = place.shop.vendor.connection
    assert vendor.auth is not None
    request = place.server.http.build_request(
        "POST",
        f"{place.server.service.issuer}{report()}",
        content=b"[]",
        headers={"content-type": RAW["content_type"]},
    )
    signed = next(vendor.auth.auth_flow(request))
    changed = str(signed.url).replace("r" * 22, "s" * 22)
    response = await place.server.http.post(changed, content=b"[]", headers=signed.headers)

    assert is_problem(response, 401, Code.PROOF_INVALID)
    assert await place.records() == before
