"""Greedy layer-wise pretraining: one RBM of the Deep Belief Network, on top of the frozen ones below it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.config.monitor import Monitor
from pipeline.config.pretrain import Layer
from pipeline.models.dbn import DBN, GreedyLayer
from pipeline.models.losses import UNLABELLED, Batch
from pipeline.seeding import derive_seed, make_generator
from pipeline.training.monitor import LIKELIHOOD, Curve, LayerMonitor, Point
from pipeline.training.plan import Epoch, FitPlan, Schedule
from pipeline.training.stream import BatchStream, as_batch, as_tensor

EPOCHS = 20
"""Points of the free-energy curves, and checkpoints of a layer's fit."""
START_IMAGES = 512
"""Images that set the visible biases and statistics before the first update."""
GAP_IMAGES = 500
"""Train images, and as many validation images, whose mean free energies are compared."""

CURVES = {
    "step": "step",
    "train": "train",
    "validation": "validation",
    "gap": "gap",
    "reconstruction_error": "train/reconstruction_error",
    "pseudo_likelihood": "pseudo_likelihood",
    **{name: name for name in LIKELIHOOD},
}
"""Columns of a layer's curves, and what the fit calls them."""


@dataclass(frozen=True, kw_only=True)
class LayerTask:
    """Which layer to train, on what is below it. checkpoint: where a killed fit goes on from."""

    name: str
    below: DBN
    layer: Layer
    seed: int
    accelerator: str
    precision: str
    checkpoint: Path | None
    epochs: int = EPOCHS
    """Points of its curves, and checkpoints of its fit."""
    sampled: bool = False
    """Fresh draws of the layers' inputs at each step in place of probabilities: see `GreedyLayer`."""
    monitor: Monitor | None = None
    """None watches free energies alone."""

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class LayerData:
    """Train and validation images (N, C, H, W), uint8 or floats in the bottom layer's units; no label is used."""

    images: npt.NDArray[Any]
    validation: npt.NDArray[Any]


def fit_layer(
    task: LayerTask,
    data: LayerData,
    on_epoch: Callable[[int, Point], None],
    *,
    watch: Callable[[GreedyLayer], Point] | None = None,
) -> tuple[DBN, Curve]:
    """Trains the layer on what the stack below makes of the images; returns the stack of both and the layer's curves.

    A point of the curves holds the values named in CURVES, None where they are not due: see `LayerMonitor`. The
    reconstruction error is for the eye and decides nothing. watch(model) gives further values for what on_epoch hears.
    """
    from pipeline.training.fit import fit  # Lightning takes seconds to import: only where a model is fitted

    layer, seed = task.layer, task.seed
    images, validation = as_tensor(data.images), as_tensor(data.validation)
    dbn = task.below.extended(layer)
    model = GreedyLayer(dbn, sampled=task.sampled)
    name = f"layer {len(dbn.layers)}"
    labels = torch.full((len(images),), UNLABELLED)
    stream = BatchStream(images, labels, batch_size=layer.batch_size, seed=derive_seed(seed, "dbn", name, "batches"))
    model.initialise(_start(images, seed), make_generator(seed, "dbn", name, "weights"))
    plan = FitPlan(
        steps=layer.steps,
        steps_per_epoch=-(-layer.steps // task.epochs),
        lr=layer.lr,
        optimizer="sgd",
        momentum=layer.momentum,
        weight_decay=layer.weight_decay,
        schedule=cast("Schedule", layer.schedule),
        seed=derive_seed(seed, "dbn", name, "fit"),
        accelerator=task.accelerator,
        precision=task.precision,
    )
    monitor = LayerMonitor(
        model,
        _sample(images, seed).images,
        _sample(validation, seed).images,
        monitor=task.monitor,
        steps=plan.steps,
        steps_per_epoch=plan.steps_per_epoch,
        seed=derive_seed(seed, "dbn", name, "monitor"),
    )

    def measure(step: int, _: Sequence[Epoch]) -> Point:
        return monitor.measure(step) | ({} if watch is None else watch(model))

    history = fit(model, stream, plan, checkpoint=task.checkpoint, measure=measure, on_epoch=on_epoch)
    return dbn.eval(), [{name: entry.get(key) for name, key in CURVES.items()} for entry in history]


def _start(images: Tensor, seed: int) -> Batch:
    order = torch.randperm(len(images), generator=make_generator(seed, "dbn", "start"))[:START_IMAGES]
    return as_batch(images[order], torch.full((len(order),), UNLABELLED))


def _sample(images: Tensor, seed: int) -> Batch:
    order = torch.randperm(len(images), generator=make_generator(seed, "dbn", "gap"))[:GAP_IMAGES]
    return as_batch(images[order], torch.full((len(order),), UNLABELLED))
