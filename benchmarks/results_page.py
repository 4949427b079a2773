"""docs/RESULTS.md from benchmarks/results/*.json: `python -m benchmarks.results_page`, never typed by hand."""

import sys
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS, Row
from pipeline.artifacts import read_json, write_text

PAGE = Path("docs") / "RESULTS.md"
HEAD = """# Results

Made by `python -m benchmarks.results_page` from `benchmarks/results/*.json`, which the commands below write. A bar is
what a number must reach, a goal what we want; an interval is given where several seeds were run.
"""


def render_page(results: Path) -> str:
    """The whole document: a section per json file, in the order of their names."""
    sections = [_render_section(path.stem, read_json(path)) for path in sorted(results.glob("*.json"))]
    return "\n".join([HEAD, *sections])


def _render_section(name: str, value: dict[str, Any]) -> str:
    rows = [Row(**row) for row in value["rows"]]
    lines = [
        f"## {name}",
        "",
        f"`{value['command']}` at commit {value['commit']}, on {value['hardware']}.",
        "",
        "| what | value | interval | seeds | baseline | bar | goal |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: |",
        *(_render_row(row) for row in rows),
    ]
    return "\n".join([*lines, ""])


def _render_row(row: Row) -> str:
    interval = "" if row.low is None or row.high is None else f"{row.low:.4g} to {row.high:.4g}"
    sign = "<=" if row.better == "lower" else ">="
    bar = "" if row.bar is None else f"{sign} {row.bar:.4g}" + (" **missed**" if row.misses_bar() else "")
    goal = "" if row.goal is None else f"{sign} {row.goal:.4g}"
    baseline = "" if row.baseline is None else f"{row.baseline:.4g}"
    seeds = "" if row.seeds is None else str(row.seeds)
    name = row.name if row.commit is None else f"{row.name} (at {row.commit})"
    return f"| {name} | {row.value:.4g} {row.unit} | {interval} | {seeds} | {baseline} | {bar} | {goal} |"


if __name__ == "__main__":
    write_text(PAGE, render_page(RESULTS))
    print(f"wrote {PAGE}", file=sys.stderr)
