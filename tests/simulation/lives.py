"""Many lives: where each is lived, what they come to, and which steps a finding needs."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cache

from tests.simulation.disk import drive_missing, plugged
from tests.simulation.life import STEPS, Told, live
from tests.simulation.weather import Attic

__all__ = ["Lives", "one", "smallest"]

# Every so manyth life is lived on a simulated disk under the real store, the others in memory; and
# every so manyth has the index of keys on that disk too.
ON_DISK = 4
WITH_INDEX = 20
_TRIES = 80


@dataclass(slots=True)
class Lives:
    """What was lived so far, and what was found."""

    seeds: list[int] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    commands: int = 0
    crashes: int = 0
    faults: int = 0
    records: int = 0

    def live(self, seed: int, told: Told) -> str:
        """Count a life; gives what was found in it, in a few lines."""
        self.seeds.append(seed)
        self.commands += told.commands
        self.crashes += told.crashes
        self.faults += told.faults
        self.records += told.records
        if not told.finding:
            return ""
        skip = smallest(told)
        skipped = f" --skip {_ranges(skip)}" if skip else ""
        again = f"python -m tests.simulation --seed {seed} --steps {told.step}{skipped} --verbose"
        finding = f"FINDING in seed {seed}, step {told.step}: {told.finding}\n  {again}"
        self.findings.append(finding)
        return finding

    def line(self) -> str:
        """All of it in one line."""
        seeds = f"seeds {min(self.seeds)} to {max(self.seeds)}" if self.seeds else "no seeds"
        return (
            f"{seeds}: {len(self.seeds)} lives, {self.commands} commands, {self.records} records,"
            f" {self.faults} faults, {self.crashes} crashes, {len(self.findings)} findings"
        )


def one(
    seed: int,
    *,
    steps: int = 0,
    skip: Collection[int] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Told:
    """One life, where its seed says."""
    steps = steps or STEPS
    if seed % ON_DISK or _missing():
        return live(seed, Attic(), steps=steps, skip=skip, say=say)
    with plugged(indexed=seed % WITH_INDEX == 0) as drive:
        return live(seed, drive, steps=steps, skip=skip, say=say)


def smallest(told: Told) -> list[int]:
    """Steps that a finding does not need: halves, quarters and so on are tried without."""
    skip: set[int] = set()
    size, tries = max(told.step // 2, 1), 0
    while size:
        for first in range(1, told.step, size):
            part = set(range(first, min(first + size, told.step))) - skip
            if not part or tries >= _TRIES:
                continue
            tries += 1
            other = one(told.seed, steps=told.step, skip=skip | part)
            if other.finding and other.step == told.step:
                skip |= part
        size //= 2
    return sorted(skip)


@cache
def _missing() -> str:
    return drive_missing()


def _ranges(numbers: list[int]) -> str:
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ",".join(f"{a}-{b}" if b > a else f"{a}" for a, b in found)
