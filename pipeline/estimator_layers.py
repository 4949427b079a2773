"""What the scikit-learn estimators that start from a DBN share: its layers, the two fits, the inputs."""

# N rows, V columns

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from pipeline.config.pretrain import DenseLayer
from pipeline.config.rules import require, require_at_least, require_choice, require_positive
from pipeline.device import resolve_accelerator
from pipeline.estimator_inputs import FLOATS, RandomState, Table, check_unit_interval, own_words
from pipeline.models.dbn import DBN
from pipeline.training.plan import Epoch
from pipeline.training.rows import RowFit, finetune_rows, fit_stack
from pipeline.training.stream import as_tensor

Model = TypeVar("Model", bound=nn.Module)
CODE_LR_SHARE = 0.05
"""Of the pretraining rate, for linear hidden units: theirs have no bound (DenseLayer says which rates are sound)."""


class DBNEstimator(BaseEstimator):
    """A network that starts from a DBN or from random weights; parameters are explained where they are used."""

    layer_sizes: Sequence[int]
    pretrain: bool
    pretrain_epochs: int
    pretrain_lr: float
    epochs: int
    batch_size: int
    lr: float
    accelerator: str
    precision: str
    dbn_: DBN | None
    seed_: int
    history_: list[Epoch]
    random_state: RandomState

    def _layers(self, top: str) -> list[DenseLayer]:
        """The hidden layers for pretraining, the last with hidden units of kind `top`; all parameters are checked."""
        with own_words(self):
            sizes = list(self.layer_sizes)
            require(len(sizes) > 0 and min(sizes) >= 1, "layer_sizes", self.layer_sizes, "one or more sizes, each >= 1")
            for key in ("pretrain_epochs", "epochs", "batch_size"):
                require_at_least(key, getattr(self, key), 1)
            for key in ("pretrain_lr", "lr"):
                require_positive(key, getattr(self, key))
            require_choice("precision", self.precision, ("32", "bf16"))
            require_choice("accelerator", self.accelerator, ("cpu", "gpu", "auto"))
            kinds = ["bernoulli"] * (len(sizes) - 1) + [top]
            return [
                self._layer(size, kind, number) for number, (size, kind) in enumerate(zip(sizes, kinds, strict=True))
            ]

    def _layer(self, num_hidden: int, hidden: str, number: int) -> DenseLayer:
        return DenseLayer(
            kind="dense",
            below=f"layer {number}" if number else "rows",
            num_hidden=num_hidden,
            visible="bernoulli",
            hidden=hidden,
            steps=1,
            batch_size=self.batch_size,
            lr=self.pretrain_lr * (CODE_LR_SHARE if hidden == "gaussian" else 1),
            schedule="linear_tail",
            momentum=0.9,
            weight_decay=2e-4,
            gibbs_steps=1,
            persistent=False,
            num_temperatures=1,
            centred=True,
            sparsity_target=0.1,
            sparsity_cost=0.0,
        )

    def _pretrained(self, x: Tensor, layers: list[DenseLayer]) -> DBN:
        return fit_stack(x, layers, self._how(self.pretrain_epochs))[0]

    def _finetune(self, model: nn.Module, x: Tensor, labels: Tensor) -> list[Epoch]:
        return finetune_rows(model, x, labels, batch_size=self.batch_size, lr=self.lr, how=self._how(self.epochs))

    def _how(self, epochs: int) -> RowFit:
        accelerator = resolve_accelerator(self.accelerator)
        return RowFit(epochs=epochs, seed=self.seed_, accelerator=accelerator, precision=self.precision)

    def _inputs(self, X: Table) -> Tensor:
        """X of a fitted estimator, checked, as a float32 or float64 tensor (N, V)."""
        check_is_fitted(self)
        array = validate_data(self, X, reset=False, dtype=FLOATS, order="C")
        check_unit_interval(array, self)
        return as_tensor(array)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        return tags


def as_precise(model: Model, like: Tensor) -> Model:
    """The model in the precision of `like`."""
    return model if like.dtype == torch.float32 else copy.deepcopy(model).double()
