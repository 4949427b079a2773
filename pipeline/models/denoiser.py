"""Networks that are shown spoilt images and learn the clean ones: the denoising VAE (Im et al. 2017, with the clean
image's likelihood) and, of the same size, the denoising autoencoder (Vincent et al. 2010).

Scores: `python -m benchmarks.applications --rows denoise`.
"""

# B batch, C channels, H height = width, Z latent

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.corruption import HOLE, Corruption, spoil_mixed
from pipeline.models.dense_vae import DenseVAE
from pipeline.models.losses import Batch, Losses
from pipeline.models.vae import sample_normal


class Denoiser(DenseVAE):
    """p(x | z, y) and q(z | y): a DenseVAE that sees y and says x.

    The logits are the decoder's, plus (y - 1/2) times a gate >= 0, one number an image that the encoder gives: pixels
    of black and white images under Gaussian noise have the log odds (2 y - 1) / (2 sigma^2), a lost one has none.
    So the network needs to be told neither the kind of noise nor its strength.
    """

    corruptions: Mapping[str, Corruption] = {}
    """What training spoils images by, each row by one of them; not needed to denoise."""

    @torch.no_grad()
    def denoise(self, y: Tensor, num_samples: int, generator: torch.Generator) -> Tensor:
        """E[x | y], (B, C, H, H) in [0, 1]: the mean of what `num_samples` draws of z decode to.

        An autoencoder has one z, and needs one sample.
        """
        features = self.features(y)
        mean, log_variance = self.latent(features)
        skip = self._skip(features, y)
        if not self.variational:
            return torch.sigmoid(self.decode_logits(mean) + skip)
        total = torch.zeros_like(y)
        for _ in range(num_samples):
            total += torch.sigmoid(self.decode_logits(sample_normal(mean, log_variance, generator)) + skip)
        return total / num_samples

    def _skip(self, features: Tensor, y: Tensor) -> Tensor:
        gate = F.softplus(self.gate(features).float()).view(-1, 1, 1, 1)
        return gate * (y - HOLE)

    def _losses(self, batch: Batch, beta: float, generator: torch.Generator) -> Losses:
        y = spoil_mixed(self.corruptions, batch.images, generator)
        features = self.features(y)
        mean, log_variance = self.latent(features)
        z = sample_normal(mean, log_variance, generator) if self.variational else mean
        logits = self.decode_logits(z) + self._skip(features, y)
        return self._total(logits, batch.images, mean, log_variance, z, beta)

    def _add_parts(self) -> None:
        self.gate = nn.Linear(self.hidden_sizes[-1], 1)
