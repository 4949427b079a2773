"""Baselines of anomaly detection on rows of numbers: 1-NN, what principal components leave over, isolation forest."""

# N normal rows, B rows, D columns

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from sklearn.ensemble import IsolationForest

from pipeline.models.detectors import neighbour_distance
from pipeline.seeding import derive_seed

COMPONENTS = 30
ROWS_AT_ONCE = 1000

Floats = npt.NDArray[np.floating]
Baseline = Callable[[Floats], npt.NDArray[np.float64]]
"""(B, D) -> (B,), larger is stranger."""


def fit_baselines(normal_ND: Floats, *, seed: int, num_components: int = COMPONENTS) -> dict[str, Baseline]:
    """By name.  num_components: of PCA."""
    forest = IsolationForest(random_state=derive_seed(seed, "isolation forest") % 2**32).fit(normal_ND)
    return {
        "nearest_neighbour": nearest_neighbour(normal_ND),
        "pca": pca_residual(normal_ND, num_components),
        "isolation_forest": lambda rows_BD: -forest.score_samples(rows_BD),
    }


def nearest_neighbour(normal_ND: Floats) -> Baseline:
    """Distance to the nearest normal row."""
    bank_ND = torch.from_numpy(np.asarray(normal_ND, np.float32))

    def score(rows_BD: Floats) -> npt.NDArray[np.float64]:
        parts = torch.from_numpy(np.asarray(rows_BD, np.float32)).split(ROWS_AT_ONCE)
        return torch.cat([neighbour_distance(part, bank_ND, 1) for part in parts]).double().numpy()

    return score


def pca_residual(normal_ND: Floats, num_components: int) -> Baseline:
    """Squared distance to the plane through the mean along the leading principal components."""
    mean_D = np.mean(normal_ND, axis=0, dtype=np.float64)
    axes_DP = principal_axes(normal_ND)[0][:, :num_components]

    def score(rows_BD: Floats) -> npt.NDArray[np.float64]:
        centred_BD = rows_BD - mean_D
        return np.asarray(np.square(centred_BD).sum(1) - np.square(centred_BD @ axes_DP).sum(1))

    return score


def principal_axes(normal_ND: Floats) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Unit vectors in columns (D, D) and the variances along them (D,), largest first."""
    centred_ND = normal_ND - np.mean(normal_ND, axis=0, dtype=np.float64)
    variances_D, axes_DD = np.linalg.eigh(centred_ND.T @ centred_ND / len(centred_ND))
    return axes_DD[:, ::-1], variances_D[::-1]


def count_components(normal_ND: Floats, share: float) -> int:
    """The fewest principal components that hold `share` of the variance."""
    variances_D = principal_axes(normal_ND)[1]
    return int(np.searchsorted(np.cumsum(variances_D) / variances_D.sum(), share - 1e-9)) + 1
