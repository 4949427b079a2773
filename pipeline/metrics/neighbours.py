"""Scores from nearest neighbours: precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al.
2020), the 1-NN classification accuracy score, near-duplicates."""

# N real rows, M synthetic rows, F features

import numpy as np
import numpy.typing as npt

from pipeline.metrics.score import Floats, Score, check_features, score_mean, score_rate

Labels = npt.NDArray[np.integer]

FEW = 100
"""Below this many images on a side, scores from neighbours come with a warning."""


def precision_recall_density_coverage(
    real_NF: Floats, synthetic_MF: Floats, rng: np.random.Generator, *, k: int = 5
) -> dict[str, Score]:
    """How many rows of one set lie in the balls around the other's, whose radii reach to the k-th nearest neighbour.

    precision: share of synthetic rows inside some real ball.  recall: the same with the roles exchanged.  density: real
    balls around a synthetic row, over k; may exceed 1.  coverage: share of real balls with a synthetic row inside.
    Outliers have wide balls, so precision alone praises noise: read it with density and coverage.
    Intervals are over the rows that are counted, the balls held fixed.  Both sets need more than k rows.
    """
    for name, rows in (("real features", real_NF), ("synthetic features", synthetic_MF)):
        check_features(name, rows, k + 1)
    distance_NM = pairwise_distances(real_NF, synthetic_MF)
    in_real_NM = distance_NM < neighbour_radii(real_NF, k)[:, None]
    in_synthetic_NM = distance_NM < neighbour_radii(synthetic_MF, k)[None, :]
    few = min(distance_NM.shape)
    warning = f"{few} images, fewer than {FEW}: coarse" if few < FEW else ""
    return {
        "precision": score_rate(in_real_NM.any(axis=0), warning=warning),
        "recall": score_rate(in_synthetic_NM.any(axis=1), warning=warning),
        "density": score_mean(in_real_NM.sum(axis=0) / k, rng, warning=warning),
        "coverage": score_rate(in_real_NM.any(axis=1), warning=warning),
    }


def nearest_neighbour_accuracy(train_NF: Floats, train_labels: Labels, test_MF: Floats, test_labels: Labels) -> Score:
    """Accuracy on real test rows of the 1-NN classifier trained on synthetic rows: the classification accuracy score
    (Ravuri & Vinyals 2019) without a network to train.  The interval is over test rows.
    """
    check_features("train features", train_NF, 1)
    check_features("test features", test_MF, 1)
    if min(train_labels.min(), test_labels.min()) < 0:
        raise ValueError("nearest_neighbour_accuracy needs a label for every row: leave unlabelled rows out")
    predicted = train_labels[pairwise_distances(test_MF, train_NF).argmin(axis=1)]
    warning = f"{len(test_MF)} test images, fewer than {FEW}: coarse" if len(test_MF) < FEW else ""
    return score_rate(predicted == test_labels, warning=warning)


def duplicate_threshold(real_NF: Floats, *, share: float = 0.01) -> float:
    """The distance below which only `share` of the real rows have another real row."""
    check_features("real features", real_NF, 2)
    return float(np.quantile(neighbour_radii(real_NF, 1), share))


def duplicate_rate(rows: Floats, threshold: float) -> Score:
    """Share of rows with another row nearer than `threshold`: about 0.01 for as many real rows, 1 for a collapsed set.

    Compare sets of equal size only: neighbours come nearer as a set grows.
    """
    check_features("features", rows, 2)
    return score_rate(neighbour_radii(rows, 1) < threshold)


def copy_rate(synthetic_MF: Floats, train_NF: Floats, threshold: float) -> Score:
    """Share of synthetic rows nearer than `threshold` to some training row."""
    check_features("synthetic features", synthetic_MF, 1)
    check_features("train features", train_NF, 1)
    nearest = pairwise_distances(synthetic_MF, train_NF).min(axis=1)
    return score_rate(nearest < threshold)


def neighbour_radii(rows: Floats, k: int) -> Floats:
    """Distance of each row to its k-th nearest other row, (N,)."""
    distance = pairwise_distances(rows, rows)
    np.fill_diagonal(distance, np.inf)
    return np.asarray(np.partition(distance, k - 1, axis=1)[:, k - 1])


def pairwise_distances(a_NF: Floats, b_MF: Floats) -> Floats:
    """Euclidean, (N, M).  Centred first: |a|^2 + |b|^2 - 2 a.b loses digits far from the origin."""
    centre = b_MF.mean(axis=0)
    a_NF, b_MF = a_NF - centre, b_MF - centre
    square = np.square(a_NF).sum(axis=1)[:, None] + np.square(b_MF).sum(axis=1)[None, :] - 2 * a_NF @ b_MF.T
    return np.asarray(np.sqrt(square.clip(0)))
