"""The HTTP door: every operation at `/v1/NAME`, signed as on MCP, answered as plain JSON.

Boundary: from a request to `dispatch` and from its reply to a response. Who calls, admission has
judged; what it means, operations do. Source: spec/transport-http.md.
"""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Scope, Send

from farthing.identity.callers import Caller
from farthing.protocol.canonical import InvalidJson, parse_json
from farthing.protocol.errors import Code, Refused, refuse
from farthing.protocol.messages.http import query_members, status_of
from farthing.protocol.messages.openapi import openapi
from farthing.protocol.messages.operations import OPERATIONS, AnyOperation
from farthing.protocol.wire import RawMember, document_of
from farthing.server.dispatch import dispatch
from farthing.server.doors.admission import (
    caller_of,
    count_calls,
    not_json,
    request_id_of,
)
from farthing.server.doors.render import problem_document
from farthing.server.market import Market
from farthing.server.operations import Reply

__all__ = ["api_routes"]

_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,15})", re.ASCII)
_QUERY_MEMBERS_MAX: Final = 32
# A tag may be weak or strong in the question: for a GET both mean the same (RFC 9110, 13.1.2).
_TAG: Final = re.compile(r'(?:W/)?"([\x21\x23-\x7e]*)"', re.ASCII)

_JSON: Final = "application/json"
# What has room for it, most specific first.
_RANGES: Final = (_JSON, "application/*", "*/*")
_NOUGHT: Final = re.compile(r"q=0(\.0*)?", re.ASCII)

Endpoint = Callable[[Request], Awaitable[Response]]


class _ByPath(BaseRoute):
    """Some routes of which none has a variable part: found by their path, not one by one."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = {route.path: route for route in routes}

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        route = self._routes.get(scope.get("path", ""))
        return (Match.NONE, {}) if route is None else route.matches(scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._routes[scope["path"]].handle(scope, receive, send)


def api_routes(market: Market) -> list[BaseRoute]:
    """The operations' paths, and the document that describes them."""
    document = orjson.dumps({**openapi(), "servers": [{"url": market.issuer}]})
    tag = hashlib.sha256(document).hexdigest()
    headers = {"cache-control": "no-cache", "etag": f'"{tag}"'}

    async def described(request: Request) -> Response:
        if _is_known(request, tag):
            return Response(status_code=304, headers=headers)
        return Response(document, headers=headers, media_type=_JSON)

    return [
        Route("/openapi.json", described),
        _ByPath([
            *(_route(market, operation) for operation in OPERATIONS.values()),
            *(_lines_route(market, each) for each in OPERATIONS.values() if each.raw_path),
        ]),
    ]  # fmt: skip


def _route(market: Market, operation: AnyOperation) -> Route:
    members = query_members(operation.name)
    methods = ["POST"] if members is None else ["GET", "POST"]

    async def answered(request: Request) -> Response:
        if request.method == "POST":
            ask = _keyed(request, _read_ask(await request.body()))
            return _written(await _dispatched(market, operation, request, ask))
        ask = _of_query(request, members or {})
        reply = await _dispatched(market, operation, request, ask)
        return _read(market, operation, request, reply, ask)

    return Route(operation.path, _endpoint(answered), methods=methods, name=operation.name)


def _lines_route(market: Market, operation: AnyOperation) -> Route:
    raw = operation.raw
    assert raw is not None, "it has a path for lines"

    async def answered(request: Request) -> Response:
        if "idempotency-key" in request.headers:
            text = "Each ask has its own."
            raise Refused(refuse(Code.INVALID_ARGUMENT, path="idempotency-key", message=text))
        asks, caller = _of_lines(raw, await request.body()), caller_of(request.scope)
        # Admission has counted one call.
        if len(asks) > 1:
            now_us = market.now_us()
            count_calls(request.scope, market.velocity, caller, now_us, len(asks) - 1)
        request_id = request_id_of(request.scope)
        told = await asyncio.gather(
            *(
                _told(market, _part(caller, number), operation, ask, request_id)
                for number, ask in enumerate(asks)
            )
        )
        body = orjson.dumps({"answers": told})
        return Response(body, headers={"cache-control": "no-store"}, media_type=_JSON)

    return Route(operation.raw_path, _endpoint(answered), methods=["POST"])


def _part(caller: Caller, number: int) -> Caller:
    """Who makes an ask of several: one proof is for all, and is used up by each for itself."""
    return replace(caller, proof_jti=f"{caller.proof_jti}/{number}") if number else caller


async def _told(
    market: Market,
    caller: Caller,
    operation: AnyOperation,
    ask: Mapping[str, object],
    request_id: str,
) -> dict[str, Any]:
    """What becomes of one ask of several: none is kept back by another's refusal."""
    try:
        reply = await dispatch(market, caller, operation.name, ask)
    except Refused as refused:
        refusal = refused.refusal
        status = status_of(refusal.code, refusal.path)
        told: dict[str, Any] = {"problem": problem_document(refusal, request_id, status)}
        replayed = refused.replayed
    else:
        told = {"answer": document_of(reply.answer), "seq": reply.seq}
        replayed = reply.replayed
    return told | {"replayed": True} if replayed else told


def _endpoint(answered: Endpoint) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        _answerable(request)
        return await answered(request)

    return endpoint


async def _dispatched(
    market: Market, operation: AnyOperation, request: Request, ask: Mapping[str, object]
) -> Reply:
    return await dispatch(market, caller_of(request.scope), operation.name, ask)


def _answerable(request: Request) -> None:
    """Refuse who could not read the answer, before anything is done (RFC 9110, 12.5.1)."""
    if not _takes_json(",".join(request.headers.getlist("accept"))):
        text = f"Answers are {_JSON}."
        raise Refused(refuse(Code.MALFORMED, path="accept", message=text))


def _takes_json(accept: str) -> bool:
    """Whether an `Accept` has room for JSON; the most specific range decides."""
    weights: dict[str, str] = {}
    for stated in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in stated.split(";"))
        if kind:
            weight = next((each for each in parameters if each.startswith("q=")), "q=1")
            weights[kind] = weight
    named = next((each for each in _RANGES if each in weights), None)
    return not weights if named is None else _NOUGHT.fullmatch(weights[named]) is None


def _keyed(request: Request, ask: Mapping[str, object]) -> Mapping[str, object]:
    """The ask, where a key in the header is the one that was signed."""
    stated = request.headers.get("idempotency-key")
    # The IETF draft writes it as a quoted string, most programs as it is.
    if stated is not None and stated.strip('"') != ask.get("idempotency_key"):
        text = "The header differs from the signed idempotency_key."
        raise Refused(refuse(Code.INVALID_ARGUMENT, path="idempotency-key", message=text))
    return ask


def _of_lines(raw: RawMember, body: bytes) -> list[Mapping[str, object]]:
    """The asks of a body, two lines each."""
    try:
        lines = body.decode().split("\n")
    except UnicodeDecodeError:
        raise Refused(refuse(Code.MALFORMED, message="The body is UTF-8.")) from None
    if len(lines) % 2 or len(lines) > 2 * raw.asks_max:
        text = f"The body is two lines for each of at most {raw.asks_max} asks."
        raise Refused(refuse(Code.MALFORMED, message=text))
    asks: list[Mapping[str, object]] = []
    for rest, text in zip(lines[::2], lines[1::2], strict=True):
        ask = _read_ask(rest.encode())
        if raw.name in ask:
            says = "It is the line below."
            raise Refused(refuse(Code.INVALID_ARGUMENT, path=raw.name, message=says))
        asks.append({**ask, raw.name: text})
    return asks


def _read_ask(data: bytes) -> Mapping[str, object]:
    """The ask that is one JSON object, without a null."""
    try:
        document = parse_json(data, allow_float=True)
    except InvalidJson as error:
        raise not_json(error) from error
    if not isinstance(document, dict):
        raise Refused(refuse(Code.MALFORMED, message="An ask is one JSON object."))
    return document


def _of_query(request: Request, members: Mapping[str, str]) -> Mapping[str, object]:
    """The ask in a query string: text as it is, an integer in its one decimal form."""
    try:
        pairs = parse_qsl(
            request.scope["query_string"].decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(request.scope["query_string"]),
            errors="strict",
            max_num_fields=_QUERY_MEMBERS_MAX,
        )
    except ValueError:
        raise Refused(refuse(Code.MALFORMED, path="query")) from None
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise Refused(refuse(Code.DUPLICATE_KEY, path=name))
        is_integer = members.get(name) == "integer" and _INTEGER.fullmatch(value)
        found[name] = int(value) if is_integer else value
    return found


def _written(reply: Reply) -> Response:
    headers = {"cache-control": "no-store"}
    if reply.seq:
        headers["farthing-seq"] = str(reply.seq)
    if reply.replayed:
        headers["idempotent-replayed"] = "true"
    return _json(reply, headers)


def _read(
    market: Market,
    operation: AnyOperation,
    request: Request,
    reply: Reply,
    arguments: Mapping[str, object],
) -> Response:
    """An answer to a GET: its own digest is its tag, and the next page is a link."""
    # Any cache must ask each time, and one that is shared keeps nothing that was signed for.
    shared = "no-cache" if operation.public else "private, no-cache"
    headers = {"cache-control": shared, "vary": "authorization"}
    response = _json(reply, headers)
    tag = hashlib.sha256(response.body).hexdigest()
    response.headers["etag"] = f'"{tag}"'
    cursor = getattr(reply.answer, "cursor", "")
    if cursor:
        query = urlencode({**arguments, "cursor": cursor})
        response.headers["link"] = f'<{market.issuer}{operation.path}?{query}>; rel="next"'
    if _is_known(request, tag):
        kept = {name: response.headers[name] for name in ("cache-control", "etag", "vary")}
        return Response(status_code=304, headers=kept)
    return response


def _is_known(request: Request, tag: str) -> bool:
    asked = request.headers.get("if-none-match", "")
    return asked.strip() == "*" or tag in _TAG.findall(asked)


def _json(reply: Reply, headers: Mapping[str, str]) -> Response:
    body = orjson.dumps(document_of(reply.answer))
    return Response(body, headers=dict(headers), media_type=_JSON)
