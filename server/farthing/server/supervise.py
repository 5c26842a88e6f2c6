"""Processes that belong together: forked, watched, started again, ended in order.

Boundary: knows no market. One thread and no loop but its own, so that forking is safe; what all
processes need is loaded before, so that they share its memory.
Source: spec/design/09-engine-process.md.
"""

import gc
import logging
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Thread
from typing import Final, NoReturn

from farthing.protocol.errors import FarthingError
from farthing.server.storage import may_pass

__all__ = ["EXIT_FINAL", "DidNotEnd", "DidNotStart", "Job", "Supervisor"]

logger = logging.getLogger(__name__)

# A process that ends with this has said why, and another in its place would say the same.
EXIT_FINAL: Final = 3
# One that ends with this has said why, and may run once storage is well.
_EXIT_STORAGE: Final = 4
_EXIT_FAULT: Final = 1
# One that ends before it was ready, or this soon after, ended at once.
_AT_ONCE_MS: Final = 1000
_AT_ONCE_MAX: Final = 5
_PAUSE_MS: Final = 50
_PAUSE_MS_MAX: Final = 5000
_DOUBLINGS_MAX: Final = 7
_SAID_BYTES_MAX: Final = 4096
_NS_PER_MS: Final = 1_000_000
_STOPS: Final = (signal.SIGINT, signal.SIGTERM)
_SIGNALS: Final = (*_STOPS, signal.SIGCHLD)
_ENDED_AS_TOLD: Final = (0, *(-number for number in _STOPS))

Ready = Callable[[str], None]


class DidNotStart(FarthingError):
    """A process cannot be kept running; the text says why."""


class DidNotEnd(FarthingError):
    """A process that was told to end failed, or had to be killed; the text says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a process does.

    Args:
        name: what people and logs call it.
        run: does it, in the process; is given what tells that it is ready ("") or will never be
            (why), and gives the exit code.
        grace_s: how long it may take to end once told to.
    """

    name: str
    run: Callable[[Ready], int]
    grace_s: int


@dataclass(slots=True, eq=False)
class _Place:
    """A process that there is always to be, and the one that is there now."""

    job: Job
    pid: int = 0
    says: int = -1
    said: bytes = b""
    ready: bool = False
    since_ns: int = 0
    at_once: int = 0
    waits: int = 0
    waits_for: str = ""
    again_ns: int | None = None


@dataclass(slots=True)
class Supervisor:
    """Keeps processes running until SIGTERM or SIGINT.

    Args:
        first: what the others need; started before them and ended after them.
        others: the rest.
        between: called once `first` was forked and before the others are: loads what they share.
        changed: told the processes' ids by job, at first when all are ready, then when one is
            ready in place of another; again after a while where it raises OSError then.
        stopping: called before anything is told to end.
    """

    first: Job
    others: tuple[Job, ...]
    between: Callable[[], None]
    changed: Callable[[dict[str, list[int]]], None]
    stopping: Callable[[], None]
    _places: list[_Place] = field(default_factory=list)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _life: tuple[int, int] = field(default_factory=os.pipe)
    _told: tuple[int, int] = field(default_factory=os.pipe)
    _stop: int = 0
    _served: bool = False
    _tell_ns: int | None = None
    _not_ended: str = ""

    def run(self) -> None:
        """Start everything, keep it running, end it in order.

        Raises:
            DidNotStart: a process said that it cannot run, or ended at once again and again. One
                that storage keeps from running is waited for, once everything has been ready.
            DidNotEnd: a process did not end as it was told to.
        """
        self._watch_signals()
        # What is loaded stays as it is: collections here would only part it from what is forked.
        gc.disable()
        gc.freeze()
        try:
            self._start(self.first)
            self.between()
            if self._until_ready():
                gc.freeze()
                for job in self.others:
                    self._start(job)
            while not self._stop:
                self._turn()
        finally:
            self.stopping()
            self._end([place for place in self._places if place.job is not self.first])
            self._end([place for place in self._places if place.job is self.first])
        if self._not_ended:
            raise DidNotEnd(self._not_ended)

    def _watch_signals(self) -> None:
        for descriptor in self._told:
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(self._told[1], warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, _noted)
        self._selector.register(self._told[0], selectors.EVENT_READ)

    def _until_ready(self) -> bool:
        """Wait until everything is ready; False where it was told to stop before."""
        while not self._stop and not all(place.ready for place in self._places):
            self._turn()
        return not self._stop

    def _changed(self) -> None:
        untold, self._tell_ns = self._tell_ns, None
        if len(self._places) <= len(self.others) or not all(each.ready for each in self._places):
            return
        pids: dict[str, list[int]] = {}
        for place in self._places:
            pids.setdefault(place.job.name, []).append(place.pid)
        try:
            self.changed(pids)
        except OSError as error:
            if not self._served:
                raise
            if untold is None:
                logger.error("who runs now cannot be told yet: %s", error)  # noqa: TRY400
            self._tell_ns = time.monotonic_ns() + _PAUSE_MS_MAX * _NS_PER_MS
        self._served = True

    def _turn(self, deadline_ns: int | None = None) -> None:
        """Wait for something to happen, and see to it."""
        ends = (self._tell_ns, *(place.again_ns for place in self._places))
        ends_ns = [end_ns for end_ns in (ends if not self._stop else ()) if end_ns is not None]
        if deadline_ns is not None:
            ends_ns.append(deadline_ns)
        wait_s = None
        if ends_ns:
            wait_s = max(min(ends_ns) - time.monotonic_ns(), 0) / 1_000_000_000
        for key, _ in self._selector.select(wait_s):
            if key.data is None:
                self._signalled()
            else:
                self._hear(key.data)
        for place in self._places:
            if place.pid:
                self._reap(place)
        if not self._stop:
            self._start_again()
            if self._tell_ns is not None and self._tell_ns <= time.monotonic_ns():
                self._changed()

    def _signalled(self) -> None:
        for number in os.read(self._told[0], 4096):
            if number not in _STOPS:
                continue
            if self._stop:
                # Asked twice: so are those that still have something to end.
                _send([place for place in self._places if place.pid], signal.Signals(number))
            self._stop = number

    def _hear(self, place: _Place) -> None:
        data = os.read(place.says, _SAID_BYTES_MAX)
        place.said = (place.said + data)[:_SAID_BYTES_MAX]
        if not data:
            self._selector.unregister(place.says)
            os.close(place.says)
            place.says = -1
        elif place.said == b"\n" and not place.ready:
            place.ready = True
            place.since_ns = time.monotonic_ns()
            logger.info("the %s is ready as process %d", place.job.name, place.pid)
            self._changed()

    def _reap(self, place: _Place) -> None:
        pid, status = os.waitpid(place.pid, os.WNOHANG)
        if not pid:
            return
        while place.says >= 0:
            self._hear(place)
        code = os.waitstatus_to_exitcode(status)
        lived_ms = (time.monotonic_ns() - place.since_ns) // _NS_PER_MS
        # Who is killed from outside may be as well as can be.
        at_once = not place.ready or (lived_ms < _AT_ONCE_MS and code != -signal.SIGKILL)
        was_ready = place.ready
        place.pid, place.ready = 0, False
        if self._stop:
            if was_ready and code not in _ENDED_AS_TOLD:
                self._ended_badly(f"the {place.job.name}, process {pid}, ended with {code}")
            return
        why = place.said.decode("utf-8", "replace").strip()
        if why and (code == EXIT_FINAL or not self._served):
            raise DidNotStart(why)
        if not at_once:
            place.at_once, place.waits, place.waits_for = 0, 0, ""
        if self._served and code == _EXIT_STORAGE:
            place.waits += at_once
            self._say_what_for(place, pid, why)
            place.again_ns = _after(place.waits)
            return
        place.at_once += at_once
        logger.error("the %s, process %d, ended with %d %s", place.job.name, pid, code, why)
        if place.at_once > _AT_ONCE_MAX:
            text = (
                f"the {place.job.name} ended {place.at_once} times at once: {why or 'see the log'}"
            )
            raise DidNotStart(text)
        place.again_ns = _after(place.at_once)

    def _say_what_for(self, place: _Place, pid: int, why: str) -> None:
        """Once: storage may be full for hours."""
        if why != place.waits_for:
            place.waits_for = why
            text = "the %s, process %d, ended; it is started again until storage is well: %s"
            logger.error(text, place.job.name, pid, why)

    def _ended_badly(self, text: str) -> None:
        logger.error("%s", text)
        self._not_ended = self._not_ended or text

    def _start_again(self) -> None:
        now_ns = time.monotonic_ns()
        for place in self._places:
            if place.again_ns is not None and place.again_ns <= now_ns:
                self._fork(place)
                place.again_ns = None

    def _start(self, job: Job) -> None:
        place = _Place(job)
        self._places.append(place)
        self._fork(place)

    def _fork(self, place: _Place) -> None:
        says, say = os.pipe()
        _flush()
        # No signal may reach the new process while it still has this one's handlers.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        pid = os.fork()
        if not pid:
            os.close(says)
            self._become(place.job, say)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        os.close(say)
        place.pid, place.says, place.said = pid, says, b""
        place.ready, place.since_ns = False, time.monotonic_ns()
        self._selector.register(says, selectors.EVENT_READ, place)

    def _become(self, job: Job, say: int) -> NoReturn:
        """The rest of a new process's life."""
        code = _EXIT_FAULT

        def ready(why: str) -> None:
            os.write(say, why.replace("\n", " ").encode() + b"\n")

        try:
            gc.enable()
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            self._selector.close()
            for descriptor in (*self._told, self._life[1], *_heard(self._places)):
                os.close(descriptor)
            Thread(target=_die_with, args=(self._life[0],), daemon=True).start()
            code = job.run(ready)
        except BaseException as error:
            # The outermost place of this process.
            if may_pass(error):
                ready(str(error))
                code = _EXIT_STORAGE
            else:
                logger.critical("the %s fails", job.name, exc_info=True)
        finally:
            _flush()
            os._exit(code)

    def _end(self, places: list[_Place]) -> None:
        """Tell processes to end, and make those that do not."""
        self._stop = self._stop or signal.SIGTERM
        _send([place for place in places if place.pid], signal.SIGTERM)
        for place in places:
            deadline_ns = time.monotonic_ns() + place.job.grace_s * 1000 * _NS_PER_MS
            while place.pid and time.monotonic_ns() < deadline_ns:
                self._turn(deadline_ns)
            if place.pid:
                self._ended_badly(f"the {place.job.name} does not end; it is killed")
                _send([place], signal.SIGKILL)
                os.waitpid(place.pid, 0)
                place.pid = 0


def _noted(number: int, frame: object) -> None:
    """Nothing: the descriptor that the signal wakes is read in its turn."""
    del number, frame


def _send(places: Iterable[_Place], number: signal.Signals) -> None:
    for place in places:
        os.kill(place.pid, number)


def _after(tries: int) -> int:
    """When to start one again that has ended at once so many times in a row."""
    pause_ms = min(_PAUSE_MS << min(tries, _DOUBLINGS_MAX), _PAUSE_MS_MAX) if tries else 0
    return time.monotonic_ns() + pause_ms * _NS_PER_MS


def _flush() -> None:
    """Write what waits to be; a log on a full disk keeps no process from starting or ending."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()


def _heard(places: Iterable[_Place]) -> list[int]:
    return [place.says for place in places if place.says >= 0]


def _die_with(life: int) -> None:
    """End this process as soon as the one that started it has ended, however that was.

    It holds the other end and never writes. A process that went on alone would keep the port and
    the database from whoever is started next.
    """
    os.read(life, 1)
    os._exit(_EXIT_FAULT)
