"""A classifier that learns from generated images what unlabelled ones are not: Improved GAN (Salimans et al. 2016).

Dense networks as the paper's for MNIST, smaller and without weight norm.  Sanity score at 100 labels: docs/LOG.md.
"""

# B batch, P pixels = C * H * H, K classes, Z latent, F features

import copy
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.conv_blocks import draw_weights, frozen
from pipeline.models.losses import UNLABELLED, Batch, Losses, classification_losses
from pipeline.row_noise import draw_normal

INPUT_NOISE, HIDDEN_NOISE = 0.3, 0.5
"""Deviations of what blurs a classifier's input and hidden layers in training, as in the paper's code."""
GENERATOR_UNITS = 500


class DenseGenerator(nn.Module):
    """z to image, without labels; its two hidden layers are normalised over the batch, always its own."""

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.first = nn.Linear(latent_dim, GENERATOR_UNITS)
        self.second = nn.Linear(GENERATOR_UNITS, GENERATOR_UNITS)
        self.last = nn.Linear(GENERATOR_UNITS, _pixels(image_shape))

    def forward(self, z: Tensor) -> Tensor:
        """z: (B, Z), B >= 2.  Returns (B, C, H, H) in [0, 1]."""
        h = z
        for layer in (self.first, self.second):
            h = F.softplus(F.batch_norm(layer(h), None, None, training=True))
        return torch.sigmoid(self.last(h)).view(-1, *self.image_shape)


class NoisyClassifier(nn.Module):
    """Image to K logits; where a generator is given, input and hidden layers are blurred by noise from it."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, hidden: Sequence[int]) -> None:
        super().__init__()
        sizes = [_pixels(image_shape), *hidden]
        self.layers = nn.ModuleList(nn.Linear(below, above) for below, above in pairwise(sizes))
        self.last = nn.Linear(sizes[-1], num_classes)

    def features(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """f(x): the last hidden layer, (B, F)."""
        h, noise = images.flatten(1), INPUT_NOISE
        for layer in self.layers:
            h, noise = F.relu(layer(_blur(h, noise, generator))), HIDDEN_NOISE
        return h

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """images: (B, C, H, H).  Returns (B, K)."""
        logits: Tensor = self.last(_blur(self.features(images, generator), HIDDEN_NOISE, generator))
        return logits.float()  # under autocast the loss stays in 32 bits


def realness(logits: Tensor) -> Tensor:
    """The logit of D(x) = Z / (Z + 1), Z = sum_k exp(logits_k): a further class whose own logit is 0.

    logits: (B, K).  Returns (B,): log Z.
    """
    return logits.logsumexp(dim=1)


class SemiSupervisedGAN(nn.Module):
    """`discriminator` classifies; `average`, its moving average, makes the predictions. Feature matching trains
    `generator`, which need not make good images (Dai et al. 2017).

    A batch holds images with labels and without, such as a MixedStream of both gives: the labelled ones are classified,
    the others only told from generated ones. For one worker: features are matched over the whole batch.
    """

    discriminator_steps = 1

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        *,
        hidden: Sequence[int] = (500, 250, 250),
        latent_dim: int = 64,
        ema_decay: float = 0.999,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.image_shape, self.num_classes = image_shape, num_classes
        self.settings = {"hidden": list(hidden), "latent_dim": latent_dim, "ema_decay": ema_decay}
        self.latent_dim, self.ema_decay = latent_dim, ema_decay
        with torch.device("meta"):  # no draw from the global generator
            self.generator = DenseGenerator(image_shape, latent_dim)
            self.discriminator = NoisyClassifier(image_shape, num_classes, hidden)
        self.to_empty(device="cpu")
        draw_weights(self, generator or torch.Generator().manual_seed(0))
        self.average = copy.deepcopy(self.discriminator).requires_grad_(False)

    def discriminator_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:  # noqa: ARG002
        """Cross-entropy of the labelled images, plus (softplus(-log Z) of the unlabelled + softplus(log Z) of as many
        generated ones as the batch has) / 2.

        parts: cross_entropy, accuracy, unlabelled, generated.
        """
        with torch.no_grad():
            fake = self.generator(draw_normal((len(batch.labels), self.latent_dim), generator))
        real_BK, fake_BK = self.discriminator(torch.cat([batch.images, fake]), generator).chunk(2)
        supervised = classification_losses(real_BK, batch.labels)
        unlabelled = F.softplus(-realness(real_BK)[batch.labels == UNLABELLED]).sum()
        unlabelled = unlabelled / (batch.labels == UNLABELLED).sum().clamp(min=1)
        generated = F.softplus(realness(fake_BK)).mean()
        parts = {**supervised.parts, "unlabelled": unlabelled, "generated": generated}
        return Losses(supervised.total + 0.5 * (unlabelled + generated), parts)

    def generator_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:  # noqa: ARG002
        """Feature matching: |mean f(x) - mean f(G(z))|^2 / F over the unlabelled images of the batch."""
        real = batch.images[batch.labels == UNLABELLED]
        if len(real) == 0:
            raise ValueError(
                f"features are matched to unlabelled images, the batch has none: give some label {UNLABELLED}"
            )
        with frozen(self.discriminator):
            with torch.no_grad():
                wanted_F = self.discriminator.features(real, generator).mean(dim=0)
            fake = self.generator(draw_normal((len(batch.labels), self.latent_dim), generator))
            found_F = self.discriminator.features(fake, generator).mean(dim=0)
        matching = (wanted_F - found_F).square().mean()
        return Losses(matching, {"feature_matching": matching})

    @torch.no_grad()
    def update_average(self, step: int) -> None:
        """average += (1 - decay) * (discriminator - average), decay = min(ema_decay, (1 + step) / (10 + step))."""
        decay = min(self.ema_decay, (1 + step) / (10 + step))
        for average, current in zip(self.average.parameters(), self.discriminator.parameters(), strict=True):
            average.lerp_(current, 1 - decay)

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """images: (B, C, H, H) in [0, 1].  Returns the K logits of the averaged classifier, without noise."""
        logits: Tensor = self.average(images)
        return logits

    def to_config(self) -> dict[str, Any]:
        """What from_config needs, as json."""
        return {"image_shape": list(self.image_shape), "num_classes": self.num_classes, **self.settings}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """A model of the same shape, to be filled by load_state_dict."""
        channels, height, width = config["image_shape"]
        return cls(**{**config, "image_shape": (channels, height, width)})


def _pixels(image_shape: tuple[int, int, int]) -> int:
    channels, height, width = image_shape
    return channels * height * width


def _blur(h: Tensor, noise: float, generator: torch.Generator | None) -> Tensor:
    return h if generator is None else h + noise * draw_normal(h.shape, generator)
