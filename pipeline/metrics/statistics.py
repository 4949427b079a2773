"""Paired comparisons over few seeds and many test examples: estimates, intervals that cover, p-values, Holm.

A result is a matrix x_SN: seed s (its label subset, initialisation and batches) by test example n, both random draws.
The interval speaks about new seeds and new test images, so both are resampled, crossed (Owen 2007, "The pigeonhole
bootstrap"). Three corrections make it cover with 3 to 5 seeds, where the plain percentile interval does not:

1. Width: the resampled means are rescaled to the unbiased variance of a two-way random-effects layout. The plain
   crossed bootstrap is (S-1)/S too narrow in the seeds and counts their interaction with the examples three times.
2. Tails: normal quantiles are mapped to Student's t with Satterthwaite's degrees of freedom, near S - 1 where seeds are
   the noise and large where examples are.
   The interval is symmetric, because the skewness of so few seeds is noise.
3. Rare disagreements: normal noise of one test example is added, the size of Agresti and Min's (2005) adjustment
   for paired proportions, so that models that agree on all of this test set do not claim to agree everywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

# S seeds, N examples, P distinct columns, R resamples

Floats = npt.NDArray[np.float64]
Correct = npt.NDArray[np.bool_]
Matrix = npt.NDArray[Any]

ENTRIES_AT_ONCE = 4_000_000
"""Bound on the resampled counts held in memory: 32 MB."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval and the two-sided p-value against zero; None where one seed cannot give them."""

    value: float
    low: float | None
    high: float | None
    p: float | None
    seeds: int


def compare_paired(
    correct_SN: Correct, baseline_SN: Correct, *, confidence: float, resamples: int, rng: np.random.Generator
) -> Estimate:
    """Difference in accuracy between two sets of models, paired by seed (rows) and test example (columns).

    Both (S, N), True where a model is right.  Returns a difference in [-1, 1].
    """
    if correct_SN.shape != baseline_SN.shape:
        raise ValueError(f"paired matrices must have one shape, got {correct_SN.shape} and {baseline_SN.shape}")
    difference = correct_SN.astype(np.int8) - baseline_SN.astype(np.int8)
    return estimate_mean(difference, confidence=confidence, resamples=resamples, rng=rng)


def estimate_mean(x_SN: Matrix, *, confidence: float, resamples: int, rng: np.random.Generator) -> Estimate:
    """The mean over seeds and examples with the interval described on top of this file.

    x_SN: (S, N) with few distinct values, such as 0 and 1.  Interval and p agree: the interval misses zero exactly
    when p < 1 - confidence, up to one resample.
    """
    S, N = x_SN.shape
    value = float(x_SN.mean())
    if S == 1:
        return Estimate(value, None, None, None, seeds=1)
    error, freedom = compute_standard_error(x_SN)
    deviations_R = resample_means(x_SN, resamples, rng) - value
    spread = deviations_R.std()
    if spread > 0:
        deviations_R *= error / spread
    deviations_R += rng.normal(0, 1 / N, resamples)
    total = np.hypot(error, 1 / N)
    sizes_R = total * _to_student(np.abs(deviations_R) / total, freedom)
    half_width = float(np.quantile(sizes_R, confidence))
    p = (int(np.count_nonzero(sizes_R >= abs(value))) + 1) / (resamples + 1)
    return Estimate(value, value - half_width, value + half_width, p, seeds=S)


def compute_standard_error(x_SN: Matrix) -> tuple[float, float]:
    """Standard error of the mean of x = mu + seed + example + rest, all random, and its degrees of freedom.

    From the mean squares of the two-way layout; a negative variance component counts as zero. The degrees of freedom
    are Satterthwaite's, S - 1 where x does not vary.  Needs S, N >= 2.
    """
    S, N = x_SN.shape
    x = x_SN.astype(np.float64)
    seeds, examples, mean = x.mean(axis=1), x.mean(axis=0), x.mean()
    rest = x - seeds[:, None] - examples + mean
    square_rest = (rest**2).sum() / ((S - 1) * (N - 1))
    square_seeds = max(N * seeds.var(ddof=1), square_rest)
    square_examples = max(S * examples.var(ddof=1), square_rest)
    square = square_seeds + square_examples - square_rest
    if square <= 0:
        return 0.0, float(S - 1)
    uncertainty = square_seeds**2 / (S - 1) + square_examples**2 / (N - 1) + square_rest**2 / ((S - 1) * (N - 1))
    return float(np.sqrt(square / (S * N))), float(square**2 / uncertainty)


def resample_means(x_SN: Matrix, resamples: int, rng: np.random.Generator) -> Floats:
    """(R,) means of x with seeds and, independently of them, examples drawn with replacement.

    Equal columns are drawn as one with their count: the same distribution, and a hundred times fewer numbers.
    """
    S, N = x_SN.shape
    patterns_SP, counts_P = np.unique(x_SN, axis=1, return_counts=True)
    patterns_SP = patterns_SP.astype(np.float64)
    means: list[Floats] = []
    left = resamples
    while left > 0:
        size = min(left, max(1, ENTRIES_AT_ONCE // len(counts_P)))
        seeds_RS = rng.multinomial(S, np.full(S, 1 / S), size)
        examples_RP = rng.multinomial(N, counts_P / N, size)
        means.append(((seeds_RS @ patterns_SP) * examples_RP).sum(axis=1) / (S * N))
        left -= size
    return np.concatenate(means)


def compare_two_models(correct_N: Correct, baseline_N: Correct, *, confidence: float) -> Estimate:
    """Difference in accuracy of two single models on one test set, with McNemar's exact p-value.

    It speaks about these two models and new test images, not about training them again. The interval is, on each side,
    the wider of two: Clopper and Pearson's for the share of disagreements that the first model wins, so that it misses
    zero only where p < 1 - confidence, and Agresti and Min's (2005), which covers when disagreements are rare.
    """
    wins = int(np.count_nonzero(correct_N & ~baseline_N))
    losses = int(np.count_nonzero(baseline_N & ~correct_N))
    total, N = wins + losses, len(correct_N)
    p = min(1.0, 2 * float(stats.binom.cdf(min(wins, losses), total, 0.5)))
    alpha = 1 - confidence
    lowest_share = float(stats.beta.ppf(alpha / 2, wins, losses + 1)) if wins else 0.0
    highest_share = float(stats.beta.isf(alpha / 2, wins + 1, losses)) if losses else 1.0
    # Half an image is added to each of the four cells of the table of agreement.
    centre = (wins - losses) / (N + 2)
    half_width = float(stats.norm.isf(alpha / 2)) * np.sqrt((total + 1) / (N + 2) - centre**2) / np.sqrt(N + 2)
    low = min((2 * lowest_share - 1) * total / N, float(centre - half_width))
    high = max((2 * highest_share - 1) * total / N, float(centre + half_width))
    return Estimate((wins - losses) / N, low, high, p, seeds=1)


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for all of them being looked at together   (Holm 1979): reject where the result is < alpha."""
    order = np.argsort(p_values, kind="stable")
    stepped = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return [float(p) for p in adjusted]


def _to_student(size_R: Floats, freedom: float) -> Floats:
    """Absolute standard normal deviates -> those of Student's t at the same tail probability."""
    return np.asarray(stats.t.isf(stats.norm.sf(size_R), freedom))
