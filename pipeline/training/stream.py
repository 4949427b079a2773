"""Batches as a pure function of (seed, step), so that a resumed run sees what the killed one would have seen."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from pipeline.models.losses import Batch
from pipeline.seeding import make_generator

Transform = Callable[[Tensor, torch.Generator], Tensor]


class Stream(Protocol):
    """An endless sequence of batches, each computed from its step alone."""

    def batch(self, step: int) -> Batch: ...


def as_batch(images: Tensor, labels: Tensor) -> Batch:
    """uint8 images (B, C, H, W) and labels (B,) as models take them: floats in [0, 1]."""
    return Batch(images.float().div_(255.0), labels)


class BatchStream:
    """Shuffled passes over images that lie in memory, one after another; a batch may span two passes.

    images: uint8 (N, C, H, W).  labels: int64 (N,).  transform: augmentation of a float batch, drawn per step.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, *, batch_size: int, seed: int, transform: Transform | None = None
    ) -> None:
        if len(images) == 0 or len(images) != len(labels):
            raise ValueError(
                f"a stream needs as many labels as images and at least one, got {len(images)}, {len(labels)}"
            )
        self._images, self._labels = images, labels
        self._batch_size, self._seed, self._transform = batch_size, seed, transform
        self._orders: dict[int, Tensor] = {}

    def batch(self, step: int) -> Batch:
        """The batch of update `step`, counted from 0."""
        index = self._indices(step)
        batch = as_batch(self._images[index], self._labels[index])
        if self._transform is None:
            return batch
        return Batch(self._transform(batch.images, make_generator(self._seed, "transform", step)), batch.labels)

    def _indices(self, step: int) -> Tensor:
        count = len(self._images)
        first, last = step * self._batch_size, (step + 1) * self._batch_size
        parts = []
        while first < last:
            number, offset = divmod(first, count)
            taken = min(count - offset, last - first)
            parts.append(self._order(number)[offset : offset + taken])
            first += taken
        return torch.cat(parts)

    def _order(self, number: int) -> Tensor:
        if number not in self._orders:
            generator = make_generator(self._seed, "order", number)
            kept = {key: value for key, value in self._orders.items() if key == number - 1}
            self._orders = {**kept, number: torch.randperm(len(self._images), generator=generator)}
        return self._orders[number]


class MixedStream:
    """Batches of two streams joined, real images first. The streams' batch sizes set the share of each."""

    def __init__(self, real: Stream, synthetic: Stream) -> None:
        self._real, self._synthetic = real, synthetic

    def batch(self, step: int) -> Batch:
        real, synthetic = self._real.batch(step), self._synthetic.batch(step)
        return Batch(torch.cat([real.images, synthetic.images]), torch.cat([real.labels, synthetic.labels]))


def in_batches(images: Tensor, labels: Tensor, batch_size: int) -> list[Batch]:
    """The whole set once, in order, as float batches: for validation."""
    return [
        as_batch(images[first : first + batch_size], labels[first : first + batch_size])
        for first in range(0, len(images), batch_size)
    ]
