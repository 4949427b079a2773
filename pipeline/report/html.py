"""The report as one self-contained page: inline style, inline svg, pictures as data URIs, no script, no network."""

import base64
from collections.abc import Sequence

from markupsafe import Markup

from pipeline.metrics.verdicts import (
    HELPS,
    HURTS,
    LEANS_DOWN,
    LEANS_UP,
    MARKS,
    NO_EFFECT,
    UNJUDGED,
    say_p,
    say_points,
    shade,
)
from pipeline.report.arm_facts import TRANSFER
from pipeline.report.audit import TEMPLATES, make_environment
from pipeline.report.content import Content, Difference, Picture
from pipeline.report.figures import (
    accuracy_limits,
    draw_efficiency,
    draw_free_energy,
    draw_likelihood,
    draw_reliability,
    draw_sweep,
)

PAGE = "page.html"
NO_VALUE = "\N{EN DASH}"
CLASSES = {HELPS: "helps", HURTS: "hurts", LEANS_UP: "up", LEANS_DOWN: "down", NO_EFFECT: "none", UNJUDGED: "none"}
MATRIX_CLASSES = 20
"""Up to this many classes a confusion matrix is readable; beyond, the most frequent confusions are listed."""
LISTED_CONFUSIONS = 15

Confusion = tuple[str, str, int]


def render(content: Content) -> str:
    """The page's text. Equal content gives equal text."""
    environment = make_environment()
    environment.filters |= {
        "points": say_points,
        "percent": say_percent,
        "number": lambda value: f"{value:,}",
        "short": lambda value: f"{value:.3g}",
        "p_value": lambda p: say_p(p).removeprefix("= "),
        "shade": lambda row: shade(row.verdict, row.low, row.high),
        "mark": MARKS.__getitem__,
        "css": CLASSES.__getitem__,
        "source": embed_picture,
    }
    # Markup: svg that this code drew; everything else that enters the page is escaped.
    figures = {name: Markup(svg) for name, svg in draw_figures(content).items()}
    return environment.get_template(PAGE).render(
        content=content,
        figures=figures,
        transfer=TRANSFER,
        baseline=next(arm for arm in content.arms if arm.arm == "scratch"),
        summaries={arm.arm: arm.summary for arm in content.verdict.arms},
        forest=Forest.over(_all_differences(content)),
        confusions=None if len(content.final.classes) <= MATRIX_CLASSES else most_confused(content),
        most_errors=max((count for _, _, count in most_confused(content)), default=1),
        style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
    )


def draw_figures(content: Content) -> dict[str, str]:
    """Every svg of the page by name."""
    baseline = next(arm for arm in content.arms if arm.arm == "scratch")
    limits = accuracy_limits(content.arms)
    arms = [arm for arm in content.arms if arm.arm != "scratch"] or [baseline]
    figures = {f"efficiency {arm.arm}": draw_efficiency(arm, baseline, limits) for arm in arms}
    figures |= {f"free energy {layer.name}": draw_free_energy(layer) for layer in content.layers if layer.curves}
    watched = [layer for layer in content.layers if "pseudo_likelihood" in layer.curves]
    figures |= {f"likelihood {layer.name}": draw_likelihood(layer) for layer in watched}
    if content.sweep is not None and content.sweep.trials:
        figures["sweep"] = draw_sweep(content.sweep.trials)
    figures["reliability"] = draw_reliability(content.final.reliability)
    return figures


class Forest:
    """Places differences on one axis of 0..100 for the small intervals inside the table of comparisons."""

    def __init__(self, low: float, high: float) -> None:
        self._low, self._span = low, high - low

    @classmethod
    def over(cls, rows: Sequence[Difference]) -> "Forest":
        """An axis that holds every interval and zero, with a margin."""
        ends = [end for row in rows for end in (row.low, row.high, row.value, 0.0) if end is not None]
        low, high = min(ends, default=0.0), max(ends, default=0.0)
        margin = max(0.04 * (high - low), 1e-3)
        return cls(low - margin, high + margin)

    def at(self, value: float) -> str:
        return self.width(value - self._low)

    def width(self, value: float) -> str:
        return f"{100 * value / self._span:.2f}"


def say_percent(share: float | None, digits: int = 1) -> str:
    return NO_VALUE if share is None else f"{100 * share:.{digits}f} %"


def embed_picture(picture: Picture) -> str:
    """A png or svg file as a data URI."""
    kind = "svg+xml" if picture.path.suffix == ".svg" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(picture.path.read_bytes()).decode()}"


def most_confused(content: Content) -> list[Confusion]:
    """True class, predicted class, images: the most frequent errors first."""
    final = content.final
    errors = [
        (actual, predicted, final.confusion[row][column])
        for row, actual in enumerate(final.classes)
        for column, predicted in enumerate(final.classes)
        if row != column and final.confusion[row][column]
    ]
    return sorted(errors, key=lambda error: -error[2])[:LISTED_CONFUSIONS]


def _all_differences(content: Content) -> list[Difference]:
    verdict = content.verdict
    arms = [*verdict.arms, *([verdict.alone] if verdict.alone else [])]
    return [row for arm in arms for row in arm.differences]
