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
def kept(*how: str) -> Iterator[Kept]:
    command = [sys.executable, "-m", "tests.server.keeping", *how]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=REPOSITORY
    ) as process:
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


def test_one_that_does_not_end_is_made_to() -> None:
    with kept("stubborn", "stubborn") as keeper:
        keeper.until("changed")
        keeper.process.terminate()
        code, _ = keeper.ended()

    assert code == 0


def test_when_the_keeper_is_killed_everything_ends() -> None:
    with kept("well", "stubborn") as keeper:
        keeper.until("changed")
        keeper.process.kill()
        # Its processes hold the other end of what is read here: it ends when all of them have.
        _, said = keeper.ended()

    assert "first ends" not in said
