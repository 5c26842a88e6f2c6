"""A program that keeps processes running as a test asks it to: `python -m tests.server.keeping`."""

import errno
import mmap
import os
import signal
import sys
from unittest.mock import patch

from farthing.server import supervise
from farthing.server.supervise import EXIT_FINAL, DidNotEnd, DidNotStart, Job, Ready, Supervisor

# Starts that fail while the disk is full: more than of another failure are let pass.
FULL = 10


def say(*words: object) -> None:
    """One line, written at once."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def worker(name: str, how: str) -> Job:
    """A job that does as its second name says."""
    # Of all its processes, one after the other.
    runs = mmap.mmap(-1, 1)

    def run(ready: Ready) -> int:
        say(name, "runs", os.getpid())
        runs[0] += 1
        if how == "full" or (how == "fills" and 1 < runs[0] <= 1 + FULL):
            raise OSError(errno.ENOSPC, "no room")
        if how == "refuses":
            ready("it cannot be done\nat all")
            return EXIT_FINAL
        if how == "raises":
            raise ValueError(name)
        told, tell = os.pipe()
        os.set_blocking(tell, False)
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.set_wakeup_fd(tell)
        ready("")
        while os.read(told, 1) and how == "stubborn":
            pass
        say(name, "ends")
        return 1 if how == "fails" else 0

    return Job(name=name, run=run, grace_s=1)


def main() -> None:
    """Keep a first process and others running: `FIRST OTHER...`, each by how it behaves."""
    first, *others = sys.argv[1:]
    supervisor = Supervisor(
        first=worker("first", first),
        others=tuple(worker("other", how) for how in others),
        between=lambda: say("between"),
        changed=lambda pids: say("changed", pids["first"][0], *pids.get("other", ())),
        stopping=lambda: say("stopping"),
    )
    try:
        # Pauses grow as they do elsewhere, and are over sooner.
        with patch.object(supervise, "_PAUSE_MS", 1):
            supervisor.run()
    except (DidNotEnd, DidNotStart) as error:
        say("gives up:", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
