"""Multilayer perceptron that starts from a DBN, with dropout and max-norm: Srivastava et al. 2014.

Permutation-invariant MNIST, DBN and dropout: 0.92 % there. `python -m benchmarks.published_rbm --rows dropout`.
"""

# B batch, V inputs, K classes

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.dbn import DBN
from pipeline.models.dense_stack import DenseStack
from pipeline.models.losses import Batch, Losses, classification_losses
from pipeline.models.precision import widen
from pipeline.models.unrolling import dense_layers, require_logistic, upward_maps

HEAD_STD = 0.01


class MLP(nn.Module):
    """Logistic hidden layers and a linear head over K classes.

    sizes: V, the hidden layers, K.  input_dropout, dropout: of the inputs and of every hidden layer, only in
    `training_losses`.  max_norm: the longest incoming weight vector of a unit, set right before every update, 0 for
    none; weights are those of the network without dropout, so it is a share 1 - dropout of what the paper calls c.
    All weights are zero until one of the `init_` methods (or load_state_dict).
    """

    def __init__(
        self, sizes: Sequence[int], *, input_dropout: float = 0.0, dropout: float = 0.0, max_norm: float = 0.0
    ) -> None:
        super().__init__()
        if max_norm < 0:
            raise ValueError(f"max_norm must be >= 0, got {max_norm}: 0 switches it off")
        self.sizes, self.max_norm = list(sizes), max_norm
        self.input_dropout, self.dropout = input_dropout, dropout
        rates = [input_dropout, *[dropout] * (len(sizes) - 2)]
        self.stack = DenseStack(sizes, linear_top=True, dropout=rates)

    @torch.no_grad()
    def init_random(self, generator: torch.Generator) -> None:
        self.stack.init_random(generator)

    @torch.no_grad()
    def init_from_dbn(self, dbn: DBN, generator: torch.Generator) -> None:
        """Hidden layers that compute `dbn.mean_field`, and a small random head.

        Raises ValueError unless the DBN has the hidden layers' sizes and Bernoulli hidden units.
        """
        require_logistic(dense_layers(dbn))
        maps = upward_maps(dbn)
        if len(maps) != len(self.sizes) - 2:
            raise ValueError(f"the DBN must have the network's {len(self.sizes) - 2} hidden layers, got {len(maps)}")
        self.stack.load_maps(maps)
        head = self.stack.linears()[-1]
        head.weight.normal_(0, HEAD_STD, generator=generator)
        head.bias.zero_()

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Logits: (B, ...) -> (B, K); with a generator, under dropout."""
        logits: Tensor = self.stack(images, generator)
        return widen(logits)

    @torch.no_grad()
    def predict_log_probabilities(self, images: Tensor) -> Tensor:
        """log P(class | image): (B, ...) -> (B, K)."""
        return F.log_softmax(self(images), 1)

    def training_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:  # noqa: ARG002
        """Cross-entropy over the labelled images of the batch, in nats, under dropout; first the norms are limited."""
        if self.max_norm > 0:
            self.stack.limit_norms(self.max_norm)
        return classification_losses(self(batch.images, generator), batch.labels)

    @torch.no_grad()
    def validation_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:  # noqa: ARG002
        return classification_losses(self(batch.images), batch.labels)

    def to_config(self) -> dict[str, Any]:
        """What `from_config` builds the same network from, as json."""
        return {
            "sizes": self.sizes,
            "input_dropout": self.input_dropout,
            "dropout": self.dropout,
            "max_norm": self.max_norm,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(**config)
