"""What the scikit-learn estimators share: tables in and out, seeds, and rules said in an estimator's own words."""

from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_random_state
from torch import Tensor

ROUNDING = 1e-6
"""How far beyond [0, 1] inputs may lie: what a scaler's rounding leaves there."""
FLOATS = (np.float64, np.float32)

Table = npt.ArrayLike  # or a data frame
Floats = npt.NDArray[Any]
RandomState = int | np.random.RandomState | None


def check_unit_interval(array: Floats, estimator: object, *, inputs: str = "inputs", otherwise: str = "") -> None:
    """Raises ValueError for values outside [0, 1].  inputs: what they are called; otherwise: a second remedy."""
    low, high = array.min(), array.max()
    if low < -ROUNDING or high > 1 + ROUNDING:
        fault = "Negative values in data" if low < 0 else "Values above 1 in data"
        raise ValueError(
            f"{fault} passed to {type(estimator).__name__}: {inputs} must be in [0, 1], got "
            f"{low:.6g}..{high:.6g}; put MinMaxScaler(clip=True) before it{otherwise}"
        )


@contextmanager
def own_words(estimator: object) -> Iterator[None]:
    """Inside, a broken rule of params.yaml is one of the estimator's parameters, and so is the remedy."""
    try:
        yield
    except ValueError as error:
        rule = str(error).removeprefix("pretrain.layers.*.").removesuffix(": set it in params.yaml")
        raise ValueError(f"{type(estimator).__name__}: {rule}: give it when you make the estimator") from None


def draw_seed(random_state: RandomState) -> int:
    """The int itself, or one drawn from what scikit-learn makes of None or a RandomState."""
    rng = check_random_state(random_state)
    return int(random_state) if isinstance(random_state, Integral) else int(rng.randint(2**31 - 1))


def to_array(tensor: Tensor) -> Floats:
    return tensor.detach().numpy()


def as_json(value: object) -> object:
    """A parameter as json knows it: a grid search over numpy arrays sets numpy numbers."""
    return value.item() if isinstance(value, np.generic) else value
