"""Old records read beside the engine's loop, one page at a time, by one thread.

Boundary: `fetch` and `taken` are called on the loop's thread; the loop waits for `fileno`.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from farthing.protocol.errors import FarthingError
from farthing.settlement.engine.commands import Committed

__all__ = ["PageReader"]

# Whom a page is for, as the loop named it, and the records or why there are none.
Fetched = tuple[Any, list[bytes] | FarthingError]


class PageReader:
    """Reads stored pages. Who asks again only after an answer can queue no more than one.

    Args:
        read: the records after a position; blocks, and may be called from any thread.
    """

    def __init__(self, read: Callable[[int], Sequence[Committed]]) -> None:
        self._read = read
        self._wanted: SimpleQueue[tuple[Any, int] | None] = SimpleQueue()
        self._fetched: SimpleQueue[Fetched] = SimpleQueue()
        self._readable, self._writable = os.pipe()
        os.set_blocking(self._readable, False)
        os.set_blocking(self._writable, False)
        self._thread: Thread | None = None

    def fileno(self) -> int:
        """Can be read when something was fetched."""
        return self._readable

    def fetch(self, whom: Any, after_seq: int) -> None:  # noqa: ANN401  # given back, never read
        """Read the page after a position for somebody."""
        if self._thread is None:
            self._thread = Thread(target=self._run, name="farthing-pages", daemon=True)
            self._thread.start()
        self._wanted.put((whom, after_seq))

    def taken(self) -> Iterator[Fetched]:
        """What was fetched since."""
        try:
            os.read(self._readable, 4096)
        except BlockingIOError:
            return
        try:
            while True:
                yield self._fetched.get_nowait()
        except Empty:
            return

    def close(self) -> None:
        """End once the page being read is read."""
        if self._thread is not None:
            self._wanted.put(None)
            self._thread.join()
        os.close(self._readable)
        os.close(self._writable)

    def _run(self) -> None:
        while (wanted := self._wanted.get()) is not None:
            whom, after_seq = wanted
            try:
                fetched: list[bytes] | FarthingError = [
                    committed.data for committed in self._read(after_seq)
                ]
            except FarthingError as error:
                fetched = error
            self._fetched.put((whom, fetched))
            try:
                os.write(self._writable, b"\0")
            except BlockingIOError:
                # Unread wake-ups fill the pipe: one more is not needed.
                continue
