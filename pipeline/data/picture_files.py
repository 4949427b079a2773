"""Pngs that a person hands to a command, checked against the shape that a model has learned."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipeline.data.arrays import Images

MODES = {1: "L", 3: "RGB"}


def list_pngs(folder: Path) -> list[Path]:
    """By name. Raises ValueError when there is none."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: give one that holds png files")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() == ".png" and file.is_file())
    if not files:
        raise ValueError(f"{folder} holds no png files: put some into it")
    return files


def read_png(file: Path, shape: tuple[int, int, int], model: Path) -> Images:
    """(C, H, W) uint8. Raises ValueError unless the file is a png of `shape`, that of the images of `model`."""
    channels, height, width = shape
    try:
        with Image.open(file, formats=("PNG",)) as opened:
            found = 1 if opened.mode in ("1", "L") else 3 if opened.mode in ("RGB", "P") else 0
            if (found, opened.height, opened.width) != shape:
                raise ValueError(
                    f"{file} is {opened.width} x {opened.height} pixels of mode {opened.mode}, {model} wants "
                    f"{width} x {height} of mode {MODES[channels]}: resize or convert it, or move it out of the folder"
                )
            pixels = np.atleast_3d(np.asarray(opened.convert(MODES[channels])))
    except UnidentifiedImageError as error:
        raise ValueError(f"{file} is not a png, whatever its name says: replace or remove it") from error
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
