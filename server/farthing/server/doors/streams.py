"""Balance changes as they happen: server-sent events, and the MCP door's subscription streams.

Boundary: tells that something changed and reads what it is like every other caller; decides
nothing. Streams are bounded in number, in what waits for a slow reader (nothing does), and in how
long a reader may take. Source: spec/statements.md.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, cast

import orjson
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from farthing.identity.callers import Caller
from farthing.protocol.errors import Code, Refused, refuse
from farthing.protocol.ledger import split_account
from farthing.protocol.messages.statements import GET_STATEMENT, BalanceEvent
from farthing.protocol.records import Record
from farthing.protocol.times import format_time
from farthing.protocol.wire import document_of
from farthing.server.dispatch import dispatch
from farthing.server.doors.admission import caller_of, request_id_of
from farthing.server.doors.render import problem
from farthing.server.market import Market
from farthing.server.operations.replies import balance_of
from farthing.server.operations.statements import ids_shown
from farthing.settlement.engine.commands import Committed
from farthing.settlement.engine.questions import Figures, FiguresNow
from farthing.settlement.port import Engine
from farthing.settlement.reports.lines import Line
from farthing.settlement.reports.reads import View
from farthing.settlement.reports.statements import balances_at, records_of

__all__ = [
    "EVENTS",
    "PER_CALLER_MAX",
    "STREAMS_MAX",
    "Feed",
    "Patient",
    "Watcher",
    "check_watcher",
    "event_route",
    "watching",
]

log = structlog.get_logger(__name__)

EVENTS: Final = "/v1/events"
STREAMS_MAX: Final = 1000
PER_CALLER_MAX: Final = 8
PER_OWNER_MAX: Final = 64
HEARTBEAT_S: Final = 15
WRITE_S_MAX: Final = 30
# A stream reads again no sooner than this after it has read: what happens meanwhile is one reading.
_PAUSE_S: Final = 0.05
# How long before a stream that could not catch up, or a feed that lost the engine, tries again.
_AGAIN_S: Final = 1.0
_LINES_MAX: Final = 400
_SEQ_DIGITS_MAX: Final = 15


@dataclass(slots=True, eq=False)
class Watcher:
    """An open stream: woken when an account of its owner moved, closed when its key ends.

    Args:
        caller: whose stream.
        woken: set when there is something to read.
        touched: the accounts that moved since it was last emptied; all of one owner, so bounded.
        closed: whether the stream must end.
    """

    caller: Caller
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    touched: set[str] = field(default_factory=set)
    closed: bool = False

    @property
    def owner(self) -> str:
        """Whose accounts are watched."""
        return self.caller.organisation_id

    def close(self) -> None:
        """Let the stream end."""
        self.closed = True
        self.woken.set()

    async def wait(self, seconds: float) -> bool:
        """Wait for something to happen, and say whether it did; a moment passes between two."""
        await asyncio.sleep(0 if self.closed else _PAUSE_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.woken.wait()
        happened = self.woken.is_set()
        if not self.closed:
            self.woken.clear()
        return happened


class Feed:
    """Follows the journal's end while anybody watches, once for all of this process's streams.

    Args:
        engine: whose journal.
        streams_max: how many streams may be open at once.
        per_caller_max: how many of one principal.
        per_owner_max: how many of one organisation with all of its agents.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        streams_max: int = STREAMS_MAX,
        per_caller_max: int = PER_CALLER_MAX,
        per_owner_max: int = PER_OWNER_MAX,
    ) -> None:
        self._engine = engine
        self._streams_max = streams_max
        self._per_caller_max = per_caller_max
        self._per_owner_max = per_owner_max
        self._watchers: set[Watcher] = set()
        self._by_owner: dict[str, set[Watcher]] = {}
        self._callers: Counter[str] = Counter()
        self._following: asyncio.Task[None] | None = None
        self._open = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Streams can be opened until the block ends, which ends those that are open."""
        self._open = True
        try:
            yield
        finally:
            self.close()
            if (following := self._following) is not None:
                following.cancel()
                await asyncio.wait({following})

    def close(self) -> None:
        """Open no more streams, and let the open ones end."""
        self._open = False
        for watcher in self._watchers:
            watcher.close()

    @contextmanager
    def watch(self, caller: Caller) -> Iterator[Watcher]:
        """Watch the accounts of a caller's organisation.

        Raises:
            Refused: `rate_limited` beyond those of the caller or its organisation, `overloaded`
                beyond those of all.
        """
        if not self._open:
            raise Refused(refuse(Code.UNAVAILABLE))
        if self._callers[caller.principal_id] >= self._per_caller_max:
            text = f"{self._per_caller_max} streams of yours are open."
            raise Refused(refuse(Code.RATE_LIMITED, message=text, retry_after_s=int(_AGAIN_S)))
        of_owner = len(self._by_owner.get(caller.organisation_id, ()))
        if of_owner >= self._per_owner_max:
            text = f"{self._per_owner_max} streams of your organisation are open."
            raise Refused(refuse(Code.RATE_LIMITED, message=text, retry_after_s=int(_AGAIN_S)))
        if len(self._watchers) >= self._streams_max:
            raise Refused(refuse(Code.OVERLOADED, retry_after_s=int(_AGAIN_S)))
        watcher = Watcher(caller)
        self._watchers.add(watcher)
        self._by_owner.setdefault(watcher.owner, set()).add(watcher)
        self._callers[caller.principal_id] += 1
        if self._following is None or self._following.done():
            self._following = asyncio.create_task(self._follow())
        try:
            yield watcher
        finally:
            self._forget(watcher)

    def _forget(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)
        self._by_owner[watcher.owner].discard(watcher)
        if not self._by_owner[watcher.owner]:
            del self._by_owner[watcher.owner]
        self._callers[watcher.caller.principal_id] -= 1
        if not self._callers[watcher.caller.principal_id]:
            del self._callers[watcher.caller.principal_id]
        if not self._watchers and self._following is not None:
            self._following.cancel()
            self._following = None

    async def _follow(self) -> None:
        seq = -1
        while self._open:
            try:
                if seq < 0:
                    seq = (await self._engine.ask(FiguresNow())).seq
                # What happened before, each watcher finds by reading.
                for watcher in self._watchers:
                    watcher.woken.set()
                following = cast("AsyncGenerator[Committed, None]", self._engine.follow(seq))
                async with aclosing(following):
                    async for committed in following:
                        seq = committed.seq
                        self._tell(committed.record)
                break
            except Refused as refused:
                log.warning("feed_interrupted", code=refused.code.value)
                await asyncio.sleep(_AGAIN_S)
        # The engine has ended: nothing more will happen.
        for watcher in self._watchers:
            watcher.close()

    def _tell(self, record: Record) -> None:
        for name in {name for each in record.moved for name in (each.debit, each.credit)}:
            for watcher in self._by_owner.get(split_account(name)[0], ()):
                watcher.touched.add(name)
                watcher.woken.set()
        ended = {
            change.id
            for change in record.changed
            if change.noun == "key" and change.after.get("status") != "active"
        }
        if ended:
            for watcher in self._watchers:
                if watcher.caller.key_thumbprint in ended:
                    watcher.close()


class _SlowReader(Exception):
    """A reader took nothing for so long that it is taken for gone."""


class Patient:
    """ASGI middleware: a stream whose reader takes nothing for `WRITE_S_MAX` ends.

    Args:
        app: what streams.
        write_s_max: how long one write may take.
    """

    def __init__(self, app: ASGIApp, *, write_s_max: float = WRITE_S_MAX) -> None:
        self._app = app
        self._write_s_max = write_s_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; the connection of a slow reader is left to be closed."""

        async def timed(message: Message) -> None:
            if message["type"] != "http.response.body" or not message.get("more_body"):
                await send(message)
                return
            try:
                async with asyncio.timeout(self._write_s_max):
                    await send(message)
            except TimeoutError:
                raise _SlowReader from None

        try:
            await self._app(scope, receive, timed)
        except* _SlowReader:
            log.info("slow_reader", path=scope["path"])


def event_route(market: Market, feed: Feed) -> Route:
    """`GET /v1/events`: the balances of the caller's organisation, and each change of them."""

    async def events(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        caller = caller_of(scope)
        try:
            after_seq = _last_event_id(request)
            with watching(feed, caller) as watcher:
                await check_watcher(market, watcher)
                _check_place(after_seq, await market.ask(FiguresNow()))
                await _stream(_events(market, watcher, after_seq), receive, send)
        except Refused as refused:
            await _refusal(market, refused, request)(scope, receive, send)

    return Route(EVENTS, endpoint=Patient(events), methods=["GET"])


@contextmanager
def watching(feed: Feed, caller: Caller) -> Iterator[Watcher]:
    """Watch, where the caller is one who has accounts.

    Raises:
        Refused: as `Feed.watch`, and `unauthenticated` or `not_permitted`.
    """
    if caller.role not in GET_STATEMENT.roles:
        code = Code.NOT_PERMITTED if caller.principal_id else Code.UNAUTHENTICATED
        raise Refused(refuse(code))
    with feed.watch(caller) as watcher:
        yield watcher


async def check_watcher(market: Market, watcher: Watcher) -> None:
    """Judge a watcher like every reader, and once watching began: its key may end from now on.

    Raises:
        Refused: as `get_statement` is refused.
    """
    await dispatch(market, watcher.caller, GET_STATEMENT.name, {"limit": 1})


def _check_place(after_seq: int, figures: Figures) -> None:
    """Refuse to go on from what has not been: it was another journal."""
    if after_seq > figures.seq:
        raise Refused(refuse(Code.INVALID_ARGUMENT, path="last-event-id"))


def _refusal(market: Market, refused: Refused, request: Request) -> Response:
    metadata = f"{market.issuer}/.well-known/oauth-protected-resource"
    return problem(refused.refusal, request_id_of(request.scope), resource_metadata=metadata)


def _last_event_id(request: Request) -> int:
    """Where a stream goes on; -1 where it begins."""
    text = request.headers.get("last-event-id", "")
    if not text:
        return -1
    if not text.isascii() or not text.isdigit() or len(text) > _SEQ_DIGITS_MAX:
        raise Refused(refuse(Code.INVALID_ARGUMENT, path="last-event-id"))
    return int(text)


async def _stream(chunks: AsyncGenerator[bytes, None], receive: Receive, send: Send) -> None:
    """Send until there is no more, or nobody is there."""
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", b"text/event-stream"),
                (b"cache-control", b"no-store"),
                # Proxies that would collect a stream before they pass it on.
                (b"x-accel-buffering", b"no"),
            ],
        }
    )

    async def write() -> None:
        async with aclosing(chunks):
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    writing, leaving = asyncio.create_task(write()), asyncio.create_task(gone())
    try:
        await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (writing, leaving):
            task.cancel()
        await asyncio.wait({writing, leaving})
    if not writing.cancelled():
        writing.result()


async def _events(market: Market, watcher: Watcher, after_seq: int) -> AsyncGenerator[bytes, None]:
    """The events of a stream, each with the record that it is of as its id."""
    seq = after_seq
    while not watcher.closed:
        try:
            async with market.reports.view() as view:
                chunks, seq = await _news(view, watcher.caller, seq)
                behind = view.behind
        except Refused:  # the engine is away
            chunks, behind = [], True
        for chunk in chunks:
            yield chunk
        if chunks and behind:
            continue
        if not await watcher.wait(_AGAIN_S if behind else HEARTBEAT_S) and not behind:
            yield b": still here\n\n"


async def _news(view: View, caller: Caller, seq: int) -> tuple[list[bytes], int]:
    """What happened after a record, and up to which: everything as it is, where there is none."""
    accounts = await view.accounts_of(caller.organisation_id)
    if seq < 0:
        found = await balances_at(view, accounts, seq=view.as_of_seq)
        balances = tuple(balance_of(name, account) for name, account in found.items())
        event = BalanceEvent(seq=view.as_of_seq, accounts=balances)
        return [_written(event)], view.as_of_seq
    chunks: list[bytes] = []
    records = await records_of(view, accounts, seq, _LINES_MAX)
    for lines in records:
        chunks.append(_record_event(caller, lines))
        seq = lines[-1].seq
    return chunks, seq


def _record_event(caller: Caller, lines: Sequence[Line]) -> bytes:
    entry = lines[-1].entry
    after = {line.account: line.after for line in lines}
    event = BalanceEvent(
        seq=entry.seq,
        accounts=tuple(balance_of(name, account) for name, account in sorted(after.items())),
        operation=entry.operation,
        recorded_at=format_time(entry.at_us),
        ids=ids_shown(caller, entry),
    )
    return _written(event)


def _written(event: BalanceEvent) -> bytes:
    data = orjson.dumps(document_of(event))
    return b"id: %d\nevent: balance\ndata: %s\n\n" % (event.seq, data)
