"""The report's figures as inline svg: equal content gives equal text, and colours follow the page's light or dark mode.

matplotlib draws with marker colours that no eye ever sees; `_inline` replaces each by a CSS variable of the page.
"""

import html
import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from pipeline.report.content import Accuracy, ArmScores, Bin, LayerFacts, SweepTrial

INK, MUTED, RULE = "#010101", "#020202", "#030303"
ARM_COLOURS = {
    "scratch": "#040404",
    "classical": "#050505",
    "cdbn": "#060606",
    "vae": "#070707",
    "gan": "#080808",
    "scratch_probabilistic": "#090909",
}
VARIABLES = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    **{colour: f"var(--{arm.replace('_', '-')})" for arm, colour in ARM_COLOURS.items()},
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 11.5,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def draw_efficiency(arm: ArmScores, baseline: ArmScores, limits: tuple[float, float]) -> str:
    """Test accuracy against labels: the arm in its colour before the baseline in grey, each with its intervals."""

    def draw(axes: Axes) -> None:
        for shown, shift in ((baseline, 0.97), (arm, 1.03)):
            _draw_accuracies(axes, shown.accuracies, ARM_COLOURS[shown.arm], shift)
        budgets = [accuracy.budget for accuracy in arm.accuracies]
        axes.set_xscale("log")
        axes.set_xticks(budgets, [f"{budget:,}" for budget in budgets])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(budgets[0] / 1.4, budgets[-1] * 1.4)
        axes.set_ylim(100 * limits[0], 100 * limits[1])
        axes.set_xlabel("labels")

    ends = [f"{100 * row.value:.1f} % with {row.budget:,} labels" for row in (arm.accuracies[0], arm.accuracies[-1])]
    alt = f"Test accuracy of {arm.name} against the number of labels, beside training from scratch: {', '.join(ends)}."
    return draw_figure(f"efficiency-{arm.arm}", alt, draw, size=(3.1, 2.3))


def _draw_accuracies(axes: Axes, accuracies: Sequence[Accuracy], colour: str, shift: float) -> None:
    """shift: factor that keeps the intervals of two arms from hiding each other."""
    x = [row.budget * shift for row in accuracies]
    axes.plot(x, [100 * row.value for row in accuracies], color=colour, marker="o", markersize=4)
    for place, row in zip(x, accuracies, strict=True):
        if row.low is not None and row.high is not None:
            axes.plot([place, place], [100 * row.low, 100 * row.high], color=colour, linewidth=1.2)


def accuracy_limits(arms: Sequence[ArmScores]) -> tuple[float, float]:
    """One range for all panels, from the lowest point (intervals reach below it where one is wide) to 1."""
    lowest = min(row.value if row.low is None else row.low for arm in arms for row in arm.accuracies)
    return max(0.0, int(20 * lowest) / 20), 1.0


def draw_free_energy(layer: LayerFacts) -> str:
    """Mean free energy of train and validation images over training; their gap is what overfitting opens."""
    steps = layer.curves["step"]

    def draw(axes: Axes) -> None:
        axes.plot(steps, layer.curves["train"], color=ARM_COLOURS["scratch"], label="train")
        axes.plot(steps, layer.curves["validation"], color=ARM_COLOURS["cdbn"], linestyle="--", label="validation")
        axes.set_xlabel("updates")
        axes.set_ylabel("free energy (nats)")
        axes.legend(frameon=False, fontsize=10)

    alt = f"Free energy of layer {layer.name} over training; the last gap is {layer.curves['gap'][-1]:.2f} nats."
    return draw_figure(f"free-energy-{layer.name}", alt, draw, size=(3.9, 2.3))


def draw_likelihood(layer: LayerFacts) -> str:
    """Pseudo-likelihood of validation inputs over training, and their log-likelihood with its intervals where known."""
    steps, scores = layer.curves["step"], layer.curves["pseudo_likelihood"]

    def draw(axes: Axes) -> None:
        axes.plot(steps, scores, color=ARM_COLOURS["vae"], label="pseudo-likelihood")
        for number, look in enumerate(layer.likelihoods):
            axes.plot([look.step, look.step], [look.low, look.high], color=ARM_COLOURS["gan"], linewidth=1.2)
            label = "log-likelihood" if number == 0 else None
            axes.plot(
                [look.step], [look.value], color=ARM_COLOURS["gan"], marker="o", markersize=4, linestyle="", label=label
            )
        axes.set_xlabel("updates")
        axes.set_ylabel("nats per image")
        axes.legend(frameon=False, fontsize=10)

    alt = (
        f"Pseudo-likelihood of layer {layer.name} over training, at the end {scores[-1]:.1f} nats per validation image"
    )
    if layer.likelihoods:
        last = layer.likelihoods[-1]
        alt += f"; log-likelihood {last.value:.1f}, from {last.low:.1f} to {last.high:.1f}, after {last.step:,} updates"
    return draw_figure(f"likelihood-{layer.name}", f"{alt}.", draw, size=(3.9, 2.3))


def draw_sweep(trials: Sequence[SweepTrial]) -> str:
    """Every trial of the sweep: learning rate against validation loss; hollow where it was stopped early."""

    def draw(axes: Axes) -> None:
        for arm in dict.fromkeys(trial.arm for trial in trials):
            colour = ARM_COLOURS[arm]
            for completed in (True, False):
                rows = [trial for trial in trials if (trial.arm, trial.completed) == (arm, completed)]
                axes.scatter(
                    [trial.lr for trial in rows],
                    [trial.validation_nll for trial in rows],
                    s=34,
                    facecolor=colour if completed else "none",
                    edgecolor=colour,
                    label=arm if completed else None,
                )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("learning rate")
        axes.set_ylabel("validation loss (nats)")
        axes.legend(frameon=False, fontsize=10)

    return draw_figure(
        "sweep", f"Validation loss of {len(trials)} trials against their learning rate.", draw, size=(5.2, 2.8)
    )


def draw_reliability(reliability: dict[str, list[Bin]]) -> str:
    """Accuracy against confidence of the models trained on all labels; on the diagonal a model knows what it knows."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=RULE, linewidth=1)
        for model, colour in (("scratch", ARM_COLOURS["scratch"]), ("winner", ARM_COLOURS["cdbn"])):
            bins = reliability.get(model, [])
            most = max((row.count for row in bins), default=1)
            axes.plot([row.confidence for row in bins], [row.accuracy for row in bins], color=colour, linewidth=1.2)
            sizes = [8 + 50 * row.count / most for row in bins]
            axes.scatter(
                [row.confidence for row in bins], [row.accuracy for row in bins], s=sizes, color=colour, label=model
            )
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")
        axes.legend(frameon=False, fontsize=10, loc="upper left")

    alt = "Reliability of the two final models: accuracy against confidence, larger dots hold more images."
    return draw_figure("reliability", alt, draw, size=(3.6, 3.2))


def draw_figure(name: str, alt: str, draw: Callable[[Axes], None], *, size: tuple[float, float]) -> str:
    """size: inches of 72 units each."""
    with mpl.rc_context(STYLE | {"svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue(), alt)


def _inline(svg: str, alt: str) -> str:
    """An svg file as an element of a page: no header, namespaces or metadata, the page's colours and font."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    box = re.search(r'viewBox="([^"]*)"', svg)
    assert box is not None
    opening = f'<svg viewBox="{box.group(1)}" role="img" aria-label="{html.escape(alt, quote=True)}">'
    svg = re.sub(r"<svg [^>]*>", lambda _: opening, svg, count=1)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # names such as axes_1 repeat from figure to figure
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)
    svg = re.sub(r"\s+", " ", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    return svg.strip()
