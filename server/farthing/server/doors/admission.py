"""The outer door: from bytes to a `Caller`, before anything else looks at a request.

Boundary: where it was sent, rate, size, shape, proof. A request that passes carries
its caller, its request id and its exact bytes in the ASGI scope. What is refused here, and whatever
failed behind it, leaves in the one error shape. Source: spec/transport-mcp.md.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

import structlog
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from farthing.identity.authentication import Authenticator, NamedKey, Request
from farthing.identity.callers import ANYONE, Caller
from farthing.protocol.canonical import InvalidJson, JsonFault, LooseJson, parse_json
from farthing.protocol.errors import Code, Refused, refuse
from farthing.protocol.ids import typeid, uuid7_bytes
from farthing.protocol.messages.http import (
    BODY_BYTES_MAX,
    MEDIA_TYPE,
    media_type_at,
    named_by,
    query_members,
)
from farthing.protocol.messages.operations import OPERATIONS
from farthing.protocol.wire import Role
from farthing.server.crowds import VALUES_MAX, has_more_values
from farthing.server.doors.bodies import Gone, again, value_of, whole_body
from farthing.server.doors.direct import METRICS, is_direct
from farthing.server.doors.render import problem
from farthing.server.velocity import Headers, Quota, Velocity, network_of, told

__all__ = [
    "CALLS_MAX",
    "HEALTH",
    "READY",
    "WEBHOOKS",
    "Admission",
    "caller_of",
    "count_calls",
    "new_request_id",
    "not_json",
    "request_id_of",
    "watched_in",
]

log = structlog.get_logger(__name__)

BODY_S_MAX: Final = 30
# What the bodies that are coming may hold together.
COMING_BYTES_MAX: Final = 256 * 1024 * 1024
CALLS_MAX: Final = 4096
HEALTH: Final = "/healthz"
READY: Final = "/readyz"
# Behind it stand those who sign with a secret of their own; their bytes are theirs to judge.
WEBHOOKS: Final = "/webhooks/"
WEBHOOK_BYTES_MAX: Final = 256 * 1024
_CALLER: Final = "farthing.caller"
_WATCHED: Final = "farthing.watched"
_REQUEST_ID: Final = "farthing.request_id"
_LEFT: Final = "farthing.left"
# This much unsigned JSON costs as much of an allowance as one call: it may be one to lint.
_METERED_BYTES: Final = 4 * 1024
# After a start every key is one that was not seen before; what it signed is read once it is known.
_STRANGE_BYTES: Final = 64 * 1024
# What a search or a registration has is below a hundred.
_UNPROVEN_VALUES_MAX: Final = 4096
_MINUTE_S: Final = 60
_PATH_LOGGED_MAX: Final = 200
# Judged by their one value: where there are two, the next who reads may take the other.
_ONCE: Final = (b"content-length", b"content-type", b"host", b"idempotency-key", b"origin")

_CUT_OFF: Final = refuse(
    Code.UNAVAILABLE,
    message="The server stops; whether the request was done is not known. Ask again.",
    retry_after_s=1,
)
_FULL: Final = refuse(
    Code.OVERLOADED,
    message="The server answers as many calls as it can at once; nothing was read of this one.",
    retry_after_s=1,
)
_GAVE_WAY: Final = refuse(
    Code.OVERLOADED,
    message="The server answers as many calls as it can at once; the body of this one was late.",
    retry_after_s=1,
)
_ESCAPED: Final = "There is nothing at this URL: no path of this server has escapes in it."
_NEWCOMERS: Final = frozenset(
    name for name, operation in OPERATIONS.items() if Role.NEWCOMER in operation.roles
)


def caller_of(scope: Mapping[str, object]) -> Caller:
    """The caller that admission put in a scope."""
    return cast("Caller", scope.get(_CALLER, ANYONE))


def watched_in(scope: Mapping[str, object]) -> str:
    """The tool whose progress a request wants to hear of, empty where it wants to hear of none."""
    return cast("str", scope.get(_WATCHED, ""))


def request_id_of(scope: Mapping[str, object]) -> str:
    """The request's id, to be named in every refusal and log line."""
    return cast("str", scope.get(_REQUEST_ID, ""))


def new_request_id(now_us: int, entropy: Callable[[int], bytes]) -> str:
    """An id for a request that came now."""
    return typeid("req", uuid7_bytes(now_us // 1000, entropy(10)))


def count_calls(
    scope: MutableMapping[str, Any], velocity: Velocity, caller: Caller, now_us: int, count: int = 1
) -> None:
    """Count calls of a proven caller, and have the answer tell what is left.

    Raises:
        Refused: `rate_limited`: there are not as many left.
    """
    allowed, scope[_LEFT] = velocity.take(caller, now_us, count)
    if not allowed:
        scope[_CALLER] = caller
        raise Refused(refuse(Code.RATE_LIMITED, retry_after_s=1))


def not_json(error: InvalidJson) -> Refused:
    """What refuses a body, or a line of one, that is no JSON of the protocol's alphabet."""
    duplicate = error.reason is JsonFault.DUPLICATE_KEY
    code = Code.DUPLICATE_KEY if duplicate else Code.MALFORMED
    text = "" if duplicate else f"{code.says} ({error.reason.value})"
    return Refused(refuse(code, message=text))


@dataclass(frozen=True, slots=True)
class _Called:
    """The operation a request calls, the key its arguments name, whether it wants progress."""

    name: str = ""
    key: Mapping[str, object] | None = None
    is_watched: bool = False

    @property
    def newcomers_key(self) -> Mapping[str, object] | None:
        """The key of a registration; anything else is signed with a key that is known."""
        return self.key if self.name in _NEWCOMERS else None


class Admission:
    """ASGI middleware in front of every door.

    Args:
        app: what is behind the door.
        authenticator: gives the authenticator, known once the server has recovered.
        hosts: the `Host` values that reach this server, against DNS rebinding.
        now_us: the clock.
        entropy: random bytes of a length, for request ids.
        anonymous_per_minute: how often a minute one address may act unproven.
        velocity: how often the proven may call.
        body_s_max: how long a body may take to arrive.
        calls_max: how many calls may be answered at once; health is told beyond them.
        coming_bytes_max: how much bodies may hold before they are whole.
        on_refused: is told the status of what is refused here.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        authenticator: Callable[[], Authenticator],
        hosts: frozenset[str],
        now_us: Callable[[], int],
        entropy: Callable[[int], bytes],
        anonymous_per_minute: int,
        velocity: Velocity,
        body_s_max: float = BODY_S_MAX,
        calls_max: int = CALLS_MAX,
        coming_bytes_max: int = COMING_BYTES_MAX,
        on_refused: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._hosts = hosts
        self._now_us = now_us
        self._entropy = entropy
        self._unproven = Quota(b"anonymous", anonymous_per_minute, _MINUTE_S)
        self._velocity = velocity
        self._body_s_max = body_s_max
        self._calls_max = calls_max
        self._calls = 0
        # The bodies that are coming, the one that has been longest first, and what they hold.
        self._coming: dict[asyncio.Timeout, int] = {}
        self._coming_bytes = 0
        self._coming_bytes_max = coming_bytes_max
        self._on_refused = on_refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit or refuse one request, and say in the log what became of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter_ns()
        request_id = new_request_id(self._now_us(), self._entropy)
        # An HTTP parser may leave white space around values, which no check below should see.
        headers = [(name, value.strip()) for name, value in scope["headers"]]
        scope = {**scope, "headers": headers, _REQUEST_ID: request_id}
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                added: Headers = [(b"request-id", request_id.encode())]
                added += scope.get(_LEFT, ())
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._admit(scope, receive, answer)
            except Gone:
                # Nobody is there to answer: the line below says 0.
                pass
            except asyncio.CancelledError:
                # The server stops, and waits for this one no longer.
                log.warning("request_cut_off", path=scope["path"][:_PATH_LOGGED_MAX])
                if not status:
                    await problem(_CUT_OFF, request_id)(scope, receive, answer)
                raise
            except Exception:
                # The outermost door: nothing of the fault leaves with the answer.
                log.exception("request_failed")
                if not status:
                    refusal = refuse(Code.INTERNAL_ERROR)
                    await problem(refusal, request_id)(scope, receive, answer)
            log.info(
                "request",
                method=scope["method"],
                path=scope["path"][:_PATH_LOGGED_MAX],
                status=status,
                principal_id=caller_of(scope).principal_id,
                took_us=(time.perf_counter_ns() - started) // 1000,
            )

    async def _admit(self, scope: Scope, receive: Receive, answer: Send) -> None:
        path = scope["path"]
        if path in {HEALTH, READY} or (path == METRICS and is_direct(scope)):
            await self._app(scope, receive, answer)
        elif self._calls >= self._calls_max and not self._make_room():
            await self._refuse(problem(_FULL, request_id_of(scope)), scope, receive, answer)
        else:
            self._calls += 1
            try:
                await self._judge(scope, receive, answer)
            finally:
                self._calls -= 1

    def _make_room(self) -> bool:
        """End the body that has been coming longest; False where none is."""
        longest = next(iter(self._coming), None)
        if longest is None:
            return False
        self._coming_bytes -= self._coming.pop(longest)
        if not longest.expired():
            longest.reschedule(asyncio.get_running_loop().time())
        return True

    async def _judge(self, scope: Scope, receive: Receive, answer: Send) -> None:
        headers: Headers = scope["headers"]
        refused = _ambiguous(scope, headers) or self._misdirected(scope, headers)
        body = b""
        if refused is None:
            try:
                body = await self._proven(scope, headers, receive)
            except Refused as error:
                issuer = self._authenticator().audience
                refused = problem(error.refusal, request_id_of(scope), issuer=issuer)
        if refused is None:
            await self._app(scope, again(body, receive), answer)
        else:
            await self._refuse(refused, scope, receive, answer)

    async def _refuse(
        self, refused: Response, scope: Scope, receive: Receive, answer: Send
    ) -> None:
        self._on_refused(refused.status_code)
        await refused(scope, receive, answer)

    def _misdirected(self, scope: Scope, headers: Headers) -> Response | None:
        """Refuse what a foreign page sent here by way of a name of its own (DNS rebinding)."""
        host, origin = (value_of(headers, name).lower() for name in (b"host", b"origin"))
        if host not in self._hosts:
            refusal = refuse(Code.MALFORMED, path="host", message="This server has another name.")
            return problem(refusal, request_id_of(scope))
        if origin and not self._is_ours(origin):
            text = "Pages of other origins cannot call this server."
            refusal = refuse(Code.NOT_PERMITTED, path="origin", message=text)
            return problem(refusal, request_id_of(scope))
        return None

    def _is_ours(self, origin: str) -> bool:
        scheme, _, netloc = origin.partition("://")
        return scheme in {"http", "https"} and netloc in self._hosts

    async def _proven(self, scope: Scope, headers: Headers, receive: Receive) -> bytes:
        """Put the caller in the scope and give the body, or raise what refuses it.

        What nobody has signed is metered by its size before it is parsed; a proof is checked
        before its body is parsed, and costs a fraction of that.
        """
        proofs = [value for name, value in headers if name == b"authorization"]
        is_post = scope["method"] == "POST"
        if is_post and scope["path"].startswith(WEBHOOKS):
            scope[_CALLER] = ANYONE
            return await self._body(scope, receive, WEBHOOK_BYTES_MAX)
        if not proofs:
            self._meter(scope)
        body = await self._body(scope, receive) if is_post else b""
        if not proofs:
            self._meter(scope, len(body) // _METERED_BYTES)
        read = partial(_called, scope["path"], headers, body)
        request = Request(
            # Two are none: no proof has a comma in it.
            authorization=b", ".join(proofs).decode("latin-1"),
            method=scope["method"],
            url=f"{self._authenticator().audience}{_target(scope)}",
            body=body,
        )
        caller = await self._caller(
            scope, request, lambda: read(_UNPROVEN_VALUES_MAX).newcomers_key if is_post else None
        )
        if caller.principal_id:
            count_calls(scope, self._velocity, caller, self._now_us())
        values_max = VALUES_MAX if caller.principal_id else _UNPROVEN_VALUES_MAX
        called = read(values_max) if is_post else _Called(name=_read_by(scope))
        operation = OPERATIONS.get(called.name)
        if caller is ANYONE and operation is not None and not operation.public:
            raise Refused(refuse(Code.UNAUTHENTICATED))
        scope[_CALLER] = caller
        scope[_WATCHED] = called.name if called.is_watched else ""
        return body

    async def _caller(self, scope: Scope, request: Request, named_key: NamedKey) -> Caller:
        count = 1 + len(request.body) // _STRANGE_BYTES
        try:
            return await self._authenticator().caller(
                request,
                # A proof's age is what it is when the request is whole, however slowly that came.
                self._now_us(),
                on_stranger=lambda: self._meter(scope, count),
                named_key=named_key,
            )
        except Refused:
            # Known only now; it is nothing to whose key it names.
            if _LEFT not in scope:
                self._meter(scope, count)
            raise

    def _meter(self, scope: Scope, count: int = 1) -> None:
        client = scope.get("client")
        whose = network_of(client[0]) if client else ""
        allowed, left = self._unproven.take(whose, self._now_us(), count)
        scope[_LEFT] = told(self._unproven.policy, self._unproven.left(left))
        if not allowed:
            raise Refused(refuse(Code.RATE_LIMITED, retry_after_s=1))

    async def _body(self, scope: Scope, receive: Receive, bytes_max: int = BODY_BYTES_MAX) -> bytes:
        """The whole body, or a refusal as soon as it is known to be too large or too slow."""
        gave_way = False
        try:
            async with asyncio.timeout(self._body_s_max) as coming:
                self._coming[coming] = 0
                try:
                    return await whole_body(scope, receive, bytes_max, partial(self._hold, coming))
                finally:
                    gave_way = coming not in self._coming
                    self._coming_bytes -= self._coming.pop(coming, 0)
        except TimeoutError:
            if gave_way:
                raise Refused(_GAVE_WAY) from None
            text = f"The body did not arrive within {self._body_s_max} seconds."
            raise Refused(refuse(Code.MALFORMED, message=text)) from None

    def _hold(self, coming: asyncio.Timeout, size: int) -> None:
        """Count what came of a body; those that came before it give way where it is too much."""
        if coming in self._coming:
            self._coming[coming] += size
            self._coming_bytes += size
        while self._coming_bytes > self._coming_bytes_max:
            self._make_room()


def _ambiguous(scope: Scope, headers: Headers) -> Response | None:
    """Refuse what others may read otherwise: a path with escapes, a header there twice."""
    if b"%" in scope.get("raw_path", b""):
        # No path here needs one, and a rule of a proxy's would be passed by it.
        return problem(refuse(Code.NOT_FOUND, message=_ESCAPED), request_id_of(scope))
    names = [name for name, _ in headers]
    twice = next((name.decode() for name in _ONCE if names.count(name) > 1), "")
    if not twice:
        return None
    refusal = refuse(Code.MALFORMED, path=twice, message="The header is there more than once.")
    return problem(refusal, request_id_of(scope))


def _target(scope: Scope) -> str:
    """The path with its query, as sent and signed."""
    path = scope.get("raw_path", scope["path"].encode()).decode("latin-1")
    query = scope.get("query_string", b"").decode("latin-1")
    return f"{path}?{query}" if query else path


def _read_by(scope: Scope) -> str:
    """The operation that a request without a body reads by its path."""
    name = named_by(scope["path"]) if scope["method"] in {"GET", "HEAD"} else ""
    return name if name and query_members(name) is not None else ""


def _called(path: str, headers: Headers, body: bytes, values_max: int) -> _Called:
    """Read a body strictly, and say what it calls: by its path, or in MCP's envelope."""
    kind = value_of(headers, b"content-type").partition(";")[0].strip().lower()
    if kind != (wanted := media_type_at(path)):
        text = f"The body is {wanted}."
        raise Refused(refuse(Code.MALFORMED, path="content-type", message=text))
    if value_of(headers, b"content-encoding").lower() not in {"", "identity"}:
        text = "The body is sent as it is, in no coding."
        raise Refused(refuse(Code.MALFORMED, path="content-encoding", message=text))
    name = named_by(path)
    if wanted != MEDIA_TYPE:
        return _Called(name=name)
    if has_more_values(body, values_max):
        text = f"The body has more than {values_max} values."
        raise Refused(refuse(Code.PAYLOAD_TOO_LARGE, message=text))
    try:
        # Protocol envelopes may hold null and fractions; what is signed or stored may not.
        document = parse_json(body, allow_float=True, allow_null=True)
    except InvalidJson as error:
        raise not_json(error) from error
    if name:
        return _Called(name=name, key=_key_of(document))
    if not isinstance(document, dict) or document.get("method") != "tools/call":
        return _Called()
    params = document.get("params")
    if not isinstance(params, dict) or not isinstance(tool := params.get("name"), str):
        return _Called()
    meta = params.get("_meta")
    is_watched = isinstance(meta, dict) and "progressToken" in meta
    return _Called(name=tool, key=_key_of(params.get("arguments")), is_watched=is_watched)


def _key_of(arguments: LooseJson) -> Mapping[str, object] | None:
    key = arguments.get("key") if isinstance(arguments, dict) else None
    return cast("Mapping[str, object]", key) if isinstance(key, dict) else None
