"""Dropout with draws from an explicit generator: Srivastava et al. 2014."""

import torch
from torch import Tensor

from pipeline.models.sampling import sample_uniform


def drop(x: Tensor, rate: float, generator: torch.Generator | None) -> Tensor:
    """x with each value zeroed with probability `rate` and the others divided by 1 - rate; x without a generator."""
    if generator is None or rate == 0:
        return x
    keep = sample_uniform(x, generator) >= rate
    return x * keep / (1 - rate)
