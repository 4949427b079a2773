"""Trains a dense VAE of an application on images without labels."""

from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.data.arrays import Images
from pipeline.models.dense_vae import DenseVAE
from pipeline.models.losses import UNLABELLED
from pipeline.seeding import derive_seed
from pipeline.training.plan import Epoch, FitPlan
from pipeline.training.stream import BatchStream, as_tensor, in_batches

EPOCHS = 5
"""Checkpoints of a fit."""


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """Where and how a model is trained. seed: root of its draws.  work: where a killed fit goes on from."""

    seed: int
    accelerator: str
    precision: str
    work: Path | None

    def checkpoint(self, name: str) -> Path | None:
        return None if self.work is None else self.work / f"{name}.ckpt"


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long. lr: Adam's, constant for the first half and falling to zero in the second."""

    steps: int
    batch_size: int
    lr: float


def fit_images(
    model: DenseVAE, images: Images, effort: Effort, how: FitSettings, name: str, validation: Images | None = None
) -> list[Epoch]:
    """Trains `model` in place on uint8 images (N, C, H, W).  name: of its draws and its checkpoint.

    Returns the history, with the parts of the loss on `validation` images where there are some.
    """
    from pipeline.training.fit import fit  # Lightning takes seconds to import: only where a model is fitted

    plan = FitPlan(
        steps=effort.steps,
        steps_per_epoch=-(-effort.steps // EPOCHS),
        lr=effort.lr,
        schedule="linear_tail",
        seed=derive_seed(how.seed, name, "fit"),
        accelerator=how.accelerator,
        precision=how.precision,
    )
    pool, seed = as_tensor(images), derive_seed(how.seed, name, "batches")
    stream = BatchStream(pool, _no_labels(images), batch_size=effort.batch_size, seed=seed)
    batches = [] if validation is None else in_batches(as_tensor(validation), _no_labels(validation), effort.batch_size)
    return fit(model, stream, plan, validation=batches, checkpoint=how.checkpoint(name))


def image_shape(images: Images) -> tuple[int, int, int]:
    _, channels, height, width = images.shape
    return channels, height, width


def _no_labels(images: Images) -> torch.Tensor:
    return torch.full((len(images),), UNLABELLED)
