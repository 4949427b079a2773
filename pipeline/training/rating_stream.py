"""Batches of ratings as softmax units, made as they are needed: whole, they would be too large."""

# B examples, G groups, K values, N ratings

import torch
from torch import Tensor

from pipeline.models.losses import UNLABELLED, Batch
from pipeline.seeding import make_generator


class RatingTable:
    """N ratings, of example `rows` by group `groups` with value `values`, each int64 (N,); `num_values` is K."""

    def __init__(
        self, rows: Tensor, groups: Tensor, values: Tensor, *, shape: tuple[int, int], num_values: int
    ) -> None:
        order = torch.argsort(rows, stable=True)
        self.num_rows, self.num_groups = shape
        self.num_values = num_values
        self._rows, self._units = rows[order], groups[order] * num_values + values[order]
        self._first = torch.searchsorted(self._rows, torch.arange(self.num_rows + 1))

    def counts(self) -> Tensor:
        """How often each group has each value, float (G, K)."""
        return (
            torch.bincount(self._units, minlength=self.num_groups * self.num_values).view(-1, self.num_values).float()
        )

    def rated_rows(self) -> Tensor:
        """The examples with at least one rating."""
        return torch.diff(self._first).nonzero()[:, 0]

    def visible(self, rows: Tensor) -> Tensor:
        """Visible states of some examples: (B,) -> float (B, G K)."""
        lengths = self._first[rows + 1] - self._first[rows]
        example = torch.repeat_interleave(torch.arange(len(rows)), lengths)
        offset = torch.arange(len(example)) - torch.repeat_interleave(torch.cumsum(lengths, 0) - lengths, lengths)
        v = torch.zeros(len(rows), self.num_groups * self.num_values)
        v[example, self._units[self._first[rows][example] + offset]] = 1.0
        return v


class RatingStream:
    """Shuffled passes over the examples that have ratings; a batch may span two passes."""

    def __init__(self, table: RatingTable, *, batch_size: int, seed: int) -> None:
        self._table, self._rated, self._seed = table, table.rated_rows(), seed
        self._batch_size = min(batch_size, len(self._rated))

    @property
    def batch_size(self) -> int:
        return self._batch_size

    @property
    def steps_per_pass(self) -> int:
        return -(-len(self._rated) // self._batch_size)

    def batch(self, step: int, rows: slice | None = None) -> Batch:
        places = torch.arange(step * self._batch_size, (step + 1) * self._batch_size)[rows or slice(None)]
        passes, index = places // len(self._rated), places % len(self._rated)
        chosen = torch.cat([self._order(number)[index[passes == number]] for number in passes.unique().tolist()])
        return Batch(self._table.visible(self._rated[chosen]), torch.full((len(chosen),), UNLABELLED))

    def _order(self, number: int) -> Tensor:
        return torch.randperm(len(self._rated), generator=make_generator(self._seed, "order", number))
