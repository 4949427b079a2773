"""Restricted Boltzmann machines with scikit-learn's estimator API, trained by the same `fit` as the pipeline's.

For use outside the pipeline: in a scikit-learn `Pipeline`, a grid search, a notebook. tests/test_estimators_api.py runs
scikit-learn's `check_estimator` and holds features, free energies and scores against its BernoulliRBM.
"""

# N rows, V visible units, H hidden units

import copy
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from pipeline.config.pretrain import DenseLayer
from pipeline.config.rules import require_at_least, require_choice
from pipeline.device import resolve_accelerator
from pipeline.estimator_inputs import (
    FLOATS,
    Floats,
    RandomState,
    Table,
    as_json,
    check_unit_interval,
    draw_seed,
    own_words,
    to_array,
)
from pipeline.models import rbm
from pipeline.models.dbn import build_layer
from pipeline.models.pseudo_likelihood import unit_losses
from pipeline.seeding import make_generator
from pipeline.training.rows import RowFit, fit_rows
from pipeline.training.stream import as_tensor
from pipeline.weights import load_weights, save_weights

KIND = "rbm_estimator"


class RBM(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Hidden units over the columns of a table, whose features they are.

    The parameters are those of a dense layer, explained with their ranges in pipeline/config/pretrain.py, and

    epochs: passes over the rows, >= 1; the learning rate falls linearly to zero over the last half of them.
    batch_size: rows per update, and persistent chains; all rows if there are fewer.
    random_state: with an int, equal inputs give equal bits on one machine.
    accelerator: of the fit, cpu, gpu or auto; all else runs on the CPU.
    precision: of the fit, 32 or bf16; all else has the inputs'.

    Bernoulli units want inputs in [0, 1], gaussian and gaussian_variance take any and standardise them.
    Fitted: model_, weights_ (V, H), visible_bias_ (V,), hidden_bias_ (H,), history_ (means of each epoch), seed_.
    """

    model_: rbm.RBM
    history_: list[dict[str, float]]
    seed_: int

    def __init__(
        self,
        num_hidden: int = 256,
        *,
        visible: str = "bernoulli",
        hidden: str = "bernoulli",
        lr: float = 0.05,
        schedule: str = "linear_tail",
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        epochs: int = 10,
        batch_size: int = 64,
        gibbs_steps: int = 1,
        persistent: bool = True,
        num_temperatures: int = 1,
        centred: bool = True,
        sparsity_target: float = 0.1,
        sparsity_cost: float = 0.0,
        random_state: RandomState = 0,
        accelerator: str = "cpu",
        precision: str = "32",
    ) -> None:
        self.num_hidden = num_hidden
        self.visible = visible
        self.hidden = hidden
        self.lr = lr
        self.schedule = schedule
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size
        self.gibbs_steps = gibbs_steps
        self.persistent = persistent
        self.num_temperatures = num_temperatures
        self.centred = centred
        self.sparsity_target = sparsity_target
        self.sparsity_cost = sparsity_cost
        self.random_state = random_state
        self.accelerator = accelerator
        self.precision = precision

    def fit(self, X: Table, y: object = None) -> Self:  # noqa: ARG002
        """Trains a new model on the rows of X (N, V); y is ignored.

        Raises ValueError when a parameter or an input is out of its range, or when the training diverges.
        """
        layer = self._layer()
        x = self._inputs(X, reset=True).float()
        seed = draw_seed(self.random_state)
        accelerator = resolve_accelerator(self.accelerator)
        how = RowFit(epochs=self.epochs, seed=seed, accelerator=accelerator, precision=self.precision)
        self.model_, self.history_ = fit_rows(x, layer, how)
        self.seed_, self._n_features_out = seed, self.num_hidden
        return self

    def _layer(self) -> DenseLayer:
        """The parameters as a layer of the pipeline, whose rules they keep; it has one step for each epoch."""
        names = {field.name for field in fields(DenseLayer)} & set(self.get_params())
        values = {name: getattr(self, name) for name in names}
        with own_words(self):
            require_at_least("epochs", self.epochs, 1)
            require_choice("precision", self.precision, ("32", "bf16"))
            require_choice("accelerator", self.accelerator, ("cpu", "gpu", "auto"))
            return DenseLayer(kind="dense", below="rows", steps=self.epochs, **values)

    # --- what a fitted model says of rows; all of it on the CPU, in the precision of X

    def transform(self, X: Table) -> Floats:
        """P(h = 1 | x), the features: (N, V) -> (N, H)."""
        x = self._inputs(X)
        return to_array(self._model(x).encode(x))

    def inverse_transform(self, H: Table) -> Floats:
        """E[x | h], in the units of the rows: (N, H) in [0, 1] -> (N, V)."""
        check_is_fitted(self)
        h = as_tensor(check_array(H, dtype=FLOATS, order="C"))
        if h.shape[1] != self._n_features_out:
            raise ValueError(f"H must have the {self._n_features_out} columns that transform gives, got {h.shape[1]}")
        return to_array(self._model(h).decode(h))

    def free_energy(self, X: Table) -> Floats:
        """F(x) = -log sum_h exp(-E(x, h)): (N, V) -> (N,), in nats; Gaussian units are standardised before."""
        x = self._inputs(X)
        model = self._model(x)
        return to_array(model.free_energy(model.standardise(x)))

    def score_samples(self, X: Table) -> Floats:
        """V log p(x_i | x_without_i) for one random unit i of each row: (N, V) -> (N,), in nats.

        The pseudo-log-likelihood of scikit-learn's BernoulliRBM, with the units that it draws for the same int as
        random_state: the same on every call, but a row's value depends on its place in X. Inputs should be 0 or 1.
        For Gaussian units the density of the standardised input.
        """
        x = self._inputs(X)
        model = self._model(x)
        index = check_random_state(self.seed_).randint(0, x.shape[1], len(x))
        with torch.no_grad():
            losses = unit_losses(model, model.standardise(x), torch.from_numpy(index))
        return to_array(-x.shape[1] * losses)

    def score(self, X: Table, y: object = None) -> float:  # noqa: ARG002
        """The mean of `score_samples`; y is ignored."""
        return float(self.score_samples(X).mean())

    # --- draws: seeded by the fit's seed and their purpose, unless random_state is given

    def gibbs(self, X: Table, steps: int = 1, *, random_state: RandomState = None) -> Floats:
        """Rows after `steps` rounds of x -> h -> x that start at X (N, V)."""
        x = self._inputs(X)
        model = self._model(x)
        return self._walk(model, model.standardise(x), steps, self._generator("gibbs", random_state))

    def sample(self, num: int, *, steps: int = 1000, random_state: RandomState = None) -> Floats:
        """`num` rows of the model, (num, V) float32: chains of `steps` rounds that start without the weights."""
        check_is_fitted(self)
        model, generator = self.model_, self._generator("sample", random_state)
        with torch.no_grad():
            mean = model.units.mean(model.visible_bias, None).repeat(num, 1)
            start = model.units.sample(mean, model.log_variance, generator)
        return self._walk(model, start, steps, generator)

    def _walk(self, model: rbm.RBM, v: Tensor, steps: int, generator: torch.Generator) -> Floats:
        end = model.gibbs(v, steps, generator)
        return to_array(end * model.std + model.mean if model.units.standardised else end)

    def _generator(self, purpose: str, random_state: RandomState) -> torch.Generator:
        return make_generator(self.seed_ if random_state is None else draw_seed(random_state), "rbm", purpose)

    # --- parameters and files

    @property
    def weights_(self) -> Floats:
        """W, (V, H)."""
        return to_array(self.model_.weight)

    @property
    def visible_bias_(self) -> Floats:
        """b, (V,)."""
        return to_array(self.model_.visible_bias)

    @property
    def hidden_bias_(self) -> Floats:
        """c, (H,)."""
        return to_array(self.model_.hidden_bias)

    def save(self, path: str | Path) -> None:
        """Writes `path`, a name in .safetensors, and a .json beside it. No pickle: safe to load from anyone."""
        check_is_fitted(self)
        names = list(getattr(self, "feature_names_in_", [])) or None
        config = {
            "params": {name: as_json(value) for name, value in self.get_params().items()}
            | {"random_state": self.seed_},
            "num_features": self.n_features_in_,
            "feature_names": names,
            "history": self.history_,
        }
        save_weights(Path(path), self.model_.state_dict(), kind=KIND, config=config)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The estimator that `save` wrote.  Raises ValueError when a file is missing, corrupt or of another kind."""
        state, config = load_weights(Path(path), kind=KIND)
        loaded = cls(**config["params"])
        layer = replace(loaded._layer(), batch_size=len(state["chains"]) or loaded.batch_size)
        loaded.model_ = cast(rbm.RBM, build_layer(layer, (config["num_features"],)))
        loaded.model_.load_state_dict(state)
        loaded.model_.eval()
        loaded.history_, loaded.seed_ = config["history"], config["params"]["random_state"]
        loaded.n_features_in_, loaded._n_features_out = config["num_features"], loaded.num_hidden
        if config["feature_names"] is not None:
            loaded.feature_names_in_ = np.array(config["feature_names"], dtype=object)
        return loaded

    # --- what comes in

    def _inputs(self, X: Table, *, reset: bool = False) -> Tensor:
        """X checked, as a float32 or float64 tensor (N, V) over the same memory where that is possible."""
        if not reset:
            check_is_fitted(self)
        bernoulli = (self.visible if reset else self.model_.visible) == "bernoulli"
        few = 1 if bernoulli or not reset else 2  # rows, of which a variance is taken
        array = validate_data(self, X, reset=reset, dtype=FLOATS, order="C", ensure_min_samples=few)
        if bernoulli:
            named, otherwise = "inputs of visible='bernoulli'", " or choose visible='gaussian'"
            check_unit_interval(array, self, inputs=named, otherwise=otherwise)
        return as_tensor(array)

    def _model(self, like: Tensor) -> rbm.RBM:
        """The model in the precision of `like`."""
        return self.model_ if like.dtype == torch.float32 else copy.deepcopy(self.model_).double()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = self.visible == "bernoulli"
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
