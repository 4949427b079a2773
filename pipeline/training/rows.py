"""Fits an RBM, a DBN or a network to the rows of a table: for who has no images and no stages."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from pipeline.config.pretrain import DenseLayer
from pipeline.models.dbn import DBN, build_layer
from pipeline.models.losses import UNLABELLED, Batch
from pipeline.models.rbm import RBM
from pipeline.models.sampling import sample_bernoulli
from pipeline.models.updown import UntiedDBN
from pipeline.seeding import derive_seed, make_generator
from pipeline.training.plan import Epoch, FitPlan
from pipeline.training.stream import BatchStream


@dataclass(frozen=True, kw_only=True)
class RowFit:
    """How long, where and from which seed rows are fitted. sampled: rows are probabilities, drawn at each step."""

    epochs: int
    seed: int
    accelerator: str
    precision: str
    sampled: bool = False


def fit_rows(x: Tensor, layer: DenseLayer, how: RowFit) -> tuple[RBM, list[Epoch]]:
    """The trained RBM, and the means of each pass over the rows.

    x: float32 (N, V); N may be less than a batch, which then holds all rows. layer.steps is not looked at.
    """
    layer = replace(layer, batch_size=min(layer.batch_size, len(x)))
    model = cast(RBM, build_layer(layer, (x.shape[1],)))
    model.initialise(Batch(x, _unlabelled(x)), make_generator(how.seed, "rows", "weights"))
    return model, _fit(model, x, layer, how)


def fit_stack(x: Tensor, layers: Sequence[DenseLayer], how: RowFit) -> tuple[DBN, list[list[Epoch]]]:
    """A DBN trained greedily, each layer on the probabilities of the one below; and the history of each layer.

    x: float32 (N, V), which the stack takes as images of 1 x V pixels.
    """
    rbms, histories = [], []
    for number, layer in enumerate(layers, start=1):
        rbm, history = fit_rows(x, layer, replace(how, seed=derive_seed(how.seed, "layer", number)))
        rbms.append(rbm)
        histories.append(history)
        with torch.no_grad():
            x = rbm.encode(x)
    dbn = DBN(
        [replace(layer, batch_size=max(1, len(rbm.chains))) for layer, rbm in zip(layers, rbms, strict=True)],
        (1, 1, rbms[0].num_visible),
    )
    dbn.layers.load_state_dict(torch.nn.ModuleList(rbms).state_dict())
    return dbn, histories


def fit_updown(x: Tensor, model: UntiedDBN, layer: DenseLayer, how: RowFit) -> list[Epoch]:
    """Up-down fine-tuning in place, with the batches, rate and momentum of `layer`; the history."""
    return _fit(model, x, replace(layer, batch_size=min(layer.batch_size, len(x))), replace(how, sampled=True))


def finetune_rows(
    model: nn.Module, x: Tensor, labels: Tensor, *, batch_size: int, lr: float, how: RowFit
) -> list[Epoch]:
    """Trains `model` in place by Adam, its rate falling to zero along a cosine; the means of each pass over the rows.

    x: float32 (N, V).  labels: int64 (N,), `UNLABELLED` for a model that takes none.
    """
    from pipeline.training.fit import fit  # Lightning takes seconds to import: only where a model is fitted

    batch_size = min(batch_size, len(x))
    stream = BatchStream(x, labels, batch_size=batch_size, seed=derive_seed(how.seed, "fine-tuning", "batches"))
    steps_per_epoch = -(-len(x) // batch_size)
    plan = FitPlan(
        steps=how.epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        lr=lr,
        schedule="cosine",
        seed=derive_seed(how.seed, "fine-tuning", "fit"),
        accelerator=how.accelerator,
        precision=how.precision,
    )
    return fit(model, stream, plan)


def _fit(model: RBM | UntiedDBN, x: Tensor, layer: DenseLayer, how: RowFit) -> list[Epoch]:
    from pipeline.training.fit import fit  # Lightning takes seconds to import: only where a model is fitted

    stream = BatchStream(
        x,
        _unlabelled(x),
        batch_size=layer.batch_size,
        seed=derive_seed(how.seed, "rows", "batches"),
        transform=sample_bernoulli if how.sampled else None,
    )
    steps_per_epoch = -(-len(x) // layer.batch_size)
    plan = FitPlan(
        steps=how.epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        lr=layer.lr,
        optimizer="sgd",
        momentum=layer.momentum,
        weight_decay=layer.weight_decay,
        schedule="linear_tail",
        seed=derive_seed(how.seed, "rows", "fit"),
        accelerator=how.accelerator,
        precision=how.precision,
    )
    return fit(model, stream, plan)


def _unlabelled(x: Tensor) -> Tensor:
    return torch.full((len(x),), UNLABELLED)
