"""A graph of neighbours over a pool, built once, along which any number of label sets spread.

Spreading: Zhou et al. (2003), Learning with local and global consistency. Weights: Zelnik-Manor and Perona (2004),
Self-tuning spectral clustering.
"""

# N images, K classes

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix, diags
from sklearn.neighbors import kneighbors_graph

from pipeline.data.arrays import Indices, Labels

NEIGHBOURS = 7
SPREADING_STEPS = 100
"""The change shrinks by alpha a step: at 0.99 to a third, and what is left moves labels of the farthest images only."""

Floats = npt.NDArray[np.float32]


def connect_neighbours(features: Floats) -> Any:
    """Symmetric sparse weights exp(-d(i, j)^2 / (s_i s_j)), s the distance to the farthest of the neighbours."""
    count = min(NEIGHBOURS, len(features) - 1)
    graph = kneighbors_graph(features, count, mode="distance").tocoo()
    scale = np.zeros(len(features))
    np.maximum.at(scale, graph.row, graph.data)
    scale = np.maximum(scale, 1e-9)  # copies of one image are at distance 0 from each other
    weights = np.exp(-((graph.data / scale[graph.row]) * (graph.data / scale[graph.col])))
    directed = coo_matrix((weights, (graph.row, graph.col)), shape=graph.shape).tocsr()
    return directed.maximum(directed.T).tocoo()


def normalise_graph(weights: Any) -> Any:
    """D^-1/2 W D^-1/2 with the degrees D of the sparse weights W: (N, N) float32, eigenvalues in [-1, 1]."""
    root = np.sqrt(np.maximum(np.asarray(weights.sum(axis=1)).ravel(), 1e-12))
    return (diags(1 / root) @ weights @ diags(1 / root)).tocsr().astype(np.float32)


def spread_shares(graph: Any, given_NK: Floats, *, alpha: float, steps: int = SPREADING_STEPS) -> Floats:
    """`steps` times F <- alpha S F + (1 - alpha) Y from F = Y, each row then scaled to sum to 1: (N, K).

    graph: S of `normalise_graph`.  given_NK: Y, what is known or believed of each image; rows of zeros where nothing.
    alpha: in [0, 1), share of an image's label that comes from its neighbours.  A row that no label reaches is 0.
    """
    if not 0 <= alpha < 1:
        raise ValueError(f"alpha must be in [0, 1), got {alpha}: at 1 the given labels are forgotten")
    shares_NK = given_NK
    for _ in range(steps):
        shares_NK = alpha * (graph @ shares_NK) + (1 - alpha) * given_NK
    sums_N1 = np.maximum(shares_NK.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return np.asarray(shares_NK / sums_N1, dtype=np.float32)


def one_hot(labels: Labels, at: Indices, shape: tuple[int, int]) -> Floats:
    """(N, K): 1 for the label of each position in `at`, 0 elsewhere. labels: one for each position."""
    given_NK = np.zeros(shape, dtype=np.float32)
    given_NK[at, labels] = 1
    return given_NK


def choose_confident(shares_NK: Floats, share: float) -> tuple[Indices, Labels]:
    """Rising positions of the surest `share` of each class's images, and the labels they are believed to have.

    shares_NK: rows summing to 1.  share: in (0, 1].  By class, because otherwise the easy classes are all there is.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}: it is the part of each class that is kept")
    labels, confidence = shares_NK.argmax(axis=1), shares_NK.max(axis=1)
    kept = []
    for label in range(shares_NK.shape[1]):
        members = np.flatnonzero((labels == label) & (confidence > 0))
        surest = members[np.argsort(-confidence[members], kind="stable")]
        kept.append(surest[: int(np.ceil(share * len(members)))])
    positions = np.sort(np.concatenate(kept))
    return positions, labels[positions].astype(np.int64)
