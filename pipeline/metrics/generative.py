"""How good a synthetic set is, beside two rows that give the numbers a meaning: real images, the floor of every
distance, and class-wise probabilistic PCA, below which a generator has learned less than a Gaussian."""

# N images, P pixels = C * H * W

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA

from pipeline.metrics.collapse import Verdict, name_verdict
from pipeline.metrics.distances import frechet_distance, kernel_distance
from pipeline.metrics.neighbours import (
    copy_rate,
    duplicate_rate,
    duplicate_threshold,
    nearest_neighbour_accuracy,
    pairwise_distances,
    precision_recall_density_coverage,
)
from pipeline.metrics.ppca import class_ppca_samples
from pipeline.metrics.score import Floats

Labels = npt.NDArray[np.integer]
Row = dict[str, dict[str, float]]

NUM_COMPONENTS = 64
MIN_IMAGES = 50
"""A report on fewer images a side would say nothing."""
POOL_FACTOR = 5
"""The features and the class-wise PCA are fitted on at most this many times the images that are scored."""
EXACT_PCA_PIXELS = 2000
"""Up to this many pixels PCA takes the eigenvectors of the covariance; beyond, randomised ones."""


@dataclass(frozen=True)
class LabelledImages:
    """images: (N, C, H, W), uint8 or floats in [0, 1].  labels: (N,), -1 where unknown."""

    images: npt.NDArray[Any]
    labels: Labels

    def part(self, index: slice | npt.NDArray[Any]) -> "LabelledImages":
        return LabelledImages(self.images[index], self.labels[index])


def pca_features(
    pool: npt.NDArray[Any], image_sets: Sequence[npt.NDArray[Any]], *, num_components: int = NUM_COMPONENTS, seed: int
) -> list[Floats]:
    """Each set's coordinates on the pool's first principal components, (N, num_components) float64, in units of pixel
    values: a fixed extractor that needs no training.
    """
    rows = as_rows(pool)
    if num_components > min(rows.shape):
        raise ValueError(
            f"{num_components} components need as many images and pixels, got a pool of shape {rows.shape}"
        )
    solver = "covariance_eigh" if rows.shape[1] <= EXACT_PCA_PIXELS else "randomized"
    pca = PCA(num_components, svd_solver=solver, random_state=seed % 2**32).fit(rows)
    return [np.asarray(pca.transform(as_rows(images)), dtype=np.float64) for images in image_sets]


def as_rows(images: npt.NDArray[Any]) -> Floats:
    """(N, P) float32 in [0, 1].  Raises ValueError for values outside."""
    rows = images.reshape(len(images), -1)
    if images.dtype == np.uint8:
        return rows.astype(np.float32) / np.float32(255)
    if not ((rows >= 0) & (rows <= 1)).all():  # NaN fails the comparison too
        raise ValueError("float images must lie in [0, 1] and be finite: the model that made them has diverged")
    return rows.astype(np.float32)


def quality_report(
    real_train: LabelledImages, real_holdout: LabelledImages, synthetic: LabelledImages, *, num_images: int, seed: int
) -> dict[str, Row]:
    """Rows synthetic, class_ppca and real (training images), each against the holdout and with equally many images.

    Each row: frechet, kernel, precision, recall, density, coverage, accuracy (1-NN on pixels: trained on the row's
    labelled images, tested on the holdout), duplicates, copies (near-copies of other training images); each of these a
    dict of value, low, high, warned (Score.as_floats).  The class-wise PCA and the real row's accuracy take the labels
    of `real_train`: give it those that the generator had.
    At most num_images of each set are used, drawn by `seed`.  Raises ValueError when there are fewer than 50.
    """
    rng = np.random.default_rng(seed)
    count = min(num_images, len(real_holdout.images), len(synthetic.images), len(real_train.images) // 2)
    if count < MIN_IMAGES:
        sizes = ", ".join(str(len(s.images)) for s in (real_train, real_holdout, synthetic))
        raise ValueError(
            f"quality scores need {2 * MIN_IMAGES} training images, {MIN_IMAGES} held out and {MIN_IMAGES} synthetic "
            f"ones, got {sizes}: raise data.validation_fraction or augment.images_per_class in params.yaml"
        )
    holdout, made = _draw(real_holdout, count, rng), _draw(synthetic, count, rng)
    pool = _draw(real_train, min(len(real_train.images), POOL_FACTOR * count), rng)
    real, others = pool.part(slice(count)), pool.part(slice(count, None))
    labelled = pool if np.isin(made.labels, pool.labels).all() else real_train  # where labels are rare
    rows = {"synthetic": made, "class_ppca": _class_ppca(labelled, made.labels, rng), "real": real}
    image_sets = [holdout.images, others.images, *(row.images for row in rows.values())]
    components = min(NUM_COMPONENTS, count // 4)  # a covariance from few images needs fewer features
    holdout_features, others_features, *row_features = pca_features(
        pool.images, image_sets, num_components=components, seed=int(rng.integers(2**31))
    )
    reference = _Reference(holdout, holdout_features, others_features)
    return {name: reference.score(rows[name], own, rng) for name, own in zip(rows, row_features, strict=True)}


@dataclass(frozen=True)
class _Reference:
    """What every row of a report is measured against."""

    holdout: LabelledImages
    holdout_features: Floats
    others_features: Floats

    def score(self, row: LabelledImages, row_NF: Floats, rng: np.random.Generator) -> Row:
        near_twin = duplicate_threshold(self.holdout_features)
        near_train = float(
            np.quantile(pairwise_distances(self.holdout_features, self.others_features).min(axis=1), 0.01)
        )
        labelled = row.part(row.labels >= 0)
        tested = self.holdout.part(self.holdout.labels >= 0)
        scores = {
            "frechet": frechet_distance(self.holdout_features, row_NF, rng),
            "kernel": kernel_distance(self.holdout_features, row_NF, rng),
            **precision_recall_density_coverage(self.holdout_features, row_NF, rng),
            "accuracy": nearest_neighbour_accuracy(
                as_rows(labelled.images), labelled.labels, as_rows(tested.images), tested.labels
            ),
            "duplicates": duplicate_rate(row_NF, near_twin),
            "copies": copy_rate(row_NF, self.others_features, near_train),
        }
        return {name: score.as_floats() for name, score in scores.items()}


def _class_ppca(pool: LabelledImages, wanted: Labels, rng: np.random.Generator) -> LabelledImages:
    samples = class_ppca_samples(as_rows(pool.images), pool.labels, wanted, rng)
    return LabelledImages(samples.reshape(-1, *pool.images.shape[1:]), wanted)


def _draw(images: LabelledImages, count: int, rng: np.random.Generator) -> LabelledImages:
    """`count` images without replacement, in random order."""
    return images.part(rng.permutation(len(images.images))[:count])


def judge_collapse(report: dict[str, Row]) -> Verdict:
    """Names what a quality report shows: see `name_verdict`."""
    made, real = report["synthetic"], report["real"]
    return name_verdict(
        coverage=made["coverage"]["value"],
        real_coverage=real["coverage"]["value"],
        duplicates=made["duplicates"]["value"],
        real_duplicates=real["duplicates"]["high"],
    )
