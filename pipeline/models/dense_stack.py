"""Layers of logistic units, one after another: what the dense networks that start from a DBN are made of."""

# B batch, V inputs, H units of a layer

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.dropout import drop
from pipeline.models.precision import widen

Map = tuple[Tensor, Tensor]
"""Weights (H, V) and biases (H,) of one layer."""
SIGMOID_GAIN = 4.0
"""By which Glorot & Bengio 2010 (sec. 4.2.1) widen their initialisation for logistic units, whose slope is 1/4 at 0."""


class DenseStack(nn.Module):
    """x -> sigmoid(W x + b), layer by layer; the last layer is linear with `linear_top`.

    sizes: units of the inputs and of every layer.  dropout: rates in [0, 1) of each layer's inputs; none if empty.
    What is kept is divided by 1 - rate, so that a layer's mean input is the one it was pretrained with: the same as
    dividing its weights by it before training and multiplying them again after (Srivastava et al. 2014, sec. 6.1).
    All weights are zero until `init_random`, `load_maps` or load_state_dict.
    """

    def __init__(self, sizes: Sequence[int], *, linear_top: bool = False, dropout: Sequence[float] = ()) -> None:
        super().__init__()
        if len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"sizes must name the inputs and at least one layer, each >= 1, got {list(sizes)}")
        if any(not 0 <= rate < 1 for rate in dropout):
            raise ValueError(f"dropout must be in [0, 1), got {list(dropout)}")
        self.sizes, self.linear_top = list(sizes), linear_top
        self.dropout = list(dropout) or [0.0] * (len(sizes) - 1)
        with torch.device("meta"):  # no draw from the global generator
            self.layers = nn.ModuleList(nn.Linear(below, above) for below, above in pairwise(sizes))
        self.to_empty(device="cpu")
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    @property
    def num_features(self) -> int:
        return self.sizes[-1]

    def linears(self) -> list[nn.Linear]:
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    @torch.no_grad()
    def init_random(self, generator: torch.Generator) -> None:
        """Normal weights of Glorot & Bengio's variance, for logistic units and, in a linear top, for linear ones."""
        for layer in self.linears():
            gain = 1.0 if self.linear_top and layer is self.layers[-1] else SIGMOID_GAIN
            layer.weight.normal_(0, gain * math.sqrt(2 / sum(layer.weight.shape)), generator=generator)
            layer.bias.zero_()

    @torch.no_grad()
    def load_maps(self, maps: Sequence[Map]) -> None:
        """Copies the maps into the lowest layers.  Raises ValueError when their shapes are others."""
        theirs = [tuple(weight.shape) for weight, _ in maps]
        ours = [tuple(layer.weight.shape) for layer in self.linears()]
        if theirs != ours[: len(theirs)]:
            raise ValueError(
                f"the weights (units, inputs) of the DBN's layers, {theirs}, must be those of the network's lowest "
                f"layers, {ours}: give both the same sizes"
            )
        for layer, (weight, bias) in zip(self.linears(), maps, strict=False):
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(B, ...) flattened -> (B, sizes[-1]).  generator: draws dropout; none without, whatever `.training` says."""
        x = x.flatten(1)
        for layer, rate in zip(self.layers, self.dropout, strict=True):
            x = layer(drop(x, rate, generator))
            x = x if self.linear_top and layer is self.layers[-1] else torch.sigmoid(x)
        return x

    @torch.no_grad()
    def limit_norms(self, most: float) -> None:
        """Shrinks every unit's incoming weights to an L2 norm of at most `most` (Srivastava et al. 2014, sec. 5.1)."""
        for layer in self.linears():
            norms = torch.linalg.vector_norm(layer.weight, dim=1, keepdim=True)
            layer.weight.mul_((most / norms.clamp(min=1e-12)).clamp(max=1))


def count_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of Bernoulli pixels with means sigmoid(logits), summed: (B, V), (B, V) -> (B,), in nats."""
    return F.binary_cross_entropy_with_logits(widen(logits), targets, reduction="none").sum(1)
