"""Processes that belong together: started in order, replaced, ended in order, never left alone."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.patience import PATIENCE_S
from tests.server.keeping import FULL

REPOSITORY = Path(__file__).resolve().parents[2]


class Kept:
    """A keeper, and what it and its processes have said so far."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.said: list[str] = []

    def until(self, start: str) -> list[str]:
        """Read on to the next line that starts so; gives its words."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line.strip())
            if line.startswith(start):
                return line.split()
        raise AssertionError(f"{start!r} was never said: {self.said}")

    def ended(self) -> tuple[int, list[str]]:
        """Its exit code, once it has ended, and everything that was said."""
        assert self.process.stdout is not None
        self.said += [line.strip() for line in self.process.stdout]
        return self.process.wait(timeout=PATIENCE_S), self.said


@contextmanager
def kept(*how: str, log: str = os.devnull) -> Iterator[Kept]:
    command = [sys.executable, "-m", "tests.server.keeping", *how]
    with (
        Path(log).open("ab") as stderr,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=REPOSITORY,
            # As people run it, who buffer what is written.
            env={**os.environ, "PYTHONUNBUFFERED": ""},
        ) as process,
    ):
        try:
            yield Kept(process)
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_ends_last_and_everything_ends_as_told(number: signal.Signals) -> None:
    with kept("well", "well", "well") as keeper:
        _, first, *others = keeper.until("changed")
        keeper.process.send_signal(number)
        code, said = keeper.ended()

    assert code == 0
    assert len({first, *others}) == 3
    assert said.index("between") < min(said.index(f"other runs {pid}") for pid in others)
    assert said[-4:] == ["stopping", "other ends", "other ends", "first ends"]


@pytest.mark.parametrize("place", [1, 2])
def test_one_that_is_killed_is_replaced_and_the_others_stay(place: int) -> None:
    with kept("well", "well", "well") as keeper:
        for _ in range(8):
            before = keeper.until("changed")[1:]
            os.kill(int(before[place]), signal.SIGKILL)
        after = keeper.until("changed")[1:]
        keeper.process.terminate()
        code, _ = keeper.ended()

    assert code == 0
    assert after[place] != before[place]
    assert [pid for pid in before if pid in after] == [
        pid for number, pid in enumerate(before) if number != place
    ]


def test_one_that_ends_at_once_again_and_again_ends_the_whole() -> None:
    with kept("well", "raises") as keeper:
        code, said = keeper.ended()

    assert code == 1
    assert sum(line.startswith("other runs") for line in said) == 6
    assert said[-1] == "gives up: the other ended 6 times at once: see the log"
    assert "first ends" in said


def test_one_that_says_why_it_cannot_run_ends_the_whole_with_that() -> None:
    with kept("refuses", "well") as keeper:
        code, said = keeper.ended()

    assert code == 1
    assert said[-1] == "gives up: it cannot be done at all"
    assert not any(line.startswith("other runs") for line in said)


def test_one_that_storage_keeps_from_running_is_waited_for_and_said_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with kept("fills", "well", log=str(log)) as keeper:
        _, first, other = keeper.until("changed")
        os.kill(int(first), signal.SIGKILL)
        _, again, spared = keeper.until("changed")
        keeper.process.terminate()
        code, said = keeper.ended()

    assert code == 0
    assert again != first
    assert spared == other
    assert sum(line.startswith("first runs") for line in said) == FULL + 2
    assert log.read_text().count("until storage is well: [Errno 28] no room") == 1


def test_a_first_start_that_storage_keeps_from_running_ends_the_whole_at_once() -> None:
    with kept("full", "well") as keeper:
        code, said = keeper.ended()

    assert code == 1
    assert said[-1] == "gives up: [Errno 28] no room"
    assert sum(line.startswith("first runs") for line in said) == 1


@pytest.mark.parametrize("how", [("stubborn", "well"), ("well", "stubborn")])
def test_one_that_does_not_end_is_made_to_and_the_whole_says_so(how: tuple[str, str]) -> None:
    with kept(*how) as keeper:
        keeper.until("changed")
        keeper.process.terminate()
        code, said = keeper.ended()

    assert code == 1
    name = "first" if how[0] == "stubborn" else "other"
    assert said[-1] == f"gives up: the {name} does not end; it is killed"


def test_one_that_fails_while_it_ends_is_said_by_the_whole() -> None:
    with kept("fails", "well") as keeper:
        _, first, _ = keeper.until("changed")
        keeper.process.terminate()
        code, said = keeper.ended()

    assert code == 1
    assert said[-1] == f"gives up: the first, process {first}, ended with 1"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no file that is always full")
def test_a_log_that_is_full_ends_nothing() -> None:
    with kept("well", "well", log="/dev/full") as keeper:
        _, first, other = keeper.until("changed")
        os.kill(int(first), signal.SIGKILL)
        _, again, spared = keeper.until("changed")
        keeper.process.terminate()
        # Its exit code is Python's own, which finds the log full at the very end.
        _, said = keeper.ended()

    assert said[-1] == "first ends"
    assert again != first
    assert spared == other


def test_when_the_keeper_is_killed_everything_ends() -> None:
    with kept("well", "stubborn") as keeper:
        keeper.until("changed")
        keeper.process.kill()
        # Its processes hold the other end of what is read here: it ends when all of them have.
        _, said = keeper.ended()

    assert "first ends" not in said
