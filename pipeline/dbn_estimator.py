"""A deep belief network with scikit-learn's estimator API: greedy RBMs, then up-down fine-tuning if wanted.

Hinton, Osindero, Teh 2006. For use outside the pipeline, beside the RBM of estimators.py, whose conventions it keeps.
"""

# N rows, V visible units, H hidden units of the top

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from pipeline.config.pretrain import DenseLayer
from pipeline.config.rules import require, require_at_least, require_choice, require_positive
from pipeline.device import resolve_accelerator
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
from pipeline.metrics.annealing import Annealing, BaseRates, LogPartition, estimate_log_partition
from pipeline.metrics.likelihood import MIN_ESS, draw_bounds, say_refusal
from pipeline.models.dbn_sampling import Chains
from pipeline.models.enumeration import MAX_ENUMERATED
from pipeline.models.sampling import sample_bernoulli
from pipeline.models.updown import UntiedDBN
from pipeline.seeding import derive_seed, make_generator
from pipeline.training.rows import RowFit, fit_stack, fit_updown
from pipeline.training.stream import as_tensor


class DBN(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Layers of Bernoulli units over the columns of a table, each the features of the one below.

    Rows want values in [0, 1]; those between 0 and 1 are probabilities, drawn anew at each update. The parameters of a
    layer are explained with their ranges in pipeline/config/pretrain.py, epochs, batch_size, random_state, accelerator
    and precision at the RBM of estimators.py; epochs are those of each layer. Further

    layer_sizes: hidden units of each layer, bottom first, one or more.
    fine_tune: None, or updown for recognition and generative weights that part from the greedy ones.
    fine_tune_epochs, fine_tune_lr: of the up-down; its k is max(gibbs_steps, 3), its momentum that of the layers.
    num_draws: hidden states of each row that score_samples averages over, >= 1.
    ais_chains, ais_temperatures: what log Z of the top may cost at the end of fit; 20 units or fewer are enumerated.

    Fitted: model_, histories_ (of each layer, then of the up-down), partition_ (log Z of the top), seed_.
    """

    model_: UntiedDBN
    histories_: list[list[dict[str, float]]]
    partition_: LogPartition
    seed_: int

    def __init__(
        self,
        layer_sizes: Sequence[int] = (256, 256),
        *,
        fine_tune: str | None = None,
        lr: float = 0.05,
        momentum: float = 0.5,
        weight_decay: float = 0.0,
        epochs: int = 10,
        batch_size: int = 64,
        gibbs_steps: int = 1,
        persistent: bool = True,
        centred: bool = True,
        fine_tune_epochs: int = 10,
        fine_tune_lr: float = 0.05,
        num_draws: int = 20,
        ais_chains: int = 100,
        ais_temperatures: int = 1000,
        random_state: RandomState = 0,
        accelerator: str = "cpu",
        precision: str = "32",
    ) -> None:
        self.layer_sizes = layer_sizes
        self.fine_tune = fine_tune
        self.lr = lr
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size
        self.gibbs_steps = gibbs_steps
        self.persistent = persistent
        self.centred = centred
        self.fine_tune_epochs = fine_tune_epochs
        self.fine_tune_lr = fine_tune_lr
        self.num_draws = num_draws
        self.ais_chains = ais_chains
        self.ais_temperatures = ais_temperatures
        self.random_state = random_state
        self.accelerator = accelerator
        self.precision = precision

    def fit(self, X: Table, y: object = None) -> Self:  # noqa: ARG002
        """Trains a new model on the rows of X (N, V); y is ignored.

        Raises ValueError when a parameter or an input is out of its range, or when the training diverges.
        """
        layers, annealing = self._checked()
        x = self._inputs(X, reset=True).float()
        seed = draw_seed(self.random_state)
        how = RowFit(
            epochs=self.epochs,
            seed=derive_seed(seed, "greedy"),
            accelerator=resolve_accelerator(self.accelerator),
            precision=self.precision,
            sampled=True,
        )
        dbn, self.histories_ = fit_stack(x, layers, how)
        self.model_ = UntiedDBN.from_dbn(dbn, gibbs_steps=max(self.gibbs_steps, 3)).eval()
        if self.fine_tune == "updown":
            tuning = replace(how, epochs=self.fine_tune_epochs, seed=derive_seed(seed, "updown"))
            layer = replace(layers[0], lr=self.fine_tune_lr)
            self.histories_.append(fit_updown(x, self.model_, layer, tuning))
        self.partition_ = _estimate(self.model_, x, annealing, derive_seed(seed, "annealing"))
        self.seed_, self._n_features_out = seed, self.layer_sizes[-1]
        return self

    def _checked(self) -> tuple[list[DenseLayer], Annealing]:
        """The parameters as layers of the pipeline, whose rules they keep, and as the budget for log Z."""
        with own_words(self):
            require(len(self.layer_sizes) > 0, "layer_sizes", self.layer_sizes, "one size a layer, at least one")
            require(self.fine_tune in (None, "updown"), "fine_tune", self.fine_tune, "None or updown")
            require_choice("precision", self.precision, ("32", "bf16"))
            require_choice("accelerator", self.accelerator, ("cpu", "gpu", "auto"))
            require_positive("fine_tune_lr", self.fine_tune_lr)
            for key in ("epochs", "fine_tune_epochs", "num_draws"):
                require_at_least(key, getattr(self, key), 1)
            for key in ("ais_chains", "ais_temperatures"):
                require_at_least(key, getattr(self, key), 2)
            layers = [self._layer(size) for size in self.layer_sizes]
        return layers, Annealing(num_chains=self.ais_chains, num_temperatures=self.ais_temperatures)

    def _layer(self, size: int) -> DenseLayer:
        return DenseLayer(
            kind="dense",
            below="rows",
            num_hidden=size,
            visible="bernoulli",
            hidden="bernoulli",
            steps=1,
            batch_size=self.batch_size,
            lr=self.lr,
            schedule="linear_tail",
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            gibbs_steps=self.gibbs_steps,
            persistent=self.persistent,
            num_temperatures=1,
            centred=self.centred,
            sparsity_target=0.1,
            sparsity_cost=0.0,
        )

    # --- what a fitted model says of rows; all of it on the CPU, in the precision of X

    def transform(self, X: Table) -> Floats:
        """Probabilities of the top's hidden units by mean field, the features: (N, V) -> (N, H)."""
        x = self._inputs(X)
        return to_array(self._model(x).encode(x))

    def score_samples(self, X: Table) -> Floats:
        """A lower bound on log p(x), in nats: (N, V) -> (N,)   (Salakhutdinov & Murray 2008, sec. 4).

        Estimated from num_draws hidden states a row: the same on every call, but a row's value depends on its place in
        X. A row should hold zeros and ones; of others a binary draw is scored. log Z is that of `partition_`.
        Raises ValueError when the annealing of a larger top layer left too few effective chains.
        """
        x = self._inputs(X)
        found = self.partition_
        if found.ess < MIN_ESS:
            reason = say_refusal(found.ess, found.num_chains, found.num_temperatures)
            raise ValueError(f"{type(self).__name__}.score_samples: {reason}, here ais_temperatures and ais_chains")
        v = sample_bernoulli(x, self._generator("binary", None))
        seed = derive_seed(self.seed_, "bound")
        draws = draw_bounds(self._model(x), v, num_samples=self.num_draws, seed=seed)
        return to_array(draws.mean(0) - found.log_z)

    def score(self, X: Table, y: object = None) -> float:  # noqa: ARG002
        """The mean of `score_samples`; y is ignored."""
        return float(self.score_samples(X).mean())

    def sample(self, num: int, *, steps: int = 1000, random_state: RandomState = None) -> Floats:
        """`num` rows of the model, (num, V) float32: `steps` rounds of Gibbs sampling at the top, then drawn down."""
        check_is_fitted(self)
        chains = Chains(num_chains=num, burn_in=steps)
        return to_array(self.model_.sample(chains, self._generator("sample", random_state))[0])

    def _inputs(self, X: Table, *, reset: bool = False) -> Tensor:
        """X checked, as a float32 or float64 tensor (N, V) over the same memory where that is possible."""
        if not reset:
            check_is_fitted(self)
        array = validate_data(self, X, reset=reset, dtype=FLOATS, order="C")
        check_unit_interval(array, self)
        return as_tensor(array)

    def _model(self, like: Tensor) -> UntiedDBN:
        """The model in the precision of `like`."""
        return self.model_ if like.dtype == torch.float32 else copy.deepcopy(self.model_).double()

    def _generator(self, purpose: str, random_state: RandomState) -> torch.Generator:
        return make_generator(self.seed_ if random_state is None else draw_seed(random_state), "dbn", purpose)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _estimate(model: UntiedDBN, x: Tensor, annealing: Annealing, seed: int) -> LogPartition:
    """log Z of the top: exact where it is small enough, annealed from the base rates of what the rows make of it."""
    if model.top.num_hidden <= MAX_ENUMERATED:
        log_z = float(model.top.log_partition())
        return LogPartition(log_z=log_z, low=log_z, high=log_z, ess=math.inf, num_chains=0, num_temperatures=0)
    return estimate_log_partition(model.top, BaseRates.of(model.top, model.reach_top(x)), annealing, seed=seed)
