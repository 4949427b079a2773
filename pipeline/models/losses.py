"""What a model is given and what it returns: one contract for RBM, VAE, GAN and classifier."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

UNLABELLED = -1


@dataclass(frozen=True)
class Batch:
    """Images with labels: what every model's loss takes.

    images: (B, C, H, W) float in [0, 1].  labels: (B,) int64, `UNLABELLED` (-1) where no label is known.
    """

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Losses:
    """total: scalar to minimise.  parts: scalars to show, by name, detached or not; they need not sum to total."""

    total: Tensor
    parts: dict[str, Tensor]


class LossModel(Protocol):
    """A model that the single-loss Lightning module can train."""

    def training_losses(self, batch: Batch, generator: object) -> Losses: ...

    def validation_losses(self, batch: Batch, generator: object) -> Losses: ...
