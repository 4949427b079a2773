"""Rows of pictures of a trained model: samples, ways between latent points, reconstructions, Gibbs chains."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from pipeline.data.arrays import Images
from pipeline.models.dbn import DBN
from pipeline.models.interpolation import interpolate
from pipeline.models.pictures import chain_strips, to_uint8
from pipeline.models.vae import ConditionalVAE
from pipeline.row_noise import draw_normal
from pipeline.training.generators import Model, sample_images

COLUMNS = 16
"""The most pictures of a row of samples or reconstructions."""
STEPS = 10
"""Pictures of a way between two points, both ends included."""


def sample_rows(model: Model, labels: Tensor, generator: torch.Generator) -> list[Images]:
    """A sample a label. Each class begins a row."""
    images = sample_images(model, labels, generator)
    return [images[part] for part in class_rows(labels)]


@torch.no_grad()
def interpolation_rows(model: Model, labels: Tensor, generator: torch.Generator) -> list[Images]:
    """A row a label: of that class, from one draw of z to another."""
    ends = draw_normal((len(labels), 2, model.config.latent_dim), generator)
    ways = interpolate(ends[:, 0], ends[:, 1], STEPS)
    decode = model.decode if isinstance(model, ConditionalVAE) else model.average
    return [to_uint8(decode(way, label.expand(STEPS))) for way, label in zip(ways, labels, strict=True)]


def reconstruction_rows(model: ConditionalVAE, images: Images, labels: Tensor) -> list[Images]:
    """A row of images, below it the row of their reconstructions, and so on. Each class begins a row."""
    pixels = torch.from_numpy(images).float() / 255.0
    rows = []
    for part in class_rows(labels):
        rows += [images[part], to_uint8(model.reconstruct(pixels[part], labels[part]))]
    return rows


def chain_rows(dbn: DBN, images: Images, rounds: Sequence[int], generator: torch.Generator) -> list[Images]:
    """A row a Gibbs chain of the top layer, pictures after `rounds`: from the images, then as many from noise."""
    strips = chain_strips(dbn, torch.from_numpy(images), rounds, generator)
    return list(strips.reshape(-1, len(rounds), *strips.shape[1:]))


def class_rows(labels: Tensor) -> list[slice]:
    """Where the rows begin and end: at most COLUMNS long, each of one class. labels: (N,), class after class."""
    starts = [0, *(1 + torch.nonzero(labels.diff())[:, 0]).tolist(), len(labels)]
    return [
        slice(left, min(left + COLUMNS, end)) for start, end in pairwise(starts) for left in range(start, end, COLUMNS)
    ]


def pad_rows(rows: Sequence[Images]) -> tuple[Images, int]:
    """The rows one after another for `image_grid`, all as long as the longest, filled up with black; that length."""
    columns = max(map(len, rows))
    tiles = np.zeros((len(rows), columns, *rows[0].shape[1:]), dtype=np.uint8)
    for row, images in zip(tiles, rows, strict=True):
        row[: len(images)] = images
    return tiles.reshape(-1, *rows[0].shape[1:]), columns
