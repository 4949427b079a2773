"""The verdict as plain text for a terminal, at most 100 columns wide."""

import textwrap
from collections.abc import Mapping, Sequence

from pipeline.metrics.verdicts import ARM_NAMES, MARKS, Comparison, Key, name_pair, say_points, shade

WIDTH = 100
NAME_WIDTH = 31
CELL_WIDTH = 23


def format_verdict(
    headline: str,
    rows: Sequence[Comparison],
    accuracies: Mapping[Key, float],
    *,
    confidence: float,
    test_images: int,
    closing: Sequence[str] = (),
) -> str:
    """The headline, a table of differences from training from scratch by arm and budget, its legend, and `closing`.

    accuracies: mean test accuracy by arm and budget.
    """
    budgets = sorted({row.budget for row in rows})
    per_block = (WIDTH - NAME_WIDTH) // CELL_WIDTH
    lines = ["", *textwrap.wrap(headline, WIDTH), ""]
    for start in range(0, len(budgets), per_block):
        lines += [*_block(rows, accuracies, budgets[start : start + per_block]), ""]
    seeds = rows[0].estimate.seeds if rows else 1
    lines += textwrap.wrap(_legend(rows, confidence, seeds, test_images), WIDTH)
    for sentence in closing:
        lines += ["", *textwrap.wrap(sentence, WIDTH)]
    return "\n".join([*lines, ""])


def _block(rows: Sequence[Comparison], accuracies: Mapping[Key, float], budgets: Sequence[int]) -> list[str]:
    """The columns of some budgets: the baseline's accuracy, then every pair's differences."""
    head = [f"{budget:,} labels" for budget in budgets]
    baseline = [f"{100 * accuracies['scratch', budget]:.1f} % right" for budget in budgets]
    rule = "─" * (NAME_WIDTH + CELL_WIDTH * len(budgets))
    lines = [_line("", head), rule, _line(ARM_NAMES["scratch"], baseline)]
    for arm, against in dict.fromkeys((row.arm, row.baseline) for row in rows):
        cells = {row.budget: _cell(row) for row in rows if (row.arm, row.baseline) == (arm, against)}
        if against != "scratch":
            lines.append(rule)
        lines.append(_line(name_pair(arm, against), [cells[budget] for budget in budgets]))
    return [*lines, rule]


def _line(name: str, cells: Sequence[str]) -> str:
    return (name.ljust(NAME_WIDTH) + "".join(cell.rjust(CELL_WIDTH) for cell in cells)).rstrip()


def _cell(row: Comparison) -> str:
    estimate, mark = row.estimate, MARKS[_shade(row)]
    if estimate.low is None or estimate.high is None:
        return f"{say_points(estimate.value)} {mark}"
    return f"{say_points(estimate.value)} [{say_points(estimate.low)}, {say_points(estimate.high)}] {mark}"


def _shade(row: Comparison) -> str:
    return shade(row.verdict, row.estimate.low, row.estimate.high)


def _legend(rows: Sequence[Comparison], confidence: float, seeds: int, test_images: int) -> str:
    shown = {_shade(row) for row in rows}
    # The order of MARKS, leaning last, so that what explains it stands right behind it.
    ordered = sorted((name for name in MARKS if name in shown), key=lambda name: name.startswith("leans"))
    marks = ", ".join(f"{MARKS[name]} {name}" for name in ordered)
    leaning = " (the interval misses zero, but not once corrected: no measurable effect)" if "leans" in marks else ""
    if seeds == 1:
        return f"{marks}. Differences in points of test accuracy: 1 seed, {test_images:,} test images."
    return (
        f"{marks}{leaning}. Differences in points of test accuracy with {100 * confidence:g} % intervals: {seeds} "
        f"paired seeds, {test_images:,} test images; verdicts corrected for {len(rows)} comparisons (Holm)."
    )
