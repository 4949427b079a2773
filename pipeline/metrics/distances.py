"""Distances between two sets of feature vectors: Fréchet (Heusel et al. 2017) and kernel (Binkowski et al. 2018)."""

# N real rows, M synthetic rows, F features

from dataclasses import dataclass

import numpy as np

from pipeline.metrics.score import Z_95, Floats, Score, check_features, jackknife_variance

UNBIASED_FROM = 2048
"""Below this many images the Fréchet distance reads visibly too high (Chong & Forsyth 2020)."""
NUM_GROUPS = 20
NUM_BLOCKS = 10


def frechet_distance(real_NF: Floats, synthetic_MF: Floats, rng: np.random.Generator) -> Score:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of the two sets' means and covariances.

    The interval comes from a jackknife over 20 groups of either set; it does not remove the bias of few images, which
    the warning names.  Compare only values of equal numbers of images.
    Raises ValueError unless both sets have more rows than features: a singular covariance is no estimate.
    """
    num_features = real_NF.shape[-1]
    for name, rows in (("real features", real_NF), ("synthetic features", synthetic_MF)):
        check_features(name, rows, max(num_features + 1, NUM_GROUPS))
    real, synthetic = _GroupedMoments.of(real_NF, rng), _GroupedMoments.of(synthetic_MF, rng)
    whole_real, whole_synthetic = real.moments(), synthetic.moments()
    value = frechet_between(*whole_real, *whole_synthetic)
    variance = jackknife_variance(NUM_GROUPS, lambda g: frechet_between(*real.moments(g), *whole_synthetic))
    variance += jackknife_variance(NUM_GROUPS, lambda g: frechet_between(*whole_real, *synthetic.moments(g)))
    spread = Z_95 * variance**0.5
    few = min(len(real_NF), len(synthetic_MF))
    warning = f"{few} images, fewer than {UNBIASED_FROM}: reads too high" if few < UNBIASED_FROM else ""
    return Score(value=value, low=max(0.0, value - spread), high=value + spread, warning=warning)


def frechet_between(mean_1: Floats, covariance_1: Floats, mean_2: Floats, covariance_2: Floats) -> float:
    """The distance of two Gaussians (Dowson & Landau 1982).

    By symmetric eigenvalues, never a general matrix root: tr (S1 S2)^(1/2) = tr (S1^(1/2) S2 S1^(1/2))^(1/2) is real.
    """
    eigenvalues, vectors = np.linalg.eigh(covariance_1)
    root = (vectors * np.sqrt(eigenvalues.clip(0))) @ vectors.T
    middle = np.linalg.eigvalsh(root @ covariance_2 @ root).clip(0)
    trace = np.trace(covariance_1) + np.trace(covariance_2) - 2 * np.sqrt(middle).sum()
    return float(max(0.0, np.square(mean_1 - mean_2).sum() + trace))


def kernel_distance(real_NF: Floats, synthetic_MF: Floats, rng: np.random.Generator) -> Score:
    """Unbiased squared MMD with the kernel (x . y / F + 1)^3; zero on average, so at times negative, for equal sources.

    The standard error is that of the mean over 10 disjoint blocks of either set, an upper bound for the whole's.
    """
    for name, rows in (("real features", real_NF), ("synthetic features", synthetic_MF)):
        check_features(name, rows, 2 * NUM_BLOCKS)
    real_NF, synthetic_MF = rng.permutation(real_NF), rng.permutation(synthetic_MF)
    value = squared_mmd(real_NF, synthetic_MF)
    blocks = zip(np.array_split(real_NF, NUM_BLOCKS), np.array_split(synthetic_MF, NUM_BLOCKS), strict=True)
    spread = Z_95 * float(np.std([squared_mmd(x, y) for x, y in blocks], ddof=1)) / NUM_BLOCKS**0.5
    return Score(value=value, low=value - spread, high=value + spread)


def squared_mmd(x_NF: Floats, y_MF: Floats) -> float:
    """The U-statistic of MMD^2 (Gretton et al. 2012, lemma 6) with the cubic kernel."""
    n, m, num_features = len(x_NF), len(y_MF), x_NF.shape[1]

    def kernel(a: Floats, b: Floats) -> Floats:
        return np.asarray((a @ b.T / num_features + 1) ** 3)

    k_xx, k_yy = kernel(x_NF, x_NF), kernel(y_MF, y_MF)
    within = (k_xx.sum() - np.trace(k_xx)) / (n * (n - 1)) + (k_yy.sum() - np.trace(k_yy)) / (m * (m - 1))
    return float(within - 2 * kernel(x_NF, y_MF).mean())


@dataclass(frozen=True)
class _GroupedMoments:
    """Counts, sums and sums of products of groups of rows, so that leaving one out costs a subtraction."""

    counts: Floats
    sums: Floats
    products: Floats
    origin: Floats

    @staticmethod
    def of(rows: Floats, rng: np.random.Generator) -> "_GroupedMoments":
        origin = rows.mean(axis=0)  # sums of products about the mean lose no digits
        groups = np.array_split(rng.permutation(rows) - origin, NUM_GROUPS)
        counts = np.array([float(len(group)) for group in groups])
        return _GroupedMoments(
            counts, np.stack([g.sum(axis=0) for g in groups]), np.stack([g.T @ g for g in groups]), origin
        )

    def moments(self, without: int | None = None) -> tuple[Floats, Floats]:
        """Mean and covariance of all rows but those of one group."""
        keep = np.arange(NUM_GROUPS) != (-1 if without is None else without)
        count, total, product = self.counts[keep].sum(), self.sums[keep].sum(axis=0), self.products[keep].sum(axis=0)
        return self.origin + total / count, (product - np.outer(total, total) / count) / (count - 1)
