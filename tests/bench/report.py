"""What a benchmark prints: a table for people, one JSON object for programs."""

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

__all__ = ["Row", "host", "percentile", "show"]

FSYNCS = 200
WIDTH = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure beside its baseline of the same run, and what either is to reach."""

    name: str
    unit: str
    value: float
    baseline: float | None = None
    target: float | None = None
    ratio_target: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times the baseline the figure is."""
        return None if not self.baseline else round(self.value / self.baseline, 2)

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; latencies and costs are better when lower."""
        lower = self.unit in {"ms", "s", "us", "us/record"}
        value, target = (
            (self.value, self.target)
            if self.ratio_target is None
            else (self.ratio, self.ratio_target)
        )
        if value is None or target is None:
            return None
        return value <= target if lower else value >= target


def host() -> dict[str, object]:
    """What the figures were taken on."""
    return {
        "cpu": f"{os.cpu_count()} x {platform.processor() or platform.machine()}",
        "fsync_us": _fsync_us(),
        "python": platform.python_version(),
    }


def show(suite: str, rows: Sequence[Row], *, as_json: bool) -> None:
    """Print the rows of a suite."""
    if as_json:
        shaped = [
            {**asdict(row), "ratio": row.ratio, "met": row.met, "value": round(row.value, 2)}
            for row in rows
        ]
        print(json.dumps({"suite": suite, "host": host(), "rows": shaped}))
        return
    table = Table(title=suite)
    for column in ("figure", "value", "unit", "baseline", "ratio", "target", "met"):
        table.add_column(column, justify="left" if column in {"figure", "unit"} else "right")
    for row in rows:
        target = row.target if row.ratio_target is None else row.ratio_target
        cells = (row.baseline, row.ratio, target)
        table.add_row(
            row.name,
            f"{row.value:,.1f}",
            row.unit,
            *("" if cell is None else f"{cell:,.1f}" for cell in cells),
            {None: "", True: "yes", False: "not yet"}[row.met],
        )
    Console(width=WIDTH).print(table)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which a share of the values lies."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def _fsync_us() -> int:
    """The median time of an fsync of 4 KiB appended to a file here."""
    with TemporaryDirectory(dir=Path.cwd()) as folder, (Path(folder) / "fsync").open("wb") as file:
        times = []
        for _ in range(FSYNCS):
            file.write(b"\0" * 4096)
            file.flush()
            began = time.perf_counter_ns()
            os.fsync(file.fileno())
            times.append((time.perf_counter_ns() - began) // 1000)
    return sorted(times)[FSYNCS // 2]
