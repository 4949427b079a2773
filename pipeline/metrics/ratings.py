"""Errors of predicted ratings, and the predictor by user and item biases that every other has to beat."""

# N ratings, U users, I items

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Amounts = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

ROUNDS = 30
DAMPINGS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
"""Of the biases, from which a validation part chooses."""


@dataclass(frozen=True)
class RatingErrors:
    """In the unit of the ratings."""

    rmse: float
    mae: float


def score_ratings(predicted: Amounts, truth: Amounts, scale: Amounts) -> RatingErrors:
    """Root mean squared and mean absolute error of (N,) predictions, clipped to the scale."""
    error = np.clip(predicted, scale[0], scale[-1]) - truth
    return RatingErrors(float(np.sqrt(np.square(error).mean())), float(np.abs(error).mean()))


@dataclass(frozen=True)
class Biases:
    """mean + users[u] + items[i]: Koren, Bell, Volinsky 2009, eq. 3."""

    mean: float
    users: Amounts
    items: Amounts

    def predict(self, users: Index, items: Index) -> Amounts:
        return self.mean + self.users[users] + self.items[items]


def fit_biases(
    users: Index, items: Index, amounts: Amounts, shape: tuple[int, int], *, user_damping: float, item_damping: float
) -> Biases:
    """Minimises the squared error + user_damping |users|^2 + item_damping |items|^2, by turns; shape: (U, I).

    Who has no rating gets 0. The dampings count as so many ratings at the mean.
    """
    mean = float(amounts.mean())
    num_u, num_i = (np.bincount(index, minlength=count) for index, count in zip((users, items), shape, strict=True))
    b_U, b_I = np.zeros(shape[0]), np.zeros(shape[1])
    for _ in range(ROUNDS):
        b_I = np.bincount(items, amounts - mean - b_U[users], shape[1]) / (num_i + item_damping)
        b_U = np.bincount(users, amounts - mean - b_I[items], shape[0]) / (num_u + user_damping)
    return Biases(mean, b_U, b_I)
