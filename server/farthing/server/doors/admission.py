"""The outer door: from bytes to a `Caller`, before anything else looks at a request.

Boundary: size, shape, rate of the unknown, proof. A request that passes carries its caller, its
request id and its exact bytes in the ASGI scope; a 401 is rendered here and nowhere else.
Source: spec/transport-mcp.md.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, cast

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from farthing.identity.authentication import Authenticator, Request
from farthing.identity.callers import ANYONE, Caller
from farthing.protocol.canonical import InvalidJson, JsonFault, LooseJson, parse_json
from farthing.protocol.errors import Code, Refused, refuse
from farthing.protocol.ids import typeid, uuid7_bytes
from farthing.protocol.messages.operations import OPERATIONS
from farthing.protocol.wire import Role
from farthing.server.doors.render import problem

__all__ = ["BODY_BYTES_MAX", "Admission", "caller_of", "request_id_of"]

log = structlog.get_logger(__name__)

BODY_BYTES_MAX: Final = 1024 * 1024
_CALLER: Final = "farthing.caller"
_REQUEST_ID: Final = "farthing.request_id"
_ADDRESSES_MAX: Final = 10_000
_MINUTE_US: Final = 60_000_000


def caller_of(scope: Mapping[str, object]) -> Caller:
    """The caller that admission put in a scope."""
    return cast("Caller", scope.get(_CALLER, ANYONE))


def request_id_of(scope: Mapping[str, object]) -> str:
    """The request's id, to be named in every refusal and log line."""
    return cast("str", scope.get(_REQUEST_ID, ""))


@dataclass(slots=True)
class _Allowance:
    """How many calls an address may still make, refilled evenly; old addresses are forgotten."""

    per_minute: int
    left: OrderedDict[str, tuple[int, int]] = field(default_factory=OrderedDict)

    def take(self, address: str, now_us: int) -> bool:
        tokens, since_us = self.left.pop(address, (self.per_minute * _MINUTE_US, now_us))
        tokens = min(tokens + (now_us - since_us) * self.per_minute, self.per_minute * _MINUTE_US)
        allowed = tokens >= _MINUTE_US
        self.left[address] = (tokens - _MINUTE_US if allowed else tokens, now_us)
        if len(self.left) > _ADDRESSES_MAX:
            self.left.popitem(last=False)
        return allowed


class Admission:
    """ASGI middleware in front of every door.

    Args:
        app: what is behind the door.
        authenticator: gives the authenticator, known once the server has its address.
        now_us: the clock.
        entropy: random bytes of a length, for request ids.
        anonymous_per_minute: calls a minute for one address without a credential.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        authenticator: Callable[[], Authenticator],
        now_us: Callable[[], int],
        entropy: Callable[[int], bytes],
        anonymous_per_minute: int,
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._now_us = now_us
        self._entropy = entropy
        self._allowance = _Allowance(anonymous_per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit or refuse one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter_ns()
        now_us = self._now_us()
        request_id = typeid("req", uuid7_bytes(now_us // 1000, self._entropy(10)))
        headers = [(name, value.strip()) for name, value in scope["headers"]]
        scope = {**scope, "headers": headers, _REQUEST_ID: request_id}
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"request-id", request_id.encode()),
                ]
            await send(message)

        try:
            body = await _body(headers, receive) if scope["method"] == "POST" else b""
            called = _called(body) if body else None
            caller = await self._caller(scope, headers, body, called, now_us)
            self._permit(scope, caller, called, now_us)
        except Refused as refused:
            metadata = f"{self._authenticator().audience}/.well-known/oauth-protected-resource"
            response = problem(refused.refusal, request_id, resource_metadata=metadata)
            await response(scope, receive, answer)
        else:
            scope[_CALLER] = caller
            await self._app(scope, _again(body, receive), answer)
        took_us = (time.perf_counter_ns() - started) // 1000
        log.info(
            "request",
            request_id=request_id,
            method=scope["method"],
            path=scope["path"],
            status=status,
            took_us=took_us,
        )

    async def _caller(
        self,
        scope: Scope,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        called: "_Called | None",
        now_us: int,
    ) -> Caller:
        authorization = [value for name, value in headers if name == b"authorization"]
        if not authorization:
            return ANYONE
        if len(authorization) > 1:
            raise Refused(refuse(Code.PROOF_INVALID, path="authorization"))
        authenticator = self._authenticator()
        is_newcomers = called is not None and called.name in _NEWCOMERS
        request = Request(
            authorization=authorization[0].decode("latin-1"),
            method=scope["method"],
            url=f"{authenticator.audience}{scope['path']}",
            body=body,
            named_key=called.key if called and is_newcomers else None,
        )
        return await authenticator.caller(request, now_us)

    def _permit(self, scope: Scope, caller: Caller, called: "_Called | None", now_us: int) -> None:
        """Refuse the unknown what needs a credential, and too much of the rest."""
        if caller is not ANYONE:
            return
        operation = OPERATIONS.get(called.name) if called else None
        if operation is not None and not operation.public:
            raise Refused(refuse(Code.UNAUTHENTICATED))
        client = scope.get("client")
        if not self._allowance.take(client[0] if client else "", now_us):
            raise Refused(refuse(Code.RATE_LIMITED, retry_after_s=1))


@dataclass(frozen=True, slots=True)
class _Called:
    """The operation a request calls, and the key that its arguments name."""

    name: str
    key: Mapping[str, object] | None


_NEWCOMERS: Final = frozenset(
    name for name, operation in OPERATIONS.items() if Role.NEWCOMER in operation.roles
)


async def _body(headers: list[tuple[bytes, bytes]], receive: Receive) -> bytes:
    """The whole body, or a refusal as soon as it is known to be too large."""
    stated = next((value for name, value in headers if name == b"content-length"), b"0")
    if not stated.isdigit() or int(stated) > BODY_BYTES_MAX:
        raise Refused(refuse(Code.PAYLOAD_TOO_LARGE, required=str(BODY_BYTES_MAX)))
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > BODY_BYTES_MAX:
            raise Refused(refuse(Code.PAYLOAD_TOO_LARGE, required=str(BODY_BYTES_MAX)))
        more = message.get("more_body", False)
    return b"".join(parts)


def _called(body: bytes) -> _Called | None:
    """Read a body strictly, and say what it calls."""
    try:
        # Protocol envelopes may hold null and fractions; what is signed or stored may not.
        document = parse_json(body, allow_float=True, allow_null=True)
    except InvalidJson as error:
        duplicate = error.reason is JsonFault.DUPLICATE_KEY
        code = Code.DUPLICATE_KEY if duplicate else Code.MALFORMED
        raise Refused(refuse(code, message=f"{code.says} ({error.reason.value})")) from error
    if not isinstance(document, dict) or document.get("method") != "tools/call":
        return None
    params = document.get("params")
    if not isinstance(params, dict) or not isinstance(name := params.get("name"), str):
        return None
    return _Called(name=name, key=_key_of(params.get("arguments")))


def _key_of(arguments: LooseJson) -> Mapping[str, object] | None:
    key = arguments.get("key") if isinstance(arguments, dict) else None
    return cast("Mapping[str, object]", key) if isinstance(key, dict) else None


def _again(body: bytes, receive: Receive) -> Receive:
    """A receive that gives the body that was read, then what comes after it."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
