"""The HTTP door: signed, plain, conditional, paged; refusals as problems with a status each."""

from collections.abc import AsyncIterator
from typing import Any, Literal, NamedTuple

import httpx2
import orjson
import pytest
import pytest_asyncio

from farthing.clients.signing import RequestSigner
from farthing.clients.transport import Connection
from farthing.protocol.canonical import sha256_hex
from farthing.protocol.errors import Code, Refused
from farthing.protocol.messages.http import named_by, query_members, status_of
from farthing.protocol.messages.openapi import openapi
from farthing.protocol.messages.operations import OPERATIONS
from farthing.protocol.messages.payments import REQUEST_PAYOUT, RequestPayout
from farthing.protocol.wire import Effect, Money
from farthing.settlement.engine.questions import FiguresNow
from tests.papers import signing_key
from tests.server.listening import held
from tests.serving import Serving, Shop, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "k" * 22


class Place(NamedTuple):
    server: Serving
    shop: Shop

    async def send(
        self,
        method: str,
        target: str,
        body: Any = None,
        *,
        by: Connection | None = None,
        **headers: str,
    ) -> httpx2.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        content = None
        if method == "POST":
            content = body if isinstance(body, bytes) else orjson.dumps(body)
            named = {"content-type": "application/json", **named}
        auth = None if by is None else by.auth
        url = f"{self.server.service.issuer}{target}"
        return await self.server.http.request(
            method, url, content=content, headers=named, auth=auth
        )

    @property
    def buyer(self) -> Connection:
        return self.shop.buyer.connection

    @property
    def treasurer(self) -> Connection:
        return self.server.treasurer.connection

    async def records(self) -> int:
        return (await self.server.service.market.ask(FiguresNow())).seq


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    async with held(serving(tmp_path_factory.mktemp("market"))) as server:
        yield Place(server, await Shop.opened(server))


def fund(place: Place, key: str, amount: str = "1") -> dict[str, Any]:
    return {
        "organisation_id": place.shop.operator.connection.principal,
        "amount": {"amount": amount, "asset": "USD"},
        "reference": "test",
        "idempotency_key": key,
    }


def is_problem(response: httpx2.Response, status: int, code: Code) -> bool:
    shape = response.json()
    return (
        response.headers["content-type"] == "application/problem+json"
        and response.headers["request-id"] == shape["request_id"]
        and (response.status_code, shape["status"], shape["code"]) == (status, status, code.value)
    )


async def test_anybody_reads_what_is_public_and_learns_what_is_left(place: Place) -> None:
    target = f"/v1/get_listing?listing_id={place.shop.listing_id}"
    response = await place.send("GET", target)

    assert response.status_code == 200
    assert response.json()["listing_id"] == place.shop.listing_id
    assert response.headers["ratelimit-policy"] == '"anonymous";q=100000;w=60'
    assert response.headers["ratelimit"].startswith('"anonymous";r=')


async def test_a_proven_caller_learns_what_is_left_to_it(place: Place) -> None:
    agent = await place.send("GET", "/v1/get_balance", by=place.buyer)
    staff = await place.send("POST", "/v1/fund_account", fund(place, "q" * 22), by=place.treasurer)

    quotas = '"key";q=8000;w=2, "organisation";q=16000;w=2'
    assert (agent.status_code, staff.status_code) == (200, 200)
    assert agent.headers["ratelimit-policy"] == quotas
    assert agent.headers["ratelimit"] == '"key";r=7999;t=1'
    assert staff.headers["ratelimit-policy"] == '"key";q=16000;w=2'
    assert staff.headers["ratelimit"].startswith('"key";r=159')


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_without_a_credential_what_is_not_public_is_401(place: Place, method: str) -> None:
    response = await place.send(method, "/v1/get_balance", {})

    assert is_problem(response, 401, Code.UNAUTHENTICATED)
    assert "resource_metadata=" in response.headers["www-authenticate"]


async def test_the_query_of_a_read_is_part_of_what_is_signed(place: Place) -> None:
    by = place.buyer
    assert by.signer is not None
    signer = RequestSigner(by.signer, principal=by.principal, audience=by.url)
    url = f"{by.url}/v1/get_statement?asset=USD&limit=1"
    request = next(signer.auth_flow(httpx2.Request("GET", url)))
    proof = request.headers["authorization"]

    own = await place.send("GET", "/v1/get_statement?asset=USD&limit=1", authorization=proof)
    other = await place.send("GET", "/v1/get_statement?asset=USD&limit=2", authorization=proof)
    none = await place.send("GET", "/v1/get_statement", authorization=proof)

    assert own.status_code == 200
    assert is_problem(other, 401, Code.PROOF_INVALID)
    assert is_problem(none, 401, Code.PROOF_INVALID)


async def test_the_proof_of_one_operation_is_none_for_another(place: Place) -> None:
    by = place.buyer
    assert by.signer is not None
    signer = RequestSigner(by.signer, principal=by.principal, audience=by.url)
    request = httpx2.Request("POST", f"{by.url}/v1/get_balance", content=b"{}")
    proof = next(signer.auth_flow(request)).headers["authorization"]

    response = await place.send("POST", "/v1/list_charges", b"{}", authorization=proof)

    assert is_problem(response, 401, Code.PROOF_INVALID)


async def test_an_answer_that_the_caller_has_is_304(place: Place) -> None:
    first = await place.send("GET", "/v1/get_balance", by=place.buyer)
    tag = first.headers["etag"]
    again = await place.send(
        "GET", "/v1/get_balance", by=place.buyer, if_none_match=f'"other", W/{tag}'
    )
    await place.send("POST", "/v1/fund_account", fund(place, "e" * 22), by=place.treasurer)
    changed = await place.send("GET", "/v1/get_balance", by=place.buyer, if_none_match=tag)

    assert tag == f'"{sha256_hex(first.content)}"'
    assert first.headers["cache-control"] == "private, no-cache"
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == tag
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag


async def test_a_condition_gives_nobody_what_is_not_theirs(place: Place) -> None:
    response = await place.send("GET", "/v1/get_balance", if_none_match="*")

    assert is_problem(response, 401, Code.UNAUTHENTICATED)


async def test_pages_are_linked_until_the_last(place: Place) -> None:
    for number in range(3):
        ask = fund(place, f"{number}" * 22)
        assert (
            await place.send("POST", "/v1/fund_account", ask, by=place.treasurer)
        ).status_code == 200
    whole = await place.send("GET", "/v1/get_statement?limit=200", by=place.buyer)
    target, lines = "/v1/get_statement?limit=1", []
    for _ in range(20):
        page = await place.send("GET", target, by=place.buyer)
        lines += page.json()["lines"]
        if "link" not in page.headers:
            break
        url, _, relation = page.headers["link"].partition("; ")
        assert relation == 'rel="next"'
        target = url.strip("<>").removeprefix(place.buyer.url)

    assert len(lines) >= 4
    assert lines == whole.json()["lines"]
    assert "cursor" not in page.json()


async def test_the_same_call_twice_is_once_and_the_second_answer_says_so(place: Place) -> None:
    ask = fund(place, KEY)
    first = await place.send("POST", "/v1/fund_account", ask, by=place.treasurer)
    before = await place.records()
    again = await place.send(
        "POST", "/v1/fund_account", ask, by=place.treasurer, idempotency_key=f'"{KEY}"'
    )
    other = await place.send("POST", "/v1/fund_account", fund(place, KEY, "2"), by=place.treasurer)

    assert (first.status_code, again.status_code) == (200, 200)
    assert again.content == first.content
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["farthing-seq"] == first.headers["farthing-seq"]
    assert is_problem(other, 409, Code.IDEMPOTENCY_CONFLICT)
    assert await place.records() == before


@pytest.mark.parametrize("transport", ["http", "mcp"])
async def test_a_refusal_that_is_remembered_says_so_when_it_is_given_again(
    place: Place, transport: Literal["http", "mcp"]
) -> None:
    vendor = place.shop.vendor.connection
    connection = Connection(
        vendor.url,
        signer=vendor.signer,
        principal=vendor.principal,
        http=place.server.http,
        transport=transport,
    )
    unearned = RequestPayout(
        amount=Money(amount="1", asset="USD"), idempotency_key=f"{transport}{KEY}"
    )
    refused: list[Refused] = []
    for _ in range(2):
        with pytest.raises(Refused) as told:
            await connection.call(REQUEST_PAYOUT, unearned)
        refused.append(told.value)
    first, again = refused

    assert first.code is again.code is Code.ACCOUNT_UNKNOWN
    assert (first.replayed, again.replayed) == (False, True)
    assert again.refusal.message.startswith(first.refusal.message)
    assert "a new key" in again.refusal.message
    assert "key" not in first.refusal.message


async def test_a_key_in_the_header_is_the_one_that_is_signed(place: Place) -> None:
    before = await place.records()
    response = await place.send(
        "POST", "/v1/fund_account", fund(place, "x" * 22), by=place.treasurer, idempotency_key=KEY
    )

    assert is_problem(response, 400, Code.INVALID_ARGUMENT)
    assert response.json()["path"] == "idempotency-key"
    assert await place.records() == before


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("idempotency-key", ("y" * 22, KEY)),
        ("idempotency-key", ("y" * 22, "y" * 22)),
        ("content-type", ("application/json", "text/plain")),
        ("host", ("127.0.0.1:8321", "evil.example")),
        ("origin", ("http://127.0.0.1:8321", "https://evil.example")),
        ("content-length", ("", "0")),
    ],
)
async def test_what_is_stated_twice_is_refused_whichever_comes_first(
    place: Place, name: str, values: tuple[str, str]
) -> None:
    before = await place.records()
    content = orjson.dumps(fund(place, "y" * 22))
    given = {"host": "127.0.0.1:8321", "content-type": "application/json"}
    values = tuple(value or str(len(content)) for value in values)  # type: ignore[assignment]
    for ordered in (values, values[::-1]):
        headers = [*((key, value) for key, value in given.items() if key != name)]
        headers += [(name, value) for value in ordered]
        url, auth = f"{place.treasurer.url}/v1/fund_account", place.treasurer.auth
        response = await place.server.http.request(
            "POST", url, content=content, headers=headers, auth=auth
        )

        assert response.json()["code"] == Code.MALFORMED
        assert response.json()["path"] == name
    assert await place.records() == before


@pytest.mark.parametrize(
    "path", ["/v1/get%5Fbalance", "/v1%2Fget_balance", "/v1/get_balance%3Flimit=1", "/%763"]
)
async def test_a_path_with_an_escape_is_none_of_the_servers(place: Place, path: str) -> None:
    answer = await place.send("GET", path, by=place.buyer)

    assert is_problem(answer, 404, Code.NOT_FOUND)
    assert "escapes" in answer.json()["message"]


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip"])
async def test_a_body_in_a_coding_is_not_read(place: Place, coding: str) -> None:
    ask = fund(place, "g" * 22)
    plain = await place.send(
        "POST", "/v1/fund_account", ask, by=place.treasurer, content_encoding="identity"
    )
    coded = await place.send(
        "POST", "/v1/fund_account", ask, by=place.treasurer, content_encoding=coding
    )

    assert plain.status_code == 200
    assert is_problem(coded, 415, Code.MALFORMED)
    assert coded.json()["path"] == "content-encoding"


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/v1/get_consistency_proof?first_size=1&first_size=1", Code.DUPLICATE_KEY),
        ("/v1/get_consistency_proof?first_size=01&second_size=1", Code.INVALID_ARGUMENT),
        ("/v1/get_consistency_proof?first_size=1.0&second_size=1", Code.INVALID_ARGUMENT),
        ("/v1/get_consistency_proof?first_size=%FF", Code.MALFORMED),
        ("/v1/get_consistency_proof?&&", Code.MALFORMED),
        ("/v1/get_tree_head?more=1", Code.INVALID_ARGUMENT),
        ("/v1/get_listing", Code.INVALID_ARGUMENT),
    ],
)
async def test_a_query_that_is_none_is_refused(place: Place, target: str, code: Code) -> None:
    assert is_problem(await place.send("GET", target), 400, code)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", Code.MALFORMED),
        (b"[]", Code.MALFORMED),
        (b'{"query":null}', Code.MALFORMED),
        (b'{"query":"a","query":"b"}', Code.DUPLICATE_KEY),
        (b'{"query":1}', Code.INVALID_ARGUMENT),
        (b'{"query":"text","unknown":1}', Code.INVALID_ARGUMENT),
    ],
)
async def test_a_body_that_is_no_ask_is_refused(place: Place, body: bytes, code: Code) -> None:
    assert is_problem(await place.send("POST", "/v1/search_catalog", body), 400, code)


async def test_a_body_is_as_large_as_on_mcp(place: Place) -> None:
    body = b'{"query":"' + b"a" * (1 << 20) + b'"}'

    response = await place.send("POST", "/v1/search_catalog", body)

    assert is_problem(response, 413, Code.PAYLOAD_TOO_LARGE)


async def test_what_writes_or_has_structure_is_not_asked_by_get(place: Place) -> None:
    for name, operation in OPERATIONS.items():
        if query_members(name) is None:
            response = await place.send("GET", operation.path)
            assert response.status_code == 405, name
            assert response.headers["allow"] == "POST"
            assert "Allow" in response.json()["message"]
        else:
            assert operation.effect is Effect.READS


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_an_ask_of_another_kind_is_415_and_nothing_happens(place: Place, kind: str) -> None:
    before = await place.records()
    ask = fund(place, "t" * 22)
    response = await place.send(
        "POST", "/v1/fund_account", ask, by=place.treasurer, content_type=kind
    )

    assert is_problem(response, 415, Code.MALFORMED)
    assert response.json()["path"] == "content-type"
    assert await place.records() == before


@pytest.mark.parametrize(
    "accept",
    ["text/html", "application/json;q=0, */*", "application/*;q=0.0", "application/problem+json"],
)
async def test_who_takes_no_json_is_told_406_and_nothing_happens(place: Place, accept: str) -> None:
    before = await place.records()
    ask = fund(place, "a" * 22)
    written = await place.send("POST", "/v1/fund_account", ask, by=place.treasurer, accept=accept)
    read = await place.send("GET", "/v1/get_tree_head", accept=accept)

    for response in (written, read):
        assert is_problem(response, 406, Code.MALFORMED)
        assert response.json()["path"] == "accept"
    assert await place.records() == before


@pytest.mark.parametrize(
    "accept",
    ["", "*/*", "text/html, Application/*; q=0.1", "*/*;q=0, application/json", "text/html,*/*"],
)
async def test_who_takes_json_among_others_is_answered(place: Place, accept: str) -> None:
    assert (await place.send("GET", "/v1/get_tree_head", accept=accept)).status_code == 200


async def test_who_is_no_agent_is_not_told_of_an_authority_that_it_cannot_have(
    place: Place,
) -> None:
    shop, ask = place.shop, {"query": "text of pdf pages"}
    said = {}
    for role, by in {
        "buyer": place.buyer,
        "operator": shop.operator.connection,
        "vendor": shop.vendor.connection,
        "anyone": None,
    }.items():
        found = await place.send("POST", "/v1/search_catalog", ask, by=by)
        (result,) = found.json()["results"]
        purchasable = result["purchasable"]
        said[role] = [each["code"] for each in purchasable.get("reasons", ())]
        assert purchasable["ok"] is (role == "buyer")

    assert said == {
        "buyer": [],
        "operator": ["not_permitted"],
        "vendor": ["not_permitted"],
        "anyone": ["unauthenticated"],
    }


async def test_a_newcomer_registers_with_the_key_that_its_body_names(place: Place) -> None:
    key = signing_key("A newcomer over HTTP")
    newcomer = place.server.connect(key)
    ask = {
        "kind": "operator",
        "name": "New",
        "key": key.public.jwk(),
        "idempotency_key": "n" * 22,
    }
    enrolled = await place.send("POST", "/v1/enrol_organisation", ask, by=newcomer)
    other = signing_key("Another newcomer over HTTP")
    elsewhere = await place.send(
        "POST", "/v1/list_agents", {"key": other.public.jwk()}, by=place.server.connect(other)
    )

    assert enrolled.status_code == 200
    assert enrolled.json()["principal_id"].startswith("org_")
    assert is_problem(elsewhere, 401, Code.UNKNOWN_KEY)


@pytest.mark.parametrize("target", ["/v1/fund_account/", "/mcp/", "//v1/fund_account"])
async def test_nobody_is_sent_elsewhere_with_what_it_signed(place: Place, target: str) -> None:
    response = await place.send("POST", target, fund(place, "s" * 22), by=place.treasurer)

    assert is_problem(response, 404, Code.NOT_FOUND)
    assert "location" not in response.headers


async def test_another_role_is_403_and_a_foreign_thing_404(place: Place) -> None:
    role = await place.send("POST", "/v1/fund_account", fund(place, "r" * 22), by=place.buyer)
    absent = await place.send(
        "GET", "/v1/get_hold?hold_id=hld_00000000000000000000000000", by=place.buyer
    )

    assert is_problem(role, 403, Code.NOT_PERMITTED)
    assert is_problem(absent, 404, Code.NOT_FOUND)


async def test_the_document_is_served_with_where_it_is_served(place: Place) -> None:
    answer = await place.send("GET", "/openapi.json")
    known = await place.send("GET", "/openapi.json", if_none_match=answer.headers["etag"])
    served = answer.json()

    assert (known.status_code, known.content) == (304, b"")
    assert served.pop("servers") == [{"url": place.server.service.issuer}]
    assert served == openapi()


async def test_every_operation_is_described_with_every_status_of_its_codes() -> None:
    paths = openapi()["paths"]

    assert {named_by(path) for path in paths} == set(OPERATIONS)
    for place, path in paths.items():
        operation = OPERATIONS[named_by(place)]
        for method in (path[each] for each in ("get", "post") if each in path):
            # Where several are asked each has a status of its own, in the answer.
            codes = () if place == operation.raw_path else operation.codes
            assert {str(status_of(code)) for code in codes} <= set(method["responses"])


@pytest.mark.parametrize("code", Code)
async def test_every_code_has_a_status_of_a_refusal(code: Code) -> None:
    assert 400 <= status_of(code) < 600
    assert (status_of(code) == 500) == (code is Code.INTERNAL_ERROR)
