"""Differentiable augmentation of what a discriminator sees, so that few images go further (Zhao et al. 2020)."""

# B batch, C channels, H height, W width

import torch
from torch import Tensor

from pipeline.row_noise import draw_integers, draw_uniform

MAX_SHIFT = 1 / 8
"""Largest translation, as a share of the side (as in the paper)."""
CUTOUT = 1 / 4
"""Side of the square that is cut out, as a share of the image's side (the paper's half hides most of a digit)."""


def diffaugment(images: Tensor, generator: torch.Generator, probability: Tensor | None = None) -> Tensor:
    """Each image shifted by up to 1/8 of its side, zeros moving in, then with one square set to zero.

    images: (B, C, H, W).  probability: a scalar, the share of images that are shifted, and, drawn anew, of those that
    are cut; None for all.  Returns the same shape; linear in the images, so gradients of any order pass through.
    """
    batch, _, height, width = images.shape
    moved_B, cut_B = _chosen(batch, images, generator, probability), _chosen(batch, images, generator, probability)
    rows_BHH = _shift_matrices(moved_B, height, images, generator)
    columns_BWW = _shift_matrices(moved_B, width, images, generator)
    shifted = rows_BHH[:, None] @ images @ columns_BWW[:, None].transpose(2, 3)
    hole_BHW = (
        _interval(batch, height, images, generator)[:, :, None] * _interval(batch, width, images, generator)[:, None]
    )
    return shifted * (1 - cut_B[:, None, None] * hole_BHW)[:, None]


def _chosen(batch: int, like: Tensor, generator: torch.Generator, probability: Tensor | None) -> Tensor:
    """(B,): 1 for the images that a transformation reaches, else 0."""
    if probability is None:
        return like.new_ones(batch)
    return (draw_uniform((batch,), generator, like) < probability).to(like.dtype)


def _shift_matrices(moved_B: Tensor, size: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """(B, size, size): row i takes what lies at i + shift.  As products, because the gradient of a gather is a scatter,
    which is not deterministic on a GPU."""
    limit = round(size * MAX_SHIFT)
    shift_B = draw_integers(-limit, limit + 1, len(moved_B), generator) * moved_B.long()
    place = torch.arange(size, device=like.device)
    return (place[None, None, :] == place[None, :, None] + shift_B[:, None, None]).to(like.dtype)


def _interval(batch: int, size: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """(B, size): ones on an interval of length size * CUTOUT whose centre lies anywhere in the image."""
    length = round(size * CUTOUT)
    start_B = draw_integers(0, size, batch, generator) - length // 2
    offset = torch.arange(size, device=like.device)[None, :] - start_B[:, None]
    return ((offset >= 0) & (offset < length)).to(like.dtype)
