"""Fine-tuning on full MNIST of the networks that start from a DBN."""

import sys
from typing import Any

import torch
from torch import nn

from benchmarks.published.digits import SEED, Digits, Effort, dense_layer, kept, train
from pipeline.models.dbn import DBN
from pipeline.seeding import derive_seed
from pipeline.training.fit import fit
from pipeline.training.plan import Epoch, FitPlan
from pipeline.training.stream import BatchStream, as_tensor, in_batches

REPORTS = 20
"""Looks at the held-out images during a fit, which print and decide nothing."""
VALIDATION_BATCH = 1_000


def pretrain(digits: Digits, effort: Effort, layers: list[dict[str, Any]], epochs: int) -> DBN:
    """A DBN by CD-1 on mean-field inputs, bottom first; `layers` holds what differs from `dense_layer`."""
    dbn: DBN | None = None
    steps = effort.steps(epochs, len(digits.data.images))
    for number, changes in enumerate(layers):
        below = {"below": f"pretrain/dense{number}"} if number else {}
        layer = dense_layer(steps=steps, persistent=False, gibbs_steps=1, **below, **changes)
        dbn = train(digits, effort, layer, sampled=False, below=dbn, name="pretrained")
    assert dbn is not None
    return dbn


def finetune(
    model: nn.Module, digits: Digits, effort: Effort, *, name: str, epochs: int, batch_size: int, **plan: Any
) -> None:
    """Trains `model` in place on all labelled training images; plan: further settings of its FitPlan.

    name: a killed training goes on, and of a finished one the last of REPORTS is repeated.
    """
    images, labels = as_tensor(digits.data.images), torch.from_numpy(digits.labels).long()
    held_out = as_tensor(digits.data.validation), torch.from_numpy(digits.validation_labels).long()
    stream = BatchStream(images, labels, batch_size=batch_size, seed=derive_seed(SEED, "fine-tuning", "batches"))
    steps = effort.steps(epochs, len(images), batch_size)

    def show(step: int, entry: Epoch) -> None:
        values = ", ".join(f"{name} {value:.4f}" for name, value in entry.items() if name.startswith("val/"))
        print(f"update {step} of {steps}, held-out images: {values}", file=sys.stderr, flush=True)

    settings = FitPlan(
        steps=steps,
        steps_per_epoch=-(-steps // REPORTS),
        seed=derive_seed(SEED, "fine-tuning", "fit"),
        accelerator=effort.accelerator,
        **plan,
    )
    checkpoint = None if effort.quick else kept(name, settings) / "fit.ckpt"
    validation = in_batches(*held_out, VALIDATION_BATCH)
    fit(model, stream, settings, validation=validation, checkpoint=checkpoint, on_epoch=show)
