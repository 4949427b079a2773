"""log Z of a Bernoulli RBM by annealed importance sampling: Neal 2001; Salakhutdinov & Murray 2008, forwards and back.

p_beta(v) ~ exp((1 - beta) a.v + beta b.v + sum_j softplus((1 - beta) d_j + beta (c_j + v.W_j))) leads from the
base-rate model, independent units with biases a and d, at beta = 0, to the RBM at beta = 1. Hidden units that keep
their mean activity leave more effective chains than ones that start as fair coins (docs/LOG.md). The average importance
weight is an unbiased ratio of Zs, so its logarithm is too low in expectation (Jensen): walked up from the base-rate
model the path gives a stochastic lower bound on log Z, walked down from samples of the RBM an upper one (Grosse,
Ghahramani, Adams 2015; the idea of Burda, Grosse, Salakhutdinov 2015). tests/test_likelihood.py holds both against
enumeration.
"""

# M chains, V visible units, H hidden units

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from pipeline.models.rbm import RBM
from pipeline.models.sampling import sample_bernoulli
from pipeline.row_noise import part_generator

CONFIDENCE = 0.95
SMOOTHING = 0.05
"""Added to the counts of on and of off, in images per image: no pixel's bias is infinite."""

SHARES, BETAS = (0.0, 0.15, 0.5, 1.0), (0.0, 0.5, 0.8, 1.0)
"""15 % of the temperatures lie below 0.5, half of them above 0.8."""


@dataclass(frozen=True, kw_only=True)
class Annealing:
    """What one estimate may cost: time goes with chains times temperatures."""

    num_chains: int
    """>= 2; 100..1000. The effective sample size is at most this."""
    num_temperatures: int
    """Values of beta, 0 and 1 among them, >= 2; 1,000..10,000 for a result, some hundred to watch a fit."""
    chains_at_once: int = 500
    """Bounds the memory, >= 1; the result does not depend on it but for rounding."""

    def __post_init__(self) -> None:
        for key, least in (("num_chains", 2), ("num_temperatures", 2), ("chains_at_once", 1)):
            if getattr(self, key) < least:
                raise ValueError(f"{key} of annealing must be >= {least}, got {getattr(self, key)}")


@dataclass(frozen=True, kw_only=True)
class LogPartition:
    """An estimate of log Z in nats. low, high: its 95 % interval; ess: effective sample size of the weights."""

    log_z: float
    low: float
    high: float
    ess: float
    num_chains: int
    num_temperatures: int


@dataclass(frozen=True, kw_only=True)
class BaseRates:
    """A model of independent units, whose log Z is known.  visible (V,), hidden (H,): their biases."""

    visible: Tensor
    hidden: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, rbm: RBM, images: Tensor) -> Self:
        """Logits of the smoothed mean image and of its hidden units' mean activity.  images: (N, ...) in [0, 1]."""
        v_NV = images.flatten(1).to(rbm.weight)
        return cls(visible=_logits(v_NV.mean(0)), hidden=_logits(rbm.hidden_probabilities(v_NV).mean(0)))

    @property
    def log_partition(self) -> float:
        """sum_i softplus(a_i) + sum_j softplus(d_j), in nats."""
        return float(F.softplus(self.visible.double()).sum() + F.softplus(self.hidden.double()).sum())


@torch.no_grad()
def estimate_log_partition(rbm: RBM, base: BaseRates, annealing: Annealing, *, seed: int) -> LogPartition:
    """log Z from chains that start in the base-rate model: in expectation too low, the less so the more temperatures.

    base: `BaseRates.of` the training images, or any other.  Equal seeds give equal chains.
    Raises ValueError unless the visible units are Bernoulli.
    """
    base = _checked(rbm, base)
    start = torch.sigmoid(base.visible).expand(annealing.num_chains, -1)
    betas = temperatures(annealing.num_temperatures)
    log_weights = _walk(rbm, base, start, betas, seed, annealing.chains_at_once)
    log_ratio, half_width, ess = _log_mean(log_weights)
    return _around(base.log_partition + log_ratio, half_width, ess, log_weights, betas)


@torch.no_grad()
def estimate_log_partition_downwards(
    rbm: RBM, base: BaseRates, samples: Tensor, annealing: Annealing, *, seed: int
) -> LogPartition:
    """log Z from chains that start in samples of the RBM and end in the base-rate model: in expectation too high.

    The average weight is unbiased for Z_base / Z, and minus its logarithm is too high by Jensen. This holds when the
    samples (num_chains, V) are exact draws from the RBM. From Gibbs chains it holds as far as they have mixed: where
    they miss a mode, the estimate may fall below log Z, and no number of temperatures shows it.
    Raises ValueError unless the visible units are Bernoulli, or when there is not one sample a chain.
    """
    base = _checked(rbm, base)
    if samples.shape != (annealing.num_chains, rbm.num_visible):
        raise ValueError(
            f"samples must have shape {(annealing.num_chains, rbm.num_visible)}, one for each of num_chains, "
            f"got {tuple(samples.shape)}: draw as many with sample_rbm"
        )
    betas = temperatures(annealing.num_temperatures)[::-1]
    start = samples.to(rbm.weight)
    log_weights = _walk(rbm, base, start, betas, seed, annealing.chains_at_once)
    log_ratio, half_width, ess = _log_mean(log_weights)
    return _around(base.log_partition - log_ratio, half_width, ess, log_weights, betas)


def temperatures(count: int) -> list[float]:
    """`count` rising values of beta from 0 to 1, half of them above 0.8.

    Evenly spaced, the chains of a model of digits stay near the blank page, and log Z is too low (docs/LOG.md).
    """
    return [float(beta) for beta in np.interp(np.linspace(0, 1, count), SHARES, BETAS)]


def _walk(rbm: RBM, base: BaseRates, start_MV: Tensor, betas: Sequence[float], seed: int, at_once: int) -> Tensor:
    """Log weights (M,) of all chains. They start in draws from `start_MV`, which leave zeros and ones as they are."""
    count, parts = len(start_MV), []
    for first in range(0, count, at_once):
        generator = part_generator(seed, "annealing", first=first, total=count, device=rbm.weight.device)
        v_MV = sample_bernoulli(start_MV[first : first + at_once], generator)
        parts.append(_anneal(rbm, base, v_MV, betas, generator))
    return torch.cat(parts)


def _anneal(rbm: RBM, base: BaseRates, v_MV: Tensor, betas: Sequence[float], generator: torch.Generator) -> Tensor:
    """sum_k log p*_k(v) - log p*_(k-1)(v) along a path through `betas`, rising or falling: (M,) float64, in nats.

    `v_MV` are draws at betas[0]. A round of Gibbs sampling is reversible in v, so one step serves both directions.
    """
    W_VH, b_V, c_H = (parameter.detach() for parameter in (rbm.weight, rbm.visible_bias, rbm.hidden_bias))
    a_V, d_H = base.visible, base.hidden
    # In double precision: thousands of small differences are added up.
    log_weights = torch.zeros(len(v_MV), dtype=torch.float64, device=v_MV.device)
    for number, (now, then) in enumerate(pairwise(betas), start=2):
        rise_MH = torch.addmm(c_H - d_H, v_MV, W_VH)  # of the hidden units' inputs from beta = 0 to 1
        warm_MH = torch.add(d_H, rise_MH, alpha=then)
        log_weights += (then - now) * (v_MV @ (b_V - a_V)).double()
        log_weights += (F.softplus(warm_MH) - F.softplus(rise_MH.mul_(now).add_(d_H))).sum(1, dtype=torch.float64)
        if number < len(betas):
            h_MH = sample_bernoulli(warm_MH.sigmoid_(), generator)
            bias_V = torch.lerp(a_V, b_V, then)
            v_MV = sample_bernoulli(torch.addmm(bias_V, h_MH, W_VH.t(), alpha=then).sigmoid_(), generator)
    return log_weights


def _log_mean(log_weights: Tensor) -> tuple[float, float, float]:
    """log of the mean weight, half the width of its 95 % interval, and the effective sample size.

    The interval is the delta method's: the relative standard error of the mean, with Student's t. A bootstrap over
    chains would resample the same weights and be as blind to a mode that no chain has met; both want many effective
    chains, and then agree.
    """
    count = len(log_weights)
    log_mean = torch.logsumexp(log_weights, 0) - math.log(count)
    weights = torch.exp(log_weights - log_mean)  # of mean 1
    ess = count / float(weights.square().mean())
    error = float(weights.std()) / math.sqrt(count)
    return float(log_mean), float(stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1)) * error, ess


def _around(log_z: float, half_width: float, ess: float, log_weights: Tensor, betas: Sequence[float]) -> LogPartition:
    return LogPartition(
        log_z=log_z,
        low=log_z - half_width,
        high=log_z + half_width,
        ess=ess,
        num_chains=len(log_weights),
        num_temperatures=len(betas),
    )


def _logits(mean: Tensor) -> Tensor:
    return ((mean + SMOOTHING) / (1 + 2 * SMOOTHING)).logit()


def _checked(rbm: RBM, base: BaseRates) -> BaseRates:
    """The base rates with the model's type and place."""
    if rbm.visible != "bernoulli":
        raise ValueError(f"log Z is annealed for bernoulli visible units, got {rbm.visible}: set visible to bernoulli")
    if rbm.hidden != "bernoulli":
        raise ValueError(f"log Z is annealed for bernoulli hidden units, got {rbm.hidden}: set hidden to bernoulli")
    for kind, biases, count in (
        ("visible", base.visible, rbm.num_visible),
        ("hidden", base.hidden, rbm.num_hidden),
    ):
        if biases.shape != (count,):
            raise ValueError(
                f"the base-rate model needs {count} {kind} biases, got shape {tuple(biases.shape)}: "
                "make them from this model and images of its size with BaseRates.of"
            )
    return BaseRates(visible=base.visible.to(rbm.weight), hidden=base.hidden.to(rbm.weight))
