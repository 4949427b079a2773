"""Fits an RBM, a DBN or a network to the rows of a table: for who has no images and no stages."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from pipeline.config.pretrain import DenseLayer
from pipeline.models.dbn import DBN, build_layer
from pipeline.models.losses import UNLABELLED, Batch
from pipeline.models.rbm import RBM
from pipeline.seeding import derive_seed, make_generator
from pipeline.training.greedy import LayerData, LayerTask, fit_layer
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


def fit_dbn_rows(
    x: Tensor, layers: Sequence[DenseLayer], *, epochs: int, seed: int, accelerator: str, precision: str
) -> DBN:
    """The layers trained greedily, each for `epochs` passes over the rows; their own steps are not looked at.

    x: float32 (N, V) in [0, 1], which the stack takes as images of 1 x V pixels.
    """
    images = x.view(len(x), 1, 1, -1).numpy()
    dbn = DBN([], (1, 1, x.shape[1]))
    for layer in layers:
        batch_size = min(layer.batch_size, len(x))
        task = LayerTask(
            name="rows",
            below=dbn,
            layer=replace(layer, batch_size=batch_size, steps=epochs * -(-len(x) // batch_size)),
            seed=seed,
            accelerator=accelerator,
            precision=precision,
            checkpoint=None,
            epochs=epochs,
        )
        dbn, _ = fit_layer(task, LayerData(images, images), lambda *_: None)
    return dbn


def finetune_rows(
    model: nn.Module,
    x: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    seed: int,
    accelerator: str,
    precision: str,
) -> list[Epoch]:
    """Trains `model` in place by Adam, its rate falling to zero along a cosine; the means of each pass over the rows.

    x: float32 (N, V).  labels: int64 (N,), `UNLABELLED` for a model that takes none.
    """
    from pipeline.training.fit import fit  # Lightning takes seconds to import: only where a model is fitted

    batch_size = min(batch_size, len(x))
    stream = BatchStream(x, labels, batch_size=batch_size, seed=derive_seed(seed, "fine-tuning", "batches"))
    steps_per_epoch = -(-len(x) // batch_size)
    plan = FitPlan(
        steps=epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        lr=lr,
        schedule="cosine",
        seed=derive_seed(seed, "fine-tuning", "fit"),
        accelerator=accelerator,
        precision=precision,
    )
    return fit(model, stream, plan)
