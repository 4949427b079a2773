"""log Z of a Bernoulli RBM by annealed importance sampling: Neal 2001; Salakhutdinov & Murray 2008, forwards and back.

p_beta(v) ~ exp((1 - beta) a.v + beta b.v + sum_j softplus(beta (c_j + v.W_j))) leads from the base-rate model, which is
independent pixels with biases a, at beta = 0, to the RBM at beta = 1. The average importance weight is an
unbiased ratio of Zs, so its logarithm is too low in expectation (Jensen): walked up from the base-rate model the path
gives a stochastic lower bound on log Z, walked down from samples of the RBM an upper one (Grosse, Ghahramani, Adams
2015; the idea of Burda, Grosse, Salakhutdinov 2015). tests/test_likelihood.py holds both against enumeration.
"""

# M chains, V visible units, H hidden units

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

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

SHARES, BETAS = (0.0, 1 / 29, 9 / 29, 1.0), (0.0, 0.5, 0.9, 1.0)
"""500 of 14,500 temperatures lie below 0.5, 4,000 between 0.5 and 0.9, 10,000 above."""


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


def base_rate_biases(images: Tensor) -> Tensor:
    """Visible biases of the base-rate model: (N, ...) in [0, 1] -> (V,), the logits of the smoothed mean image."""
    mean = images.flatten(1).mean(0)
    return ((mean + SMOOTHING) / (1 + 2 * SMOOTHING)).logit()


@torch.no_grad()
def estimate_log_partition(rbm: RBM, base_V: Tensor, annealing: Annealing, *, seed: int) -> LogPartition:
    """log Z from chains that start in the base-rate model: in expectation too low, the less so the more temperatures.

    base_V: what `base_rate_biases` gives for the training images.  Equal seeds give equal chains.
    Raises ValueError unless the visible units are Bernoulli.
    """
    base_V = _checked(rbm, base_V)
    start = torch.sigmoid(base_V).expand(annealing.num_chains, -1)
    betas = temperatures(annealing.num_temperatures)
    log_weights = _walk(rbm, base_V, start, betas, seed, annealing.chains_at_once)
    log_ratio, half_width, ess = _log_mean(log_weights)
    return _around(_base_log_partition(rbm, base_V) + log_ratio, half_width, ess, log_weights, betas)


@torch.no_grad()
def estimate_log_partition_downwards(
    rbm: RBM, base_V: Tensor, samples: Tensor, annealing: Annealing, *, seed: int
) -> LogPartition:
    """log Z from chains that start in samples of the RBM and end in the base-rate model: in expectation too high.

    The average weight is unbiased for Z_base / Z, and minus its logarithm is too high by Jensen. This holds when the
    samples (num_chains, V) are exact draws from the RBM. From Gibbs chains it holds as far as they have mixed: where
    they miss a mode, the estimate may fall below log Z, and no number of temperatures shows it.
    Raises ValueError unless the visible units are Bernoulli, or when there is not one sample a chain.
    """
    base_V = _checked(rbm, base_V)
    if samples.shape != (annealing.num_chains, rbm.num_visible):
        raise ValueError(
            f"samples must have shape {(annealing.num_chains, rbm.num_visible)}, one for each of num_chains, "
            f"got {tuple(samples.shape)}: draw as many with sample_rbm"
        )
    betas = temperatures(annealing.num_temperatures)[::-1]
    start = samples.to(rbm.weight)
    log_weights = _walk(rbm, base_V, start, betas, seed, annealing.chains_at_once)
    log_ratio, half_width, ess = _log_mean(log_weights)
    return _around(_base_log_partition(rbm, base_V) - log_ratio, half_width, ess, log_weights, betas)


def temperatures(count: int) -> list[float]:
    """`count` rising values of beta from 0 to 1, most of them above 0.9 as in Salakhutdinov & Murray 2008.

    Evenly spaced, the chains of a model of digits stay near the blank page, and log Z is too low (docs/LOG.md).
    """
    return [float(beta) for beta in np.interp(np.linspace(0, 1, count), SHARES, BETAS)]


def _walk(rbm: RBM, base_V: Tensor, start_MV: Tensor, betas: Sequence[float], seed: int, at_once: int) -> Tensor:
    """Log weights (M,) of all chains. They start in draws from `start_MV`, which leave zeros and ones as they are."""
    count, parts = len(start_MV), []
    for first in range(0, count, at_once):
        generator = part_generator(seed, "annealing", first=first, total=count, device=rbm.weight.device)
        v_MV = sample_bernoulli(start_MV[first : first + at_once], generator)
        parts.append(_anneal(rbm, base_V, v_MV, betas, generator))
    return torch.cat(parts)


def _anneal(rbm: RBM, base_V: Tensor, v_MV: Tensor, betas: Sequence[float], generator: torch.Generator) -> Tensor:
    """sum_k log p*_k(v) - log p*_(k-1)(v) along a path through `betas`, rising or falling: (M,) float64, in nats.

    `v_MV` are draws at betas[0]. A round of Gibbs sampling is reversible in v, so one step serves both directions.
    """
    W_VH, b_V, c_H = (parameter.detach() for parameter in (rbm.weight, rbm.visible_bias, rbm.hidden_bias))
    # In double precision: thousands of small differences are added up.
    log_weights = torch.zeros(len(v_MV), dtype=torch.float64, device=v_MV.device)
    for number, (now, then) in enumerate(pairwise(betas), start=2):
        inputs_MH = torch.addmm(c_H, v_MV, W_VH)
        warm_MH = inputs_MH * then
        log_weights += (then - now) * (v_MV @ (b_V - base_V)).double()
        log_weights += (F.softplus(warm_MH) - F.softplus(inputs_MH.mul_(now))).sum(1, dtype=torch.float64)
        if number < len(betas):
            h_MH = sample_bernoulli(warm_MH.sigmoid_(), generator)
            bias_V = torch.lerp(base_V, b_V, then)
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


def _base_log_partition(rbm: RBM, base_V: Tensor) -> float:
    return float(F.softplus(base_V.double()).sum()) + rbm.num_hidden * math.log(2)


def _checked(rbm: RBM, base_V: Tensor) -> Tensor:
    """The base biases with the model's type and place."""
    if rbm.visible != "bernoulli":
        raise ValueError(f"log Z is annealed for bernoulli visible units, got {rbm.visible}: set visible to bernoulli")
    if rbm.hidden != "bernoulli":
        raise ValueError(f"log Z is annealed for bernoulli hidden units, got {rbm.hidden}: set hidden to bernoulli")
    if base_V.shape != (rbm.num_visible,):
        raise ValueError(
            f"the base-rate model needs {rbm.num_visible} biases, got shape {tuple(base_V.shape)}: "
            "make them from images of the model's size"
        )
    return base_V.to(rbm.weight)
