"""Filters over images whose units come in pooling blocks: correlation, its transpose and its gradient.

Two ways to the same numbers. Convolutions over pixels are at the speed of the hardware where there are many input
channels. To few of them the library's transposed convolution is an order of magnitude slower; there the image is cut
into cells of C x C pixels, and filters over cells, one for each place of a block, are plain matrix products.
"""

# B batch, M input channels, K side of a filter, F filters, C side of a block and of a cell, S = C * C, R x Q blocks,
# L side of a filter in cells

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from pipeline.models.pooling import join_blocks, split_blocks

FEW_CHANNELS = 4


class Filters(Protocol):
    """The filters of one update, (F, M, K, K), over images (B, M, height, width)."""

    def see(self, v: Tensor) -> Tensor:
        """The images as `correlate` and `moments` take them."""
        ...

    def correlate(self, seen: Tensor, bias: Tensor) -> Tensor:
        """W * v + c for the units of all blocks; bias: (F,).  Returns (B, S, F, R, Q)."""
        ...

    def project(self, h: Tensor) -> Tensor:
        """What each block adds to the image, as `assemble` takes it: (B, S, F, R, Q) -> (B, ...)."""
        ...

    def assemble(self, projected: Tensor) -> Tensor:
        """sum_k of the transposed correlation of h^k with W^k: -> (B, M, height, width)."""
        ...

    def moments(self, seen: Tensor, h: Tensor) -> Tensor:
        """The sum over the batch of d/dW of h . (W * v), as `gather` takes it; it may be added up over batches."""
        ...

    def gather(self, moments: Tensor) -> Tensor:
        """Moments in the shape of the filters, (F, M, K, K)."""
        ...


def make_filters(weight: Tensor, image_shape: tuple[int, int], blocks: tuple[int, int], pool_size: int) -> Filters:
    """image_shape: height and width.  blocks: R and Q, of which there is room for."""
    kind = CellFilters if weight.shape[1] <= FEW_CHANNELS else PixelFilters
    return kind(weight, image_shape, blocks, pool_size)


class PixelFilters:
    """Torch's convolutions, with units sorted into blocks."""

    def __init__(self, weight: Tensor, image_shape: tuple[int, int], blocks: tuple[int, int], pool_size: int) -> None:
        self.weight, self.image_shape, self.pool_size = weight, image_shape, pool_size
        self.covered = tuple(count * pool_size + weight.shape[-1] - 1 for count in blocks)

    def see(self, v: Tensor) -> Tensor:
        return v[..., : self.covered[0], : self.covered[1]]

    def correlate(self, seen: Tensor, bias: Tensor) -> Tensor:
        return split_blocks(F.conv2d(seen, self.weight, bias), self.pool_size)

    def project(self, h: Tensor) -> Tensor:
        return F.conv_transpose2d(join_blocks(h, self.pool_size), self.weight)

    def assemble(self, projected: Tensor) -> Tensor:
        return _resize(projected, self.image_shape)

    def moments(self, seen: Tensor, h: Tensor) -> Tensor:
        moments: Tensor = conv2d_weight(seen, list(self.weight.shape), join_blocks(h, self.pool_size))
        return moments

    def gather(self, moments: Tensor) -> Tensor:
        return moments


class CellFilters:
    """Matrix products: a unit's filter, seen from its block, is a row over the L x L cells that the block sees."""

    def __init__(self, weight: Tensor, image_shape: tuple[int, int], blocks: tuple[int, int], pool_size: int) -> None:
        spread = spread_filters(weight, pool_size)
        self.shape, self.image_shape, self.blocks, self.pool_size = weight.shape, image_shape, blocks, pool_size
        self.side = spread.shape[-1]
        self.cells = (blocks[0] + self.side - 1, blocks[1] + self.side - 1)
        self.matrix = spread.flatten(1)
        """(S * F, M * S * L * L)"""

    def see(self, v: Tensor) -> Tensor:
        """-> (B, M * S * L * L, R * Q): for every block the cells that it sees."""
        height, width = (count * self.pool_size for count in self.cells)
        cells = F.pixel_unshuffle(_resize(v, (height, width)), self.pool_size)
        windows = cells.unfold(2, self.side, 1).unfold(3, self.side, 1)
        return windows.permute(0, 1, 4, 5, 2, 3).reshape(len(v), self.matrix.shape[1], -1)

    def correlate(self, seen: Tensor, bias: Tensor) -> Tensor:
        places = self.pool_size**2
        products = torch.baddbmm(bias.repeat(places)[None, :, None], self.matrix.expand(len(seen), -1, -1), seen)
        return products.view(len(seen), places, len(bias), *self.blocks)

    def project(self, h: Tensor) -> Tensor:
        return self.matrix.t().expand(len(h), -1, -1) @ h.flatten(1, 2).flatten(2)

    def assemble(self, projected: Tensor) -> Tensor:
        windows = projected.view(len(projected), -1, self.side, self.side, *self.blocks)
        cells = projected.new_zeros(len(projected), windows.shape[1], *self.cells)
        rows, columns = self.blocks
        for row in range(self.side):
            for column in range(self.side):
                cells[..., row : row + rows, column : column + columns].add_(windows[:, :, row, column])
        return _resize(F.pixel_shuffle(cells, self.pool_size), self.image_shape)

    def moments(self, seen: Tensor, h: Tensor) -> Tensor:
        return (h.flatten(1, 2).flatten(2) @ seen.transpose(1, 2)).sum(0)

    def gather(self, moments: Tensor) -> Tensor:
        return gather_filters(moments.view(-1, self.shape[1] * self.pool_size**2, self.side, self.side), self.shape)


def spread_filters(weight: Tensor, pool_size: int) -> Tensor:
    """Filters of the same correlation seen from cells of C x C pixels: (F, M, K, K) -> (S*F, M*S, L, L).

    Unit s of a block sees its filter shifted to its place in the block: K + C - 1 pixels with zeros around, cut into
    L x L cells. Input channels are in the order of torch's pixel_unshuffle, outputs in that of a flattened (S, F).
    """
    filters, channels, kernel, _ = weight.shape
    cells = -(-(kernel + pool_size - 1) // pool_size)
    side = cells * pool_size
    spread = weight.new_zeros(pool_size, pool_size, filters, channels, side, side)
    for row in range(pool_size):
        for column in range(pool_size):
            spread[row, column, :, :, row : row + kernel, column : column + kernel] = weight
    return F.pixel_unshuffle(spread.view(-1, channels, side, side), pool_size)


def gather_filters(spread: Tensor, shape: torch.Size) -> Tensor:
    """The transpose of `spread_filters`: (S*F, M*S, L, L) -> (F, M, K, K), sums over the places of a block."""
    filters, channels, kernel, _ = shape
    pool_size = round((len(spread) // filters) ** 0.5)
    pixels = F.pixel_shuffle(spread, pool_size)
    places = pixels.view(pool_size, pool_size, filters, channels, *pixels.shape[-2:])
    gathered = spread.new_zeros(shape)
    for row in range(pool_size):
        for column in range(pool_size):
            gathered += places[row, column, :, :, row : row + kernel, column : column + kernel]
    return gathered


def _resize(images: Tensor, shape: tuple[int, int]) -> Tensor:
    """Cut off, or filled up with zeros, at the right and the bottom."""
    return F.pad(images, (0, shape[1] - images.shape[-1], 0, shape[0] - images.shape[-2]))
