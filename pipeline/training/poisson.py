"""Batches that each example joins by chance, independently of all others: what the accountants of DP-SGD assume."""

import torch
from torch import Tensor

from pipeline.models.losses import Batch
from pipeline.row_noise import RowGenerator
from pipeline.seeding import make_generator
from pipeline.training.stream import Transform, as_batch


class PoissonStream:
    """Every image is in the batch of a step with probability batch_size / N: batches differ in size, and may be empty.

    images: uint8 (N, C, H, W), or floats (N, ...).  labels: int64 (N,).  seed: decides who is in which batch, by step
    alone; as secret as the noise.  transform: augmentation, drawn per step and row.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, *, batch_size: int, seed: int, transform: Transform | None = None
    ) -> None:
        if not 1 <= batch_size <= len(images) == len(labels):
            raise ValueError(
                f"a Poisson stream needs as many labels as images and no larger batch_size, got {len(images)} images, "
                f"{len(labels)} labels, batch_size {batch_size}: lower it in params.yaml"
            )
        self._images, self._labels = images, labels
        self._batch_size, self._seed, self._transform = batch_size, seed, transform

    @property
    def batch_size(self) -> int:
        """The expected one."""
        return self._batch_size

    @property
    def sample_rate(self) -> float:
        """Probability with which an image is in a batch."""
        return self._batch_size / len(self._images)

    def batch(self, step: int, rows: slice | None = None) -> Batch:
        """The batch of update `step`, or its `rows`."""
        chances = torch.rand(
            len(self._images), generator=make_generator(self._seed, "joins", step), dtype=torch.float64
        )
        joined = torch.nonzero(chances < self.sample_rate)[:, 0]
        rows = rows or slice(0, len(joined))
        index = joined[rows]
        batch = as_batch(self._images.index_select(0, index), self._labels.index_select(0, index))
        if self._transform is None or len(index) == 0:
            return batch
        generator = RowGenerator(self._seed, "transform", step, span=lambda _: (rows.start, len(joined)))
        return Batch(self._transform(batch.images, generator), batch.labels)
