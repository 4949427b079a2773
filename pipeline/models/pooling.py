"""Probabilistic max-pooling: Lee, Grosse, Ranganath, Ng 2009, sec. 3.6.

The detection units of a C x C block and the state "all off" form one softmax; the pooling unit is on when any is.
"""

# B batch, F filters, C side of a block, S = C * C units of a block, R x Q blocks

from typing import Any

import torch
from torch import Tensor

from pipeline.models.precision import widen

MODERATE = 60.0
"""Of inputs below it, 1e12 exponentials add up without overflow in 32 bits."""


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
    sigmoid(logsumexp I) as (B, ...) and log(1 + sum exp I) as (B, ...); differentiable once.
    """
    units, pooled, log_normaliser = _BlockSoftmax.apply(widen(inputs))
    return units, pooled, log_normaliser


def _are_moderate(inputs: Tensor) -> bool:
    """Whether no block's sum of exponentials overflows. To ask a GPU would cost more than not to know."""
    return inputs.device.type == "cpu" and inputs.numel() > 0 and float(inputs.amax()) < MODERATE


def normalise_blocks(inputs: Tensor, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`block_softmax` without a graph, with dimension 1 kept; out: where P(unit on) goes, `inputs` itself if it may."""
    if _are_moderate(inputs):
        units = torch.exp(inputs, out=out)
        some = units.sum(1, keepdim=True)
        total = some + 1
        log_normaliser = total.log()
    else:
        peak = inputs.amax(1, keepdim=True).clamp_(min=0)  # 0 is the input of the state "all off"
        units = torch.sub(inputs, peak, out=out).exp_()
        some = units.sum(1, keepdim=True)
        total = torch.neg(peak).exp_().add_(some)
        log_normaliser = total.log().add_(peak)
    share = total.reciprocal_()
    units.mul_(share)
    return units, some.mul_(share), log_normaliser


class _BlockSoftmax(torch.autograd.Function):
    """Few passes over memory; the gradients are those of a softmax with one input at 0."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        units, pooled, log_normaliser = normalise_blocks(inputs, torch.empty_like(inputs))
        ctx.save_for_backward(units, pooled)
        ctx.set_materialize_grads(False)
        return units, pooled.squeeze(1), log_normaliser.squeeze(1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outputs: Tensor | None) -> Tensor:
        units, pooled = ctx.saved_tensors
        by_unit, by_pooled, by_normaliser = outputs
        slope: Tensor = torch.zeros_like(pooled)
        if by_pooled is not None:
            slope += by_pooled.unsqueeze(1) * (1 - pooled)
        if by_normaliser is not None:
            slope += by_normaliser.unsqueeze(1)
        if by_unit is not None:
            slope = by_unit + (slope - (by_unit * units).sum(1, keepdim=True))
        return slope.mul(units)
