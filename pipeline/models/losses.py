"""What a model is given and what it returns: one contract for RBM, VAE, GAN and classifier."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

UNLABELLED = -1


@dataclass(frozen=True)
class Batch:
    """Images with labels: what every model's loss takes.

    images: (B, C, H, W) float in [0, 1].  labels: (B,) int64, `UNLABELLED` (-1) where no label is known.
    """

    images: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> "Batch":
        return Batch(self.images.to(device, non_blocking=True), self.labels.to(device, non_blocking=True))


@dataclass(frozen=True)
class Losses:
    """total: scalar to minimise.  parts: scalars to show, by name; they need not sum to total.

    watched: the values are known. Without it the total has its gradient alone, and a value that says nothing but
    whether it is finite.
    """

    total: Tensor
    parts: dict[str, Tensor]
    watched: bool = True


class LossModel(Protocol):
    """A model with one loss. `step` counts updates from 0; every random draw comes from `generator`."""

    def training_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses: ...

    def validation_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses: ...


class AdversarialModel(Protocol):
    """A generator and a discriminator, each with a loss of its own.

    discriminator_steps: the discriminator's updates before each of the generator's. discriminator_losses counts its own
    updates in `step`, the others count the generator's.
    """

    generator: torch.nn.Module
    discriminator: torch.nn.Module
    discriminator_steps: int

    def discriminator_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses: ...

    def generator_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses: ...

    def update_average(self, step: int) -> None: ...


def classification_losses(logits: Tensor, labels: Tensor) -> Losses:
    """Cross-entropy (nats) and accuracy over the labelled examples: logits (B, K), labels (B,)."""
    labelled = labels != UNLABELLED
    count = labelled.sum().clamp(min=1)
    total = F.cross_entropy(logits.float(), labels, ignore_index=UNLABELLED, reduction="sum") / count
    correct = (logits.argmax(1) == labels) & labelled
    return Losses(total, {"cross_entropy": total.detach(), "accuracy": correct.sum() / count})
