"""Makes routes of any ASGI application payable, with x402 v2 in the headers of HTTP.

    farthing = Seller.from_env()
    app = PaymentMiddleware(app, farthing, {
        "POST /extract": Priced("pdf-text", {"page": lambda result: len(result["pages"])}),
    })

Boundary: between an HTTP request and `counter`. A route that is not named is served as if this were
not there. Source: spec/payments-mcp.md, x402 specification v2 with its HTTP transport.
"""

import asyncio
import inspect
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl

import orjson

from farthing.clients.counter import Sold, Unpaid
from farthing.clients.deliveries import Produced, Undeliverable
from farthing.clients.documents import Offer
from farthing.clients.metering import Meter
from farthing.clients.paid import Seller
from farthing.clients.wares import Cap, Ware
from farthing.protocol.canonical import InvalidJson, Json, parse_json, sha256_hex
from farthing.protocol.errors import Code, FarthingError, Refusal, Refused, refuse
from farthing.protocol.messages.http import status_of
from farthing.protocol.schemas import violation
from farthing.protocol.shapes import Shape
from farthing.protocol.x402 import Price, payment_required, unsettled
from farthing.protocol.x402_http import (
    PAYMENT_REQUIRED,
    PAYMENT_RESPONSE,
    PAYMENT_SIGNATURE,
    read_header,
    to_header,
)

__all__ = [
    "PAYMENT_REQUIRED",
    "PAYMENT_RESPONSE",
    "PAYMENT_SIGNATURE",
    "PaymentMiddleware",
    "Priced",
]

_PAYMENT_REQUIRED: Final = 402
_FAILED: Final = 400
_SERVER_FAILED: Final = 500
_RESULT_BYTES_MAX: Final = 64 * 2**20
_SAID_CHARACTERS_MAX: Final = 500
_JSON: Final = "application/json"
# What another payment would change; every other refusal has its own status.
_PAYABLE: Final = frozenset({
    Code.UNAUTHENTICATED, Code.PROOF_INVALID, Code.PROOF_EXPIRED, Code.HOLD_EXPIRED,
    Code.SESSION_CLOSED,
})  # fmt: skip
# What a spool that cannot be opened, or gone on with, raises.
_UNOPENED: Final = (FarthingError, OSError, RuntimeError, ValueError, sqlite3.Error)
# What is sold is JSON, all of it, as it is: who compresses does so in front of this, and who has it
# already asks for nothing.
_NOT_ASKED: Final = frozenset({
    b"accept-encoding", b"if-match", b"if-modified-since", b"if-none-match", b"if-range",
    b"if-unmodified-since", b"range",
})  # fmt: skip
_NOT_KEPT: Final = frozenset(
    {"content-length", "connection", "date", "server", "transfer-encoding"}
)

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers: TypeAlias = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Priced:
    """What a route is sold under.

    Args:
        listing: The name of a published offer, or the offer itself.
        meter: For each meter of its rate card a quantity, or a function of `arguments`, `result`,
            or both, each as JSON.
    """

    listing: str | Offer
    meter: Mapping[str, Meter]


@dataclass(frozen=True, slots=True)
class _Request:
    """A request to a priced route, read whole."""

    scope: Scope
    headers: Headers
    body: bytes
    arguments: Mapping[str, Json]


class PaymentMiddleware:
    """An application, some of whose routes are paid for.

    Args:
        app: The application.
        seller: Whose; opened and closed with the application.
        routes: What each is sold under, by method and path, such as `POST /extract`.

    Raises:
        ValueError: The meters do not fit the card.
        Unverified: There is no such offer.
    """

    def __init__(self, app: App, seller: Seller, routes: Mapping[str, Priced]) -> None:
        self._app = app
        self._seller = seller
        self._routes = {
            _route(*route.split(" ", 1)): Ware(
                seller.offer(each.listing), each.meter, inspect.signature(_named)
            )
            for route, each in routes.items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        ware = None
        if scope["type"] == "http":
            ware = self._ware(scope)
        if ware is None:
            await self._app(scope, receive, send)
        else:
            await _send(send, *await self._answer(ware, scope, receive))

    def _ware(self, scope: Scope) -> Ware | None:
        """What a request is sold as: whatever spelling of it an application may take."""
        method, path = scope["method"].upper(), scope["path"]
        mounted = path.removeprefix(scope.get("root_path", "").rstrip("/"))
        methods = ("HEAD", "GET") if method == "HEAD" else (method,)
        named = [_route(each, name) for each in methods for name in (path, mounted)]
        return next((self._routes[each] for each in named if each in self._routes), None)

    async def _answer(
        self, ware: Ware, scope: Scope, receive: Receive
    ) -> tuple[int, Headers, bytes]:
        try:
            request = await _read(scope, receive, ware.listing.limits.input_bytes_max)
        except Refused as refused:
            return _refused(refused.refusal, [])
        if found := violation(ware.listing.input_schema, request.arguments):
            return _refused(found.refusal(), [])
        counter = await self._seller.open()
        outcome = await counter.sell(
            ware, request.arguments, _payment(request.headers), partial(self._run, ware, request)
        )
        match outcome:
            case Sold():
                kept = orjson.loads(outcome.content)
                paid = [
                    *map(tuple, kept["headers"]),
                    (PAYMENT_RESPONSE, to_header(outcome.response)),
                ]
                return kept["status"], paid, outcome.result
            case Unpaid(refusal=refusal):
                required = payment_required(self._price(ware, request), refusal)
                return _refused(refusal, [(PAYMENT_REQUIRED, to_header(required))], required)
            case Refusal():
                said = to_header(unsettled(outcome, self._seller.platform))
                return _refused(outcome, [(PAYMENT_RESPONSE, said)])

    async def _run(self, ware: Ware, request: _Request, shape: Shape, cap: Cap) -> Produced:
        values = {"arguments": request.arguments}
        await ware.check_cap(values, cap)
        status, headers, result = await _responded(self._app, request)
        if status >= _SERVER_FAILED:
            raise Undeliverable(refuse(Code.VENDOR_FAILED))
        if status >= _FAILED:
            said = result[:_SAID_CHARACTERS_MAX].decode(errors="replace")
            text = f"The service answers {status}: {said}"
            raise Undeliverable(refuse(Code.INVALID_ARGUMENT, path="arguments", message=text))
        try:
            structured = orjson.loads(result)
        except orjson.JSONDecodeError:
            text = "The vendor's result is no JSON: what is sold has a schema."
            raise Undeliverable(refuse(Code.VENDOR_FAILED, message=text)) from None
        content = orjson.dumps({"status": status, "headers": headers})
        return await ware.produced(shape, structured, values, structured, content)

    def _price(self, ware: Ware, request: _Request) -> Price:
        scope = request.scope
        host = next((value for name, value in request.headers if name == "host"), "")
        url = f"{scope.get('scheme', 'http')}://{host}{scope['path']}"
        return ware.price(ware.listing.interface.tool, self._seller.platform, url)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def started() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self._seller.open()
                except _UNOPENED as error:
                    # Unsaid, a server takes it for an application without a lifespan, and serves.
                    said = f"{type(error).__name__}: {error}"
                    await send({"type": "lifespan.startup.failed", "message": said})
                    raise
            return message

        try:
            await self._app(scope, started, send)
        finally:
            await self._seller.close()


def _route(method: str, path: str) -> str:
    """A route's name: many applications take a path with more slashes for the same."""
    return f"{method} /{'/'.join(part for part in path.split('/') if part)}"


def _named(arguments: Mapping[str, Json]) -> None:
    """What the meters of a route are named after."""


async def _read(scope: Scope, receive: Receive, bytes_max: int) -> _Request:
    pairs = scope["headers"]
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs]
    body = await _body(receive, bytes_max)
    return _Request(scope, headers, body, _arguments(headers, scope["query_string"], body))


async def _body(receive: Receive, bytes_max: int) -> bytes:
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > bytes_max:
            raise Refused(refuse(Code.PAYLOAD_TOO_LARGE, path="body", required=str(bytes_max)))
    return b"".join(parts)


def _arguments(headers: Headers, query: bytes, body: bytes) -> dict[str, Json]:
    """What is paid for: all of the request that may change its answer, in one object."""
    arguments: dict[str, Json] = {}
    kind = next((value for name, value in headers if name == "content-type"), "")
    if body and kind.partition(";")[0].strip().lower() == _JSON:
        try:
            document = parse_json(body)
        except InvalidJson as error:
            raise Refused(refuse(Code.INVALID_ARGUMENT, path="body", message=str(error))) from None
        if not isinstance(document, dict):
            raise Refused(refuse(Code.INVALID_ARGUMENT, path="body"))
        arguments = document
    elif body:
        arguments["body_sha256"] = sha256_hex(body)
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name in arguments:
            raise Refused(refuse(Code.INVALID_ARGUMENT, path=f"query.{name}"))
        arguments[name] = value
    return arguments


def _payment(headers: Headers) -> object:
    """What was sent as payment, None where nothing was."""
    sent = [value for name, value in headers if name == PAYMENT_SIGNATURE]
    if not sent:
        return None
    try:
        if len(sent) > 1:
            return ()
        return read_header(sent[0])
    except ValueError:
        return ()


async def _responded(app: App, request: _Request) -> tuple[int, Headers, bytes]:
    """The whole answer of an application, which never hears that its caller went away."""
    sent = [{"type": "http.request", "body": request.body, "more_body": False}]
    parts: list[bytes] = []
    started: list[Message] = []
    size = 0

    async def receive() -> Message:
        if sent:
            return sent.pop()
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    async def send(message: Message) -> None:
        nonlocal size
        if message["type"] == "http.response.start":
            started.append(message)
        elif message["type"] == "http.response.body":
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > _RESULT_BYTES_MAX:
                text = f"The vendor's result is larger than {_RESULT_BYTES_MAX} bytes."
                raise Undeliverable(refuse(Code.VENDOR_FAILED, message=text))

    asked = [pair for pair in request.scope["headers"] if pair[0] not in _NOT_ASKED]
    # No extension of the server's: what is sent by one, such as a file by its path, is not read.
    await app({**request.scope, "headers": asked, "extensions": {}}, receive, send)
    if not started:
        raise Undeliverable(refuse(Code.VENDOR_FAILED))
    pairs = (
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in started[0]["headers"]
    )
    headers = [(name, value) for name, value in pairs if name.lower() not in _NOT_KEPT]
    return started[0]["status"], headers, b"".join(parts)


def _refused(
    refusal: Refusal, headers: Headers, shape: Mapping[str, object] | None = None
) -> tuple[int, Headers, bytes]:
    payable = shape is not None and refusal.code in _PAYABLE
    status = _PAYMENT_REQUIRED if payable else status_of(refusal.code)
    wait = [("retry-after", str(refusal.retry_after_s))] if refusal.retry_after_s else []
    body = orjson.dumps(shape or refusal.document())
    return status, [("content-type", _JSON), *wait, *headers], body


async def _send(send: Send, status: int, headers: Headers, body: bytes) -> None:
    pairs = [*headers, ("content-length", str(len(body)))]
    await send({
        "type": "http.response.start",
        "status": status,
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs],
    })  # fmt: skip
    await send({"type": "http.response.body", "body": body})
