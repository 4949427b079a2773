"""How well clusters match classes: accuracy under the best matching, mutual information, adjusted Rand index."""

# N rows, K classes or clusters

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

Labels = npt.NDArray[np.integer]


def cluster_accuracy(clusters: Labels, labels: Labels) -> float:
    """Share of rows whose cluster is matched to their class, by the one-to-one matching that makes it largest."""
    if len(clusters) != len(labels) or len(labels) == 0:
        raise ValueError(f"clusters need one label each, got {len(clusters)} clusters and {len(labels)} labels")
    counts = np.zeros((int(clusters.max()) + 1, int(labels.max()) + 1), dtype=np.int64)
    np.add.at(counts, (clusters, labels), 1)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    return float(counts[rows, columns].sum() / len(labels))


def cluster_scores(clusters: Labels, labels: Labels) -> dict[str, float]:
    """acc in [0, 1], nmi (arithmetic mean of the entropies) in [0, 1], ari, 0 on average for clusters by chance."""
    return {
        "acc": cluster_accuracy(clusters, labels),
        "nmi": float(normalized_mutual_info_score(labels, clusters)),
        "ari": float(adjusted_rand_score(labels, clusters)),
    }
