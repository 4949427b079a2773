"""Batches as a pure function of (seed, step), so that a resumed run sees what the killed one would have seen."""

import warnings
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.models.losses import Batch
from pipeline.row_noise import RowGenerator
from pipeline.seeding import make_generator

Transform = Callable[[Tensor, torch.Generator], Tensor]


class Stream(Protocol):
    """An endless sequence of batches, each computed from its step alone."""

    @property
    def batch_size(self) -> int: ...

    def batch(self, step: int, rows: slice | None = None) -> Batch:
        """The batch of update `step`, counted from 0, or its `rows`: a slice with 0 <= start <= stop."""
        ...


def as_batch(images: Tensor, labels: Tensor) -> Batch:
    """Images (B, C, H, W) and labels (B,) as models take them: uint8 ones as floats in [0, 1], floats as they are."""
    return Batch(images if images.is_floating_point() else images.float().div_(255.0), labels)


def as_tensor(array: npt.NDArray[Any]) -> Tensor:
    """The array's memory as a tensor, not to be written to: it may be mapped from a file or from Ray's store."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.asarray(array))


class BatchStream:
    """Shuffled passes over images that lie in memory, one after another; a batch may span two passes.

    images: uint8 (N, C, H, W), or floats (N, ...) in a model's own units.  labels: int64 (N,).
    transform: augmentation of a float batch, drawn per step and row.
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

    @property
    def batch_size(self) -> int:
        return self._batch_size

    def batch(self, step: int, rows: slice | None = None) -> Batch:
        rows = rows or slice(0, self._batch_size)
        index = self._indices(step)[rows]
        batch = as_batch(self._images.index_select(0, index), self._labels.index_select(0, index))
        if self._transform is None or len(index) == 0:
            return batch
        generator = RowGenerator(self._seed, "transform", step, span=lambda _: (rows.start, self._batch_size))
        return Batch(self._transform(batch.images, generator), batch.labels)

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

    @property
    def batch_size(self) -> int:
        return self._real.batch_size + self._synthetic.batch_size

    def batch(self, step: int, rows: slice | None = None) -> Batch:
        rows = rows or slice(0, self.batch_size)
        first = self._real.batch_size
        real = self._real.batch(step, slice(min(rows.start, first), min(rows.stop, first)))
        synthetic = self._synthetic.batch(step, slice(max(rows.start - first, 0), max(rows.stop - first, 0)))
        return Batch(torch.cat([real.images, synthetic.images]), torch.cat([real.labels, synthetic.labels]))


def in_batches(images: Tensor, labels: Tensor, batch_size: int) -> list[Batch]:
    """The whole set once, in order, as float batches: for validation."""
    return [
        as_batch(images[first : first + batch_size], labels[first : first + batch_size])
        for first in range(0, len(images), batch_size)
    ]
