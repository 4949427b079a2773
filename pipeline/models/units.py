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
    per_example: bool
    """Every example has a model of its own, so that persistent chains cannot stand for all of them."""

    def statistic(self, v: Tensor, z: Tensor) -> Tensor:
        """t(v), what the weights and the biases multiply, the shape of v."""
        ...

    def energy(self, v: Tensor, b: Tensor, z: Tensor) -> Tensor:
        """e(v), summed over the units, in nats: (..., V) -> (...)."""
        ...

    def scale(self, v: Tensor, x: Tensor) -> Tensor:
        """x times how often the hidden biases count for v (B, V): once, or for every word of a document."""
        ...

    def offset(self, v: Tensor, z: Tensor) -> Tensor:
        """What centred gradients subtract from t(v), its mean: (B, V) -> (V,)."""
        ...

    def mean(self, inputs: Tensor, like: Tensor | None) -> Tensor:
        """E[v | h] from b + W h: (..., V) -> (..., V).

        like: states (B, V) from which to take what is fixed for an example, where there is such a thing.
        """
        ...

    def sample(self, mean: Tensor, z: Tensor, generator: torch.Generator) -> Tensor:
        """A draw of v given its mean."""
        ...

    def log_sum(self, field: Tensor, b: Tensor, z: Tensor, like: Tensor | None) -> Tensor:
        """log of the sum (integral) over v of exp(t(v).field - e(v)): (N, V) -> (N,), or (B, N) with `like` (B, V)."""
        ...

    def tempered(self, betas: Tensor, b: Tensor, z: Tensor, base: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What makes `mean` and `sample` those of (1 - beta) e_0(v) + beta E(v, h), e_0 with biases `base`, z = 0.

        betas: (T, 1).  Returns biases (T, V), gains of the field (T, 1) or (T, V), and log variances (T, V) or z.
        """
        ...

    def initial_bias(self, x: Tensor) -> Tensor:
        """b of a model without weights that has the data's mean, (B, V) in their own units -> (V,)."""
        ...

    def initial_mean(self, x: Tensor) -> Tensor:
        """The mean from which chains start, (B, V) in their own units -> (V,) in model units."""
        ...


class Linear:
    """e(v) = -b.v, t(v) = v."""

    standardised = False
    learns_variance = False
    per_example = False

    def statistic(self, v: Tensor, z: Tensor) -> Tensor:  # noqa: ARG002
        return v

    def energy(self, v: Tensor, b: Tensor, z: Tensor) -> Tensor:  # noqa: ARG002
        return -(v @ b)

    def scale(self, v: Tensor, x: Tensor) -> Tensor:  # noqa: ARG002
        return x

    def offset(self, v: Tensor, z: Tensor) -> Tensor:
        return self.statistic(v, z).mean(0)

    def tempered(self, betas: Tensor, b: Tensor, z: Tensor, base: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return (1 - betas) * base + betas * b, betas, z

    def initial_mean(self, x: Tensor) -> Tensor:
        return x.mean(0)


@dataclass(frozen=True)
class Bernoulli(Linear):
    """v in {0, 1}, or probabilities in their place."""

    def mean(self, inputs: Tensor, like: Tensor | None) -> Tensor:  # noqa: ARG002
        return torch.sigmoid(inputs)

    def sample(self, mean: Tensor, z: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        return sample_bernoulli(mean, generator)

    def log_sum(self, field: Tensor, b: Tensor, z: Tensor, like: Tensor | None) -> Tensor:  # noqa: ARG002
        return F.softplus(field + b).sum(1)

    def initial_bias(self, x: Tensor) -> Tensor:
        return x.mean(0).clamp(0.01, 0.99).logit()


@dataclass(frozen=True)
class Gaussian(Linear):
    """v real, of unit variance once standardised; e(v) = |v - b|^2 / 2, t(v) = v."""

    standardised = True

    def energy(self, v: Tensor, b: Tensor, z: Tensor) -> Tensor:  # noqa: ARG002
        return 0.5 * (v - b).square().sum(-1)

    def mean(self, inputs: Tensor, like: Tensor | None) -> Tensor:  # noqa: ARG002
        return inputs

    def sample(self, mean: Tensor, z: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        return sample_gaussian(mean, generator)

    def log_sum(self, field: Tensor, b: Tensor, z: Tensor, like: Tensor | None) -> Tensor:  # noqa: ARG002
        return field @ b + 0.5 * field.square().sum(1) + 0.5 * len(b) * math.log(2 * math.pi)

    def initial_bias(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[0])

    def initial_mean(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[0])


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

    def log_sum(self, field: Tensor, b: Tensor, z: Tensor, like: Tensor | None) -> Tensor:  # noqa: ARG002
        exponents = (field * b + 0.5 * field.square()) * torch.exp(-z)
        return exponents.sum(1) + 0.5 * (z + math.log(2 * math.pi)).sum()

    def tempered(self, betas: Tensor, b: Tensor, z: Tensor, base: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        own = betas * torch.exp(-z)
        precision = 1 - betas + own
        return ((1 - betas) * base + own * b) / precision, own / precision, -torch.log(precision)
