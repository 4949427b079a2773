"""What a DBN has learned and what it keeps of an image, as uint8 pictures."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.models.chain_movie import film_chains
from pipeline.models.dbn import DBN

MAX_FILTERS = 64


def filters_as_pictures(dbn: DBN) -> npt.NDArray[np.uint8]:
    """The first filters of the top layer in pixel space, each stretched so that grey is zero: (N, C, h, w)."""
    filters = dbn.filter_images()[:MAX_FILTERS]
    largest = filters.abs().flatten(1).amax(1).clamp(min=1e-8).view(-1, 1, 1, 1)
    return to_uint8(0.5 + 0.5 * filters / largest)


@torch.no_grad()
def reconstruction_pairs(dbn: DBN, images: Tensor) -> npt.NDArray[np.uint8]:
    """The images, then their reconstructions through the whole stack.

    images: (N, C, H, W) uint8.  Returns (2 N, C, H, W).
    """
    return np.concatenate([images.numpy(), to_uint8(dbn.reconstruct(images.float() / 255.0))])


def chain_strips(dbn: DBN, images: Tensor, rounds: Sequence[int], generator: torch.Generator) -> npt.NDArray[np.uint8]:
    """A chain after a chain, each with its frames in order: (2 N F, C, H, W), see `film_chains`.

    images: (N, C, H, W) uint8.
    """
    movie = film_chains(dbn, images.float() / 255.0, rounds, generator)
    return to_uint8(movie.transpose(0, 1).flatten(0, 1))


def to_uint8(values: Tensor) -> npt.NDArray[np.uint8]:
    return values.clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
