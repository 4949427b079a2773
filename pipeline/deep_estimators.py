"""Networks that start from a DBN, with scikit-learn's estimator API: a deep autoencoder and a classifier.

For use outside the pipeline, as pipeline/estimators.py. tests/test_deep_estimators.py runs scikit-learn's
`check_estimator` and holds what they start from against the DBN.
"""

# N rows, V columns

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from pipeline.config.rules import require_at_least, require_fraction
from pipeline.estimator_inputs import (
    FLOATS,
    Floats,
    RandomState,
    Table,
    check_unit_interval,
    draw_seed,
    own_words,
    to_array,
)
from pipeline.estimator_layers import DBNEstimator, as_precise
from pipeline.models import autoencoder, mlp
from pipeline.models.losses import UNLABELLED
from pipeline.seeding import make_generator
from pipeline.training.stream import as_tensor


class DeepAutoencoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, DBNEstimator):
    """Codes of a table's rows, and rows back from codes: Hinton & Salakhutdinov 2006.

    layer_sizes: the hidden layers and the code, which is linear; the decoder mirrors them.
    pretrain: True starts from a DBN, False from random weights.
    pretrain_epochs, pretrain_lr: passes over the rows for each RBM, and its learning rate.
    epochs, lr: of the fine-tuning by Adam, whose rate falls to zero along a cosine.
    batch_size: rows per update; all rows if there are fewer.  random_state, accelerator, precision: see `RBM`.

    Inputs must be in [0, 1].  Fitted: model_, dbn_ (None without pretraining), history_ (means of each epoch), seed_.
    """

    model_: autoencoder.DeepAutoencoder

    def __init__(
        self,
        layer_sizes: Sequence[int] = (128, 16),
        *,
        pretrain: bool = True,
        pretrain_epochs: int = 10,
        pretrain_lr: float = 0.1,
        epochs: int = 30,
        lr: float = 0.005,
        batch_size: int = 64,
        random_state: RandomState = 0,
        accelerator: str = "cpu",
        precision: str = "32",
    ) -> None:
        self.layer_sizes = layer_sizes
        self.pretrain = pretrain
        self.pretrain_epochs = pretrain_epochs
        self.pretrain_lr = pretrain_lr
        self.epochs = epochs
        self.lr = lr
        self.batch_size = batch_size
        self.random_state = random_state
        self.accelerator = accelerator
        self.precision = precision

    def fit(self, X: Table, y: object = None) -> Self:  # noqa: ARG002
        """Trains a new model on the rows of X (N, V); y is ignored.

        Raises ValueError when a parameter or an input is out of its range, or when the training diverges.
        """
        layers = self._layers("gaussian")
        array = validate_data(self, X, dtype=FLOATS, order="C")
        check_unit_interval(array, self)
        x = as_tensor(array).float()
        self.seed_ = draw_seed(self.random_state)
        self.model_ = autoencoder.DeepAutoencoder([x.shape[1], *self.layer_sizes])
        self.dbn_ = self._pretrained(x, layers) if self.pretrain else None
        if self.dbn_ is not None:
            self.model_.init_from_dbn(self.dbn_)
        else:
            self.model_.init_random(make_generator(self.seed_, "autoencoder", "weights"))
        self.history_ = self._finetune(self.model_, x, torch.full((len(x),), UNLABELLED))
        self._n_features_out = list(self.layer_sizes)[-1]
        return self

    def transform(self, X: Table) -> Floats:
        """Codes: (N, V) -> (N, layer_sizes[-1])."""
        x = self._inputs(X)
        return to_array(as_precise(self.model_, x).encode(x))

    def inverse_transform(self, codes: Table) -> Floats:
        """Rows: (N, layer_sizes[-1]) -> (N, V) in [0, 1]."""
        check_is_fitted(self)
        k = as_tensor(check_array(codes, dtype=FLOATS, order="C"))
        if k.shape[1] != self._n_features_out:
            raise ValueError(
                f"codes must have the {self._n_features_out} columns that transform gives, got {k.shape[1]}"
            )
        return to_array(as_precise(self.model_, k).decode(k))

    def score(self, X: Table, y: object = None) -> float:  # noqa: ARG002
        """Minus the mean squared error of a row, summed over columns; y is ignored."""
        x = self._inputs(X)
        return -float(as_precise(self.model_, x).squared_error(x).mean())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class DBNClassifier(ClassifierMixin, DBNEstimator):
    """A DBN under a linear head, fine-tuned with dropout and max-norm: Srivastava et al. 2014.

    layer_sizes: the hidden layers.  input_dropout, dropout, max_norm: see pipeline/models/mlp.py.
    All other parameters are those of `DeepAutoencoder`; inputs must be in [0, 1].
    Fitted: classes_, model_, dbn_ (None without pretraining), history_ (means of each epoch), seed_.
    """

    model_: mlp.MLP
    classes_: npt.NDArray[Any]

    def __init__(
        self,
        layer_sizes: Sequence[int] = (256, 256),
        *,
        input_dropout: float = 0.1,
        dropout: float = 0.3,
        max_norm: float = 0.0,
        pretrain: bool = True,
        pretrain_epochs: int = 10,
        pretrain_lr: float = 0.1,
        epochs: int = 30,
        lr: float = 0.003,
        batch_size: int = 64,
        random_state: RandomState = 0,
        accelerator: str = "cpu",
        precision: str = "32",
    ) -> None:
        self.layer_sizes = layer_sizes
        self.input_dropout = input_dropout
        self.dropout = dropout
        self.max_norm = max_norm
        self.pretrain = pretrain
        self.pretrain_epochs = pretrain_epochs
        self.pretrain_lr = pretrain_lr
        self.epochs = epochs
        self.lr = lr
        self.batch_size = batch_size
        self.random_state = random_state
        self.accelerator = accelerator
        self.precision = precision

    def fit(self, X: Table, y: npt.ArrayLike) -> Self:
        """Trains a new model on the rows of X (N, V) and their classes y (N,).

        Raises ValueError when a parameter or an input is out of its range, or when the training diverges.
        """
        layers = self._layers("bernoulli")
        with own_words(self):
            for key in ("input_dropout", "dropout"):
                require_fraction(key, getattr(self, key))
            require_at_least("max_norm", self.max_norm, 0)
        array, y = validate_data(self, X, y, dtype=FLOATS, order="C")
        check_classification_targets(y)
        check_unit_interval(array, self)
        x = as_tensor(array).float()
        self.classes_, labels = np.unique(y, return_inverse=True)
        self.seed_ = draw_seed(self.random_state)
        generator = make_generator(self.seed_, "classifier", "weights")
        options = {"input_dropout": self.input_dropout, "dropout": self.dropout, "max_norm": self.max_norm}
        self.model_ = mlp.MLP([x.shape[1], *self.layer_sizes, len(self.classes_)], **options)
        self.dbn_ = self._pretrained(x, layers) if self.pretrain else None
        if self.dbn_ is not None:
            self.model_.init_from_dbn(self.dbn_, generator)
        else:
            self.model_.init_random(generator)
        self.history_ = self._finetune(self.model_, x, torch.from_numpy(labels).long())
        return self

    def predict_log_proba(self, X: Table) -> Floats:
        """(N, V) -> (N, classes), in the order of classes_."""
        x = self._inputs(X)
        return to_array(as_precise(self.model_, x).predict_log_probabilities(x))

    def predict_proba(self, X: Table) -> Floats:
        """(N, V) -> (N, classes), in the order of classes_."""
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: Table) -> npt.NDArray[Any]:
        """The likeliest class of each row: (N, V) -> (N,)."""
        predicted: npt.NDArray[Any] = self.classes_[self.predict_log_proba(X).argmax(1)]
        return predicted
