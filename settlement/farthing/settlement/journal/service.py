"""The engine as a process: one thread, one loop, front ends on a local socket.

Boundary: sockets in, `Stepper` out. A turn reads whatever front ends have sent, answers questions,
does all commands as one batch, and writes one frame to each front end. No asyncio: between two
turns memory equals disk. Source: spec/design/09-engine-process.md.
"""

import logging
import os
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from farthing.protocol.errors import Code, FarthingError, Refusal, Refused, refuse
from farthing.protocol.records import line_of
from farthing.settlement.engine.commands import Command, Outcome
from farthing.settlement.engine.questions import RecordAt
from farthing.settlement.journal.entrance import Entrance
from farthing.settlement.journal.frames import (
    FRAME_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    PROTOCOL,
    Ask,
    BadFrame,
    Done,
    Follow,
    Hello,
    Page,
    Refuse,
    Splitter,
    Submit,
    asks_in,
    bytes_of,
    command_in,
    frames,
    question_in,
    write_answer,
)
from farthing.settlement.journal.pages import PageReader
from farthing.settlement.journal.stepper import Limits, Stepper, unavailable

__all__ = ["EngineServer"]

logger = logging.getLogger(__name__)

State = TypeVar("State")

_READ_BYTES: Final = 1024 * 1024
# Above a front end that reads at all; one that does not is dropped before memory is.
_OUT_BYTES_MAX: Final = 128 * 1024 * 1024
_PEERS_MAX: Final = 64
# What a connection may send before it has said hello, and how long it may take to.
_HELLO_BYTES_MAX: Final = 64
_HELLO_S: Final = 10
# Followers of one front end.
_FOLLOWS_MAX: Final = 1_000
_TOO_LARGE: Final = refuse(
    Code.PAYLOAD_TOO_LARGE, message="The answer is larger than can be told at once."
)
_PAGE_BYTES_MAX: Final = 1024 * 1024
_RETRY_AFTER_S: Final = 1
# Background work is done when nothing came for this long, and after so many records at the latest.
_IDLE_MS: Final = 50
_BACKGROUND_RECORDS: Final = 50_000
# How long what is written at the very end may take to be read.
_FLUSH_S: Final = 2


def _no_background() -> None:
    """Nothing to do in the background."""


class _Peer:
    """A front end: what it has sent so far, and what is on its way to it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.splitter = Splitter(_HELLO_BYTES_MAX)
        self.greeted = False
        self.greet_by_ns = time.monotonic_ns() + _HELLO_S * 1_000_000_000
        self.told: list[bytes] = []
        self.out: deque[memoryview] = deque()
        self.out_bytes = 0
        self.follows: dict[int, int] = {}
        self.is_open = True


class EngineServer(Generic[State]):
    """Serves a stepper that is open to the front ends that connect to a socket.

    Args:
        stepper: the engine; opened before, closed after, by whoever made it.
        address: where the socket lies; made when the server runs, removed when it ends.
        limits: bounds, the stepper's own.
        uid: the user whose processes may connect.
        background: upkeep that must not wait for ever; called between two turns when the engine
            is idle and after so many records at the latest, on this very thread: it is quick, or
            starts what is not.
    """

    def __init__(
        self,
        stepper: Stepper[State],
        address: Path,
        *,
        limits: Limits | None = None,
        uid: int | None = None,
        background: Callable[[], None] = _no_background,
    ) -> None:
        self._stepper = stepper
        self._limits = Limits() if limits is None else limits
        self._background = background
        self._selector = selectors.DefaultSelector()
        self._entrance = Entrance(
            address,
            uid=os.getuid() if uid is None else uid,
            selector=self._selector,
            enter=self._take_peer,
        )
        self._peers: set[_Peer] = set()
        # Who has not said hello, in the order in which they came; some have by now.
        self._strangers: deque[_Peer] = deque()
        self._commands: deque[tuple[_Peer, int, Command]] = deque()
        self._stop_by_ns: int | None = None
        self._due_at_ns: int | None = None
        self._kept_seq = 0
        self._pages = PageReader(stepper.stored_page)

    def listen(self) -> None:
        """Make the socket, for the owner alone; one that was left behind is replaced.

        Only whoever has the storage may call this: the lock of the database is the socket's too.

        Raises:
            OSError: the socket cannot be made there.
        """
        self._entrance.open()
        self._selector.register(self._pages, selectors.EVENT_READ, self._take_pages)
        self._kept_seq = self._stepper.recent.last_seq
        self._look_ahead()

    def watch(self, descriptor: int, on_readable: Callable[[], None]) -> None:
        """Call a function once a descriptor can be read: a signal, the end of a parent."""
        self._selector.register(descriptor, selectors.EVENT_READ, lambda _: on_readable())

    def stop(self, *, drain_s: int) -> None:
        """End `run` once every front end has gone, or after so long; what was sent is done."""
        self._stop_by_ns = time.monotonic_ns() + drain_s * 1_000_000_000
        self._entrance.close()

    def run(self) -> None:
        """Serve until told to stop.

        Raises:
            Broken, Unverified, Unreadable, DatabaseInUse, AssertionError: the engine cannot go on.
                Nothing more was acknowledged; front ends see their connection end.
        """
        try:
            while not self._ended():
                self._turn()
            self._finish()
        finally:
            self._entrance.close()
            for peer in tuple(self._peers):
                self._drop(peer)
            self._pages.close()
            self._selector.close()

    def _turn(self) -> None:
        last_seq = self._stepper.recent.last_seq
        events = self._selector.select(self._wait_s())
        for key, mask in events:
            key.data(mask)
        self._watch_the_door()
        if self._commands:
            # Answers wait for no disk.
            self._write()
        self._step()
        if self._stepper.recent.last_seq != last_seq:
            self._serve_followers()
        self._write()
        self._maintain(idle=not events)

    def _wait_s(self) -> float | None:
        """How long to sleep when nobody asks; None for as long as it takes."""
        if self._commands:
            return 0
        now_ns = time.monotonic_ns()
        ends = (self._due_at_ns, self._stop_by_ns, self._entrance.again_at_ns)
        ends_ns = [end_ns for end_ns in ends if end_ns is not None]
        if self._strangers:
            ends_ns.append(self._strangers[0].greet_by_ns)
        if self._stepper.recent.last_seq != self._kept_seq:
            ends_ns.append(now_ns + _IDLE_MS * 1_000_000)
        return max(min(ends_ns) - now_ns, 0) / 1_000_000_000 if ends_ns else None

    def _ended(self) -> bool:
        if self._stop_by_ns is None:
            return False
        return not self._peers or time.monotonic_ns() >= self._stop_by_ns

    def _finish(self) -> None:
        """Do and answer what was sent before the end."""
        for peer in tuple(self._peers):
            self._receive(peer)
        while self._commands:
            self._step()
        for peer in tuple(self._peers):
            peer.sock.settimeout(_FLUSH_S)
        self._write()

    def _step(self) -> None:
        if not self._commands and not self._is_due():
            return
        count = min(len(self._commands), self._limits.batch_max)
        taken = [self._commands.popleft() for _ in range(count)]
        replies = self._stepper.step([command for _, _, command in taken])
        for (peer, id_, _), reply in zip(taken, replies, strict=False):
            peer.told.append(self._told(id_, reply))
        # What did not fit into the batch goes first in the next.
        self._commands.extendleft(reversed(taken[len(replies) :]))
        self._look_ahead()

    def _is_due(self) -> bool:
        return self._due_at_ns is not None and time.monotonic_ns() >= self._due_at_ns

    def _look_ahead(self) -> None:
        """When a step is needed though nobody asks; only steps change it."""
        due_in_us = self._stepper.due_in_us()
        now_ns = time.monotonic_ns()
        self._due_at_ns = None if due_in_us is None else now_ns + due_in_us * 1000

    def _told(self, id_: int, reply: Outcome | Refused) -> bytes:
        if isinstance(reply, Refused):
            return _refused(id_, reply.refusal)
        committed = self._stepper.recent.at(reply.seq)
        data = (
            self._stepper.answer(RecordAt(seq=reply.seq)) if committed is None else committed.data
        )
        if not isinstance(data, bytes):
            return _refused(id_, unavailable())
        data = line_of(data)
        done = Done(id=id_, record=data, replayed=reply.replayed, standing=reply.standing)
        try:
            return bytes_of(done)
        except OverflowError:
            # The effect is durable and has to be told, with or without its ornament.
            logger.exception("a standing beyond 64 bits, with record %d", reply.seq)
            return bytes_of(Done(id=id_, record=data, replayed=reply.replayed, standing=None))

    def _watch_the_door(self) -> None:
        """Take connections where it is time again, and let go of who never says hello."""
        if not self._strangers and self._entrance.again_at_ns is None:
            return
        now_ns = time.monotonic_ns()
        self._entrance.look(now_ns)
        while self._strangers:
            first = self._strangers[0]
            if first.is_open and not first.greeted:
                if now_ns < first.greet_by_ns:
                    break
                logger.warning("a connection that says nothing is dropped")
                self._drop(first)
            self._strangers.popleft()

    def _take_peer(self, sock: socket.socket) -> None:
        if len(self._peers) >= _PEERS_MAX:
            logger.warning("a connection was refused, %d are open", len(self._peers))
            sock.close()
            return
        sock.settimeout(0)
        peer = _Peer(sock)
        self._peers.add(peer)
        self._strangers.append(peer)
        self._selector.register(sock, selectors.EVENT_READ, lambda mask: self._serve(peer, mask))
        hello = Hello(protocol=PROTOCOL, restored_at_us=self._stepper.restored_at_us)
        peer.told.append(bytes_of(hello))

    def _serve(self, peer: _Peer, mask: int) -> None:
        if mask & selectors.EVENT_READ:
            self._receive(peer)
        if mask & selectors.EVENT_WRITE and peer.is_open:
            self._send(peer)

    def _receive(self, peer: _Peer) -> None:
        try:
            data = peer.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(peer)
            return
        try:
            for frame in peer.splitter.feed(data):
                self._take(peer, frame)
        except BadFrame as error:
            logger.warning("a front end that sent what is no frame is dropped: %s", error)
            self._drop(peer)

    def _take(self, peer: _Peer, frame: bytes) -> None:
        for message in asks_in(frame):
            if not peer.greeted or isinstance(message, Hello):
                if peer.greeted or message != Hello(protocol=PROTOCOL):
                    raise BadFrame("another protocol is spoken")
                peer.greeted = True
                peer.splitter.frame_bytes_max = FRAME_BYTES_MAX
            elif isinstance(message, Submit):
                self._take_command(peer, message)
            elif isinstance(message, Ask):
                peer.told.append(self._answer(message))
            else:
                self._take_follow(peer, message)

    def _take_command(self, peer: _Peer, message: Submit) -> None:
        if len(self._commands) >= self._limits.queue_max:
            peer.told.append(_refused(message.id, _overloaded()))
            return
        try:
            self._commands.append((peer, message.id, command_in(message)))
        except (LookupError, ValueError):
            # One that cannot be read must not cost the others of its front end.
            logger.exception("%s cannot be read", message.operation)
            peer.told.append(_refused(message.id, refuse(Code.INTERNAL_ERROR)))

    def _answer(self, message: Ask) -> bytes:
        try:
            answer = self._stepper.answer(question_in(message))
            if isinstance(answer, Refused):
                return _refused(message.id, answer.refusal)
            told = write_answer(message.id, answer)
        except (LookupError, TypeError, ValueError, OverflowError):
            logger.exception("defect in answering %s", message.question)
            return _refused(message.id, refuse(Code.INTERNAL_ERROR))
        # It would cost its front end every call that is in flight there.
        return told if len(told) <= MESSAGE_BYTES_MAX else _refused(message.id, _TOO_LARGE)

    def _take_follow(self, peer: _Peer, message: Follow) -> None:
        if len(peer.follows) >= _FOLLOWS_MAX:
            peer.told.append(_refused(message.id, _overloaded()))
            return
        peer.follows[message.id] = message.after_seq
        self._serve_follow(peer, message.id)

    def _serve_followers(self) -> None:
        for peer in self._peers:
            for id_ in tuple(peer.follows):
                self._serve_follow(peer, id_)

    def _serve_follow(self, peer: _Peer, id_: int) -> None:
        """Give a follower its page, if there is one; it asks for the next when it wants it."""
        after_seq = peer.follows[id_]
        page = self._stepper.recent.after(after_seq, self._limits.page_max)
        if page is None:
            # Old records are read beside the loop: somebody who lags must hold up nobody.
            del peer.follows[id_]
            self._pages.fetch((peer, id_), after_seq)
        elif page:
            del peer.follows[id_]
            peer.told.append(_page(id_, [committed.data for committed in page]))

    def _take_pages(self, mask: int) -> None:
        del mask
        for (peer, id_), records in self._pages.taken():
            if not peer.is_open:
                continue
            if isinstance(records, FarthingError):
                logger.error("stored records could not be read: %s", records)
                peer.told.append(_refused(id_, unavailable()))
            else:
                peer.told.append(_page(id_, records))

    def _write(self) -> None:
        """Send each front end what it is to be told, as one frame."""
        for peer in tuple(self._peers):
            if not peer.told:
                continue
            told, peer.told = peer.told, []
            try:
                made = [memoryview(frame) for frame in frames(told)]
            except BadFrame:
                logger.exception("a reply larger than a frame")
                self._drop(peer)
                continue
            peer.out.extend(made)
            peer.out_bytes += sum(map(len, made))
            self._send(peer)

    def _send(self, peer: _Peer) -> None:
        try:
            while peer.out:
                sent = peer.sock.send(peer.out[0])
                peer.out_bytes -= sent
                if sent < len(peer.out[0]):
                    peer.out[0] = peer.out[0][sent:]
                else:
                    peer.out.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self._drop(peer)
            return
        if peer.out_bytes > _OUT_BYTES_MAX:
            logger.warning("a front end that does not read is dropped")
            self._drop(peer)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if peer.out else 0)
        key = self._selector.get_key(peer.sock)
        if key.events != wanted:
            self._selector.modify(peer.sock, wanted, key.data)

    def _drop(self, peer: _Peer) -> None:
        """Forget a front end. What it has submitted is done all the same, told or not."""
        if not peer.is_open:
            return
        peer.is_open = False
        self._selector.unregister(peer.sock)
        peer.sock.close()
        peer.follows.clear()
        self._peers.discard(peer)

    def _maintain(self, *, idle: bool) -> None:
        """The place for upkeep: snapshots, merges, whatever must not be in anybody's way."""
        grown = self._stepper.recent.last_seq - self._kept_seq
        if grown >= _BACKGROUND_RECORDS or (grown and idle):
            self._kept_seq = self._stepper.recent.last_seq
            self._background()


def _page(id_: int, records: list[bytes]) -> bytes:
    """As many lines of records as fit a page; the follower asks for what is left."""
    records = list(map(line_of, records))
    size = 0
    for count, data in enumerate(records):
        size += len(data)
        if size > _PAGE_BYTES_MAX and count:
            records = records[:count]
            break
    return bytes_of(Page(id=id_, records=tuple(records)))


def _refused(id_: int, refusal: Refusal) -> bytes:
    return bytes_of(Refuse(id=id_, refusal=refusal))


def _overloaded() -> Refusal:
    return refuse(Code.OVERLOADED, retry_after_s=_RETRY_AFTER_S)
