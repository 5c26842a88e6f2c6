"""The engine's port in a front end: commands cross a local socket to the engine's process.

Boundary: asyncio on this side only. What waits in one turn of the loop crosses as one frame. When
the connection ends, whoever waits is told so and may ask again under the same key; the next
connection is made in the background. Source: spec/design/09-engine-process.md.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import Final, TypeVar, cast

from farthing.protocol.errors import Code, Refusal, Refused, refuse
from farthing.protocol.records import read_record
from farthing.settlement.engine.commands import Command, Committed, Outcome, Question
from farthing.settlement.journal.frames import (
    FRAME_BYTES_MAX,
    PROTOCOL,
    Answer,
    BadFrame,
    Done,
    Follow,
    Hello,
    Page,
    Refuse,
    Reply,
    Splitter,
    ask_of,
    bytes_of,
    frames,
    read_answer,
    replies_in,
    submit_of,
)

__all__ = ["RemoteEngine"]

logger = logging.getLogger(__name__)

A = TypeVar("A")

# Beyond this the engine does not read, and more would only fill memory.
_OUT_BYTES_MAX: Final = 64 * 1024 * 1024
_RETRY_AFTER_S: Final = 1
_PAUSE_MS_MIN: Final = 5
_PAUSE_MS_MAX: Final = 500
# How long a follower whose page was refused waits before it asks again.
_FOLLOW_PAUSE_MS: Final = 200
SILENCE_MS: Final = 15_000
# The handshake is one small frame from a process on this machine.
_HELLO_S: Final = 10


class RemoteEngine:
    """`settlement.port.Engine` over the socket of an engine's process.

    Args:
        address: where the socket lies.
        in_flight_max: calls that may wait for the engine before callers are refused.
        silence_ms: how long it may say nothing while calls wait for it; twice that, and all who
            wait are told that its answer was lost.
    """

    def __init__(self, address: Path, *, in_flight_max: int, silence_ms: int = SILENCE_MS) -> None:
        self._address = address
        self._in_flight_max = in_flight_max
        self._silence_ms = silence_ms
        self._wire: _Wire | None = None
        self._connected = asyncio.Event()
        self._connecting: asyncio.Task[None] | None = None
        self._closed = False
        self._restored_at_us = 0

    @property
    def healthy(self) -> bool:
        """Whether the engine is connected and takes commands."""
        return self._wire is not None

    @property
    def restored_at_us(self) -> int:
        """When the storage was restored from a backup, 0 if never. Known once open."""
        return self._restored_at_us

    async def open(self) -> None:
        """Connect, however long the engine takes to be there."""
        self._connecting = asyncio.create_task(self._connect())
        await self._connected.wait()

    async def close(self) -> None:
        """Let the engine go. Whoever waits is told that it is unavailable."""
        self._closed = True
        wire = self._wire
        if self._connecting is not None:
            self._connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._connecting
        if wire is not None:
            wire.end()
            await wire.ended.wait()
        # Followers see that it is closed.
        self._connected.set()

    async def submit(self, command: Command) -> Outcome:
        """Decide a command, make it durable, then tell (`settlement.port.Engine.submit`)."""
        wire = self._open_wire()
        id_ = wire.next_id()
        reply = await wire.call(id_, submit_of(id_, command))
        assert isinstance(reply, Done), "a command is answered by an outcome"
        return Outcome(
            record=read_record(reply.record)[0],
            replayed=reply.replayed,
            standing=reply.standing,
        )

    async def ask(self, question: Question[A]) -> A:
        """Answer a question from state that is durable."""
        wire = self._open_wire()
        id_ = wire.next_id()
        reply = await wire.call(id_, ask_of(id_, question))
        assert isinstance(reply, Answer), "a question is answered by an answer"
        return cast("A", read_answer(reply, question))

    async def follow(self, after_seq: int) -> AsyncGenerator[Committed, None]:
        """All records after `after_seq`, then each new one once it is durable.

        Goes on by itself after the engine was away. Ends when this is closed.
        """
        seq = after_seq
        while True:
            await self._connected.wait()
            if self._closed:
                return
            try:
                records = await self._page(seq)
            except Refused as refused:
                logger.info("no page of records: %s", refused.code.value)
                await asyncio.sleep(_FOLLOW_PAUSE_MS / 1000)
                continue
            for seq, data in enumerate(records, seq + 1):  # noqa: B020  # goes on where it stops
                yield Committed(seq=seq, data=data)

    async def _page(self, after_seq: int) -> tuple[bytes, ...]:
        wire = self._open_wire()
        id_ = wire.next_id()
        # It waits for the next record, however long there is none.
        wire.lasting.add(id_)
        try:
            reply = await wire.call(id_, bytes_of(Follow(id=id_, after_seq=after_seq)))
        finally:
            wire.lasting.discard(id_)
        assert isinstance(reply, Page), "a follower is answered by a page"
        return reply.records

    def _open_wire(self) -> "_Wire":
        if self._wire is None:
            raise Refused(refuse(Code.UNAVAILABLE, retry_after_s=_RETRY_AFTER_S))
        return self._wire

    async def _connect(self) -> None:
        """Connect, and again whenever the connection has ended."""
        loop = asyncio.get_running_loop()
        pause_ms = _PAUSE_MS_MIN
        while True:
            wire = _Wire(self._in_flight_max)
            try:
                await loop.create_unix_connection(partial(_same, wire), str(self._address))
                async with asyncio.timeout(_HELLO_S):
                    hello = await wire.greeting()
            except asyncio.CancelledError:
                wire.end()
                raise
            except (OSError, TimeoutError) as error:
                logger.debug("no engine at %s: %s", self._address, error)
                wire.end()
                await asyncio.sleep(pause_ms / 1000)
                pause_ms = min(2 * pause_ms, _PAUSE_MS_MAX)
                continue
            pause_ms = _PAUSE_MS_MIN
            self._restored_at_us = hello.restored_at_us
            self._wire = wire
            self._connected.set()
            try:
                await self._watched(wire)
            finally:
                self._wire = None
                self._connected.clear()
            logger.warning("the engine is gone; connecting again")

    async def _watched(self, wire: "_Wire") -> None:
        """Wait for the end of a connection, and end one whose engine stands still.

        A process that is stopped, or waits for a disk that hangs, closes no socket.
        """
        while not wire.ended.is_set():
            waiting, heard = wire.unanswered(), wire.heard
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._silence_ms / 1000):
                    await wire.ended.wait()
            if heard == wire.heard and waiting & wire.unanswered():
                logger.error("the engine has said nothing for %d ms", self._silence_ms)
                wire.end()
                await wire.ended.wait()


class _Wire(asyncio.Protocol):
    """One connection: calls by id, and what is to be written in this turn of the loop."""

    def __init__(self, in_flight_max: int) -> None:
        self._in_flight_max = in_flight_max
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._splitter = Splitter()
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._told: list[bytes] = []
        self._last_id = 0
        self._hello: Hello | None = None
        self._greeted = asyncio.Event()
        self.ended = asyncio.Event()
        self.heard = 0
        self.lasting: set[int] = set()

    async def greeting(self) -> Hello:
        """What the engine says first; raises ConnectionError where it went away instead."""
        await self._greeted.wait()
        if self._hello is None:
            raise ConnectionError("the engine said nothing")
        return self._hello

    def next_id(self) -> int:
        """An id that no call of this connection had."""
        self._last_id += 1
        return self._last_id

    def unanswered(self) -> set[int]:
        """The calls that wait for an answer which should be there at once."""
        return self._waiting.keys() - self.lasting

    def call(self, id_: int, message: bytes) -> "asyncio.Future[Reply]":
        """Send a message with the others of this turn; gives what it will be answered.

        Raises:
            Refused: `OVERLOADED`: too much waits already; `UNAVAILABLE`: the connection has ended.
                The future raises what the engine refuses, and `UNAVAILABLE` when the connection
                ends first.
        """
        transport = self._transport
        if transport is None:
            raise Refused(refuse(Code.UNAVAILABLE, retry_after_s=_RETRY_AFTER_S))
        # Half a frame is more than any door takes.
        if 2 * len(message) > FRAME_BYTES_MAX:
            raise Refused(refuse(Code.PAYLOAD_TOO_LARGE))
        if (
            len(self._waiting) >= self._in_flight_max
            or transport.get_write_buffer_size() > _OUT_BYTES_MAX
        ):
            raise Refused(refuse(Code.OVERLOADED, retry_after_s=_RETRY_AFTER_S))
        future: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting[id_] = future
        if not self._told:
            self._loop.call_soon(self._flush)
        self._told.append(message)
        return future

    def end(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        self._transport = cast("asyncio.Transport", transport)
        self._told.append(bytes_of(Hello(protocol=PROTOCOL)))
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Give every reply to whoever waits for it."""
        self.heard += 1
        try:
            for frame in self._splitter.feed(data):
                for reply in replies_in(frame):
                    self._take(reply)
        except BadFrame:
            logger.exception("the engine sent what is no frame")
            self.end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody who waits."""
        del exc
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(Refused(_interrupted()))
        self._transport = None
        self._greeted.set()
        self.ended.set()

    def _take(self, reply: Reply) -> None:
        if isinstance(reply, Hello):
            if reply.protocol != PROTOCOL:
                raise BadFrame("another protocol is spoken")
            self._hello = reply
            self._greeted.set()
            return
        future = self._waiting.pop(reply.id, None)
        # Whoever asked may have gone; `get_outcome` will tell it.
        if future is None or future.done():
            return
        if isinstance(reply, Refuse):
            future.set_exception(Refused(reply.refusal))
        else:
            future.set_result(reply)

    def _flush(self) -> None:
        told, self._told = self._told, []
        if self._transport is None:
            return
        for frame in frames(told):
            self._transport.write(frame)


def _same(wire: _Wire) -> _Wire:
    return wire


def _interrupted() -> Refusal:
    """The engine went away with the call: unlike others that are unavailable, it may have run."""
    text = "The engine's answer was lost; whether the request was done is not known. Ask again."
    return refuse(Code.UNAVAILABLE, message=text, retry_after_s=_RETRY_AFTER_S)
