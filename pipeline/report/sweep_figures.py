"""Figures of a sweep as svg files of their own: parallel coordinates, and how much each value matters."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from pipeline.report.figures import ARM_COLOURS, INK, MUTED, RULE, VARIABLES, draw_figure

COLOURS = {
    INK: "#4a4640",
    MUTED: "#68635a",
    RULE: "#b9b3a7",
    ARM_COLOURS["scratch"]: "#8f897f",
    ARM_COLOURS["cdbn"]: "#0067a3",
}
"""A file outside the page has no variables: tones that are legible on white and on dark."""


@dataclass(frozen=True)
class Line:
    """A trial.  values: what was searched, and what was measured at its last report, by name."""

    values: Mapping[str, float]
    completed: bool


def draw_parallel(title: str, lines: Sequence[Line], logs: Sequence[str], metric: str) -> str:
    """Parallel coordinates: an axis for each name, the metric last; a line for each trial, the best one in colour and
    those that were stopped dashed.

    logs: names on a logarithmic axis.
    """
    names = [name for name in lines[0].values if name != metric] + [metric]
    ranges = {name: _range([line.values[name] for line in lines], name in logs) for name in names}
    candidates = [line for line in lines if line.completed] or list(lines)
    best = min(candidates, key=lambda line: line.values[metric])

    def draw(axes: Axes) -> None:
        places = list(range(len(names)))
        for line in sorted(lines, key=lambda line: line is best):
            heights = [_height(line.values[name], *ranges[name], name in logs) for name in names]
            colour = ARM_COLOURS["cdbn" if line is best else "scratch"]
            style = "-" if line.completed else ":"
            axes.plot(places, heights, color=colour, linestyle=style, linewidth=2.4 if line is best else 1.2)
        for place, name in zip(places, names, strict=True):
            low, high = ranges[name]
            axes.axvline(place, color=RULE, linewidth=1)
            axes.text(place, -0.04, f"{low:.3g}", ha="center", va="top", color=MUTED, fontsize=10)
            axes.text(place, 1.04, f"{high:.3g}", ha="center", va="bottom", color=MUTED, fontsize=10)
        axes.set_xticks(places, [name.replace("_", " ") for name in names])
        axes.tick_params(axis="x", pad=18)
        axes.set_yticks([])
        axes.set_ylim(-0.02, 1.02)
        axes.spines["left"].set_visible(False)
        axes.spines["bottom"].set_visible(False)
        axes.set_title(title, fontsize=11.5, pad=20, color=INK)

    alt = f"{title}: {len(lines)} trials, a line each, from what was searched to {metric}; the best one in colour."
    return _as_file(draw_figure(f"parallel-{title}", alt, draw, size=(1.6 + 1.45 * len(names), 3.2)))


def draw_importance(title: str, shares: Mapping[str, float], note: str) -> str:
    """A bar for each searched value: its share of the variance between trials. note: what to think of it."""

    def draw(axes: Axes) -> None:
        names = list(shares)[::-1]
        axes.barh(
            [name.replace("_", " ") for name in names], [shares[name] for name in names], color=ARM_COLOURS["cdbn"]
        )
        axes.set_xlim(0, 1)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("share of the variance" + (f"\n{note}" if note else ""))
        axes.set_title(title, fontsize=11.5, color=INK)

    told = ", ".join(f"{name} {share:.0%}" for name, share in shares.items()) or "nothing to compare"
    return _as_file(
        draw_figure(f"importance-{title}", f"{title}: {told}. {note}", draw, size=(4.6, 1.5 + 0.35 * len(shares)))
    )


def _range(values: Sequence[float], log: bool) -> tuple[float, float]:
    """The ends of an axis; a single value lies in its middle."""
    low, high = min(values), max(values)
    if low < high:
        return low, high
    return (low / 2, high * 2) if log else (low - 0.5, high + 0.5)


def _height(value: float, low: float, high: float, log: bool) -> float:
    if log:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return (value - low) / (high - low)


def _as_file(svg: str) -> str:
    for colour, variable in VARIABLES.items():
        svg = svg.replace(variable, COLOURS.get(colour, "#8f897f"))
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" ', 1) + "\n"
