"""Probabilistic PCA (Tipping & Bishop 1999), one per class: the Gaussian that a generator has to beat."""

# N rows, D dimensions, Q principal directions

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.metrics.score import Floats, check_features

Labels = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Ppca:
    """x = mean + W z + sqrt(variance) e, with z ~ N(0, I_Q), e ~ N(0, I_D)."""

    mean: Floats
    """(D,)."""
    weights: Floats
    """W, (D, Q)."""
    variance: float
    """Of the noise, per dimension."""

    def sample(self, count: int, rng: np.random.Generator, *, noise: bool = True) -> Floats:
        """(count, D).  noise=False leaves e out: the means, as a VAE's decoder gives them."""
        x = self.mean + rng.standard_normal((count, self.weights.shape[1])) @ self.weights.T
        return x + self.variance**0.5 * rng.standard_normal(x.shape) if noise else x


def fit_ppca(rows_ND: Floats, num_components: int) -> Ppca:
    """Maximum likelihood (Tipping & Bishop 1999, eqs. 7-8): W = U_Q (L_Q - variance I)^(1/2), variance the mean of the
    discarded eigenvalues of the sample covariance.  At most N - 1 components, the rank of the covariance.
    """
    check_features("rows of a probabilistic PCA", rows_ND, 1)
    count, dimensions = rows_ND.shape
    kept = min(num_components, count - 1, dimensions - 1)
    mean = rows_ND.mean(axis=0)
    _, singular, directions = np.linalg.svd((rows_ND - mean) / count**0.5, full_matrices=False)
    eigenvalues = np.square(singular)
    variance = float(eigenvalues[kept:].sum() / (dimensions - kept))
    weights = directions[:kept].T * np.sqrt((eigenvalues[:kept] - variance).clip(0))
    return Ppca(mean, weights, variance)


def class_ppca_samples(
    rows_ND: Floats,
    labels: Labels,
    wanted: Labels,
    rng: np.random.Generator,
    *,
    num_components: int = 20,
    noise: bool = False,
) -> Floats:
    """One row in [0, 1] per wanted label from that class's PPCA, (len(wanted), D); values outside are clipped.

    Without noise by default: the harder baseline for blurry means.  Raises ValueError for a wanted class without rows.
    """
    samples = np.empty((len(wanted), rows_ND.shape[1]), dtype=rows_ND.dtype)
    for label in np.unique(wanted):
        own = rows_ND[labels == label]
        if len(own) == 0:
            raise ValueError(f"class {label} has no real image, so no Gaussian: leave it out or label at least one")
        places = wanted == label
        samples[places] = fit_ppca(own, num_components).sample(int(places.sum()), rng, noise=noise).clip(0, 1)
    return samples
