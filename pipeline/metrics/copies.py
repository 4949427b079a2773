"""Synthetic images that are training images, and whether synthetic images lie nearer to those than to others."""

# M synthetic images, N training images, R images of either kind

import numpy as np

from pipeline.data.arrays import Images
from pipeline.metrics.neighbours import pairwise_distances
from pipeline.metrics.score import Z_95, Floats, Score, jackknife_variance, score_rate

NEAREST = 50
COPY_RATIO = 0.5
"""A near copy is nearer to its training image than this times its mean distance to the 50 nearest."""
NUM_GROUPS = 20
ROWS_AT_ONCE = 256


def exact_copies(synthetic: Images, train: Images) -> Score:
    """Share of synthetic images that are equal to a training image, byte for byte. Both uint8."""
    known = {image.tobytes() for image in np.ascontiguousarray(train)}
    return score_rate([image.tobytes() in known for image in np.ascontiguousarray(synthetic)])


def near_copies(rows_MP: Floats, train_NP: Floats) -> Score:
    """Share of rows that lie much nearer to one training image than to its neighbours: those nearer to the nearest than
    half their mean distance to the 50 nearest (Carlini et al. 2023, sec. 4.2), which blurred images alone never are.
    """
    count = min(NEAREST, len(train_NP))
    hits = []
    for first in range(0, len(rows_MP), ROWS_AT_ONCE):
        distance = pairwise_distances(rows_MP[first : first + ROWS_AT_ONCE], train_NP)
        nearest = np.partition(distance, count - 1, axis=1)[:, :count]
        hits.append(nearest.min(axis=1) < COPY_RATIO * nearest.mean(axis=1))
    return score_rate(np.concatenate(hits))


def distance_ratio(synthetic_MP: Floats, train_RP: Floats, holdout_RP: Floats, rng: np.random.Generator) -> Score:
    """Mean distance from a synthetic image to the nearest of `train` over that to the nearest of `holdout`: 1 where
    both are strangers to the generator, 0 for copies.

    Both sets of reference images are of one size, or the larger would be nearer by chance.  The interval is a
    jackknife over 20 groups of each of the three sets: all of them are draws.  Raises ValueError for sets of unequal
    size.
    """
    if len(train_RP) != len(holdout_RP) or min(len(train_RP), len(synthetic_MP)) < NUM_GROUPS:
        sizes = f"{len(train_RP)} and {len(holdout_RP)} reference and {len(synthetic_MP)} synthetic images"
        raise ValueError(f"a distance ratio needs equally many reference images and {NUM_GROUPS} of each, got {sizes}")
    to_train, to_holdout = (pairwise_distances(synthetic_MP, rows) for rows in (train_RP, holdout_RP))
    groups = {count: rng.permutation(count) % NUM_GROUPS for count in {len(train_RP), len(synthetic_MP)}}
    columns, rows = groups[len(train_RP)], groups[len(synthetic_MP)]
    near_train, near_holdout = to_train.min(axis=1), to_holdout.min(axis=1)

    def ratio(train_M: Floats, holdout_M: Floats) -> float:
        return float(train_M.mean() / max(holdout_M.mean(), np.finfo(np.float32).tiny))

    def without(distance: Floats, group: int) -> Floats:
        return np.asarray(distance[:, columns != group].min(axis=1))

    variance = jackknife_variance(NUM_GROUPS, lambda g: ratio(without(to_train, g), near_holdout))
    variance += jackknife_variance(NUM_GROUPS, lambda g: ratio(near_train, without(to_holdout, g)))
    variance += jackknife_variance(NUM_GROUPS, lambda g: ratio(near_train[rows != g], near_holdout[rows != g]))
    value, spread = ratio(near_train, near_holdout), Z_95 * variance**0.5
    return Score(value=value, low=max(0.0, value - spread), high=value + spread)
