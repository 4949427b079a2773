"""How well scores tell anomalies from normal rows: AUROC, AUPRC, and a threshold that normal rows alone decide."""

# N normal rows, M rows to judge; a larger score is stranger

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Floats = npt.NDArray[np.floating]
Flags = npt.NDArray[np.bool_]


def compute_auroc(scores_M: Floats, anomalous_M: Flags) -> float:
    """P(an anomaly scores above a normal row), ties counted half (Mann & Whitney 1947): 0.5 is chance."""
    _check(scores_M, anomalous_M)
    num = int(anomalous_M.sum())
    ranks_M = rankdata(scores_M)
    return float((ranks_M[anomalous_M].sum() - num * (num + 1) / 2) / (num * (len(scores_M) - num)))


def compute_auprc(scores_M: Floats, anomalous_M: Flags) -> float:
    """Average precision, the sum over thresholds of precision times gain in recall; chance: the share of anomalies."""
    _check(scores_M, anomalous_M)
    order = np.argsort(-scores_M, kind="stable")
    hits = np.cumsum(anomalous_M[order])
    last = np.append(np.diff(scores_M[order]) != 0, True)  # of rows with equal scores: they are flagged together
    precision, recall = hits[last] / (np.flatnonzero(last) + 1), hits[last] / hits[-1]
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def normal_threshold(normal_N: Floats, false_positive_rate: float) -> float:
    """The score that a new normal row exceeds with at most this probability, whatever the scores' distribution.

    The k-th smallest of N normal rows that no model learned from, k = ceil((N + 1) (1 - rate)): a new row is above it
    with probability 1 - k / (N + 1) (Vovk et al. 2005, conformal prediction).  Raises ValueError if N < 1 / rate - 1.
    """
    num, needed = len(normal_N), rows_needed(false_positive_rate)
    if num < needed:
        raise ValueError(
            f"anomaly.false_positive_rate {false_positive_rate} needs at least {needed} held-out normal rows, got "
            f"{num}: raise it, or give more rows"
        )
    return float(np.sort(normal_N)[int(np.ceil((num + 1) * (1 - false_positive_rate) - 1e-9)) - 1])


def rows_needed(false_positive_rate: float) -> int:
    """Held-out normal rows that a threshold for this rate takes: 19 for 0.05."""
    return int(np.ceil(1 / false_positive_rate - 1e-9)) - 1


@dataclass(frozen=True)
class Scale:
    """Mean and deviation of a score over normal rows that no model learned from."""

    mean: float
    std: float

    @staticmethod
    def of(normal_N: Floats) -> "Scale":
        return Scale(float(np.mean(normal_N)), max(float(np.std(normal_N)), 1e-12))

    def apply(self, scores: Floats) -> npt.NDArray[np.float64]:
        return np.asarray((scores - self.mean) / self.std, np.float64)


def combine_scores(normal_SN: Sequence[Floats], scores_SM: Sequence[Floats]) -> npt.NDArray[np.float64]:
    """The mean of S scores, each in deviations of the normal rows from their mean: (M,). No anomaly is looked at."""
    scaled_SM = [Scale.of(normal).apply(scores) for normal, scores in zip(normal_SN, scores_SM, strict=True)]
    return np.asarray(np.mean(scaled_SM, axis=0))


@dataclass(frozen=True)
class Detection:
    """One detector's rates in [0, 1]. false_positives, true_positives: shares of normal rows and of anomalies above the
    threshold, None where there is none."""

    auroc: float
    auprc: float
    false_positives: float | None
    true_positives: float | None


def judge_scores(scores_M: Floats, anomalous_M: Flags, threshold: float | None) -> Detection:
    flagged = None if threshold is None else scores_M > threshold
    return Detection(
        auroc=compute_auroc(scores_M, anomalous_M),
        auprc=compute_auprc(scores_M, anomalous_M),
        false_positives=None if flagged is None else float(flagged[~anomalous_M].mean()),
        true_positives=None if flagged is None else float(flagged[anomalous_M].mean()),
    )


def _check(scores_M: npt.NDArray[Any], anomalous_M: Flags) -> None:
    if scores_M.shape != anomalous_M.shape or scores_M.ndim != 1:
        raise ValueError(f"scores need one flag a row, got shapes {scores_M.shape} and {anomalous_M.shape}")
    if not np.isfinite(scores_M).all():
        raise ValueError("scores hold values that are not finite: the model that made them has diverged")
    if anomalous_M.all() or not anomalous_M.any():
        raise ValueError("scores of normal rows and of anomalies are needed, got one kind: give rows of both")
