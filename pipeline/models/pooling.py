"""Probabilistic max-pooling: Lee, Grosse, Ranganath, Ng 2009, sec. 3.6.

The detection units of a C x C block and the state "all off" form one softmax; the pooling unit is on when any is.
"""

# B batch, F filters, C side of a block, S = C * C units of a block, R x Q blocks

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.models.precision import widen


def split_blocks(maps: Tensor, pool_size: int) -> Tensor:
    """(B, F, R*C, Q*C) -> (B, S, F, R, Q): the units of a block along dimension 1, row by row."""
    batch, filters, height, width = maps.shape
    rows, columns = height // pool_size, width // pool_size
    blocks = maps.reshape(batch, filters, rows, pool_size, columns, pool_size)
    return blocks.permute(0, 3, 5, 1, 2, 4).reshape(batch, pool_size**2, filters, rows, columns)


def join_blocks(blocks: Tensor, pool_size: int) -> Tensor:
    """(B, S, F, R, Q) -> (B, F, R*C, Q*C): the inverse of `split_blocks`."""
    batch, _, filters, rows, columns = blocks.shape
    places = blocks.reshape(batch, pool_size, pool_size, filters, rows, columns)
    return places.permute(0, 3, 4, 1, 5, 2).reshape(batch, filters, rows * pool_size, columns * pool_size)


def block_softmax(inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """P(unit on), P(pooling unit on) and the log normaliser of each block, stable for inputs of any size.

    inputs: (B, S, ...), the I of the paper.  Returns exp(I) / (1 + sum exp I) as (B, S, ...),
    sigmoid(logsumexp I) as (B, ...) and log(1 + sum exp I) as (B, ...).
    """
    inputs = widen(inputs)
    peak = inputs.detach().amax(1, keepdim=True).clamp_(min=0)  # 0 is the input of the state "all off"
    units = torch.exp(inputs - peak)
    some = units.sum(1, keepdim=True)
    total = some + torch.exp(-peak)
    return units / total, (some / total).squeeze(1), (total.log() + peak).squeeze(1)


class _PooledProbability(torch.autograd.Function):
    """sigmoid(logsumexp I) over each block; dp/dI_s = (1 - p) P_s."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        units, pooled, _ = block_softmax(inputs)
        ctx.save_for_backward(units, pooled)
        return pooled

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> Tensor:
        units, pooled = ctx.saved_tensors
        slope: Tensor = (outputs[0] * (1 - pooled)).unsqueeze(1) * units
        return slope


def pooled_probability(inputs: Tensor) -> Tensor:
    """P(pooling unit on) = sigmoid(logsumexp I): (B, S, ...) -> (B, ...), differentiable once."""
    pooled: Tensor = _PooledProbability.apply(inputs)
    return pooled


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
