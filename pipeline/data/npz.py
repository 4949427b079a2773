"""A numpy archive of images and labels, as many published sets and `np.savez` make it."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.artifacts import hash_file
from pipeline.data.raw import Pair, RawImages, raw_images

KEYS = (("images", "labels"), ("x", "y"), ("x_train", "y_train"))
TEST_KEYS = ("x_test", "y_test")


def load_npz(path: Path) -> RawImages:
    """Keys images and labels, or x and y, or x_train and y_train with x_test and y_test beside them or not.

    Images: (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 or float in [0, 1].  Labels: (N,) integers, -1 for none.
    Raises ValueError naming key, index, value and rule. Archives with pickled objects are refused.
    """
    if not path.is_file():
        raise ValueError(f"data.path {path} is not a file: give the path of an .npz file")
    arrays = _read(path)
    pairs = [pair for pair in KEYS if set(pair) <= set(arrays)]
    if len(pairs) != 1:
        wanted = " or ".join(f"{images} and {labels}" for images, labels in KEYS)
        raise ValueError(f"{path} has the keys {sorted(arrays)}: wanted exactly one pair of {wanted}")
    tests = [key for key in TEST_KEYS if key in arrays] if pairs[0] == KEYS[2] else []
    if len(tests) == 1:
        raise ValueError(f"{path} has {tests[0]} without its partner: give both of {' and '.join(TEST_KEYS)}, or none")
    found = [pairs[0], *([TEST_KEYS] if tests else [])]
    named = [Pair(arrays[x], arrays[y], f"{path}: {x}", f"{path}: {y}") for x, y in found]
    return raw_images(*named, sha256=hash_file(path))


def _read(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} cannot be read as an .npz of plain arrays ({error}): write it with np.savez"
        ) from error
