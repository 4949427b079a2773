"""What codes know about classes: a linear probe, nearest neighbours, and clusters found without labels."""

# N train rows, M test rows, D features

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KNeighborsClassifier

from pipeline.metrics.clustering import Labels, cluster_scores
from pipeline.metrics.score import Floats, check_features

PROBE_STEPS = 100
STARTS = 3
"""Of k-means and of the mixture; the one with the best objective is kept."""
MIXTURE_FLOOR = 1e-3
"""Added to variances of standardised codes."""
MOST_MIXTURE_DIMENSIONS = 64
"""Above these a full covariance a cluster is not fitted."""


@dataclass(frozen=True)
class Codes:
    """train: (N, D), test: (M, D), with their labels. Clusters are found in all train rows, labelled or not."""

    train: Floats
    train_labels: Labels
    test: Floats
    test_labels: Labels

    def __post_init__(self) -> None:
        check_features("codes of the train images", self.train, 2)
        check_features("codes of the test images", self.test, 1)


def classify(codes: Codes) -> dict[str, float]:
    """Shares of test rows in [0, 1] that are classified rightly: linear, nn1, nn3."""
    return {"linear": linear_accuracy(codes), **{f"nn{k}": neighbour_accuracy(codes, k) for k in (1, 3)}}


def cluster(codes: Codes, num_clusters: int, seed: int) -> dict[str, float]:
    """acc, nmi and ari on the test rows of k-means and, where D allows, of a GMM, both found in the train rows."""
    means = KMeans(num_clusters, n_init=STARTS, random_state=seed).fit(codes.train).predict(codes.test)
    scores = _named("kmeans", cluster_scores(means, codes.test_labels))
    if codes.train.shape[1] <= MOST_MIXTURE_DIMENSIONS:
        found = fit_mixture(codes.train, num_clusters, seed).predict(codes.test)
        scores |= _named("gmm", cluster_scores(found, codes.test_labels))
    return scores


def linear_accuracy(codes: Codes) -> float:
    """Of a logistic regression on standardised codes (C = 1)."""
    known = codes.train_labels >= 0
    mean, std = codes.train.mean(0), codes.train.std(0) + 1e-6
    model = LogisticRegression(max_iter=PROBE_STEPS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopping early is one more penalty
        model.fit((codes.train[known] - mean) / std, codes.train_labels[known])
    return float(model.score((codes.test - mean) / std, codes.test_labels))


def neighbour_accuracy(codes: Codes, k: int) -> float:
    """Of the vote of the k nearest labelled train rows; codes are not standardised."""
    known = codes.train_labels >= 0
    model = KNeighborsClassifier(k, algorithm="brute").fit(codes.train[known], codes.train_labels[known])
    return float(model.score(codes.test, codes.test_labels))


def fit_mixture(rows: Floats, num_clusters: int, seed: int, *, covariance: str = "full") -> GaussianMixture:
    """Of `STARTS` mixtures that start from k-means the likeliest one."""
    model = GaussianMixture(
        num_clusters, covariance_type=covariance, n_init=STARTS, reg_covar=MIXTURE_FLOOR, random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(np.asarray(rows, np.float64))


def pca_codes(train: Floats, test: Floats, size: int) -> tuple[Floats, Floats]:
    """Principal components of the train rows, (N, size) and (M, size)."""
    mean = train.mean(0)
    centred = train - mean
    _, directions = np.linalg.eigh(centred.T @ centred)
    components = directions[:, ::-1][:, :size]
    return centred @ components, (test - mean) @ components


def _named(prefix: str, scores: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}_{name}": value for name, value in scores.items()}
