"""Hostile input, worked on in a process of its own: stopped at a deadline, bounded in memory.

    worker = Worker(deadline_s=15)
    result = await worker.perform("extract_text", {"pdf": "JVBERi0..."})

Boundary: JSON in, JSON out; the work itself is in `work_*`. A process that runs wild is killed, and
one whose parent died ends by itself. `python -m farthing.clients.demo.worker` is the other side.
"""

import asyncio
import base64
import binascii
import os
import resource
import struct
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from farthing.clients.demo.outcomes import Reason, Unworkable

__all__ = ["JOBS", "Worker", "main"]

_LENGTH: Final = struct.Struct(">Q")
_MEMORY_BYTES_MAX: Final = 2 * 1024**3
_ANSWER_BYTES_MAX: Final = 128 * 1024**2
# Beside the deadline, for the case that nobody is left to watch it.
_CPU_S_MAX: Final = 60

Members = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """Starts one process for each piece of work.

    Args:
        deadline_s: How long one piece may take, the start of its process included.
        begun: Told, with the job's name, once a process has all that it needs.
    """

    deadline_s: float
    begun: Callable[[str], None] = lambda _: None

    async def perform(self, job: str, members: Mapping[str, object]) -> Members:
        """Do one of `JOBS`.

        Raises:
            Unworkable: With the work's own reason; `too_slow` past the deadline, `broken` where
                the input brought the process down.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "farthing.clients.demo.worker",
            job,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(self.deadline_s):
                answer = await self._exchange(process, job, orjson.dumps(members))
        except TimeoutError:
            raise Unworkable(Reason.TOO_SLOW, f"more than {self.deadline_s:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
            # Closes the pipes as well, whatever became of the exchange.
            await asyncio.shield(process.wait())
        return _read(answer)

    async def _exchange(self, process: asyncio.subprocess.Process, job: str, ask: bytes) -> bytes:
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(_LENGTH.pack(len(ask)))
            process.stdin.write(ask)
            await process.stdin.drain()
        self.begun(job)
        answer = bytearray()
        while chunk := await process.stdout.read(1 << 16):
            answer += chunk
            if len(answer) > _ANSWER_BYTES_MAX:
                raise Unworkable(Reason.TOO_LARGE, "the result is too large")
        return bytes(answer)


def _read(answer: bytes) -> Members:
    try:
        members = orjson.loads(answer)
    except orjson.JSONDecodeError:
        raise Unworkable(Reason.BROKEN, "reading it brought the worker down") from None
    if "reason" in members:
        raise Unworkable(Reason(members["reason"]), members["detail"])
    result: Members = members["result"]
    return result


def _count_pages(members: Members) -> Members:
    from farthing.clients.demo import work_pdf  # noqa: PLC0415 - each job loads what it needs

    return {"pages": work_pdf.page_count(Path(members["path"]).read_bytes())}


def _extract_text(members: Members) -> Members:
    from farthing.clients.demo import work_pdf  # noqa: PLC0415 - as above

    return asdict(work_pdf.extract_text(_decoded(members["pdf"])))


def _resize_image(members: Members) -> Members:
    from farthing.clients.demo import work_images  # noqa: PLC0415 - as above

    image = _decoded(members["image"])
    pixels = work_images.pixel_count(image)
    resized = work_images.resize(image, members["width"], members["height"], members["format"])
    return {"image": base64.b64encode(resized).decode(), "pixels": pixels}


def _analyse_text(members: Members) -> Members:
    from farthing.clients.demo import work_text  # noqa: PLC0415 - as above

    return asdict(work_text.analyse(members["text"]))


JOBS: Final[Mapping[str, Callable[[Members], Members]]] = {
    "count_pages": _count_pages,
    "extract_text": _extract_text,
    "resize_image": _resize_image,
    "analyse_text": _analyse_text,
}


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Unworkable(Reason.BROKEN, "it is not base64") from None


def main() -> None:
    """Read one piece of work from standard input, do it, write what came of it."""
    for limit, value in (
        (resource.RLIMIT_AS, _MEMORY_BYTES_MAX),
        (resource.RLIMIT_CPU, _CPU_S_MAX),
    ):
        with suppress(OSError, ValueError):  # not every system bounds the first
            resource.setrlimit(limit, (value, value))
    source = sys.stdin.buffer
    (size,) = _LENGTH.unpack(source.read(_LENGTH.size))
    members: Members = orjson.loads(source.read(size))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        answer: Members = {"result": JOBS[sys.argv[1]](members)}
    except Unworkable as error:
        answer = {"reason": error.reason.value, "detail": error.detail}
    except (MemoryError, RecursionError):
        answer = {"reason": Reason.TOO_LARGE.value, "detail": "it unpacks beyond all bounds"}
    sys.stdout.buffer.write(orjson.dumps(answer))
    sys.stdout.buffer.flush()
    # The thread below still reads, and Python would wait for its lock.
    os._exit(0)


def _end_with_parent() -> None:
    """Whoever waits for the answer keeps standard input open; when it closes, nobody waits."""
    sys.stdin.buffer.read(1)
    os._exit(1)


if __name__ == "__main__":
    main()
