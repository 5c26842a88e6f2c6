"""Where asyncio ends: callers' commands and questions wait here for the writer's thread.

Boundary: a bounded queue with one reader, and the way back to each caller's event loop, with one
wake-up per loop however many callers it has.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from threading import Condition
from typing import Any, Final, Generic, TypeVar

from farthing.protocol.errors import Code, Refused, refuse
from farthing.settlement.engine.commands import Command, Question
from farthing.settlement.journal.stepper import unavailable

__all__ = ["AnyAsked", "Asked", "Follower", "Inbox", "Reply", "Work", "deliver"]

What = TypeVar("What", bound="Command | Question[Any]")
Queued = TypeVar("Queued")

_RETRY_AFTER_S: Final = 1


@dataclass(frozen=True, slots=True, eq=False)
class Asked(Generic[What]):
    """Somebody who waits for what became of a command or a question."""

    what: What
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[object]"


AnyAsked = Asked[Command] | Asked[Question[Any]]
# What a caller is told: a value to return, or a refusal to raise.
Reply = tuple[AnyAsked, object]


@dataclass(frozen=True, slots=True, eq=False)
class Follower:
    """Somebody to wake when records have become durable."""

    loop: asyncio.AbstractEventLoop
    event: asyncio.Event


@dataclass(frozen=True, slots=True)
class Work:
    """What was queued; both may be empty when only time has passed."""

    commands: deque[Asked[Command]]
    questions: deque[Asked[Question[Any]]]


class Inbox:
    """Commands and questions, each bounded by `queue_max`; beyond it callers are refused."""

    def __init__(self, queue_max: int) -> None:
        self._queue_max = queue_max
        self._commands: deque[Asked[Command]] = deque()
        self._questions: deque[Asked[Question[Any]]] = deque()
        self._wake = Condition()
        self._waiting = False
        self._open = False

    @property
    def is_open(self) -> bool:
        """Whether anything more is taken."""
        return self._open

    def open(self) -> None:
        """Begin to take."""
        self._open = True

    def close(self) -> None:
        """Take no more; what is queued stays to be done."""
        with self._wake:
            self._open = False
            self._wake.notify()

    async def put(self, what: Command | Question[Any]) -> object:
        """Queue a command or question and wait for the reply.

        Raises:
            Refused: the queue is full or closed, or that is the reply.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[object] = loop.create_future()
        with self._wake:
            if not self._open:
                raise Refused(unavailable())
            if isinstance(what, Command):
                self._room_in(self._commands).append(Asked(what, loop, future))
            else:
                self._room_in(self._questions).append(Asked(what, loop, future))
            if self._waiting:
                self._wake.notify()
        return await future

    def take(self, commands_max: int, wait_us: Callable[[], int | None]) -> Work | None:
        """All questions and the next commands, waiting while there are none.

        Args:
            commands_max: how many commands at most.
            wait_us: how long to wait at most, asked before waiting; None for as long as it takes.

        Returns:
            What was queued, empty once the time has passed; None when closed and done.
        """
        with self._wake:
            if not self._commands and not self._questions:
                if not self._open:
                    return None
                self._wait(wait_us())
            count = min(commands_max, len(self._commands))
            commands = deque(self._commands.popleft() for _ in range(count))
            questions, self._questions = self._questions, deque()
            return Work(commands, questions)

    def put_back(self, commands: Iterable[Asked[Command]]) -> None:
        """Return what did not fit into the batch to the head of the queue."""
        with self._wake:
            self._commands.extendleft(reversed(tuple(commands)))

    def shut(self) -> list[AnyAsked]:
        """Take no more and give out everybody who still waits."""
        with self._wake:
            self._open = False
            left: list[AnyAsked] = [*self._commands, *self._questions]
            self._commands.clear()
            self._questions.clear()
            return left

    def _room_in(self, queue: deque[Queued]) -> deque[Queued]:
        if len(queue) >= self._queue_max:
            raise Refused(refuse(Code.OVERLOADED, retry_after_s=_RETRY_AFTER_S))
        return queue

    def _wait(self, wait_us: int | None) -> None:
        if wait_us is not None and wait_us <= 0:
            return
        self._waiting = True
        self._wake.wait(None if wait_us is None else wait_us / 1_000_000)
        self._waiting = False


def deliver(replies: Iterable[Reply], followers: Iterable[Follower] = ()) -> None:
    """Tell callers and wake followers: one wake-up per event loop."""
    told: dict[asyncio.AbstractEventLoop, list[Reply]] = {}
    woken: dict[asyncio.AbstractEventLoop, list[asyncio.Event]] = {}
    for reply in replies:
        told.setdefault(reply[0].loop, []).append(reply)
    for follower in followers:
        woken.setdefault(follower.loop, []).append(follower.event)
    for loop in told.keys() | woken.keys():
        # A loop that was closed has nobody left who could be told.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_settle, told.get(loop, ()), woken.get(loop, ()))


def _settle(replies: Iterable[Reply], events: Iterable[asyncio.Event]) -> None:
    for asked, reply in replies:
        if asked.future.done():  # the caller has gone; `get_outcome` will tell it
            continue
        if isinstance(reply, Refused):
            asked.future.set_exception(reply)
        else:
            asked.future.set_result(reply)
    for event in events:
        event.set()
