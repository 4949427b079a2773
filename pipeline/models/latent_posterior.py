"""Posterior means in a VAE's latent space under any likelihood of what was observed.

q(z) = N(mean, exp(log_variance)) is fitted to each observation by gradient ascent on its ELBO (semi-amortised
inference, Kim et al. 2018), from where the encoder starts it, then corrected by importance weights (Burda et al. 2016).
"""

# B batch, Z latent, k samples

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.models.vae import kl_to_standard_normal, normal_log_density, sample_normal

LogLikelihood = Callable[[Tensor], Tensor]
"""z (B, Z) -> log p(y | z), (B,), in nats."""
BETAS = (0.9, 0.95)
"""Of Adam. The second is low: a few dozen steps are made."""


def fit_posterior(
    log_likelihood: LogLikelihood,
    mean_BZ: Tensor,
    log_variance_BZ: Tensor,
    steps: int,
    generator: torch.Generator,
    *,
    lr: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Mean and log variance of q(z | y), (B, Z) each, after `steps` of Adam on the ELBO of every row by itself."""
    mean = mean_BZ.detach().clone().requires_grad_(True)
    log_variance = log_variance_BZ.detach().clone().requires_grad_(True)
    optimizer = torch.optim.Adam([mean, log_variance], lr, betas=BETAS)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for _ in range(steps):
        z = sample_normal(mean, log_variance, generator)
        loss = (kl_to_standard_normal(mean, log_variance) - log_likelihood(z)).sum()
        mean.grad, log_variance.grad = torch.autograd.grad(loss, [mean, log_variance])
        optimizer.step()
        schedule.step()
    return mean.detach(), log_variance.detach()


@torch.no_grad()
def posterior_mean(
    log_likelihood: LogLikelihood,
    statistic: Callable[[Tensor], Tensor],
    mean_BZ: Tensor,
    log_variance_BZ: Tensor,
    k: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """E[statistic(z) | y] from k draws of q with weights p(y | z) p(z) / q(z); and their effective number, (B,).

    statistic: z (B, Z) -> (B, ...).  One draw is held at a time: sums are rescaled as a larger weight comes.
    """
    largest = torch.full_like(mean_BZ[:, 0], -torch.inf)
    total, squares, weighted = torch.zeros_like(largest), torch.zeros_like(largest), torch.zeros(())
    for _ in range(k):
        z = sample_normal(mean_BZ, log_variance_BZ, generator)
        log_prior = normal_log_density(z, torch.zeros_like(z), torch.zeros_like(z))
        log_weight = log_likelihood(z) + log_prior - normal_log_density(z, mean_BZ, log_variance_BZ)
        now = torch.maximum(largest, log_weight)
        old, new = (largest - now).exp(), (log_weight - now).exp()
        value = statistic(z)
        wide = (-1, *[1] * (value.ndim - 1))
        weighted = weighted * old.view(wide) + value * new.view(wide)
        total, squares, largest = total * old + new, squares * old.square() + new.square(), now
    return weighted / total.view(-1, *[1] * (weighted.ndim - 1)), total.square() / squares
