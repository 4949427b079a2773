"""Fits an RBM to the rows of a table: what a layer is to the pipeline, for who has no images and no stages."""

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from pipeline.config.pretrain import DenseLayer
from pipeline.models.dbn import build_layer
from pipeline.models.losses import UNLABELLED, Batch
from pipeline.models.rbm import RBM
from pipeline.seeding import derive_seed, make_generator
from pipeline.training.plan import Epoch, FitPlan
from pipeline.training.stream import BatchStream


def fit_rows(
    x: Tensor, layer: DenseLayer, *, epochs: int, seed: int, accelerator: str, precision: str
) -> tuple[RBM, list[Epoch]]:
    """The trained RBM, and the means of each of `epochs` passes over the rows.

    x: float32 (N, V); N may be less than a batch, which then holds all rows. layer.steps is not looked at.
    """
    from pipeline.training.fit import fit  # Lightning takes seconds to import: only where a model is fitted

    layer = replace(layer, batch_size=min(layer.batch_size, len(x)))
    labels = torch.full((len(x),), UNLABELLED)
    stream = BatchStream(x, labels, batch_size=layer.batch_size, seed=derive_seed(seed, "rows", "batches"))
    model = cast(RBM, build_layer(layer, (x.shape[1],)))
    model.initialise(Batch(x, labels), make_generator(seed, "rows", "weights"))
    steps_per_epoch = -(-len(x) // layer.batch_size)
    plan = FitPlan(
        steps=epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        lr=layer.lr,
        optimizer="sgd",
        momentum=layer.momentum,
        weight_decay=layer.weight_decay,
        schedule="linear_tail",
        seed=derive_seed(seed, "rows", "fit"),
        accelerator=accelerator,
        precision=precision,
    )
    return model, fit(model, stream, plan)
