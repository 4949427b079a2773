"""Conditional GAN. Unless told otherwise, a DCGAN-sized generator (Radford et al. 2016), a projection discriminator
(Miyato & Koyama 2018) and the non-saturating loss (Goodfellow et al. 2014) with lazy R1 (Mescheder et al. 2018; Karras
et al. 2020).

Sanity score: `python -m benchmarks.published_generators` (1-NN accuracy score beside class-wise probabilistic PCA).
"""

# B batch, C channels, H height = width, Z latent, F discriminator features

import copy
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config.generators import Gan
from pipeline.models.adaptive_augmentation import AdaptiveAugmentation
from pipeline.models.adversarial import discriminator_loss, generator_loss, gradient_penalty, r1_penalty
from pipeline.models.conv_blocks import LEAK, ConvDecoder, ConvEncoder, draw_weights, frozen, label_rows
from pipeline.models.diffaugment import diffaugment
from pipeline.models.losses import UNLABELLED, Batch, Losses
from pipeline.models.residual_blocks import ResidualDecoder, ResidualEncoder
from pipeline.models.spectral_norm import advance_spectra, normalise_spectra
from pipeline.row_noise import draw_normal

LABEL_DIM = 16
NUM_FEATURES = 128
ENCODERS: dict[str, type[ConvEncoder] | type[ResidualEncoder]] = {"dcgan": ConvEncoder, "residual": ResidualEncoder}
DECODERS: dict[str, type[ConvDecoder] | type[ResidualDecoder]] = {"dcgan": ConvDecoder, "residual": ResidualDecoder}


class Generator(nn.Module):
    """z and label to image.  No layer mixes the images of a batch, so an image depends on its own z and label alone."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, config: Gan) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.label = nn.Embedding(num_classes + 1, LABEL_DIM)
        decoder = DECODERS[config.backbone]
        self.decoder: ConvDecoder | ResidualDecoder = decoder(
            image_shape, config.width, config.latent_dim + LABEL_DIM, num_rows=num_classes + 1
        )

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """z: (B, Z); labels: (B,), -1 for any class.  Returns (B, C, H, H) in [0, 1]."""
        rows = label_rows(labels, self.num_classes)
        return torch.sigmoid(self.decoder(torch.cat([z, self.label(rows)], dim=1), rows))


class Discriminator(nn.Module):
    """Image and label to a logit, large where the pair looks real: w . phi(x) + b + V_y . phi(x), where conditioning is
    projection. Where it is auxiliary, w . phi(x) + b, and V phi(x) + a are logits of the classes.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, config: Gan) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.encoder: ConvEncoder | ResidualEncoder = ENCODERS[config.backbone](image_shape, config.width, leak=LEAK)
        self.hidden = nn.Linear(self.encoder.num_features, NUM_FEATURES)
        self.unconditional = nn.Linear(NUM_FEATURES, 1)
        projected = config.conditioning == "projection"
        self.projection = nn.Embedding(num_classes + 1, NUM_FEATURES) if projected else None
        self.auxiliary = None if projected else nn.Linear(NUM_FEATURES, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """phi(x), (B, F)."""
        return F.leaky_relu(self.hidden(self.encoder(images)), LEAK)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """images: (B, C, H, H); labels: (B,), -1 for any class.  Returns (B,)."""
        return self.judge(images, labels)[0]

    def judge(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The logits, (B,), and the mean cross-entropy of the labels that are known, 0 where none is classified."""
        phi = self.features(images)
        rows = label_rows(labels, self.num_classes)
        logits: Tensor = self.unconditional(phi)[:, 0]
        if self.projection is not None:
            logits = logits + (self.projection(rows) * phi).sum(dim=1)
        cross_entropy = logits.new_zeros((), dtype=torch.float32)
        if self.auxiliary is not None:
            total = F.cross_entropy(self.auxiliary(phi).float(), labels, ignore_index=UNLABELLED, reduction="sum")
            cross_entropy = total / (labels != UNLABELLED).sum().clamp(min=1)
        return logits.float(), cross_entropy  # under autocast the loss stays in 32 bits


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
        generator = generator or torch.Generator().manual_seed(0)
        with torch.device("meta"):  # no draw from the global generator
            self.generator = Generator(image_shape, num_classes, config)
            self.discriminator = Discriminator(image_shape, num_classes, config)
        self.to_empty(device="cpu")
        draw_weights(self, generator)
        if self.discriminator.projection is not None:
            with torch.no_grad():
                self.discriminator.projection.weight.mul_(NUM_FEATURES**-0.5)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        if config.spectral_norm:
            normalise_spectra(self.discriminator, generator)
        self.discriminator_steps = config.discriminator_steps
        self.adaptive = None
        if config.augmentation == "adaptive":
            self.adaptive = AdaptiveAugmentation(
                target=config.ada_target, images=config.ada_images, batch_size=config.batch_size
            )

    def discriminator_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:
        """config.loss on real and generated images, plus the penalties of the discriminator's update `step`: every
        r1_every updates r1_weight / 2 * r1_every * R1, and gradient_penalty times its own.

        parts: adversarial, r1 (what it adds to the total, 0 on the steps between), real_logit, fake_logit; where they
        are in use gradient_penalty (as added), cross_entropy, augmentation_probability.
        """
        advance_spectra(self.discriminator)
        if self.adaptive is not None:
            self.adaptive.steer(step)
        with torch.no_grad():
            fake = self.generator(self._draw_z(batch.labels, generator), batch.labels)
        real, fake = self._augment(batch.images, generator), self._augment(fake, generator)
        labels = torch.cat([batch.labels, batch.labels])
        logits, cross_entropy = self.discriminator.judge(torch.cat([real, fake]), labels)
        real_logit, fake_logit = logits.chunk(2)
        adversarial = discriminator_loss(self.config.loss, real_logit, fake_logit)
        added = self._penalties(real, fake, batch.labels, step, generator)
        if self.discriminator.auxiliary is not None:
            added["cross_entropy"] = cross_entropy
        parts = {"adversarial": adversarial, "r1": torch.zeros_like(adversarial), **added}
        parts |= {"real_logit": real_logit.mean(), "fake_logit": fake_logit.mean()}
        if self.adaptive is not None:
            self.adaptive.watch(real_logit)
            parts["augmentation_probability"] = self.adaptive.probability
        return Losses(sum(added.values(), start=adversarial), parts)

    def _penalties(
        self, real: Tensor, fake: Tensor, labels: Tensor, step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """What slopes add to the discriminator's loss at update `step`, by name."""
        config, found = self.config, {}
        discriminate = partial(self.discriminator, labels=labels)
        if config.r1_weight > 0 and step % config.r1_every == 0:
            found["r1"] = 0.5 * config.r1_weight * config.r1_every * r1_penalty(discriminate, real)
        if config.gradient_penalty > 0:
            found["gradient_penalty"] = config.gradient_penalty * gradient_penalty(discriminate, real, fake, generator)
        return found

    def generator_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:  # noqa: ARG002
        """The generator's loss for the labels of the batch, and their cross-entropy where conditioning is auxiliary;
        the discriminator gets no gradient.
        """
        fake = self._augment(self.generator(self._draw_z(batch.labels, generator), batch.labels), generator)
        with frozen(self.discriminator):
            fake_logit, cross_entropy = self.discriminator.judge(fake, batch.labels)
        adversarial = generator_loss(self.config.loss, fake_logit)
        if self.discriminator.auxiliary is None:
            return Losses(adversarial, {"adversarial": adversarial})
        return Losses(adversarial + cross_entropy, {"adversarial": adversarial, "cross_entropy": cross_entropy})

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
        if self.config.augmentation == "none":
            return images
        return diffaugment(images, generator, None if self.adaptive is None else self.adaptive.probability)
