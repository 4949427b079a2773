"""How good a classifier's predicted probabilities are, from log probabilities and true labels.

Every function takes log_probs (N, K), natural logarithms of each row's class probabilities, or its predictions (N,),
and labels (N,) in 0..K-1.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]

# N examples, K classes


@dataclass(frozen=True)
class Scores:
    """accuracy, macro_f1, ece in [0, 1]; nll in nats, >= 0."""

    accuracy: float
    macro_f1: float
    nll: float
    ece: float


@dataclass(frozen=True)
class Bin:
    """One confidence bin (lower, upper]: how many examples fall into it, their mean confidence and their accuracy.

    confidence and accuracy are 0 in an empty bin.
    """

    lower: float
    upper: float
    count: int
    confidence: float
    accuracy: float


def compute_scores(log_probs: Floats, labels: Ints) -> Scores:
    """All four scores.  Raises ValueError where log_probs holds NaN or infinity, or a label is out of range."""
    _check(log_probs, labels)
    confusion = compute_confusion(log_probs.argmax(axis=1), labels, log_probs.shape[1])
    return Scores(
        accuracy=float(np.trace(confusion) / len(labels)),
        macro_f1=compute_macro_f1(confusion),
        nll=compute_nll(log_probs, labels),
        ece=compute_ece(compute_reliability(log_probs, labels)),
    )


def compute_nll(log_probs: Floats, labels: Ints) -> float:
    """Mean of -log p(label), in nats."""
    return float(-log_probs[np.arange(len(labels)), labels].mean(dtype=np.float64))


def compute_confusion(predictions: Ints, labels: Ints, num_classes: int) -> npt.NDArray[np.int64]:
    """(K, K) counts: row the true class, column the predicted one."""
    flat = labels.astype(np.int64) * num_classes + predictions
    return np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)


def compute_macro_f1(confusion: npt.NDArray[np.int64]) -> float:
    """Mean of each class's F1 = 2 TP / (2 TP + FP + FN), over the classes that occur as a label or a prediction."""
    true_positives = np.diagonal(confusion)
    predicted_plus_actual = confusion.sum(axis=0) + confusion.sum(axis=1)
    occurs = predicted_plus_actual > 0
    return float((2 * true_positives[occurs] / predicted_plus_actual[occurs]).mean())


def compute_recall(confusion: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(K,) share of each true class that was found; NaN for a class without examples."""
    actual = confusion.sum(axis=1)
    recall = np.full(len(confusion), np.nan)
    np.divide(np.diagonal(confusion), actual, out=recall, where=actual > 0)
    return recall


def compute_reliability(log_probs: Floats, labels: Ints, num_bins: int = 15) -> list[Bin]:
    """Top-label confidence against accuracy in `num_bins` equally wide bins of (0, 1]   (Guo et al. 2017, sec. 2)."""
    confidence = np.exp(log_probs.max(axis=1).astype(np.float64))
    correct = log_probs.argmax(axis=1) == labels
    edges = np.linspace(0, 1, num_bins + 1)
    # Right-closed bins; clipped because exp of a float32 log probability may exceed 1 by a rounding error.
    index = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, num_bins - 1)
    count = np.bincount(index, minlength=num_bins)
    shared = np.maximum(count, 1)
    mean_confidence = np.bincount(index, weights=confidence, minlength=num_bins) / shared
    accuracy = np.bincount(index, weights=correct, minlength=num_bins) / shared
    return [
        Bin(float(edges[i]), float(edges[i + 1]), int(count[i]), float(mean_confidence[i]), float(accuracy[i]))
        for i in range(num_bins)
    ]


def compute_ece(bins: list[Bin]) -> float:
    """Expected calibration error: the count-weighted mean of |accuracy - confidence|   (Guo et al. 2017, eq. 3)."""
    total = sum(row.count for row in bins)
    return sum(row.count * abs(row.accuracy - row.confidence) for row in bins) / total


def _check(log_probs: Floats, labels: Ints) -> None:
    if len(labels) == 0 or log_probs.shape[0] != len(labels):
        raise ValueError(f"{log_probs.shape[0]} predictions for {len(labels)} labels: give as many, and at least one")
    if not np.isfinite(log_probs).all():
        raise ValueError("log probabilities must be finite, got NaN or infinity: the model that made them has diverged")
    if labels.min() < 0 or labels.max() >= log_probs.shape[1]:
        raise ValueError(f"labels must lie in 0..{log_probs.shape[1] - 1}, got {labels.min()}..{labels.max()}")
