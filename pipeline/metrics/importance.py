"""The importance-weighted bound on log p(x) with many samples: Burda et al. 2016, where k = 5,000 for tables."""

# B images at once, K importance samples at once

import math
from typing import Protocol

import torch
from torch import Tensor

from pipeline.metrics.score import Z_95, Bound
from pipeline.row_noise import part_generator

IMAGES_AT_ONCE = 64
SAMPLES_AT_ONCE = 50


class WeightedModel(Protocol):
    """A latent-variable model with a posterior q(z | x) to draw from."""

    def log_weights(self, images: Tensor, labels: Tensor, k: int, generator: torch.Generator) -> Tensor:
        """log p(x, z) / q(z | x) of k draws z ~ q: (B, k), in nats."""
        ...


@torch.no_grad()
def bound_by_importance(model: WeightedModel, images: Tensor, labels: Tensor, *, k: int, seed: int) -> Bound:
    """Mean over images of log (1/k) sum_i p(x, z_i) / q(z_i | x) <= log p(x) on average, in nats   (eq. 8).

    images: (N, ...) binary where the pixels are; labels: (N,).  k: samples for each image, >= 2.
    The standard error is that of the draws, by the delta method: Var(log mean w) ~ Var(w) / (k mean(w)^2). It is too
    small where few of the k weights count.  Raises ValueError for values that are not finite.
    """
    if k < 2:
        raise ValueError(f"k must be >= 2, for a standard error, got {k}: tables take 5000")
    bounds, variances = [], []
    for first in range(0, len(images), IMAGES_AT_ONCE):
        part = slice(first, first + IMAGES_AT_ONCE)
        generator = part_generator(seed, "importance", first=first, total=len(images), device=images.device)
        log_sum_B, log_square_sum_B = _sum_weights(model, images[part], labels[part], k, generator)
        bounds.append(log_sum_B - math.log(k))
        variances.append((k * (log_square_sum_B - 2 * log_sum_B).exp() - 1).clamp(min=0) / (k - 1))
    value = float(torch.cat(bounds).mean())
    error = math.sqrt(float(torch.cat(variances).sum())) / len(images)
    if not math.isfinite(value) or not math.isfinite(error):
        raise ValueError(f"the bound of these images is {value}: the model has diverged, or the images are not finite")
    return Bound(value=value, low=value - Z_95 * error, high=value + Z_95 * error, standard_error=error, num_samples=k)


def _sum_weights(
    model: WeightedModel, images: Tensor, labels: Tensor, k: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """log sum_i w_i and log sum_i w_i^2 of k draws: (B,) float64 each."""
    log_sum_B = torch.full((len(images),), -math.inf, dtype=torch.float64, device=images.device)
    log_square_sum_B = log_sum_B.clone()
    for first in range(0, k, SAMPLES_AT_ONCE):
        log_w_BK = model.log_weights(images, labels, min(SAMPLES_AT_ONCE, k - first), generator).double()
        log_sum_B = torch.logaddexp(log_sum_B, log_w_BK.logsumexp(1))
        log_square_sum_B = torch.logaddexp(log_square_sum_B, (2 * log_w_BK).logsumexp(1))
    return log_sum_B, log_square_sum_B
