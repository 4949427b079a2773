"""Variational autoencoder of rows of numbers (Kingma & Welling 2014): dense layers, a Gaussian for every column.

tests/test_anomaly_models.py holds its bound against the exact likelihood of a linear model.
"""

# B batch, D columns, Z latent, H hidden

import torch
from torch import Tensor, nn

from pipeline.models.conv_blocks import draw_weights
from pipeline.models.losses import Batch, Losses
from pipeline.models.vae import kl_to_standard_normal, normal_log_density, sample_normal

MIN_LOG_VARIANCE = -6.0
"""Of a column at unit variance: a smaller one would let a rounded column outweigh all others."""


class RowVAE(nn.Module):
    """p(x | z) = N(mean(z), diag(variance)), one learned variance a column; p(z) = N(0, I).

    Rows are standardised before they come here.  `generator` draws the weights.  Labels are taken as the image VAE
    takes them, and ignored.
    """

    def __init__(
        self, num_columns: int, *, latent_dim: int, num_hidden: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        with torch.device("meta"):  # no draw from the global generator
            self.encoder = nn.Sequential(
                nn.Linear(num_columns, num_hidden), nn.ReLU(), nn.Linear(num_hidden, 2 * latent_dim)
            )
            self.decoder = nn.Sequential(
                nn.Linear(latent_dim, num_hidden), nn.ReLU(), nn.Linear(num_hidden, num_columns)
            )
        self.to_empty(device="cpu")
        draw_weights(self, generator or torch.Generator().manual_seed(0))
        with torch.no_grad():
            next(self.encoder[-1].parameters()).mul_(0.1)  # q(z|x) starts close to the prior
        self.log_variance = nn.Parameter(torch.zeros(num_columns))

    def encode(self, rows: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Mean and log variance of q(z | x), each (B, Z)."""
        mean, log_variance = self.encoder(rows).float().chunk(2, dim=1)
        return mean, log_variance

    def log_likelihood(self, rows: Tensor, z: Tensor, labels: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """log p(x | z), (B,), in nats."""
        return normal_log_density(rows, self.decoder(z).float(), self.log_variance.clamp(min=MIN_LOG_VARIANCE))

    def training_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:  # noqa: ARG002
        """total = -ELBO; parts, in nats: reconstruction = -E log p(x|z), kl, elbo."""
        mean, log_variance = self.encode(batch.images)
        reconstruction = -self.log_likelihood(batch.images, sample_normal(mean, log_variance, generator)).mean()
        kl = kl_to_standard_normal(mean, log_variance).mean()
        return Losses(reconstruction + kl, {"reconstruction": reconstruction, "kl": kl, "elbo": -reconstruction - kl})

    @torch.no_grad()
    def validation_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:
        return self.training_losses(batch, step, generator)
