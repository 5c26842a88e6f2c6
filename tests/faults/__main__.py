"""Break each listed line in a copy of the tree, and require its named test to fail there.

    python -m tests.faults [PART OF A FILE OR TEST]

The working tree is never touched. A test that fails unbroken, or does not run at all, is no proof.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from tests.faults.lines import REPOSITORY, BrokenLine, broken_lines

WORKERS: Final = 2
TIMEOUT_S: Final = 180
PASSED, FAILED = 0, 1
ROOMS: Final = ("protocol", "identity", "catalog", "settlement", "server", "clients", "spec")
# Beside the rooms, what tests read of the tree.
COPIED: Final = (*ROOMS, "tests", "pyproject.toml", "README.md", "Makefile")


def main(arguments: list[str]) -> int:
    """Run every line that an argument is part of; all of them without one."""
    lines = [
        line
        for line in broken_lines()
        if not arguments or any(each in line.file + line.test for each in arguments)
    ]
    began = time.monotonic()
    trees: SimpleQueue[Path] = SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="farthing-faults-") as folder:
        for number in range(WORKERS):
            trees.put(_copied(Path(folder) / str(number)))
        with ThreadPoolExecutor(WORKERS) as pool:
            tests = sorted({line.test for line in lines})
            unbroken = dict(
                zip(tests, pool.map(lambda test: _outcome(trees, test), tests), strict=True)
            )
            verdicts = pool.map(lambda line: _verdict(trees, line, unbroken[line.test]), lines)
            told = [_told(line, *verdict) for line, verdict in zip(lines, verdicts, strict=True)]
    failed = told.count(False)
    print(f"in {time.monotonic() - began:.0f} s")
    print(f"{len(lines) - failed} passed, {failed} failed")
    return 1 if failed else 0


def _verdict(trees: SimpleQueue[Path], line: BrokenLine, unbroken: int) -> tuple[bool, str]:
    """Whether the break was caught, and in words what happened."""
    if unbroken != PASSED:
        return False, f"the test does not pass unbroken (pytest {unbroken})"
    if (count := (REPOSITORY / line.file).read_text(encoding="utf-8").count(line.old)) != 1:
        return False, f"the old text occurs {count} times"
    outcome = _outcome(trees, line.test, line)
    if outcome == FAILED:
        return True, "caught"
    return False, "not caught" if outcome == PASSED else f"did not run (pytest {outcome})"


def _told(line: BrokenLine, caught: bool, says: str) -> bool:  # noqa: FBT001  # a verdict
    print(f"{'ok  ' if caught else 'FAIL'}  {line.file.rpartition('/farthing/')[2]:36}", end="")
    print(f"{says:12}  {line.test_name}", flush=True)
    if not caught:
        print(f"      {line.old!r} -> {line.new!r}: {line.why}")
    return caught


def _outcome(trees: SimpleQueue[Path], test: str, line: BrokenLine | None = None) -> int:
    """What pytest says of a test in a tree that nobody else uses meanwhile."""
    tree = trees.get()
    try:
        with _broken(tree, line):
            return _pytest(tree, test)
    finally:
        trees.put(tree)


@contextmanager
def _broken(tree: Path, line: BrokenLine | None) -> Iterator[None]:
    if line is None:
        yield
        return
    file = tree / line.file
    whole = file.read_text(encoding="utf-8")
    file.write_text(line.broken(whole), encoding="utf-8")
    try:
        yield
    finally:
        file.write_text(whole, encoding="utf-8")


def _pytest(tree: Path, test: str) -> int:
    environment = {
        **os.environ,
        # Before whatever is installed, so that the copy is what runs.
        "PYTHONPATH": os.pathsep.join(str(tree / room) for room in ROOMS),
        # A file that is broken and mended within a second looks unchanged to a cached one.
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", test]
    try:
        done = subprocess.run(
            command,
            cwd=tree,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return -1
    return done.returncode


def _copied(tree: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
    tree.mkdir()
    for name in COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=ignored)
        elif source.exists():
            shutil.copy(source, tree / name)
    return tree


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
