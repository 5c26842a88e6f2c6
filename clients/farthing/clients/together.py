"""Asks that come while others are on their way go together in the next request.

Boundary: who waits, and for which part of an answer; what is sent, `http_api` knows.
Source: spec/transport-http.md.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

__all__ = ["Together"]

T = TypeVar("T")

# So many requests on their way at once: while one is answered, the next is made.
_PROMPT_MAX: Final = 2
# One that takes longer counts no more, up to so many in all: who never answers holds up nobody.
_LATE_S: Final = 3.0
_OUT_MAX: Final = 8


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting(Generic[T]):
    """Somebody's lines, and what they are answered."""

    lines: bytes
    answer: asyncio.Future[T]


class Together(Generic[T]):
    """One way out for many callers of one event loop; nothing waits but what a caller waits for.

    Args:
        send: Sends what several callers have to say, and gives an answer to each.
        asks_max: How many go together at most.
        bytes_max: How long what goes together may be; what is longer goes alone.
    """

    def __init__(
        self,
        send: Callable[[Sequence[bytes]], Awaitable[Sequence[T]]],
        *,
        asks_max: int,
        bytes_max: int,
    ) -> None:
        self._send = send
        self._asks_max = asks_max
        self._bytes_max = bytes_max
        self._waiting: deque[_Waiting[T]] = deque()
        self._out: set[asyncio.Task[None]] = set()
        self._late: set[asyncio.Task[None]] = set()

    async def call(self, lines: bytes) -> T:
        """Send this with what others send at the moment; raises what `send` raises."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(lines, answer))
        self._set_out()
        return await answer

    def _set_out(self) -> None:
        """Have somebody send what waits, where few enough are at it."""
        # One that has ended stays in the set for a moment, and sends no more.
        out = [each for each in self._out if not each.done()]
        prompt = sum(each not in self._late for each in out)
        if self._waiting and prompt < _PROMPT_MAX and len(out) < _OUT_MAX:
            task = asyncio.create_task(self._go())
            self._out.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._out.discard(task)
        self._late.discard(task)
        if not task.cancelled():
            self._set_out()

    def _is_late(self, task: asyncio.Task[None]) -> None:
        self._late.add(task)
        self._set_out()

    async def _go(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "it runs as one"
        while task not in self._late and (some := self._next()):
            timer = asyncio.get_running_loop().call_later(_LATE_S, self._is_late, task)
            try:
                (answers,) = await asyncio.gather(self._sent(some), return_exceptions=True)
            except asyncio.CancelledError:
                for each in some:
                    each.answer.cancel()
                raise
            finally:
                timer.cancel()
            for place, each in enumerate(some):
                if each.answer.done():
                    continue  # who asked has gone
                if isinstance(answers, BaseException):
                    each.answer.set_exception(answers)
                else:
                    each.answer.set_result(answers[place])

    async def _sent(self, some: Sequence[_Waiting[T]]) -> Sequence[T]:
        answers = await self._send([each.lines for each in some])
        assert len(answers) == len(some), "each is answered"
        return answers

    def _next(self) -> list[_Waiting[T]]:
        """Those that go next; who went away meanwhile is sent for no more."""
        some: list[_Waiting[T]] = []
        size = 0
        while self._waiting and len(some) < self._asks_max:
            first = self._waiting[0]
            if not first.answer.done():
                size += len(first.lines) + 1
                if some and size > self._bytes_max:
                    break
                some.append(first)
            self._waiting.popleft()
        return some
