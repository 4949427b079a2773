"""A score with its interval, and the two ways to get one: a bootstrap of means, a jackknife of anything smooth."""

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


def check_features(name: str, rows: Floats, minimum: int) -> None:
    """Raises ValueError unless `rows` is a matrix of finite values with at least `minimum` rows."""
    if rows.ndim != 2 or len(rows) < minimum:
        raise ValueError(
            f"{name} must be a matrix with at least {minimum} rows, got shape {rows.shape}: give more images"
        )
    if not np.isfinite(rows).all():
        raise ValueError(f"{name} has values that are not finite: the model that made these images has diverged")


def score_mean(items: Floats, rng: np.random.Generator, *, warning: str = "") -> Score:
    """The mean of one value per image with its percentile bootstrap interval over images."""
    index = rng.integers(0, len(items), (RESAMPLES, len(items)))
    low, high = np.quantile(np.asarray(items, np.float64)[index].mean(axis=1), (0.025, 0.975))
    return Score(value=float(np.mean(items)), low=float(low), high=float(high), warning=warning)


def jackknife_variance(num_groups: int, estimate_without: Callable[[int], float]) -> float:
    """Variance of an estimate from its values with one of `num_groups` equal groups of images left out."""
    values = np.array([estimate_without(group) for group in range(num_groups)])
    return float((num_groups - 1) * values.var())
