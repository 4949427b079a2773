"""Noise for the rows of a batch, the same however many workers share the batch.

Rows come in blocks of fixed size, each with a generator of its own. A worker draws the blocks that hold its rows, so
what it draws beyond them is less than two blocks, whatever the number of workers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from pipeline.seeding import derive_seed, make_generator

BLOCK_ROWS = {"cpu": 64, "cuda": 1024}
"""Rows of a block by device: a draw costs a call for each block, which a GPU feels sooner."""


@dataclass(frozen=True)
class Shard:
    """The part of a batch that is worker `rank`'s, of `size` workers: equal parts, in order."""

    rank: int = 0
    size: int = 1

    def rows(self, total: int) -> slice:
        """Raises ValueError when `total` rows can't be shared out equally."""
        if total % self.size:
            raise ValueError(
                f"a batch of {total} can't be shared equally by {self.size} workers: "
                "make batch_size a multiple of run.workers in params.yaml"
            )
        count = total // self.size
        return slice(self.rank * count, (self.rank + 1) * count)


WHOLE = Shard()


class RowGenerator(torch.Generator):
    """A generator for draws with a row for each example. In all other respects it is the generator of the first block.

    span(n): for a draw of n rows here, the number of the first one and the count of rows that all workers draw.
    """

    span: Callable[[int], tuple[int, int]]
    _seed: int
    _later: dict[int, torch.Generator]

    def __new__(
        cls,
        root: int,
        *identity: str | int,
        device: torch.device | str = "cpu",
        span: Callable[[int], tuple[int, int]] = lambda rows: (0, rows),
    ) -> Self:
        self = super().__new__(cls, device)  # type: ignore[call-arg]  # torch's stub has only __init__
        self.span, self._seed, self._later = span, derive_seed(root, *identity), {}
        self.manual_seed(self._seed)
        return self

    def block(self, number: int) -> torch.Generator:
        """The generator of block `number`, which goes on from draw to draw."""
        if number == 0:
            return self
        if number not in self._later:
            self._later[number] = make_generator(self._seed, "block", number, device=self.device)
        return self._later[number]


class ExampleGenerator(torch.Generator):
    """Inside torch.vmap over the examples of a batch (randomness="same"): what a draw of one row gives to each of them.

    Each draws for all `total` and takes its own row. inner: draws for the batch.  index: (1,), the example's place.
    """

    inner: torch.Generator
    index: Tensor
    total: int

    def __new__(cls, inner: torch.Generator, index: Tensor, total: int) -> Self:
        self = super().__new__(cls, inner.device)  # type: ignore[call-arg]  # torch's stub has only __init__
        self.inner, self.index, self.total = inner, index, total
        return self


def shard_generator(
    root: int, *identity: str | int, shard: Shard = WHOLE, device: torch.device | str = "cpu"
) -> RowGenerator:
    """Draws the shard's rows of what all workers together draw."""
    return RowGenerator(root, *identity, device=device, span=lambda rows: (shard.rank * rows, shard.size * rows))


def part_generator(
    root: int, *identity: str | int, first: int, total: int, device: torch.device | str = "cpu"
) -> RowGenerator:
    """Draws the rows from `first` on of what a draw of `total` rows gives: for work that is done in parts."""
    return RowGenerator(root, *identity, device=device, span=lambda _: (first, total))


def own_rows(total: int, generator: torch.Generator) -> slice:
    """Which of `total` rows of state, such as persistent chains, belong to who draws from `generator`."""
    if not isinstance(generator, RowGenerator):
        return slice(0, total)
    first, all_rows = generator.span(1)
    return Shard(first, all_rows).rows(total)


def draw_uniform(shape: Sequence[int], generator: torch.Generator, like: Tensor | None = None) -> Tensor:
    """Uniform in [0, 1), rows along dimension 0; type as `like`, on the generator's device."""
    return _draw(shape, generator, like, lambda out, source: out.uniform_(generator=source))


def draw_normal(shape: Sequence[int], generator: torch.Generator, like: Tensor | None = None) -> Tensor:
    """Standard normal, rows along dimension 0; type as `like`, on the generator's device."""
    return _draw(shape, generator, like, lambda out, source: out.normal_(generator=source))


def draw_thresholds(like: Tensor, generator: torch.Generator) -> Tensor:
    """What probabilities (B, ...) are compared with: uniform in [0, 1), rows along dimension 0, shape and type of like.

    On CPU a float32 has the upper 16 of its 24 bits to itself and shares the lower 8 with its row. Single ones have the
    distribution of `draw_uniform` in a third of its time; two of a row depend on each other by no more than 2^-16.
    """
    by_example = isinstance(generator, ExampleGenerator)
    if like.dtype != torch.float32 or generator.device.type != "cpu" or like.ndim < 2 or by_example:
        return draw_uniform(like.shape, generator, like)
    columns = like[0].numel()
    words = -(-columns // 4)
    bits = _draw(
        (len(like), words + 1), generator, _WORD, lambda out, source: out.random_(-(2**63), None, generator=source)
    )
    upper = bits.view(torch.int16)[:, :columns].float()
    lower = bits[:, words:].bitwise_and(255).float().mul_(2**-24).add_(0.5)
    return torch.add(lower, upper, alpha=2**-16, out=upper).view(like.shape)


_WORD = torch.empty(0, dtype=torch.int64)


def draw_integers(low: int, high: int, rows: int, generator: torch.Generator) -> Tensor:
    """(rows,) int64, uniform in low..high - 1."""
    return (draw_uniform((rows,), generator, torch.zeros((), dtype=torch.float64)) * (high - low)).long() + low


def _draw(
    shape: Sequence[int],
    generator: torch.Generator,
    like: Tensor | None,
    fill: Callable[[Tensor, torch.Generator], Tensor],
) -> Tensor:
    if isinstance(generator, ExampleGenerator):
        assert shape[0] == 1, "an example is a batch of one"
        rows = _draw((generator.total, *shape[1:]), generator.inner, like, fill)
        return rows.index_select(0, generator.index)
    out = torch.empty(tuple(shape), dtype=None if like is None else like.dtype, device=generator.device)
    if not isinstance(generator, RowGenerator):
        return fill(out, generator)
    size = BLOCK_ROWS.get(generator.device.type, BLOCK_ROWS["cuda"])
    first, total = generator.span(len(out))
    last = first + len(out)
    for number in range(first // size, -(-last // size)):
        start, end = number * size, min((number + 1) * size, total)
        mine = out[max(start, first) - first : min(end, last) - first]
        if len(mine) == end - start:
            fill(mine, generator.block(number))
        else:  # a block that a neighbour shares is drawn whole by both
            block = fill(out.new_empty(end - start, *out.shape[1:]), generator.block(number))
            mine.copy_(block[max(start, first) - start : min(end, last) - start])
    return out
