"""Conditional GAN: a DCGAN-sized generator (Radford et al. 2016) against a projection discriminator (Miyato & Koyama
2018), non-saturating loss (Goodfellow et al. 2014) with lazy R1 (Mescheder et al. 2018; Karras et al. 2020).

Sanity score: `python -m benchmarks.published_generators` (1-NN accuracy score beside class-wise probabilistic PCA).
"""

# B batch, C channels, H height = width, Z latent, F discriminator features

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config.generators import Gan
from pipeline.models.conv_blocks import LEAK, ConvDecoder, ConvEncoder, draw_weights, frozen, label_rows
from pipeline.models.diffaugment import diffaugment
from pipeline.models.losses import Batch, Losses
from pipeline.row_noise import draw_normal

LABEL_DIM = 16
NUM_FEATURES = 128


class Generator(nn.Module):
    """z and label to image.  No layer mixes the images of a batch, so an image depends on its own z and label alone."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, config: Gan) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.label = nn.Embedding(num_classes + 1, LABEL_DIM)
        self.decoder = ConvDecoder(image_shape, config.width, config.latent_dim + LABEL_DIM, num_rows=num_classes + 1)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """z: (B, Z); labels: (B,), -1 for any class.  Returns (B, C, H, H) in [0, 1]."""
        rows = label_rows(labels, self.num_classes)
        return torch.sigmoid(self.decoder(torch.cat([z, self.label(rows)], dim=1), rows))


class Discriminator(nn.Module):
    """Image and label to a logit, w . phi(x) + b + V_y . phi(x): large where the pair looks real."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, config: Gan) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.encoder = ConvEncoder(image_shape, config.width, leak=LEAK)
        self.hidden = nn.Linear(self.encoder.num_features, NUM_FEATURES)
        self.unconditional = nn.Linear(NUM_FEATURES, 1)
        self.projection = nn.Embedding(num_classes + 1, NUM_FEATURES)

    def features(self, images: Tensor) -> Tensor:
        """phi(x), (B, F)."""
        return F.leaky_relu(self.hidden(self.encoder(images)), LEAK)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """images: (B, C, H, H); labels: (B,), -1 for any class.  Returns (B,)."""
        phi = self.features(images)
        rows = label_rows(labels, self.num_classes)
        logits: Tensor = self.unconditional(phi)[:, 0] + (self.projection(rows) * phi).sum(dim=1)
        return logits.float()  # under autocast the loss stays in 32 bits


def r1_penalty(discriminate: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Mean over images of |d logit / d image|^2   (Mescheder et al. 2018, eq. 9, without its gamma / 2).

    discriminate: (B, ...) to (B,), each logit a function of its own image.  Returns a differentiable scalar.
    """
    images = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminate(images).sum(), images, create_graph=True)
    return gradient.square().flatten(1).sum(dim=1).mean()


class ConditionalGAN(nn.Module):
    """`generator` and `discriminator` are trained; `average`, the generator's moving average, makes the samples.

    The keyword `generator` draws the weights; without it they start from a fixed seed, to be overwritten by
    load_state_dict.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        *,
        config: Gan,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.image_shape, self.num_classes, self.config = image_shape, num_classes, config
        with torch.device("meta"):  # no draw from the global generator
            self.generator = Generator(image_shape, num_classes, config)
            self.discriminator = Discriminator(image_shape, num_classes, config)
        self.to_empty(device="cpu")
        draw_weights(self, generator or torch.Generator().manual_seed(0))
        with torch.no_grad():
            self.discriminator.projection.weight.mul_(NUM_FEATURES**-0.5)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)

    def discriminator_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:
        """softplus(-D(x)) + softplus(D(G(z))), plus every r1_every steps r1_weight / 2 * r1_every * R1.

        parts: adversarial, r1 (what it adds to the total, 0 on the steps between), real_logit, fake_logit.
        """
        with torch.no_grad():
            fake = self.generator(self._draw_z(batch.labels, generator), batch.labels)
        real, fake = self._augment(batch.images, generator), self._augment(fake, generator)
        logits = self.discriminator(torch.cat([real, fake]), torch.cat([batch.labels, batch.labels]))
        real_logit, fake_logit = logits.chunk(2)
        adversarial = F.softplus(-real_logit).mean() + F.softplus(fake_logit).mean()
        r1 = torch.zeros_like(adversarial)
        if self.config.r1_weight > 0 and step % self.config.r1_every == 0:
            penalty = r1_penalty(lambda x: self.discriminator(x, batch.labels), real)
            r1 = 0.5 * self.config.r1_weight * self.config.r1_every * penalty
        parts = {"adversarial": adversarial, "r1": r1, "real_logit": real_logit.mean(), "fake_logit": fake_logit.mean()}
        return Losses(adversarial + r1, parts)

    def generator_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:  # noqa: ARG002
        """softplus(-D(G(z))) for the labels of the batch; the discriminator gets no gradient."""
        fake = self._augment(self.generator(self._draw_z(batch.labels, generator), batch.labels), generator)
        with frozen(self.discriminator):
            adversarial = F.softplus(-self.discriminator(fake, batch.labels)).mean()
        return Losses(adversarial, {"adversarial": adversarial})

    @torch.no_grad()
    def update_average(self, step: int) -> None:
        """average += (1 - decay) * (generator - average), decay = min(ema_decay, (1 + step) / (10 + step)).

        The low decay of the first steps forgets the random start.
        """
        decay = min(self.config.ema_decay, (1 + step) / (10 + step))
        for average, current in zip(self.average.parameters(), self.generator.parameters(), strict=True):
            average.lerp_(current, 1 - decay)

    @torch.no_grad()
    def sample(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """One image per label from the averaged generator: (B, C, H, H) in [0, 1]."""
        images: Tensor = self.average(self._draw_z(labels, generator), labels)
        return images

    def to_config(self) -> dict[str, Any]:
        """What from_config needs, as json."""
        return {"image_shape": list(self.image_shape), "num_classes": self.num_classes, "config": asdict(self.config)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """A model of the same shape, to be filled by load_state_dict."""
        channels, height, width = config["image_shape"]
        return cls((channels, height, width), config["num_classes"], config=Gan(**config["config"]))

    def _draw_z(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        return draw_normal((len(labels), self.config.latent_dim), generator)

    def _augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return diffaugment(images, generator) if self.config.diffaugment else images
