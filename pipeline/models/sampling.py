"""Draws from the conditionals of restricted Boltzmann machines, each from an explicit generator."""

from itertools import pairwise

import torch
from torch import Tensor

from pipeline.row_noise import draw_normal, draw_uniform


def sample_uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform in [0, 1), with the shape, type and device of `like`."""
    return draw_uniform(like.shape, generator, like)


def sample_bernoulli(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """Zeros and ones of the type of `probabilities`, each one with its probability.

    Compares with uniforms: on CPU 3-4 times faster than torch.bernoulli.
    """
    uniform = sample_uniform(probabilities, generator)
    return torch.lt(uniform, probabilities, out=uniform)


def sample_gaussian(mean: Tensor, generator: torch.Generator) -> Tensor:
    """mean + standard normal noise."""
    return draw_normal(mean.shape, generator, mean).add_(mean)


def sample_blocks(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """At most one unit on in each block, unit s with probability p_s, none with 1 - sum_s p_s.

    probabilities: (B, S, ...), the S units of a block along dimension 1, with sums <= 1.  Returns zeros and ones of the
    same shape.
    """
    return choose_units(probabilities, sample_uniform(probabilities[:, 0], generator))


def choose_units(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """`sample_blocks` with one uniform per block: unit s is on when it falls between partial sums s - 1 and s.

    probabilities: (B, S, ...); uniform: (B, ...) in [0, 1).  Returns zeros and ones (B, S, ...).
    """
    state = torch.empty_like(probabilities)
    units, shares = state.unbind(1), probabilities.unbind(1)
    edge = torch.zeros_like(uniform)
    for unit, share in zip(units, shares, strict=True):
        torch.lt(uniform, edge.add_(share), out=unit)
    for before, unit in reversed(list(pairwise(units))):
        unit.sub_(before)  # the partial sums rise: what is below the one before is below this one too
    return state


def sample_categories(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """One of the K units of a group on, with its probability: (..., K) -> zeros and ones of the same shape.

    A group whose probabilities are all 0 has none on. One uniform per group.
    """
    uniform = sample_uniform(probabilities[..., 0], generator)
    state = torch.empty_like(probabilities)
    edge = torch.zeros_like(uniform)
    below = torch.zeros_like(uniform, dtype=torch.bool)
    last = probabilities.shape[-1] - 1
    for value in range(last):
        edge = edge + probabilities[..., value]
        within = uniform < edge
        state[..., value] = within ^ below
        below = within
    state[..., last] = (probabilities.sum(-1) > 0) & ~below  # what rounding leaves short of 1 is the last one's
    return state


COUNT_BITS = 40


def sample_counts(mean: Tensor, generator: torch.Generator) -> Tensor:
    """Multinomial counts with the expectations `mean`, whose rows sum to whole numbers: (B, V) -> (B, V).

    A row's draws come from a seed of its own, so that they don't change with the longest row of the batch.
    """
    lengths = mean.sum(1).round().long()
    seeds = (draw_uniform((len(mean),), generator, mean.new_empty(0, dtype=torch.float64)) * 2**53).long()
    number = torch.arange(max(1, int(lengths.max())), device=mean.device)
    draws = (_mix(seeds[:, None] + _GOLDEN * (number + 1)) & (2**COUNT_BITS - 1)).masked_fill_(
        number >= lengths[:, None], 2**COUNT_BITS
    )
    shares = mean.double() / lengths.clamp(min=1)[:, None]
    edges = (shares * 2**COUNT_BITS).long().cumsum(1)  # in whole numbers: exact and the same on every device
    up_to = torch.searchsorted(draws.sort(1).values, edges)
    up_to[:, -1] = lengths
    return torch.diff(up_to, dim=1, prepend=torch.zeros_like(up_to[:, :1])).to(mean.dtype)


_GOLDEN = 0x9E3779B97F4A7C15 - 2**64


def _mix(x: Tensor) -> Tensor:
    """The output function of SplitMix64 (Steele, Lea, Flood 2014), on int64 that wrap around."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64)):
        x = (x ^ (x >> shift & 2 ** (64 - shift) - 1)) * factor
    return x ^ (x >> 31 & 2**33 - 1)
