"""Balance changes as they happen, as server-sent events; and what every stream of a door keeps to.

Boundary: told by the feed that something changed, it reads what it is like every other caller;
decides nothing. Nothing waits for a slow reader, and how long one may take is bounded.
Source: spec/statements.md.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from typing import Final

import orjson
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from farthing.identity.callers import Caller
from farthing.protocol.errors import Code, Refused, refuse
from farthing.protocol.messages.statements import GET_STATEMENT, BalanceEvent
from farthing.protocol.times import format_time
from farthing.protocol.wire import document_of
from farthing.server.dispatch import dispatch, may_use
from farthing.server.doors.admission import caller_of, request_id_of
from farthing.server.doors.render import problem
from farthing.server.followers.feed import AGAIN_S, Feed, Watcher
from farthing.server.market import Market
from farthing.server.operations.replies import balance_of
from farthing.server.operations.statements import ids_shown
from farthing.settlement.engine.questions import Figures, FiguresNow
from farthing.settlement.reports.lines import Line
from farthing.settlement.reports.reads import View
from farthing.settlement.reports.statements import balances_at, records_of

__all__ = ["EVENTS", "HEARTBEAT_S", "Patient", "check_watcher", "event_route", "watching"]

log = structlog.get_logger(__name__)

EVENTS: Final = "/v1/events"
HEARTBEAT_S: Final = 15
WRITE_S_MAX: Final = 30
_HEADERS: Final[Mapping[str, str]] = {
    "content-type": "text/event-stream",
    "cache-control": "no-store",
    # Proxies that would collect a stream before they pass it on.
    "x-accel-buffering": "no",
}
_LINES_MAX: Final = 400
_SEQ_DIGITS_MAX: Final = 15


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
                if request.method == "HEAD":
                    await Response(headers=_HEADERS)(scope, receive, send)
                    return
                await _stream(_events(market, watcher, after_seq), receive, send)
        except Refused as refused:
            response = problem(refused.refusal, request_id_of(scope), issuer=market.issuer)
            await response(scope, receive, send)

    return Route(EVENTS, endpoint=Patient(events), methods=["GET"])


@contextmanager
def watching(feed: Feed, caller: Caller) -> Iterator[Watcher]:
    """Watch, where the caller is one who has accounts.

    Raises:
        Refused: as `Feed.watch`, and `unauthenticated` or `not_permitted`.
    """
    if not may_use(caller, GET_STATEMENT):
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
        text = f"There is no record {after_seq}; the last is {figures.seq}."
        raise Refused(refuse(Code.INVALID_ARGUMENT, path="last-event-id", message=text))


def _last_event_id(request: Request) -> int:
    """Where a stream goes on; -1 where it begins."""
    if request.url.query:
        text = "A stream takes no query; where it goes on its Last-Event-ID says."
        raise Refused(refuse(Code.INVALID_ARGUMENT, path="query", message=text))
    text = request.headers.get("last-event-id", "")
    if not text:
        return -1
    if not text.isascii() or not text.isdigit() or len(text) > _SEQ_DIGITS_MAX:
        raise Refused(refuse(Code.INVALID_ARGUMENT, path="last-event-id"))
    return int(text)


async def _stream(chunks: AsyncGenerator[bytes, None], receive: Receive, send: Send) -> None:
    """Send until there is no more, or nobody is there."""
    headers = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
    await send({"type": "http.response.start", "status": 200, "headers": headers})

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
    seq, now_s = after_seq, asyncio.get_running_loop().time
    told_s = now_s()
    while not watcher.closed:
        try:
            async with market.reports.view(watcher.owner) as view:
                chunks, seq = await _news(view, watcher.caller, seq)
                behind = view.behind or seq < view.as_of_seq
        except Refused:  # the engine is away
            chunks, behind = [], True
        for chunk in chunks:
            if watcher.closed:  # while a slow reader took what is before it
                return
            yield chunk
            told_s = now_s()
        # What was cut off, or not followed yet, nothing that happens may ever wake it for.
        wait_s = HEARTBEAT_S if not behind else 0 if chunks else AGAIN_S
        await watcher.wait(wait_s)
        if now_s() - told_s >= HEARTBEAT_S:
            yield b": still here\n\n"
            told_s = now_s()


async def _news(view: View, caller: Caller, seq: int) -> tuple[list[bytes], int]:
    """What happened after a record, and up to which: everything as it is, where there is none."""
    accounts = await view.accounts_of(caller.organisation_id)
    if seq < 0:
        found = await balances_at(view, accounts, seq=view.as_of_seq)
        balances = tuple(balance_of(name, account) for name, account in found.items())
        event = BalanceEvent(seq=view.as_of_seq, accounts=balances)
        return [_written(event)], view.as_of_seq
    records, until_seq = await records_of(view, accounts, seq, _LINES_MAX)
    return [_record_event(caller, lines) for lines in records], until_seq


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
