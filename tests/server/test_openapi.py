"""The whole OpenAPI document against the server: nothing fails, and nothing answers undocumented.

Asks are made from the document by schemathesis, good ones and bad ones, and sent signed by whoever
may call the operation, and by nobody.
"""

import asyncio
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from typing import Any, NamedTuple

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from farthing.clients.transport import Connection
from farthing.protocol.messages.http import LINES_TYPE, lines_of, named_by, query_members
from farthing.protocol.messages.openapi import openapi
from farthing.protocol.messages.operations import OPERATIONS, AnyOperation
from farthing.protocol.messages.shapes import ask_schema
from farthing.protocol.wire import Role
from tests.papers import signing_key
from tests.server.listening import held
from tests.serving import Serving, Shop, serving

EXAMPLES = 6
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


def methods_of(item: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name, about) for name, about in item.items() if name != "description"]


# Who signs is up to the test: a proof that is taken away would be put back.
SCHEMA = schemathesis.openapi.from_dict({
    **openapi(),
    "paths": {
        path: {
            method: {name: part for name, part in about.items() if name != "security"}
            for method, about in methods_of(item)
        }
        for path, item in openapi()["paths"].items()
    },
})  # fmt: skip
EXCHANGES = [
    pytest.param(SCHEMA[path][method.upper()], id=f"{method} {path}")
    for path, item in openapi()["paths"].items()
    for method, _ in methods_of(item)
]


# Any text may be sent to them: what of it is no ask, the asks beside it tell.
IN_LINES = {each.raw_path for each in OPERATIONS.values() if each.raw_path}


@schemathesis.serializer(LINES_TYPE)
def as_text(context: Any, value: str) -> bytes:
    del context
    return value.encode(errors="surrogatepass")


METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"}
# Headers that HTTP itself defines for any response, which no description repeats.
OF_HTTP = {"cache-control", "content-length", "content-type", "date", "vary"}


class Place(NamedTuple):
    runner: asyncio.Runner
    server: Serving
    callers: dict[Role, Connection]
    things: dict[str, str]

    def send(self, case: Any, by: Connection | None) -> httpx2.Response:
        given = case.as_transport_kwargs(base_url=self.server.service.issuer)
        request = httpx2.Request(
            given["method"],
            given["url"],
            params=given.get("params") or None,
            headers={**(given.get("headers") or {}), "host": "127.0.0.1:8321"},
            json=given.get("json"),
            content=given.get("data"),
        )
        auth = None if by is None else by.auth
        return self.runner.run(self.server.http.send(request, auth=auth))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with asyncio.Runner() as runner:
        context = held(serving(tmp_path_factory.mktemp("market")))
        server = runner.run(context.__aenter__())
        shop = runner.run(Shop.opened(server))
        agreement, hold = runner.run(_bought(shop))
        yield Place(
            runner,
            server,
            {
                Role.BUYER: shop.buyer.connection,
                Role.OPERATOR: shop.operator.connection,
                Role.VENDOR: shop.vendor.connection,
                Role.TREASURER: server.treasurer.connection,
                Role.ADMIN: server.admin.connection,
                Role.NEWCOMER: server.connect(signing_key("Newcomer")),
            },
            {"listing_id": shop.listing_id, "agreement_id": agreement, "hold_id": hold},
        )
        runner.run(context.__aexit__(None, None, None))


async def _bought(shop: Shop) -> tuple[str, str]:
    agreement = await shop.buyer.accept(await shop.buyer.quote(shop.listing_id, {"page": 2}))
    placed = await shop.buyer.hold(agreement.agreement_id, {"page": 2}, {"pdf": "x"})
    return agreement.agreement_id, placed.answer.hold_id


def carries_only(response: httpx2.Response, told: dict[str, Any]) -> bool:
    """Whether every header of an answer is described."""
    named = told.get("$ref", "").rpartition("/")[2]
    headers = (openapi()["components"]["responses"][named] if named else told)["headers"]
    return set(response.headers) - OF_HTTP <= {name.lower() for name in headers}


def is_in_lines(exchange: Any) -> bool:
    return exchange.path in IN_LINES


def in_lines(operation: AnyOperation, asks: list[dict[str, Any]]) -> str:
    assert operation.raw is not None
    found = [lines_of(operation.raw, {operation.raw.name: "[]", **ask}) for ask in asks]
    return b"\n".join(each for each in found if each is not None).decode()


def bounded(test: Any) -> Any:
    return settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )(test)


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_every_ask_of_the_document_is_answered_as_documented(place: Place, exchange: Any) -> None:
    operation = OPERATIONS[named_by(exchange.path)]
    roles = sorted(operation.roles & place.callers.keys())
    asked = SCHEMA[operation.path]["POST"].as_strategy(generation_mode=GenerationMode.POSITIVE)

    @bounded
    @given(
        case=exchange.as_strategy(generation_mode=GenerationMode.POSITIVE),
        several=st.lists(asked, min_size=1, max_size=3) if is_in_lines(exchange) else st.just([]),
        role=st.sampled_from([*roles, *roles, None]),
        is_real=st.booleans(),
    )
    def good(case: Any, several: list[Any], role: Role | None, is_real: bool) -> None:  # noqa: FBT001  # hypothesis
        if is_in_lines(exchange) and is_real:
            case.body = in_lines(operation, [each.body for each in several])
        if is_real:
            ask = case.body if isinstance(case.body, dict) else case.query
            ask.update({name: place.things[name] for name in ask.keys() & place.things.keys()})
        response = place.send(case, place.callers[role] if role else None)
        case.validate_response(response, checks=CHECKS)
        told = exchange.definition.raw["responses"][str(response.status_code)]
        assert carries_only(response, told)

    good()


@pytest.mark.parametrize("path", openapi()["paths"])
def test_a_method_that_is_not_described_is_answered_as_documented(place: Place, path: str) -> None:
    described = {name.upper() for name, _ in methods_of(openapi()["paths"][path])}
    told = openapi()["components"]["responses"]["WrongMethod"]
    for method in METHODS - described:
        url = f"{place.server.service.issuer}{path}"
        response = place.runner.run(place.server.http.request(method, url))

        assert response.status_code == 405
        assert set(response.headers["allow"].split(", ")) - {"HEAD"} == described
        assert carries_only(response, told)
        assert response.headers["content-type"] in told["content"]
        assert response.json()["code"] == "not_found"


# A GET that asks for nothing can be asked in no wrong way, nor can what takes any text.
BENDABLE = [
    each
    for each in EXCHANGES
    if str(each.id).partition(" ")[2] not in IN_LINES
    and (not str(each.id).startswith("get") or query_members(str(each.id).rpartition("/")[2]))
]


@pytest.mark.parametrize("exchange", BENDABLE)
def test_no_ask_that_the_document_forbids_is_taken(place: Place, exchange: Any) -> None:
    operation = OPERATIONS[named_by(exchange.path)]
    role = min(operation.roles & place.callers.keys(), default=None)

    @bounded
    @given(case=exchange.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def bad(case: Any) -> None:
        response = place.send(case, place.callers[role] if role else None)
        case.validate_response(response, checks=[*CHECKS, negative_data_rejection])

    # A query of texts that may all be left out reads as a good one however most of it is bent;
    # then it is chance whether a bad one is found. What is bad of every ask is tried below.
    may_find_none = exchange.method == "get" and not ask_schema(operation.ask).get("required")
    with suppress(Unsatisfiable) if may_find_none else nullcontext():
        bad()


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_member_that_no_ask_has_is_refused_as_documented(place: Place, exchange: Any) -> None:
    operation = OPERATIONS[named_by(exchange.path)]
    role = min(operation.roles & place.callers.keys(), default=None)
    by = place.callers[role] if role else None
    ask: dict[str, Any] = {"no_such_member": "text"}
    if role is Role.NEWCOMER and by is not None and by.signer is not None:
        ask["key"] = by.signer.public.jwk()
    if exchange.method == "get":
        case = exchange.Case(query=ask)
    elif is_in_lines(exchange):
        case = exchange.Case(body=in_lines(operation, [ask]), media_type=LINES_TYPE)
    else:
        case = exchange.Case(body=ask, media_type="application/json")

    response = place.send(case, by)

    case.validate_response(response, checks=CHECKS)
    refused = response.json()
    if is_in_lines(exchange):
        refused = refused["answers"][0]["problem"]
    assert (refused["status"], refused["code"]) == (400, "invalid_argument")


def test_nothing_that_was_sent_left_the_books_unbalanced(place: Place) -> None:
    url = f"{place.server.service.issuer}/v1/get_trial_balance"
    by = place.callers[Role.TREASURER]

    answer = place.runner.run(place.server.http.get(url, auth=by.auth)).json()

    assert answer["balanced"] is True
