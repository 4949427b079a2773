"""Continuous Bernoulli distribution of a value in [0, 1], by its logit (Loaiza-Ganem & Cunningham 2019).

p(x) = C exp(x logit) / (1 + exp(logit)) with C = logit / tanh(logit / 2), which is 0 / 0 at logit = 0: close to it
the functions are series in logit / 2.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

SERIES_BELOW = 0.5
"""|logit| under which the series, cut after three terms, is exact to 1e-7 and the closed form cancels."""


def continuous_bernoulli_log_density(x: Tensor, logits: Tensor) -> Tensor:
    """log p(x), elementwise, in nats: positive where the density is above 1.  x in [0, 1]."""
    return log_normaliser(logits) - F.binary_cross_entropy_with_logits(logits, x, reduction="none")


def log_normaliser(logits: Tensor) -> Tensor:
    """log C, elementwise: log 2 at logit 0, about log |logit| far from it."""
    size = logits.abs().clamp(min=SERIES_BELOW)  # where's unused branch must have a finite gradient
    closed = size.log() - (-torch.expm1(-size)).log() + torch.exp(-size).log1p()
    square = (0.5 * logits).square()
    series = math.log(2) + square * (1 / 3 - square * (7 / 90 - square * (62 / 2835)))
    return torch.where(logits.abs() < SERIES_BELOW, series, closed)


def continuous_bernoulli_mean(logits: Tensor) -> Tensor:
    """E[x] = 1 / (1 - exp(-logit)) - 1 / logit, elementwise, in (0, 1): closer to 1/2 than sigmoid(logit)."""
    size = logits.abs().clamp(min=SERIES_BELOW)
    closed = 0.5 + logits.sign() * (-1 / torch.expm1(-size) - 1 / size - 0.5)
    half = 0.5 * logits
    square = half.square()
    series = 0.5 + half * (1 / 6 - square * (1 / 90 - square * (1 / 945)))
    return torch.where(logits.abs() < SERIES_BELOW, series, closed)
