"""How strange a VAE finds an input: the bound, and the reconstruction probability of An & Cho 2015."""

# B batch, Z latent, L draws

from typing import Protocol

import torch
from torch import Tensor

from pipeline.models.vae import kl_to_standard_normal


class Encoding(Protocol):
    """A model with q(z | x) and p(x | z)."""

    def encode(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]: ...

    def log_likelihood(self, images: Tensor, z: Tensor, labels: Tensor) -> Tensor: ...


@torch.no_grad()
def reconstruction_and_kl(model: Encoding, images: Tensor, labels: Tensor, noise_LZ: Tensor) -> tuple[Tensor, Tensor]:
    """E_q log p(x | z), the logarithm of the reconstruction probability, and KL(q || p): each (B,), in nats.

    The ELBO is the first less the second.  noise_LZ: L >= 1 draws of N(0, I), the same for every image, so that an
    image's score depends on no other image.
    """
    mean, log_variance = model.encode(images, labels)
    draws = (mean + noise_Z * (0.5 * log_variance).exp() for noise_Z in noise_LZ)
    reconstruction = torch.stack([model.log_likelihood(images, z, labels) for z in draws]).mean(0)
    return reconstruction, kl_to_standard_normal(mean, log_variance)


def draw_noise(num_samples: int, latent_dim: int) -> Tensor:
    """(num_samples, latent_dim), the same on every call."""
    return torch.randn(num_samples, latent_dim, generator=torch.Generator().manual_seed(0))
