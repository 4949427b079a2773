"""Oracles: torch's convolutions over pixels, their autograd, and <A x, y> = <x, A^T y>."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.models.filters import CellFilters, Filters, PixelFilters, gather_filters, make_filters, spread_filters
from pipeline.models.pooling import split_blocks

GEOMETRIES = [  # kernel, pool, height, width
    (3, 1, 6, 5),
    (3, 2, 7, 8),
    (4, 2, 9, 9),
    (5, 2, 12, 11),
    (5, 2, 28, 28),
    (9, 2, 12, 13),
    (2, 3, 8, 11),
    (5, 3, 14, 9),
    (3, 4, 13, 8),
]
SHAPES = pytest.mark.parametrize(("kernel", "pool", "height", "width"), GEOMETRIES)
KINDS = pytest.mark.parametrize("kind", [CellFilters, PixelFilters])
CHANNELS = pytest.mark.parametrize("channels", [1, 3])


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def blocks_of(kernel: int, pool: int, height: int, width: int) -> tuple[int, int]:
    return (height - kernel + 1) // pool, (width - kernel + 1) // pool


@KINDS
@CHANNELS
@SHAPES
def test_values_and_gradients_are_those_of_plain_convolutions(
    kind: type[CellFilters | PixelFilters], channels: int, kernel: int, pool: int, height: int, width: int
) -> None:
    weight, bias = normal(0, 3, channels, kernel, kernel).requires_grad_(), normal(1, 3).requires_grad_()
    v, blocks = normal(2, 2, channels, height, width).requires_grad_(), blocks_of(kernel, pool, height, width)
    maps = F.conv2d(v, weight, bias)[..., : blocks[0] * pool, : blocks[1] * pool]
    plain = split_blocks(maps, pool)
    h = normal(3, *plain.shape)
    filters = kind(weight, (height, width), blocks, pool)
    seen = filters.see(v)
    found = filters.correlate(seen, bias)
    torch.testing.assert_close(found, plain)
    expected = torch.autograd.grad((plain * h).sum(), (weight, bias, v), retain_graph=True)
    for gradient, by_plain in zip(torch.autograd.grad((found * h).sum(), (weight, bias, v)), expected, strict=True):
        torch.testing.assert_close(gradient, by_plain)
    with torch.no_grad():
        filters = kind(weight, (height, width), blocks, pool)
        torch.testing.assert_close(filters.gather(filters.moments(filters.see(v), h)), expected[0])
        torch.testing.assert_close(filters.assemble(filters.project(h)), expected[2])


@KINDS
def test_the_transpose_is_differentiable(kind: type[CellFilters | PixelFilters]) -> None:
    def transpose(weight: Tensor, h: Tensor) -> Tensor:
        filters = kind(weight, (7, 8), (2, 3), 2)
        return filters.assemble(filters.project(h))

    weight, h = normal(0, 2, 1, 3, 3).requires_grad_(), normal(1, 2, 4, 2, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(transpose, (weight, h))


@CHANNELS
@SHAPES
def test_gathered_filters_are_the_transpose_of_spread_ones(
    channels: int, kernel: int, pool: int, height: int, width: int
) -> None:
    weight = normal(0, 3, channels, kernel, kernel)
    spread = spread_filters(weight, pool)
    other = normal(1, *spread.shape)
    torch.testing.assert_close((spread * other).sum(), (weight * gather_filters(other, weight.shape)).sum())


def test_few_channels_go_by_cells_and_many_by_pixels() -> None:
    def kind(channels: int) -> type[Filters]:
        return type(make_filters(torch.zeros(2, channels, 3, 3), (6, 6), (2, 2), 2))

    assert (kind(1), kind(4), kind(5)) == (CellFilters, CellFilters, PixelFilters)
