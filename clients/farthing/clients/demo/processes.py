"""The demo's processes: started, followed by what they say, ended by their id, whatever happens.

Boundary: knows nothing of markets. A process is in a session of its own, so that Ctrl-C reaches
the demo alone, which then ends each in turn.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import orjson

__all__ = ["Child", "DidNotStart", "environment", "start", "until"]

_START_S_MAX: Final = 30.0
_STOP_S_MAX: Final = 10.0
_POLL_S: Final = 0.05
_LOG_CHARACTERS: Final = 2000
_ENDED: Final = "ended"


class DidNotStart(RuntimeError):
    """A process ended, or said nothing, where it should have gone on."""


class Child:
    """A running process.

    Args:
        name: What the story calls it.
        process: The process.
        log: Where its standard error goes.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process
        self._said: asyncio.Queue[str] = asyncio.Queue()
        self._listener = asyncio.create_task(self._listen())

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    async def hears(self, event: str) -> None:
        """Wait until the process says something, in the JSON lines of `demo.vendors`.

        Raises:
            DidNotStart: It ended, or did not say it in time.
        """
        said = ""
        with suppress(TimeoutError):
            async with asyncio.timeout(_START_S_MAX):
                while said not in {event, _ENDED}:
                    said = await self._said.get()
        if said != event:
            raise DidNotStart(f"{self.name} did not say {event!r}: {self.tail()}")

    def forget(self) -> None:
        """Forget what the process has said so far."""
        while not self._said.empty():
            self._said.get_nowait()

    def kill(self) -> None:
        """End it at once, as a crash would (SIGKILL)."""
        self._process.kill()

    async def stop(self) -> None:
        """Let it end by itself (SIGTERM), then make it; does nothing to one that has ended."""
        if self.is_running:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._process.wait(), _STOP_S_MAX)
            except TimeoutError:
                self._process.kill()
        await self.ended()

    async def ended(self) -> int:
        """Wait for its end; gives its exit code, negative for a signal."""
        code = await self._process.wait()
        await asyncio.gather(self._listener, return_exceptions=True)
        return code

    def tail(self) -> str:
        """The end of what it wrote to standard error."""
        with suppress(OSError):
            return self.log.read_text(errors="replace")[-_LOG_CHARACTERS:].strip()
        return ""

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        try:
            while line := await self._process.stdout.readline():
                with suppress(orjson.JSONDecodeError, AttributeError):
                    self._said.put_nowait(orjson.loads(line).get("event", ""))
        finally:
            self._said.put_nowait(_ENDED)


async def start(
    name: str,
    module: str,
    arguments: Sequence[str],
    *,
    folder: Path,
    more: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Child:
    """Start `python -m module`.

    Args:
        name: What the story calls it.
        module: What to run.
        arguments: Its arguments.
        folder: Where its log is written.
        more: What it finds in its environment besides `environment()`.
        pass_fds: The descriptors that it inherits.
    """
    log = folder / f"{name}.log"
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env={**environment(), **(more or {})},
            pass_fds=tuple(pass_fds),
            start_new_session=True,
        )
    return Child(name, process, log)


def environment() -> dict[str, str]:
    """This process's environment without what would change a server, and with no detour.

    All of the demo is on this machine: a proxy that is set for the world outside is not for it.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("FARTHING_")}
    return kept | {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}


async def until(path: Path, child: Child) -> bytes:
    """The content of a file that a process writes once it is ready.

    Raises:
        DidNotStart: It ended, or did not write it in time.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(_START_S_MAX):
            while child.is_running:
                if (content := await asyncio.to_thread(_content, path)) is not None:
                    return content
                await asyncio.sleep(_POLL_S)
    raise DidNotStart(f"{child.name} did not start: {child.tail()}")


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Turn SIGTERM into the cancellation that Ctrl-C is, so that everything is ended in order."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


def _content(path: Path) -> bytes | None:
    with suppress(FileNotFoundError):
        return path.read_bytes()
    return None
