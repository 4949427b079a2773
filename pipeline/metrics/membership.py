"""Membership inference from a synthetic set alone: scores that are high where an image was trained on, if any are.

Nearest synthetic image (Chen et al. 2020, GAN-Leaks, "full black-box"), the same calibrated by how near other real
images are (ibid., sec. 4.3; van Breugel et al. 2023), and the count of synthetic images within a radius (Hilprecht et
al. 2019, "Monte Carlo", with their median heuristic).
"""

# N images to be judged of either kind, M synthetic images, F features

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.metrics.neighbours import pairwise_distances
from pipeline.metrics.score import Floats

CLOSEST = 1e-6
"""Added to distances whose logarithm is taken: equal images have 0."""


@dataclass(frozen=True)
class Scored:
    """An attack's score of every image: members (N,) of the training images, others (N,) that were held out."""

    members: Floats
    others: Floats


@dataclass(frozen=True)
class Distances:
    """From every image to be judged to the synthetic ones, (N, M), and to the held out ones, (N, N)."""

    members_to_synthetic: Floats
    others_to_synthetic: Floats
    members_to_others: Floats
    others_to_others: Floats

    @classmethod
    def measure(cls, members_NF: Floats, others_NF: Floats, synthetic_MF: Floats) -> "Distances":
        return cls(
            *(pairwise_distances(rows, synthetic_MF) for rows in (members_NF, others_NF)),
            *(pairwise_distances(rows, others_NF) for rows in (members_NF, others_NF)),
        )


def nearest_attack(distances: Distances) -> Scored:
    """-distance to the nearest synthetic image."""
    return Scored(-distances.members_to_synthetic.min(axis=1), -distances.others_to_synthetic.min(axis=1))


def radius_attack(distances: Distances) -> Scored:
    """How many synthetic images lie within the median distance of images to their nearest one; that breaks ties."""
    nearest = nearest_attack(distances)
    radius = -np.median(np.concatenate([nearest.members, nearest.others]))

    def score(distance_NM: Floats, tie_N: Floats) -> Floats:
        return np.asarray((distance_NM <= radius).sum(axis=1) + 1 / (2 - tie_N))

    return Scored(
        score(distances.members_to_synthetic, nearest.members), score(distances.others_to_synthetic, nearest.others)
    )


def calibrated_attack(distances: Distances) -> Scored:
    """log(distance to the nearest other real image) - log(distance to the nearest synthetic one): an image that is
    near everything gives nothing away.

    The held out images are the references, in two halves that serve each other: half of the images of either kind are
    judged with each, so that none is its own reference.
    """

    def score(made_NM: Floats, real_NN: Floats) -> Floats:
        scores = np.empty(len(made_NM))
        for half in (0, 1):
            real, made = real_NN[half::2, 1 - half :: 2].min(axis=1), made_NM[half::2].min(axis=1)
            scores[half::2] = np.log(real + CLOSEST) - np.log(made + CLOSEST)
        return scores

    return Scored(
        score(distances.members_to_synthetic, distances.members_to_others),
        score(distances.others_to_synthetic, distances.others_to_others),
    )


ATTACKS: dict[str, Callable[[Distances], Scored]] = {
    "nearest": nearest_attack,
    "radius": radius_attack,
    "calibrated": calibrated_attack,
}
