"""Differentiable augmentation of what a discriminator sees, so that few images go further (Zhao et al. 2020)."""

# B batch, C channels, H height, W width

import torch
from torch import Tensor

from pipeline.row_noise import draw_integers

MAX_SHIFT = 1 / 8
"""Largest translation, as a share of the side (as in the paper)."""
CUTOUT = 1 / 4
"""Side of the square that is cut out, as a share of the image's side (the paper's half hides most of a digit)."""


def diffaugment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image shifted by up to 1/8 of its side, zeros moving in, then with one square set to zero.

    images: (B, C, H, W).  Returns the same shape; linear in the images, so gradients of any order pass through.
    """
    batch, _, height, width = images.shape
    rows_BHH = _shift_matrices(batch, height, images, generator)
    columns_BWW = _shift_matrices(batch, width, images, generator)
    shifted = rows_BHH[:, None] @ images @ columns_BWW[:, None].transpose(2, 3)
    hole_BHW = (
        _interval(batch, height, images, generator)[:, :, None] * _interval(batch, width, images, generator)[:, None]
    )
    return shifted * (1 - hole_BHW)[:, None]


def _shift_matrices(batch: int, size: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """(B, size, size): row i takes what lies at i + shift.  As products, because the gradient of a gather is a scatter,
    which is not deterministic on a GPU."""
    limit = round(size * MAX_SHIFT)
    shift_B = draw_integers(-limit, limit + 1, batch, generator)
    place = torch.arange(size, device=like.device)
    return (place[None, None, :] == place[None, :, None] + shift_B[:, None, None]).to(like.dtype)


def _interval(batch: int, size: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """(B, size): ones on an interval of length size * CUTOUT whose centre lies anywhere in the image."""
    length = round(size * CUTOUT)
    start_B = draw_integers(0, size, batch, generator) - length // 2
    offset = torch.arange(size, device=like.device)[None, :] - start_B[:, None]
    return ((offset >= 0) & (offset < length)).to(like.dtype)
