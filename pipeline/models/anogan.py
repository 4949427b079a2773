"""f-AnoGAN (Schlegl et al. 2019): an encoder into the latent space of a frozen GAN of normal images.

What the GAN cannot make comes back changed, in pixels and in the discriminator's features.
`python -m benchmarks.applications --rows mnist` has its AUROC beside the others'.
"""

# B batch, C channels, H height = width, Z latent

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from pipeline.models.conv_blocks import LEAK, ConvEncoder, draw_weights
from pipeline.models.gan import ConditionalGAN
from pipeline.models.losses import UNLABELLED, Batch, Losses


class LatentEncoder(nn.Module):
    """E(x), trained by "izi_f" (sec. 3.2): mean |x - G(E(x))|^2 + kappa * mean |f(x) - f(G(E(x)))|^2.

    G: the GAN's averaged generator; f: its discriminator's features; both stay as they are and take no label.
    kappa: weight of the features, >= 0; 1 in the paper.  The weights of E are drawn from `generator`.
    """

    def __init__(self, gan: ConditionalGAN, *, kappa: float, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.gan, self.kappa = gan.requires_grad_(False), kappa
        with torch.device("meta"):  # no draw from the global generator
            self.encoder = ConvEncoder(gan.image_shape, gan.config.width, leak=LEAK)
            self.latent = nn.Linear(self.encoder.num_features, gan.config.latent_dim)
        for part in (self.encoder, self.latent):
            part.to_empty(device="cpu")
            draw_weights(part, generator or torch.Generator().manual_seed(0))

    def encode(self, images: Tensor) -> Tensor:
        """(B, C, H, H) in [0, 1] -> (B, Z)."""
        z: Tensor = self.latent(self.encoder(images))
        return z.float()

    def reconstruct(self, images: Tensor) -> Tensor:
        """G(E(x)), (B, C, H, H) in [0, 1]."""
        made: Tensor = self.gan.average(self.encode(images), _no_labels(images))
        return made.float()

    def score_parts(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean squared differences of each image from its reconstruction, of pixels and of features: (B,), (B,)."""
        made = self.reconstruct(images)
        pixels = (images - made).square().flatten(1).mean(1)
        features = self.gan.discriminator.features
        return pixels, (features(images) - features(made)).float().square().mean(1)

    @torch.no_grad()
    def scores(self, images: Tensor) -> Tensor:
        """A(x) = pixels + kappa * features (eq. 4), (B,); larger is stranger."""
        pixels, features = self.score_parts(images)
        return pixels + self.kappa * features

    def training_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:  # noqa: ARG002
        """parts: pixels, features."""
        pixels, features = (part.mean() for part in self.score_parts(batch.images))
        return Losses(pixels + self.kappa * features, {"pixels": pixels, "features": features})

    @torch.no_grad()
    def validation_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:
        return self.training_losses(batch, step, generator)

    def to_config(self) -> dict[str, Any]:
        """What from_config needs, as json."""
        return {"gan": self.gan.to_config(), "kappa": self.kappa}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """A model of the same shape, to be filled by load_state_dict."""
        return cls(ConditionalGAN.from_config(config["gan"]), kappa=config["kappa"])


def _no_labels(images: Tensor) -> Tensor:
    return torch.full((len(images),), UNLABELLED, device=images.device)
