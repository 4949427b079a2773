"""Images for people: grids and png files."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.artifacts import atomic_path
from pipeline.data.arrays import Images, Labels

GAP = 1
"""Pixels between the tiles of a grid."""
GAP_VALUE = 128


def image_grid(images: Images, columns: int) -> npt.NDArray[np.uint8]:
    """Tiles (N, C, H, W) row by row, `columns` a row, with a grey line between; the last row may stay open.

    Returns (rows * (H + 1) - 1, columns * (W + 1) - 1, C).
    """
    num, channels, height, width = images.shape
    if num == 0 or columns < 1:
        raise ValueError(f"a grid needs at least one image and one column, got {num} images and {columns} columns")
    rows = -(-num // columns)
    grid = np.full((rows * (height + GAP), columns * (width + GAP), channels), GAP_VALUE, dtype=np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * (height + GAP), index % columns * (width + GAP)
        grid[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return grid[:-GAP, :-GAP]


def class_grid(images: Images, labels: Labels, num_classes: int, columns: int) -> npt.NDArray[np.uint8]:
    """A grid whose row k shows the first `columns` images of class k, black where the class has fewer."""
    tiles = np.zeros((num_classes, columns, *images.shape[1:]), dtype=np.uint8)
    for label in range(num_classes):
        members = np.flatnonzero(labels == label)[:columns]
        tiles[label, : len(members)] = images[members]
    return image_grid(tiles.reshape(-1, *images.shape[1:]), columns)


def write_png(path: Path, picture: npt.NDArray[Any], *, magnify: int = 1) -> None:
    """picture: (H, W), (H, W, 1) or (H, W, 3) uint8. magnify: side in pixels of one pixel of it, >= 1."""
    if (
        picture.dtype != np.uint8
        or picture.ndim not in (2, 3)
        or (picture.ndim == 3 and picture.shape[2] not in (1, 3))
    ):
        raise ValueError(
            f"{path}: a picture must be uint8 (H, W), (H, W, 1) or (H, W, 3), got {picture.dtype} {picture.shape}"
        )
    flat = picture[:, :, 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture
    image = Image.fromarray(np.ascontiguousarray(flat.repeat(magnify, axis=0).repeat(magnify, axis=1)))
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        image.save(handle, format="PNG")
