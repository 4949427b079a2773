"""A score with its interval: Wilson for rates, a bootstrap for means, a jackknife for anything smooth."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]

Z_95 = 1.959964
"""Normal quantile of a two-sided 95 % interval."""
RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True)
class Score:
    """value with a 95 % interval.  warning: why it should be read with care, empty if there is no reason."""

    value: float
    low: float
    high: float
    warning: str = ""

    def as_floats(self) -> dict[str, float]:
        """value, low, high, and warned: 1.0 with a warning, else 0.0."""
        return {"value": self.value, "low": self.low, "high": self.high, "warned": float(bool(self.warning))}


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A lower bound on the mean log p(x), in nats.

    standard_error: of the draws of the hidden states. low, high: the 95 % interval with that error and, where there is
    one, the estimate's of log Z; the images are taken as given.
    """

    value: float
    low: float
    high: float
    standard_error: float
    num_samples: int


def check_features(name: str, rows: Floats, minimum: int) -> None:
    """Raises ValueError unless `rows` is a matrix of finite values with at least `minimum` rows."""
    if rows.ndim != 2 or len(rows) < minimum:
        raise ValueError(
            f"{name} must be a matrix with at least {minimum} rows, got shape {rows.shape}: give more images"
        )
    if not np.isfinite(rows).all():
        raise ValueError(f"{name} has values that are not finite: the model that made these images has diverged")


def score_rate(hits: npt.ArrayLike, *, warning: str = "") -> Score:
    """The share of images that hit, with Wilson's (1927) interval: not of width zero even at a rate of 0 or 1."""
    count, rate, z = np.size(hits), float(np.asarray(hits, np.float64).mean()), Z_95
    centre = (rate + z**2 / (2 * count)) / (1 + z**2 / count)
    spread = z * (rate * (1 - rate) / count + z**2 / (4 * count**2)) ** 0.5 / (1 + z**2 / count)
    return Score(value=rate, low=max(0.0, centre - spread), high=min(1.0, centre + spread), warning=warning)


def score_difference(one: Score, other: Score) -> Score:
    """one - other of two rates with Wilson's intervals: Newcombe's (1998) hybrid interval, method 10."""
    value = one.value - other.value
    down = ((one.value - one.low) ** 2 + (other.high - other.value) ** 2) ** 0.5
    up = ((one.high - one.value) ** 2 + (other.value - other.low) ** 2) ** 0.5
    return Score(value=value, low=value - down, high=value + up, warning=one.warning or other.warning)


def score_mean(items: Floats, rng: np.random.Generator, *, warning: str = "") -> Score:
    """The mean of one value per image with its percentile bootstrap interval over images."""
    index = rng.integers(0, len(items), (RESAMPLES, len(items)))
    low, high = np.quantile(np.asarray(items, np.float64)[index].mean(axis=1), (0.025, 0.975))
    return Score(value=float(np.mean(items)), low=float(low), high=float(high), warning=warning)


def jackknife_variance(num_groups: int, estimate_without: Callable[[int], float]) -> float:
    """Variance of an estimate from its values with one of `num_groups` equal groups of images left out."""
    values = np.array([estimate_without(group) for group in range(num_groups)])
    return float((num_groups - 1) * values.var())
