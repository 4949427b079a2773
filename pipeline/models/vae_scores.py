"""How strange a VAE finds an input: the bound, and the reconstruction probability of An & Cho 2015."""

# B batch, Z latent

from typing import Protocol

import torch
from torch import Tensor

from pipeline.models.vae import kl_to_standard_normal, sample_normal


class Encoding(Protocol):
    """A model with q(z | x) and p(x | z)."""

    def encode(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]: ...

    def log_likelihood(self, images: Tensor, z: Tensor, labels: Tensor) -> Tensor: ...


@torch.no_grad()
def reconstruction_and_kl(
    model: Encoding, images: Tensor, labels: Tensor, num_samples: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """E_q log p(x | z) from `num_samples` draws, the logarithm of the reconstruction probability, and KL(q || p).

    Each (B,), in nats; the ELBO is the first less the second.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be >= 1, got {num_samples}: the expectation needs a draw")
    mean, log_variance = model.encode(images, labels)
    draws = (sample_normal(mean, log_variance, generator) for _ in range(num_samples))
    reconstruction = torch.stack([model.log_likelihood(images, z, labels) for z in draws]).mean(0)
    return reconstruction, kl_to_standard_normal(mean, log_variance)
