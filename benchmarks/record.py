"""The one language of all benchmarks: a table on the screen, json under benchmarks/results, exit 1 on a missed bar."""

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pipeline.artifacts import read_json, write_json

RESULTS = Path("benchmarks") / "results"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured number. bar: what it must reach; goal: what we want; both compare in the direction of `better`."""

    name: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    seeds: int | None = None
    baseline: float | None = None
    bar: float | None = None
    goal: float | None = None
    better: str = "lower"
    commit: str | None = None
    """Of the code that measured it, where an earlier run of the benchmark did."""

    def misses_bar(self) -> bool:
        if self.bar is None:
            return False
        return self.value > self.bar if self.better == "lower" else self.value < self.bar


def record(name: str, rows: Sequence[Row], *, keep_others: bool = False) -> int:
    """Prints the rows, writes benchmarks/results/<name>.json and returns the exit code.

    keep_others: rows of the file that this run has not measured stay in it, with the commit they were measured at.
    """
    print(f"{'':34} {'value':>10} {'unit':8} {'baseline':>10} {'bar':>10} {'goal':>10}")
    for row in rows:
        shown = [f"{value:10.4g}" if value is not None else " " * 10 for value in (row.baseline, row.bar, row.goal)]
        miss = "  MISSES ITS BAR" if row.misses_bar() else ""
        print(f"{row.name:34} {row.value:10.4g} {row.unit:8} {' '.join(shown)}{miss}")
    value = {
        "command": " ".join(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]]),
        "commit": _commit(),
        "hardware": hardware(),
        "rows": [asdict(row) for row in [*(_other_rows(name, rows) if keep_others else []), *rows]],
    }
    write_json(RESULTS / f"{name}.json", value)
    return 1 if any(row.misses_bar() for row in rows) else 0


def _other_rows(name: str, rows: Sequence[Row]) -> list[Row]:
    """Those of the last runs, each with its commit."""
    file = RESULTS / f"{name}.json"
    if not file.is_file():
        return []
    value, measured = read_json(file), {row.name for row in rows}
    earlier = [Row(**row) for row in value["rows"] if row["name"] not in measured]
    return [replace(row, commit=row.commit or value["commit"]) for row in earlier]


def hardware() -> str:
    """Processor and cores, as the machine tells them."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{model}, {os.cpu_count()} cores"


def _commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
