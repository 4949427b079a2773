"""Visible units of a restricted Boltzmann machine: what differs between kinds, apart from the weights.

Hinton 2010 (Bernoulli, Gaussian); Cho, Ilin, Raiko 2011 (Gaussian with a learned variance, z = log sigma^2). For all
kinds E(v, h) = e(v) - c.h - t(v) W h, with e and the statistic t as below; tests/test_units.py holds each of them
against enumeration or quadrature.
"""

# B batch, V visible units, N hidden states that are summed over

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.models.sampling import sample_bernoulli, sample_gaussian


class VisibleUnits(Protocol):
    """b: the units' biases (V,); z: their log variances (V,), empty where none are learned; W h is called field."""

    standardised: bool
    """The inputs are standardised before the model sees them."""
    learns_variance: bool
    """There are log variances z."""

    def statistic(self, v: Tensor, z: Tensor) -> Tensor:
        """t(v), what the weights and the biases multiply, the shape of v."""
        ...

    def energy(self, v: Tensor, b: Tensor, z: Tensor) -> Tensor:
        """e(v), summed over the units, in nats: (..., V) -> (...)."""
        ...

    def mean(self, inputs: Tensor) -> Tensor:
        """E[v | h] from b + W h: (..., V) -> (..., V)."""
        ...

    def sample(self, mean: Tensor, z: Tensor, generator: torch.Generator) -> Tensor:
        """A draw of v given its mean."""
        ...

    def log_sum(self, field: Tensor, b: Tensor, z: Tensor) -> Tensor:
        """log of the sum (integral) over v of exp(t(v).field - e(v)): (N, V) -> (N,)."""
        ...

    def tempered(self, betas: Tensor, b: Tensor, z: Tensor, base: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What makes `mean` and `sample` those of (1 - beta) e_0(v) + beta E(v, h), e_0 with biases `base`, z = 0.

        betas: (T, 1).  Returns biases (T, V), gains of the field (T, 1) or (T, V), and log variances (T, V) or z.
        """
        ...

    def initial_bias(self, x: Tensor) -> Tensor:
        """b of a model without weights that has the data's mean, (B, V) in model units -> (V,)."""
        ...

    def initial_chains(self, x: Tensor, chains: Tensor, generator: torch.Generator) -> Tensor:
        """Independent units with the data's means, the shape of `chains` (..., V)."""
        ...


@dataclass(frozen=True)
class Bernoulli:
    """v in {0, 1}, or probabilities in their place; e(v) = -b.v, t(v) = v."""

    standardised = False
    learns_variance = False

    def statistic(self, v: Tensor, z: Tensor) -> Tensor:  # noqa: ARG002
        return v

    def energy(self, v: Tensor, b: Tensor, z: Tensor) -> Tensor:  # noqa: ARG002
        return -(v @ b)

    def mean(self, inputs: Tensor) -> Tensor:
        return torch.sigmoid(inputs)

    def sample(self, mean: Tensor, z: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        return sample_bernoulli(mean, generator)

    def log_sum(self, field: Tensor, b: Tensor, z: Tensor) -> Tensor:  # noqa: ARG002
        return F.softplus(field + b).sum(1)

    def tempered(self, betas: Tensor, b: Tensor, z: Tensor, base: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return (1 - betas) * base + betas * b, betas, z

    def initial_bias(self, x: Tensor) -> Tensor:
        return x.mean(0).clamp(0.01, 0.99).logit()

    def initial_chains(self, x: Tensor, chains: Tensor, generator: torch.Generator) -> Tensor:
        return sample_bernoulli(x.mean(0).expand_as(chains), generator)


@dataclass(frozen=True)
class Gaussian:
    """v real, of unit variance once standardised; e(v) = |v - b|^2 / 2, t(v) = v."""

    standardised = True
    learns_variance = False

    def statistic(self, v: Tensor, z: Tensor) -> Tensor:  # noqa: ARG002
        return v

    def energy(self, v: Tensor, b: Tensor, z: Tensor) -> Tensor:  # noqa: ARG002
        return 0.5 * (v - b).square().sum(-1)

    def mean(self, inputs: Tensor) -> Tensor:
        return inputs

    def sample(self, mean: Tensor, z: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        return sample_gaussian(mean, generator)

    def log_sum(self, field: Tensor, b: Tensor, z: Tensor) -> Tensor:  # noqa: ARG002
        return field @ b + 0.5 * field.square().sum(1) + 0.5 * len(b) * math.log(2 * math.pi)

    def tempered(self, betas: Tensor, b: Tensor, z: Tensor, base: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return (1 - betas) * base + betas * b, betas, z

    def initial_bias(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[0])

    def initial_chains(self, x: Tensor, chains: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        return sample_gaussian(torch.zeros_like(chains), generator)


@dataclass(frozen=True)
class LearnedGaussian(Gaussian):
    """v real; e(v) = sum_i (v_i - b_i)^2 / (2 sigma_i^2), t(v) = v / sigma^2, sigma_i^2 = exp(z_i).

    v given h has mean b + W h and variance sigma^2: the weights have the unit of v (Cho, Ilin, Raiko 2011, eq. 4).
    """

    learns_variance = True

    def statistic(self, v: Tensor, z: Tensor) -> Tensor:
        return v * torch.exp(-z)

    def energy(self, v: Tensor, b: Tensor, z: Tensor) -> Tensor:
        return 0.5 * ((v - b).square() * torch.exp(-z)).sum(-1)

    def sample(self, mean: Tensor, z: Tensor, generator: torch.Generator) -> Tensor:
        noise = sample_gaussian(torch.zeros_like(mean), generator)
        return noise.mul_(torch.exp(0.5 * z)).add_(mean)

    def log_sum(self, field: Tensor, b: Tensor, z: Tensor) -> Tensor:
        exponents = (field * b + 0.5 * field.square()) * torch.exp(-z)
        return exponents.sum(1) + 0.5 * (z + math.log(2 * math.pi)).sum()

    def tempered(self, betas: Tensor, b: Tensor, z: Tensor, base: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        own = betas * torch.exp(-z)
        precision = 1 - betas + own
        return ((1 - betas) * base + own * b) / precision, own / precision, -torch.log(precision)


UNITS: dict[str, VisibleUnits] = {
    "bernoulli": Bernoulli(),
    "gaussian": Gaussian(),
    "gaussian_variance": LearnedGaussian(),
}
