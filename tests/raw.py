"""Requests as bytes, written by hand, as nobody's client would write them.

A `Desk` is a running market with everything an attacker could aim at, and the eyes of its auditor:
what stands in the journal, what every account holds, whether the server still serves.
"""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farthing.clients.transport import Connection
from farthing.protocol.canonical import Json
from farthing.protocol.errors import Code
from farthing.protocol.keys import Signer
from farthing.protocol.messages.agreements import Agreement as AgreementView
from farthing.protocol.proofs import content_digest, request_jwt
from farthing.protocol.signatures import Typ, sign_compact
from farthing.protocol.times import SECOND_US
from farthing.protocol.wire import Role
from farthing.settlement.engine.questions import AllAccounts, FiguresNow
from tests.papers import signing_key
from tests.serving import Serving, Shop, serving

__all__ = [
    "VERSION",
    "Answer",
    "Desk",
    "bearer",
    "call_body",
    "claims_of",
    "hold_arguments",
    "in_a_task",
    "opened",
    "token_of",
    "unchanged",
]

VERSION = "2026-07-28"
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": VERSION,
    "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
# What never leaves a server: its code, its folders, its SQL.
INSIDE = re.compile(
    r"Traceback|File \"|\.py\b|site-packages|/farthing/|\bSELECT \b|\bINSERT \b|sqlite|pydantic"
    r"|Error\b.*\bline \d",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back: the HTTP status, and the one error shape or the result in it."""

    status: int
    code: str | int
    shape: dict[str, Any]
    text: str

    @property
    def path(self) -> str:
        """The field that a refusal names."""
        return str(self.shape.get("path", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A market, one agreement in force, an open hold and a charge, and who can act on them."""

    server: Serving
    shop: Shop
    agreement: AgreementView
    hold_id: str
    charge_id: str
    data_dir: Path

    @property
    def issuer(self) -> str:
        """The platform's public URL."""
        return self.server.service.issuer

    @property
    def url(self) -> str:
        """Where calls go."""
        return f"{self.issuer}/mcp"

    @property
    def buyer(self) -> Connection:
        """The agent."""
        return self.shop.buyer.connection

    @property
    def operator(self) -> Connection:
        """The agent's operator."""
        return self.shop.operator.connection

    @property
    def vendor(self) -> Connection:
        """The vendor."""
        return self.shop.vendor.connection

    def as_role(self, role: Role) -> Connection:
        """The connection of whoever has a role; a newcomer's key is registered nowhere."""
        match role:
            case Role.BUYER:
                return self.buyer
            case Role.OPERATOR:
                return self.operator
            case Role.VENDOR:
                return self.vendor
            case Role.ADMIN | Role.TREASURER:
                return self.server.staff(role)
            case Role.NEWCOMER:
                return self.server.connect(signing_key("Nobody"))
            case Role.ANYONE:
                return self.server.connect()

    async def post(
        self,
        body: bytes | AsyncIterator[bytes],
        *,
        authorization: str | list[str] = "",
        path: str = "/mcp",
        tool: str = "",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send bytes to the door and read whatever comes back; nothing of the inside is in it."""
        proofs = [authorization] if isinstance(authorization, str) else authorization
        named = {
            "accept": "application/json, text/event-stream",
            "content-type": "application/json",
            "mcp-protocol-version": VERSION,
            "mcp-method": "tools/call",
            **({"mcp-name": tool} if tool else {}),
            **(headers or {}),
        }
        response = await self.server.http.post(
            f"{self.issuer}{path}",
            content=body,
            headers=[
                (name.encode(), value.encode("latin-1"))
                for name, value in (*named.items(), *(("authorization", each) for each in proofs))
                if value
            ],
        )
        self._tells_nothing(response.text)
        return _answer(response.status_code, response.text)

    async def call(
        self, by: Connection, name: str, arguments: object, *, body: bytes | None = None
    ) -> Answer:
        """A well-signed call of a tool, whatever its arguments are."""
        raw = call_body(name, arguments) if body is None else body
        return await self.post(raw, authorization=self.proof(by, raw), tool=name)

    def proof(self, by: Connection, body: bytes, **changed: Any) -> str:
        """A request JWT of a caller for a body, with what the caller changes of it."""
        if by.signer is None:
            return ""
        told = {
            "principal": by.principal,
            "audience": self.issuer,
            "method": "POST",
            "url": self.url,
            "now_us": self.server.clock(),
            "jti": os.urandom(12).hex(),
            **changed,
        }
        return bearer(request_jwt(by.signer, body=body, **told))

    async def written(self) -> int:
        """How many records the journal has."""
        return (await self.server.service.market.ask(FiguresNow())).seq

    async def accounts(self) -> dict[str, str]:
        """Every account with its counters."""
        accounts = (await self.server.service.market.ask(AllAccounts())).accounts
        return {name: repr(account) for name, account in sorted(accounts.items())}

    async def is_healthy(self) -> bool:
        """Whether the server says so, and still does the next honest call."""
        health = await self.server.http.get(f"{self.issuer}/healthz")
        answer = await self.call(self.buyer, "get_balance", {})
        return health.status_code == 200 and answer.code == "" and answer.status == 200

    def _tells_nothing(self, text: str) -> None:
        assert INSIDE.search(text) is None, text
        assert str(self.data_dir) not in text
        assert os.getcwd() not in text  # noqa: PTH109  # a text to look for, no path to walk


def call_body(name: str, arguments: object, **members: object) -> bytes:
    """The body of a tool call, as the revision of 2026-07-28 writes it."""
    params = {"name": name, "arguments": arguments, "_meta": ENVELOPE}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    return json.dumps({**call, **members}).encode()


def claims_of(desk: Desk, by: Connection, body: bytes, **changed: Json) -> dict[str, Json]:
    """The claims of a request JWT, to be forged one by one."""
    now_s = desk.server.clock() // SECOND_US
    return {
        "iss": by.principal,
        "sub": by.principal,
        "aud": desk.issuer,
        "jti": os.urandom(12).hex(),
        "htm": "POST",
        "htu": desk.url,
        "content_digest": content_digest(body),
        "iat": now_s,
        "exp": now_s + 30,
        **changed,
    }


def token_of(signer: Signer, claims: dict[str, Json], typ: Typ = Typ.REQUEST) -> str:
    """A signed token of any kind with any claims, as a bearer."""
    return bearer(sign_compact(signer, typ, claims))


def bearer(token: str) -> str:
    """A token as an Authorization header's value."""
    return f"Bearer {token}"


def hold_arguments(desk: Desk, **changed: Json) -> dict[str, Json]:
    """The arguments of a hold that would be placed, with what is changed of them."""
    return {
        "agreement_id": desk.agreement.agreement_id,
        "workload": [{"meter": "page", "quantity": "1"}],
        "args_sha256": "a" * 64,
        "idempotency_key": "k" * 16,
        **changed,
    }


@asynccontextmanager
async def unchanged(desk: Desk) -> AsyncIterator[None]:
    """Require that nothing is written and nothing moves, and that the server serves on."""
    before = await desk.written(), await desk.accounts()
    yield
    assert (await desk.written(), await desk.accounts()) == before
    assert await desk.is_healthy()


@asynccontextmanager
async def opened(data_dir: Path) -> AsyncIterator[Desk]:
    """A running market in which one call was paid for and one is still held."""
    async with serving(data_dir) as server:
        shop = await Shop.opened(server)
        agreement = await shop.buyer.accept(await shop.buyer.quote(shop.listing_id, {"page": 2}))
        paid = await shop.buyer.hold(agreement.agreement_id, {"page": 2}, {"call": "paid"})
        charge_id = await shop.captured(agreement, paid.answer.hold_id, {"page": 2}, "b" * 64)
        held = await shop.buyer.hold(agreement.agreement_id, {"page": 2}, {"call": "held"})
        yield Desk(
            server=server,
            shop=shop,
            agreement=agreement,
            hold_id=held.answer.hold_id,
            charge_id=charge_id,
            data_dir=data_dir,
        )


@asynccontextmanager
async def in_a_task(
    make: Callable[[], AbstractAsyncContextManager[Desk]],
) -> AsyncIterator[Desk]:
    """A desk that is opened and closed in one task, as its task groups want it.

    The two halves of a fixture run in tasks of their own.
    """
    ready: asyncio.Future[Desk] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def run() -> None:
        async with make() as desk:
            ready.set_result(desk)
            await over.wait()

    task = asyncio.create_task(run())
    task.add_done_callback(lambda ended: _pass_on(ended, ready))
    try:
        yield await ready
    finally:
        over.set()
        await task


def _pass_on(task: asyncio.Task[None], ready: asyncio.Future[Desk]) -> None:
    """Whoever waits for a desk that did not open is told why."""
    if not ready.done():
        ready.set_exception(task.exception() or AssertionError("the market never opened"))


def _answer(status: int, text: str) -> Answer:
    document = json.loads(text) if text else {}
    assert isinstance(document, dict), text
    shape: dict[str, Any] = document
    refused = True
    if isinstance(error := document.get("error"), dict):
        data = error.get("data")
        shape = data if isinstance(data, dict) else {"code": error["code"]}
    elif isinstance(result := document.get("result"), dict):
        shape = result.get("structuredContent") or {}
        refused = result.get("isError") is True
    code = shape.get("code", "") if refused else ""
    assert isinstance(code, int) or code in {"", *Code}, text
    return Answer(status=status, code=code, shape=shape, text=text)
