"""Fits the VAE and the GAN, one model per label draw, mapped over the launcher."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.config.generators import Gan, Vae
from pipeline.models.gan import ConditionalGAN
from pipeline.models.vae import ConditionalVAE
from pipeline.seeding import derive_seed, make_generator
from pipeline.training.collapse import collapse_watch
from pipeline.training.plan import Epoch, FitPlan, PrivateSteps
from pipeline.training.poisson import PoissonStream
from pipeline.training.stream import BatchStream, Stream, in_batches

EPOCHS = 20
"""Points of a generator's curves, and checkpoints of its fit."""
VALIDATION_IMAGES = 500
SAMPLING_BATCH = 500

Model = ConditionalVAE | ConditionalGAN
MODELS: dict[str, type[ConditionalVAE] | type[ConditionalGAN]] = {"vae": ConditionalVAE, "gan": ConditionalGAN}


@dataclass(frozen=True, kw_only=True)
class GeneratorTask:
    """One fit: which model, on the labels of which draw. checkpoint: where a killed fit goes on from; epochs: points of
    its curves, and checkpoints; looks: whether a GAN is looked at for collapse, which may end its fit."""

    config: Vae | Gan
    draw: int
    seed: int
    precision: str
    accelerator: str
    checkpoint: Path | None
    epochs: int = EPOCHS
    private: PrivateSteps | None = None
    """Of DP-SGD, for a VAE alone; None without."""
    looks: bool = False

    @property
    def kind(self) -> str:
        return "vae" if isinstance(self.config, Vae) else "gan"

    def __str__(self) -> str:
        return f"{self.kind}, label draw {self.draw}"


@dataclass(frozen=True)
class GeneratorData:
    """What every fit shares.

    images: (N, C, H, W) uint8, the whole train pool.  labels: (draws, N) int64, known or spread from the draw's
    smallest subset, -1 where neither.  validation_images, validation_labels: held out, for the curves alone.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    validation_images: npt.NDArray[np.uint8]
    validation_labels: npt.NDArray[np.int64]
    num_classes: int


@dataclass(frozen=True)
class FittedGenerator:
    """state: the model's weights by name.  config: what rebuilds it.  history: its curves."""

    state: dict[str, npt.NDArray[Any]]
    config: dict[str, Any]
    history: list[Epoch]


def fit_generator(
    task: GeneratorTask,
    data: GeneratorData,
    *,
    watch: Callable[[Model], Epoch] | None = None,
    on_epoch: Callable[[int, Epoch], None] | None = None,
) -> FittedGenerator:
    """Trains one generator. Raises ValueError when its loss is not finite, or it has collapsed.

    watch(model) gives further values for each entry of the history; on_epoch(step, entry) hears of it as it is made.
    """
    from pipeline.training.fit import fit  # Lightning takes seconds to import: only where a model is fitted

    image_shape = data.images.shape[1:]
    weights = make_generator(task.seed, task.kind, task.draw, "weights")
    model = MODELS[task.kind](image_shape, data.num_classes, config=task.config, generator=weights)  # type: ignore[arg-type]
    config = task.config
    plan = FitPlan(
        steps=config.steps,
        steps_per_epoch=-(-config.steps // task.epochs),
        lr=config.lr,
        betas=(config.betas[0], config.betas[1]) if isinstance(config, Gan) else (0.9, 0.999),
        schedule="constant" if isinstance(config, Gan) else "linear_tail",
        seed=derive_seed(task.seed, task.kind, task.draw, "fit"),
        precision=task.precision,
        accelerator=task.accelerator,
        private=task.private,
    )
    images, labels = torch.from_numpy(np.array(data.images)), torch.from_numpy(data.labels[task.draw].copy())
    stream: Stream
    if task.private is None:
        seed = derive_seed(task.seed, task.kind, task.draw, "batches")
        stream = BatchStream(images, labels, batch_size=config.batch_size, seed=seed)
    else:
        stream = PoissonStream(images, labels, batch_size=config.batch_size, seed=task.private.secret)
    validation = in_batches(
        torch.from_numpy(np.array(data.validation_images[:VALIDATION_IMAGES])),
        torch.from_numpy(data.validation_labels[:VALIDATION_IMAGES].copy()),
        config.batch_size,
    )
    measure: Callable[[int, Sequence[Epoch]], Epoch] | None = None
    if watch is not None:
        measure = lambda *_: watch(model)  # noqa: E731
    elif task.looks and isinstance(model, ConditionalGAN):
        measure = partial(collapse_watch(model.config, data.images, name=str(task), seed=task.seed), model)
    history = fit(
        model, stream, plan, validation=validation, checkpoint=task.checkpoint, measure=measure, on_epoch=on_epoch
    )
    state = {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}
    return FittedGenerator(state, model.to_config(), history)


def load_generator(kind: str, state: Mapping[str, Tensor], config: dict[str, Any]) -> Model:
    """A trained VAE or GAN from what `load_weights` returns, ready to sample."""
    model = MODELS[kind].from_config(config)
    model.load_state_dict(dict(state))
    return model.eval()


def mean_curves(histories: Sequence[Sequence[Epoch]]) -> list[Epoch]:
    """The mean over fits of equal length, entry by entry."""
    return [
        {key: float(np.mean([entry[key] for entry in step])) for key in step[0]}
        for step in zip(*histories, strict=True)
    ]


def sample_images(
    model: Model, labels: Tensor, generator: torch.Generator, batch_size: int = 500
) -> npt.NDArray[np.uint8]:
    """One image per label: (B, C, H, W) uint8."""
    parts = [model.sample(part, generator) for part in labels.split(batch_size)]
    return torch.cat(parts).mul(255).round().to(torch.uint8).numpy()
