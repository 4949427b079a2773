"""From estimates to words: does an arm help, hurt, or do nothing that this study could measure?"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.metrics.statistics import Correct, Estimate, adjust_holm, compare_paired

HELPS, HURTS, NO_EFFECT, UNJUDGED = "helps", "hurts", "no measurable effect", "cannot be judged"
LEANS_UP, LEANS_DOWN = "leans to helping", "leans to hurting"
MARKS = {HELPS: "▲", HURTS: "▼", LEANS_UP: "△", LEANS_DOWN: "▽", NO_EFFECT: "·", UNJUDGED: "?"}
MORE_SEEDS = "raise data.label_draws to 3 or more"
MINUS = "\N{MINUS SIGN}"

ARM_NAMES = {
    "scratch": "from scratch",
    "classical": "classical augmentation",
    "cdbn": "CDBN pretraining",
    "vae": "VAE samples",
    "gan": "GAN samples",
    "scratch_probabilistic": "unpretrained CDBN network",
}
CONTROLS = ("scratch", "scratch_probabilistic")
"""Arms that nobody would choose for themselves: the others are measured against them."""

Key = tuple[str, int]
"""Arm and label budget."""


@dataclass(frozen=True)
class Comparison:
    """One arm against a baseline at one label budget.  adjusted_p: Holm-corrected; None with one seed."""

    arm: str
    baseline: str
    budget: int
    estimate: Estimate
    adjusted_p: float | None
    verdict: str


def name_pair(arm: str, baseline: str) -> str:
    """What a comparison measures, at most 31 characters."""
    return ARM_NAMES[arm] if baseline == "scratch" else "pretraining alone, same network"


def judge_study(
    correct: Mapping[Key, Correct],
    *,
    confidence: float,
    negligible: float,
    resamples: int,
    make_rng: Callable[[str, str, int], np.random.Generator],
) -> list[Comparison]:
    """Every arm against scratch, and pretraining against its own network unpretrained, at every budget.

    correct: (S, N) by arm and budget, rows paired by seed.  make_rng: a generator for (arm, baseline, budget).
    Raises ValueError when so few resamples could never call so many comparisons significant.
    """
    arms = list(dict.fromkeys(arm for arm, _ in correct))
    budgets = sorted({budget for _, budget in correct})
    pairs = [(arm, "scratch") for arm in arms if arm != "scratch"]
    if {"cdbn", "scratch_probabilistic"} <= set(arms):
        pairs.append(("cdbn", "scratch_probabilistic"))
    family = len(pairs) * len(budgets)
    if family / (resamples + 1) >= 1 - confidence:
        least = math.ceil(family / (1 - confidence))
        raise ValueError(
            f"evaluate.resamples must be >= {least} for {family} comparisons at confidence {confidence}, "
            f"got {resamples}: set it in params.yaml"
        )
    found = []
    for arm, baseline in pairs:
        for budget in budgets:
            estimate = compare_paired(
                correct[arm, budget],
                correct[baseline, budget],
                confidence=confidence,
                resamples=resamples,
                rng=make_rng(arm, baseline, budget),
            )
            found.append(Comparison(arm, baseline, budget, estimate, None, UNJUDGED))
    return _with_verdicts(found, confidence=confidence, negligible=negligible)


def _with_verdicts(found: list[Comparison], *, confidence: float, negligible: float) -> list[Comparison]:
    p_values = [row.estimate.p for row in found if row.estimate.p is not None]
    if len(p_values) < len(found):
        return found
    return [
        replace(row, adjusted_p=p, verdict=judge(row.estimate, p, confidence=confidence, negligible=negligible))
        for row, p in zip(found, adjust_holm(p_values), strict=True)
    ]


def judge(estimate: Estimate, adjusted_p: float | None, *, confidence: float, negligible: float) -> str:
    """helps or hurts where the interval misses zero, the corrected p agrees and the difference exceeds `negligible`."""
    if estimate.low is None or estimate.high is None or adjusted_p is None:
        return UNJUDGED
    measurable = adjusted_p < 1 - confidence and abs(estimate.value) > negligible
    if measurable and estimate.low > 0:
        return HELPS
    if measurable and estimate.high < 0:
        return HURTS
    return NO_EFFECT


def shade(verdict: str, low: float | None, high: float | None) -> str:
    """The verdict, or which way it leans: no measurable effect once corrected, though its own interval misses zero."""
    if verdict != NO_EFFECT or low is None or high is None or low <= 0 <= high:
        return verdict
    return LEANS_UP if low > 0 else LEANS_DOWN


def say_comparison(row: Comparison, *, confidence: float, negligible: float) -> str:
    """A sentence such as "CDBN pretraining helps with 50 labels: +3.2 points (95 % interval +1.0 to +5.4, 4 seeds)"."""
    name, labels = ARM_NAMES[row.arm], say_labels([row.budget])
    against = "" if row.baseline == "scratch" else f" against the {ARM_NAMES[row.baseline]}"
    size = say_estimate(row.estimate, confidence=confidence)
    if row.verdict == UNJUDGED:
        return f"{name} with {labels}{against} {UNJUDGED} ({size}): {MORE_SEEDS}"
    if row.verdict != NO_EFFECT:
        return f"{name} {row.verdict} with {labels}{against}: {size}"
    return f"{name} with {labels}{against}: no measurable effect, {size}{_why_none(row.estimate, negligible)}"


def _why_none(estimate: Estimate, negligible: float) -> str:
    """Why an interval that misses zero still counts as no effect; empty where it holds zero."""
    if estimate.low is None or estimate.high is None or estimate.low <= 0 <= estimate.high:
        return ""
    if abs(estimate.value) <= negligible:
        return f"; too small to matter (within {100 * negligible:g} points)"
    return "; the interval misses zero, but not once corrected for the number of comparisons"


def say_estimate(estimate: Estimate, *, confidence: float) -> str:
    seeds = f"{estimate.seeds} seed{'s' if estimate.seeds > 1 else ''}"
    if estimate.low is None or estimate.high is None:
        return f"{say_points(estimate.value)} points, {seeds}"
    interval = f"{100 * confidence:g} % interval {say_points(estimate.low)} to {say_points(estimate.high)}"
    return f"{say_points(estimate.value)} points ({interval}, {seeds})"


def say_points(difference: float) -> str:
    """A difference in accuracy as points with its sign: +3.2, 0.0."""
    points = round(100 * difference, 1)
    return f"{abs(points):.1f}" if points == 0 else f"{'+' if points > 0 else MINUS}{abs(points):.1f}"


def say_p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"


def say_labels(budgets: Sequence[int]) -> str:
    """50 labels; 50 and 1,000 labels; 50, 200 and 1,000 labels."""
    return f"{_join([f'{budget:,}' for budget in budgets])} labels"


def say_headline(rows: Iterable[Comparison], *, confidence: float) -> str:
    """The one sentence to remember: the largest help at the smallest budget where anything helps, or that none was."""
    against_scratch = [row for row in rows if row.baseline == "scratch" and row.arm not in CONTROLS]
    if not against_scratch:
        return "Only controls were studied: there is nothing to judge."
    if any(row.verdict == UNJUDGED for row in against_scratch):
        return f"One seed cannot tell an effect from luck: {MORE_SEEDS}."
    helpful = [row for row in against_scratch if row.verdict == HELPS]
    if helpful:
        smallest = min(row.budget for row in helpful)
        candidates = [row for row in helpful if row.budget == smallest]
        best = max(candidates, key=lambda row: row.estimate.value)
        most = " most" if len(candidates) > 1 else ""
        size = say_estimate(best.estimate, confidence=confidence)
        return f"With {best.budget:,} labels, {ARM_NAMES[best.arm]} helps{most}: {size}."
    harmful = list(dict.fromkeys(ARM_NAMES[row.arm] for row in against_scratch if row.verdict == HURTS))
    if harmful:
        return f"Nothing helps measurably at any label budget, and {_join(harmful)} can hurt."
    return "Nothing has a measurable effect at any label budget."


def say_models(
    estimate: Estimate, *, arm: str, accuracy: float, baseline: float, images: int, confidence: float
) -> str:
    """Two single models, each trained once on all labels: what can be said about them, and no more."""
    right = f"{100 * accuracy:.1f} % of {images:,} test images right"
    if arm == "scratch":
        return f"The recipe that won on validation data is training from scratch: with all labels it gets {right}."
    assert estimate.low is not None
    assert estimate.high is not None
    assert estimate.p is not None
    measurable = "a measurable" if estimate.low > 0 or estimate.high < 0 else "no measurable"
    interval = f"{100 * confidence:g} % interval {say_points(estimate.low)} to {say_points(estimate.high)}"
    return (
        f"With all labels, {ARM_NAMES[arm]} gets {right}, training from scratch {100 * baseline:.1f} %: {measurable} "
        f"difference, "
        f"{say_points(estimate.value)} points ({interval}, McNemar p {say_p(estimate.p)}, one model each)."
    )


def say_arm(rows: Sequence[Comparison]) -> str:
    """One line over one arm's budgets: helps with 50 labels; no measurable effect with 200 labels."""
    parts = []
    for verdict in (HELPS, HURTS, NO_EFFECT, UNJUDGED):
        budgets = [row.budget for row in rows if row.verdict == verdict]
        if len(budgets) == len(rows) > 1:
            return f"{verdict} at any label budget"
        if budgets:
            parts.append(f"{verdict} with {say_labels(budgets)}")
    return "; ".join(parts)


def _join(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]
