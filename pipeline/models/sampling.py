"""Draws from the conditionals of restricted Boltzmann machines, each from an explicit generator."""

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
    same shape.  One uniform per block: unit s is on when it falls between the (s-1)-th and the s-th partial sum.
    """
    uniform = sample_uniform(probabilities[:, 0], generator)
    state = torch.empty_like(probabilities)
    edge = torch.zeros_like(uniform)
    below = torch.zeros_like(uniform, dtype=torch.bool)
    for unit in range(probabilities.shape[1]):
        edge = edge + probabilities[:, unit]
        within = uniform < edge
        state[:, unit] = within ^ below  # the partial sums rise, so `below` implies `within`
        below = within
    return state
