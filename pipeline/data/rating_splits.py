"""Which ratings are held out to be scored."""

import numpy as np

from pipeline.data.ratings import Ratings


def split_random(ratings: Ratings, fraction: float, rng: np.random.Generator) -> tuple[Ratings, Ratings]:
    """Training and test ratings; of N, round(fraction * N) are tested, at least one and all but one at most."""
    order = rng.permutation(len(ratings))
    count = min(max(round(fraction * len(ratings)), 1), len(ratings) - 1)
    return ratings.chosen(np.sort(order[count:])), ratings.chosen(np.sort(order[:count]))


def split_by_time(ratings: Ratings, fraction: float) -> tuple[Ratings, Ratings]:
    """Of each user's n ratings the floor(fraction * n) latest are tested; ties in the order of the file.

    Others' ratings from after that time stay in the training part.  Raises ValueError where there are no times, or no
    user has enough ratings.
    """
    if not ratings.times.any():
        raise ValueError("recommend.split must be random for ratings without timestamps: add them or change it")
    order = np.lexsort((np.arange(len(ratings)), ratings.times, ratings.users))
    count = np.bincount(ratings.users)
    first = np.cumsum(count) - count
    rank = np.empty(len(ratings), dtype=np.int64)
    rank[order] = np.arange(len(ratings)) - first[ratings.users[order]]
    tested = rank >= (count - np.floor(fraction * count + 1e-9).astype(np.int64))[ratings.users]
    if not tested.any():
        raise ValueError(f"recommend.test_fraction {fraction} leaves no user a rating to test: raise it")
    return ratings.chosen(np.flatnonzero(~tested)), ratings.chosen(np.flatnonzero(tested))
