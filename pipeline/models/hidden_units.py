"""Hidden units of a restricted Boltzmann machine: Bernoulli, Gaussian (Hinton & Salakhutdinov 2006), or noisy rectified
linear (Nair & Hinton 2010).

Each method takes the inputs x = c + t(v) W, (..., H). tests/test_hidden_units.py.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.models.sampling import sample_bernoulli, sample_gaussian


class HiddenUnits(Protocol):
    binary: bool
    """h is 0 or 1, so that states can be enumerated."""

    def mean(self, inputs: Tensor) -> Tensor:
        """E[h | v]."""
        ...

    def sample(self, inputs: Tensor, generator: torch.Generator, mean: Tensor | None = None) -> Tensor:
        """A draw of h. mean: that of the inputs, where it is known."""
        ...

    def log_sum(self, inputs: Tensor, mean: Tensor | None = None) -> Tensor:
        """log sum_h exp(x h - e(h)), in nats, e the unit's own energy: what each takes off the free energy.

        mean: that of the inputs, if known.
        """
        ...


@dataclass(frozen=True)
class BernoulliHidden:
    """h in {0, 1}."""

    binary = True

    def mean(self, inputs: Tensor) -> Tensor:
        return torch.sigmoid(inputs)

    def sample(self, inputs: Tensor, generator: torch.Generator, mean: Tensor | None = None) -> Tensor:
        return sample_bernoulli(self.mean(inputs) if mean is None else mean, generator)

    def log_sum(self, inputs: Tensor, mean: Tensor | None = None) -> Tensor:
        if mean is None:
            return F.softplus(inputs)
        # The probability of the likelier state is >= 1/2, so that its log is exact to rounding, and half the price.
        return inputs.clamp(min=0).sub_((mean - 0.5).abs_().add_(0.5).log_())


@dataclass(frozen=True)
class GaussianHidden:
    """h real, of unit variance around x: linear units. Their own energy is h^2 / 2, so the free energy is quadratic."""

    binary = False

    def mean(self, inputs: Tensor) -> Tensor:
        return inputs

    def sample(self, inputs: Tensor, generator: torch.Generator, mean: Tensor | None = None) -> Tensor:  # noqa: ARG002
        return sample_gaussian(inputs, generator)

    def log_sum(self, inputs: Tensor, mean: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """log of the integral of exp(x h - h^2 / 2): (x^2 + log 2 pi) / 2."""
        return 0.5 * (inputs.square() + math.log(2 * math.pi))


@dataclass(frozen=True)
class NoisyRelu:
    """h = max(0, x + N(0, sigmoid(x))), in place of the sum of Bernoulli units with inputs x - 1/2, x - 3/2, ...

    Samples and means are those of the former, which has no energy. The free energy is that of the sum, whose mean is
    about softplus(x): for these units a loss and its update agree only as well as the two do.
    """

    binary = False

    def mean(self, inputs: Tensor) -> Tensor:
        """x Phi(x / s) + s phi(x / s) with s^2 = sigmoid(x), Phi and phi of the standard normal."""
        std = torch.sigmoid(inputs).sqrt()
        ratio = inputs / std
        density = torch.exp(-0.5 * ratio.square()) / math.sqrt(2 * math.pi)
        mean: Tensor = inputs * torch.special.ndtr(ratio) + std * density
        return mean.clamp(min=0)

    def sample(self, inputs: Tensor, generator: torch.Generator, mean: Tensor | None = None) -> Tensor:  # noqa: ARG002
        noise = sample_gaussian(torch.zeros_like(inputs), generator)
        return noise.mul_(torch.sigmoid(inputs).sqrt()).add_(inputs).clamp_(min=0)

    def log_sum(self, inputs: Tensor, mean: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The integral of softplus up to x, -Li_2(-e^x); Gauss-Legendre, to 1e-9."""
        nodes, weights = _gauss_legendre(inputs)
        size = torch.exp(torch.where(inputs > 0, -inputs, inputs))[..., None]
        below = (torch.log1p(size * nodes) / nodes) @ weights  # the integral up to -|x|
        return torch.where(inputs > 0, math.pi**2 / 6 + 0.5 * inputs.square() - below, below)


HIDDEN: dict[str, HiddenUnits] = {
    "bernoulli": BernoulliHidden(),
    "gaussian": GaussianHidden(),
    "relu": NoisyRelu(),
}


def _gauss_legendre(like: Tensor) -> tuple[Tensor, Tensor]:
    """Eight nodes and weights on [0, 1]."""
    nodes = (0.1834346424956498, 0.5255324099163290, 0.7966664774136267, 0.9602898564975363)
    weights = (0.3626837833783620, 0.3137066458778873, 0.2223810344533745, 0.1012285362903763)
    signed = [-node for node in nodes] + list(nodes)
    return (like.new_tensor(signed) + 1) / 2, like.new_tensor(weights * 2) / 2
