"""The connection to a platform: `call(operation, ask) -> answer`, signed, typed, safely repeated.

Boundary: one operation at a time, over MCP or as plain HTTP. A call is repeated only where
repeating cannot do a thing twice: it reads, or it carries an idempotency key, which stays while the
proof is new.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Generic, Literal, Self, TypeVar, cast

import httpx2
import orjson
from pydantic import TypeAdapter, ValidationError

from farthing.clients.clock import Clock, Entropy, now_us, random_bytes
from farthing.clients.http_api import HttpEndpoint, Sendable
from farthing.clients.posting import JsonObject, exchange, json_object, refused_by
from farthing.clients.signing import RequestSigner
from farthing.clients.tools import Endpoint, ToolResult
from farthing.protocol import base64url
from farthing.protocol.errors import Code, Refused, Unreachable, Unverified, refuse
from farthing.protocol.keys import Signer
from farthing.protocol.messages.http import raw_of
from farthing.protocol.messages.operations import OPERATIONS
from farthing.protocol.platform_keys import PlatformKeys
from farthing.protocol.wire import REPLAYED, Effect, Operation, document_of

__all__ = ["Connection", "Reply", "new_key", "platform_url", "read_answer"]

Transport = Literal["mcp", "http"]
Ask = TypeVar("Ask")
Answer = TypeVar("Answer")

_ATTEMPTS: Final = 4
_BACKOFF_S: Final = 0.1
_BACKOFF_S_MAX: Final = 5.0
_KEY_BYTES: Final = 16
# What may be different a moment later, with nobody's doing.
_AGAIN: Final = frozenset(
    {Code.RATE_LIMITED, Code.OVERLOADED, Code.UNAVAILABLE, Code.STALE, Code.INTERNAL_ERROR}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply(Generic[Answer]):
    """An answer, and whether it was given before under the same idempotency key."""

    answer: Answer
    replayed: bool = False


class Connection:
    """A principal's way to one platform. Close it, or use it as a context.

    Args:
        url: The platform's public URL, with or without `/mcp`.
        signer: The caller's key; without one only what needs no credential can be called.
        principal: The caller's id; before there is one, its key's thumbprint stands in.
        http: Whose connections to use; without one the connection makes and closes its own.
        timeout_s: How long one attempt may take.
        transport: Which door calls go through: tools over MCP, or `/v1` as plain JSON.
        clock: Gives the present instant in microseconds.
        entropy: Gives random bytes for keys and proofs.
        sleep: Waits between attempts.
    """

    def __init__(
        self,
        url: str,
        *,
        signer: Signer | None = None,
        principal: str = "",
        http: httpx2.AsyncClient | None = None,
        timeout_s: float = 30,
        transport: Transport = "mcp",
        clock: Clock = now_us,
        entropy: Entropy = random_bytes,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.url = platform_url(url)
        self.signer = signer
        self.principal = principal or (signer.thumbprint if signer else "")
        self.clock = clock
        self.entropy = entropy
        self.timeout_s = timeout_s
        self.transport: Transport = transport
        self.http = http or httpx2.AsyncClient()
        self._owns_http = http is None
        self.sleep = sleep
        self.auth: RequestSigner | None = None
        if signer is not None:
            self.auth = RequestSigner(
                signer, principal=self.principal, audience=self.url, clock=clock, entropy=entropy
            )
        self._endpoint = Endpoint(self.http, f"{self.url}/mcp", timeout_s=timeout_s, auth=self.auth)
        self._http = HttpEndpoint(self.http, self.url, timeout_s=timeout_s, auth=self.auth)

    async def call(self, operation: Operation[Ask, Answer], ask: Ask) -> Answer:
        """Carry out an operation.

        Raises:
            Refused: The platform said no; `code` says why.
            Unreachable: No answer after the last attempt; `get_outcome` tells what became of it.
            Unverified: The answer does not have the documented form, or is of something else.
        """
        return (await self.send(operation, ask)).answer

    async def send(self, operation: Operation[Ask, Answer], ask: Ask) -> Reply[Answer]:
        """As `call`, with whether the answer was given before."""
        asked = document_of(ask)
        result = await self.send_raw(
            operation.name,
            asked,
            repeatable=operation.effect is Effect.READS or hasattr(ask, "idempotency_key"),
        )
        answer = read_answer(operation, asked, result)
        return Reply(answer=answer, replayed=result.meta.get(REPLAYED) is True)

    async def send_raw(
        self, name: str, arguments: Mapping[str, object], *, repeatable: bool
    ) -> ToolResult:
        """Call a tool of the platform by name; a refusal is raised.

        Raises:
            Refused, Unreachable: As `call`.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            wait_s = min(_BACKOFF_S * 2**attempt, _BACKOFF_S_MAX)
            last = attempt == _ATTEMPTS or not repeatable
            try:
                return await self._attempt(name, arguments)
            except Unreachable:
                if last:
                    raise
            except Refused as refused:
                wait_s = max(wait_s, refused.refusal.retry_after_s)
                if last or refused.code not in _AGAIN or wait_s > _BACKOFF_S_MAX:
                    raise
            await self.sleep(wait_s)
        raise AssertionError("the last attempt returns or raises")

    def request(self, name: str, arguments: Mapping[str, object]) -> Sendable:
        """A call of `/v1` as it would be sent, signed, for another program to send; once."""
        return self._http.request(name, arguments)

    async def tools(self) -> list[JsonObject]:
        """The tools the platform shows to this caller."""
        return await self._endpoint.list_tools()

    async def platform_keys(self) -> PlatformKeys:
        """The platform's public keys by purpose, as it publishes them (RFC 7517).

        Whoever must not take the platform's word for it compares a thumbprint it was told.

        Raises:
            Unreachable: The platform did not answer with a key set.
        """
        return PlatformKeys.read((await self.key_set())["keys"])

    async def key_set(self) -> dict[str, Any]:
        """The platform's key set as it publishes it; `keys` is a list.

        Raises:
            Unreachable: The platform did not answer with a key set.
        """
        url = f"{self.url}/.well-known/jwks.json"
        request = self.http.build_request("GET", url, timeout=self.timeout_s)
        answered = await exchange(self.http, request, timeout_s=self.timeout_s)
        found = json_object(answered.data) if answered.status == HTTPStatus.OK else None
        if found is None or not isinstance(found.get("keys"), list):
            raise Unreachable(f"{url} did not answer with a key set")
        return found

    def new_key(self) -> str:
        """A fresh idempotency key."""
        return new_key(self.entropy)

    async def aclose(self) -> None:
        """Close the connections that were opened here."""
        if self._owns_http:
            await self.http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _attempt(self, name: str, arguments: Mapping[str, object]) -> ToolResult:
        # What is sent in lines is spared an envelope, and goes together with others.
        is_plain = self.transport == "http" or raw_of(name) is not None
        door = self._http if is_plain else self._endpoint
        result = await door.call_tool(name, arguments)
        if result.is_error:
            raise _refused(result)
        return result


def new_key(entropy: Entropy) -> str:
    """A fresh idempotency key."""
    return base64url.encode(entropy(_KEY_BYTES))


def platform_url(url: str) -> str:
    """The public URL of a platform, whichever of its two spellings was given."""
    return url.rstrip("/").removesuffix("/mcp").rstrip("/")


def _refused(result: ToolResult) -> Refused:
    shape = result.structured
    if not isinstance(shape, dict) or "code" not in shape:
        return Refused(refuse(Code.INTERNAL_ERROR, message=result.text))
    return refused_by(shape, replayed=result.meta.get(REPLAYED) is True)


def read_answer(
    operation: Operation[Any, Answer], asked: Mapping[str, object], result: ToolResult
) -> Answer:
    """The answer to what was asked.

    Raises:
        Unverified: It does not have the documented form, or is of something else.
    """
    # An answer may grow members that this client does not know; what it knows has its exact form.
    adapter = cast("TypeAdapter[Answer]", _adapter(operation.name))
    try:
        answer = adapter.validate_json(orjson.dumps(result.structured), extra="ignore")
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        raise Unverified(f"the answer of {operation.name}: {path}: {first['type']}") from None
    for name, each in asked.items():
        if name.endswith("_id") and each and getattr(answer, name, each) != each:
            raise Unverified(f"the answer of {operation.name} is of another {name}")
    return answer


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(OPERATIONS[name].answer)
