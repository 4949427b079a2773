"""Ways between two points of a latent space."""

# B pairs of points, S steps, Z latent

import torch
from torch import Tensor

PARALLEL = 1e-2
"""Radians from parallel or opposite, below which the straight line is taken: acos of a float32 is off by 3e-4 there."""


def interpolate(start_BZ: Tensor, end_BZ: Tensor, num_steps: int) -> Tensor:
    """(B, S, Z) at equal angles along the great circles from start to end, both ends included (White 2016, sec. 2.1).

    A straight line between draws of N(0, I) passes points far shorter than any draw. It is taken where the two are
    parallel or opposite. Raises ValueError for num_steps < 2.
    """
    if num_steps < 2:
        raise ValueError(f"num_steps must be >= 2, got {num_steps}: both ends are steps")
    start, end = start_BZ[:, None], end_BZ[:, None]
    t = torch.linspace(0, 1, num_steps, dtype=start_BZ.dtype).view(1, -1, 1)
    angle = torch.cosine_similarity(start, end, dim=-1).clamp(-1, 1).acos()[..., None]
    sine = torch.sin(angle)
    arc = (torch.sin((1 - t) * angle) * start + torch.sin(t * angle) * end) / sine
    return torch.where(sine > PARALLEL, arc, torch.lerp(start, end, t))
