"""Variational autoencoder of fully connected layers, without labels (Kingma & Welling 2014).

Scores: `python -m benchmarks.applications --rows represent`.
"""

# B batch, C channels, H height = width, P pixels = C * H * H, Z latent

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.conv_blocks import draw_weights
from pipeline.models.losses import Batch, Losses
from pipeline.models.vae import kl_to_standard_normal, sample_normal


class DenseVAE(nn.Module):
    """p(x | z) of black and white pixels, q(z | x) and a decoder of the mirrored sizes, p(z) = N(0, I).

    hidden_sizes: of the encoder, bottom first.  beta: weight of the KL term, which rises from 0 over `warmup_steps`;
    with 0 and `variational` off, when z is the encoder's mean, this is an autoencoder.
    `generator` draws the weights; without it they start from a fixed seed, to be overwritten by load_state_dict.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        hidden_sizes: Sequence[int],
        latent_dim: int,
        beta: float = 1.0,
        warmup_steps: int = 0,
        variational: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.image_shape, self.hidden_sizes, self.latent_dim = image_shape, list(hidden_sizes), latent_dim
        self.beta, self.warmup_steps, self.variational = beta, warmup_steps, variational
        sizes = [math.prod(image_shape), *hidden_sizes]
        with torch.device("meta"):  # no draw from the global generator
            self.encoder = _relu_stack(sizes)
            self.posterior = nn.Linear(sizes[-1], 2 * latent_dim)
            self.decoder = _relu_stack([latent_dim, *sizes[:0:-1]])
            self.pixels = nn.Linear(sizes[1], sizes[0])
            self._add_parts()
        self.to_empty(device="cpu")
        draw_weights(self, generator or torch.Generator().manual_seed(0))
        with torch.no_grad():
            self.posterior.weight.mul_(0.1)  # q(z|x) starts close to the prior
            self._set_parts()

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z | x): (B, C, H, H) -> (B, Z) each."""
        return self.latent(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """The encoder's last hidden layer, (B, hidden_sizes[-1]); values are centred, from [0, 1] to [-1, 1]."""
        h: Tensor = self.encoder(2 * images.flatten(1) - 1)
        return h

    def latent(self, features: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.posterior(features).float().chunk(2, dim=1)
        return mean, log_variance

    def decode_logits(self, z: Tensor) -> Tensor:
        """(B, Z) -> (B, C, H, H)."""
        logits: Tensor = self.pixels(self.decoder(z))
        return logits.float().view(-1, *self.image_shape)  # under autocast the loss stays in 32 bits

    def decode(self, z: Tensor) -> Tensor:
        """Means of p(x | z), (B, C, H, H) in [0, 1]."""
        return torch.sigmoid(self.decode_logits(z))

    def kl(self, mean: Tensor, log_variance: Tensor, z: Tensor) -> Tensor:  # noqa: ARG002
        """KL(q(z | x) || p(z)) or, under a prior that has none in closed form, its estimate from z ~ q: (B,), nats."""
        return kl_to_standard_normal(mean, log_variance)

    def training_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:
        """-log p(x | z) + beta(step) KL, in nats; parts: reconstruction, and with `variational` kl, elbo."""
        return self._losses(batch, self.beta * min(1.0, step / max(1, self.warmup_steps)), generator)

    def validation_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:  # noqa: ARG002
        return self._losses(batch, self.beta, generator)

    def to_config(self) -> dict[str, Any]:
        """What from_config needs, as json."""
        return {
            "image_shape": list(self.image_shape),
            "hidden_sizes": self.hidden_sizes,
            "latent_dim": self.latent_dim,
            "beta": self.beta,
            "warmup_steps": self.warmup_steps,
            "variational": self.variational,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """A model of the same shape, to be filled by load_state_dict."""
        channels, height, width = config["image_shape"]
        return cls(**{**config, "image_shape": (channels, height, width)})

    def _losses(self, batch: Batch, beta: float, generator: torch.Generator) -> Losses:
        mean, log_variance = self.encode(batch.images)
        z = sample_normal(mean, log_variance, generator) if self.variational else mean
        return self._total(self.decode_logits(z), batch.images, mean, log_variance, z, beta)

    def _total(
        self, logits: Tensor, images: Tensor, mean: Tensor, log_variance: Tensor, z: Tensor, beta: float
    ) -> Losses:
        reconstruction = pixel_nats(logits, images).mean()
        if not self.variational:
            return Losses(reconstruction, {"reconstruction": reconstruction})
        kl = self.kl(mean, log_variance, z).mean()
        parts = {"reconstruction": reconstruction, "kl": kl, "elbo": -(reconstruction + kl)}
        return Losses(reconstruction + beta * kl, parts)

    def _add_parts(self) -> None:
        """Parameters of a kind of its own."""

    def _set_parts(self) -> None:
        """Their start, where `draw_weights` does not give it."""


def pixel_nats(logits: Tensor, images: Tensor) -> Tensor:
    """-log p(x | z) of black and white pixels, (B,), in nats."""
    return F.binary_cross_entropy_with_logits(logits, images, reduction="none").flatten(1).sum(dim=1)


def _relu_stack(sizes: Sequence[int]) -> nn.Sequential:
    return nn.Sequential(*(part for low, high in pairwise(sizes) for part in (nn.Linear(low, high), nn.ReLU())))
