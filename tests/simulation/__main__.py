"""Live simulated lives of the engine and say what was found.

    python -m tests.simulation --seed 7 --verbose      one life, step by step
    python -m tests.simulation --seeds 1..1000         some
    python -m tests.simulation --minutes 60            as many as the time allows

Every life is drawn from its seed alone: the same seed is the same life, to the byte. Of a finding
the steps that it needs are sought, and `--seed N --skip ...` lives just those.
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from tests.simulation.lives import Lives, one

PROGRESS_S = 60


def main(arguments: list[str]) -> int:
    """Live, tell once a minute and at the end; 1 where something was found."""
    logging.disable(logging.CRITICAL)
    given = _parser().parse_args(arguments)
    say = print if given.verbose else _nothing
    lives = Lives()
    began = told = time.monotonic()
    for seed in _seeds(given):
        finding = lives.live(seed, one(seed, skip=given.skip, steps=given.steps, say=say))
        if finding:
            print(finding, flush=True)
            if given.findings:
                line = json.dumps({"seed": seed, "finding": finding})
                with Path(given.findings).open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
        now = time.monotonic()
        if now - told >= PROGRESS_S:
            told = now
            print(f"{now - began:.0f} s: {lives.line()}", flush=True)
        if given.minutes and now - began >= given.minutes * 60:
            break
    print(lives.line(), flush=True)
    return 1 if lives.findings else 0


def _seeds(given: argparse.Namespace) -> Iterator[int]:
    if given.seed is not None:
        return iter((given.seed,))
    first, last = given.seeds or (given.first or time.time_ns() % 10**9, None)
    if last is None:
        return count(first) if given.minutes else iter(range(first, first + 1_000))
    return iter(range(first, last + 1))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seed", type=int, help="one life")
    parser.add_argument("--seeds", type=_range, help="some lives, as 1..1000")
    parser.add_argument("--first", type=int, help="the seed to begin with")
    parser.add_argument("--minutes", type=float, default=0, help="as many as the time allows")
    parser.add_argument("--steps", type=int, default=0, help="end each life after so many")
    parser.add_argument("--skip", type=_numbers, default=frozenset(), help="steps, as 1,4-9")
    parser.add_argument("--findings", default="", help="a file that findings are added to")
    parser.add_argument("--verbose", action="store_true", help="tell every step")
    return parser


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("..")
    return int(first), int(last or first)


def _numbers(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _nothing(text: str) -> None:
    del text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
