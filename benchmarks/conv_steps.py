"""Time of a convolutional RBM's CD-1 step against torch's five convolutions alone: 1->32 5x5, 2x2 pooling, batch 128.

`python -m benchmarks.conv_steps`. One thread, CPU time. The convolutions run before every step, so that whatever else
the machine does hits both alike. A step of a fit is all from one batch to the next, Lightning and the batch included.
"""

import argparse
import os
import sys
import time
from statistics import median

import torch
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from benchmarks.record import Row, record
from pipeline.data.embedded import load_embedded
from pipeline.models.conv_rbm import ConvRBM
from pipeline.models.losses import Batch
from pipeline.row_noise import shard_generator
from pipeline.seeding import make_generator
from pipeline.training.fit import fit
from pipeline.training.plan import FitPlan, make_optimizer
from pipeline.training.stream import BatchStream

BATCH, FILTERS, KERNEL, SIDE = 128, 32, 5, 28
STEPS = 10
"""Of each round; a first round is not counted."""
KEPT_MEMORY = 31 * 2**20
"""Bytes. A freed block of this size makes the C library keep memory: fresh pages for each of their outputs would make
the convolutions half as slow again, and the step look that much better."""

Pair = tuple[float, float]
"""CPU seconds of a step and of the convolutions before it."""


class Turns:
    """Batches for a fit; the convolutions take their turn whenever one is asked for."""

    def __init__(self, stream: BatchStream) -> None:
        self._stream, self._convolutions = stream, 0.0
        self._began: float | None = None
        self.pairs: list[Pair] = []

    @property
    def batch_size(self) -> int:
        return self._stream.batch_size

    def batch(self, step: int, rows: slice | None = None) -> Batch:
        if self._began is not None:
            self.pairs.append((time.process_time() - self._began, self._convolutions))
        self._convolutions = time_convolutions()
        self._began = time.process_time()
        return self._stream.batch(step, rows)


@torch.no_grad()
def time_convolutions() -> float:
    """What a CD-1 step cannot do without: up, down, up, and the gradient of the filters on data and on model."""
    places = SIDE - KERNEL + 1
    v, weight = torch.rand(BATCH, 1, SIDE, SIDE), torch.rand(FILTERS, 1, KERNEL, KERNEL)
    h = torch.rand(BATCH, FILTERS, places, places)
    began = time.process_time()
    F.conv2d(v, weight)
    F.conv_transpose2d(h, weight)
    F.conv2d(v, weight)
    conv2d_weight(v, list(weight.shape), h)
    conv2d_weight(v, list(weight.shape), h)
    return time.process_time() - began


def make_model() -> tuple[ConvRBM, BatchStream]:
    raw = load_embedded()
    images, labels = torch.from_numpy(raw.images), torch.from_numpy(raw.labels).long()
    stream = BatchStream(images, labels, batch_size=BATCH, seed=0)
    model = ConvRBM((1, SIDE, SIDE), FILTERS, KERNEL, sparsity_cost=1.0)
    model.initialise(stream.batch(0), make_generator(0, "weights"))
    return model, stream


def make_plan(steps: int) -> FitPlan:
    return FitPlan(steps=steps, steps_per_epoch=steps, lr=0.1, optimizer="sgd", momentum=0.9, seed=0)


def time_fit(steps: int) -> list[Pair]:
    """Steps of the public training path."""
    model, stream = make_model()
    turns = Turns(stream)
    fit(model, turns, make_plan(steps + 1))
    return turns.pairs


def time_bare_steps(steps: int) -> list[Pair]:
    """Loss, backward and optimiser alone."""
    model, stream = make_model()
    optimizer, batch, pairs = make_optimizer(model, make_plan(steps)), stream.batch(0), []
    for step in range(steps):
        convolutions, began = time_convolutions(), time.process_time()
        optimizer.zero_grad()
        model.training_losses(batch, step, shard_generator(0, step)).total.backward()
        optimizer.step()
        pairs.append((time.process_time() - began, convolutions))
    return pairs


def make_row(name: str, pairs: list[Pair], *, bar: float | None = None, goal: float | None = None) -> Row:
    """Ratio of medians in each round; the median of the rounds, the least and the most."""
    rounds = [pairs[first : first + STEPS] for first in range(STEPS, len(pairs), STEPS)]
    ratios = [median(step for step, _ in one) / median(alone for _, alone in one) for one in rounds]
    return Row(name=name, value=median(ratios), unit="x", low=min(ratios), high=max(ratios), bar=bar, goal=goal)


def measure_conv(rounds: int) -> list[Row]:
    """Steps of a fit, which the bar is for, and bare ones, in times of torch's five convolutions."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.zeros(KEPT_MEMORY // 4)
    try:
        fitted, bare = (measure((rounds + 1) * STEPS) for measure in (time_fit, time_bare_steps))
    finally:
        torch.set_num_threads(threads)
    alone = 1e3 * median(convolutions for _, convolutions in fitted[STEPS:])
    return [
        make_row("conv RBM, CD-1 in a fit, of 5 convs", fitted, bar=1.3, goal=0.9),
        make_row("conv RBM, bare CD-1, of 5 convs", bare),
        Row(name="torch's 5 convs alone", value=alone, unit="ms"),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return record("conv_steps", measure_conv(3 if parser.parse_args().quick else 10))


if __name__ == "__main__":
    sys.exit(main())
