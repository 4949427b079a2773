"""What a recommending machine is held against: biases and truncated SVD; SVD and ALS of libraries where installed.

scikit-surprise (Hug 2020) and implicit (Frederickson) are optional: `pip install 'layerwise[recommend]'`. Each rival's
settings are those that do best on a validation part of the training ratings.
"""

# U users, I items, R ratings that are asked for

import importlib.util
from collections.abc import Callable, Sequence
from itertools import product
from typing import TypeVar

import numpy as np

from pipeline.applications.rating_machines import mark_rated
from pipeline.data.rating_splits import split_random
from pipeline.data.ratings import Ratings
from pipeline.metrics.ranking import Marks, Scores, score_ranking
from pipeline.metrics.ratings import DAMPINGS, Amounts, Biases, Index, fit_biases, score_ratings

Predictor = Callable[[Index, Index], Amounts]
"""(R,) users, (R,) items -> (R,) ratings."""
S = TypeVar("S")

VALIDATION = 0.1
RANKS = (2, 5, 10, 20, 40)
SURPRISE_GRID = ((100, 40, 0.1), (100, 60, 0.08), (100, 80, 0.1), (200, 60, 0.08))
"""Factors, epochs and regularisation at a rate of 0.01."""
ALS_GRID = ((32, 0.1, 5.0), (64, 0.1, 1.0), (32, 10.0, 5.0), (64, 10.0, 5.0))
"""Factors, regularisation and the weight of a rating."""


def has(library: str) -> bool:
    return importlib.util.find_spec(library) is not None


def choose(settings: Sequence[S], cost: Callable[[S], float]) -> S:
    """The cheapest; of equals the first."""
    return min(settings, key=cost)


def tune_predictor(
    train: Ratings, settings: Sequence[S], fit: Callable[[Ratings, S], Predictor], rng: np.random.Generator
) -> Predictor:
    """Fitted on all of `train` with the settings of the least RMSE on a part of it."""
    inner, held = split_random(train, VALIDATION, rng)

    def cost(setting: S) -> float:
        return score_ratings(fit(inner, setting)(held.users, held.items), held.amounts, held.scale).rmse

    return fit(train, choose(settings, cost))


def fit_bias(ratings: Ratings, dampings: tuple[float, float]) -> Biases:
    user_damping, item_damping = dampings
    return fit_biases(
        ratings.users,
        ratings.items,
        ratings.amounts,
        ratings.shape,
        user_damping=user_damping,
        item_damping=item_damping,
    )


def predict_bias(train: Ratings, rng: np.random.Generator) -> Predictor:
    """User and item biases."""
    return tune_predictor(train, list(product(DAMPINGS, DAMPINGS)), lambda r, d: fit_bias(r, d).predict, rng)


def predict_truncated_svd(train: Ratings, rng: np.random.Generator) -> Predictor:
    """Biases, and a truncated SVD of what they leave, where what is missing counts as 0: scikit-learn's."""
    from sklearn.decomposition import TruncatedSVD

    def fit(ratings: Ratings, rank: int) -> Predictor:
        biases = fit_bias(ratings, (5.0, 2.0))
        rest = np.zeros(ratings.shape)
        rest[ratings.users, ratings.items] = ratings.amounts - biases.predict(ratings.users, ratings.items)
        svd = TruncatedSVD(rank, random_state=0)
        left = svd.fit_transform(rest)
        return lambda users, items: (
            biases.predict(users, items) + np.einsum("rk,rk->r", left[users], svd.components_.T[items])
        )

    return tune_predictor(train, [rank for rank in RANKS if rank < min(train.shape)], fit, rng)


def predict_surprise(train: Ratings, rng: np.random.Generator, grid: Sequence[tuple[int, int, float]]) -> Predictor:
    """SVD of scikit-surprise: biases and factors by stochastic gradient descent."""
    import pandas
    import surprise

    reader = surprise.Reader(rating_scale=(float(train.scale[0]), float(train.scale[-1])))

    def fit(ratings: Ratings, setting: tuple[int, int, float]) -> Predictor:
        factors, epochs, decay = setting
        frame = pandas.DataFrame({"user": ratings.users, "item": ratings.items, "rating": ratings.amounts})
        model = surprise.SVD(n_factors=factors, n_epochs=epochs, lr_all=0.01, reg_all=decay, random_state=0)
        model.fit(surprise.Dataset.load_from_df(frame, reader).build_full_trainset())
        return lambda users, items: np.array(
            [model.predict(user, item).est for user, item in zip(users.tolist(), items.tolist(), strict=True)]
        )

    return tune_predictor(train, list(grid), fit, rng)


def rank_popular(train: Ratings) -> Scores:
    """How many have rated each item, the same for all users: (U, I)."""
    return np.tile(np.bincount(train.items, minlength=train.shape[1]).astype(np.float64), (train.shape[0], 1))


def rank_als(
    train: Ratings, relevant: float, rng: np.random.Generator, grid: Sequence[tuple[int, float, float]]
) -> Scores:
    """Implicit ALS (Hu, Koren, Volinsky 2008) on what was rated: (U, I); the grid's best nDCG on a part of `train`."""
    import implicit.cpu.als
    from scipy.sparse import csr_matrix

    def fit(ratings: Ratings, setting: tuple[int, float, float]) -> Scores:
        factors, decay, weight = setting
        model = implicit.cpu.als.AlternatingLeastSquares(
            factors=factors, regularization=decay, alpha=weight, random_state=0, num_threads=1
        )
        model.fit(csr_matrix(mark_rated(ratings).astype(np.float32)), show_progress=False)
        return np.asarray(model.user_factors @ model.item_factors.T, dtype=np.float64)

    inner, held = split_random(train, VALIDATION, rng)
    seen, wanted = mark_rated(inner), mark_relevant(held, relevant)
    return fit(train, choose(grid, lambda setting: -score_ranking(fit(inner, setting), seen, wanted).ndcg))


def mark_relevant(ratings: Ratings, relevant: float) -> Marks:
    """Which ratings reach `relevant`, (U, I)."""
    return mark_rated(ratings.chosen(np.flatnonzero(ratings.amounts >= relevant)))
