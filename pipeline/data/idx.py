"""IDX, the format of MNIST's files: two zero bytes, a type code, the number of axes, big-endian sizes, the values."""

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from pipeline.artifacts import hash_file
from pipeline.data.arrays import Images
from pipeline.data.raw import Pair, RawImages, raw_images

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
"""Training images and labels, test images and labels; each may end in .gz."""
GZIP = b"\x1f\x8b"
UNSIGNED_BYTE = 8


def read_idx(path: Path) -> Images:
    """The array in an IDX file of unsigned bytes, gzipped or plain, of any number of axes.

    Raises ValueError when the file is corrupt, has another type, or is longer or shorter than its header says.
    """
    data = path.read_bytes()
    if data.startswith(GZIP):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is a corrupt gzip file ({error}): delete it and fetch it again") from error
    if len(data) < 4 or data[:2] != b"\0\0":
        raise ValueError(f"{path} is not an IDX file, it starts with {data[:4].hex()!r}: replace it by one")
    kind, num_axes = data[2], data[3]
    if kind != UNSIGNED_BYTE:
        raise ValueError(f"{path} holds values of IDX type {kind:#04x}, wanted 0x08 (unsigned byte): convert it")
    start = 4 + 4 * num_axes
    shape = struct.unpack(f">{num_axes}I", data[4:start]) if len(data) >= start else ()
    if len(data) < start or len(data) != start + math.prod(shape):
        raise ValueError(
            f"{path} has {len(data)} bytes, its header promises {start + math.prod(shape)} (shape {shape}): "
            "it is cut short or corrupt, fetch it again"
        )
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)


def load_idx_folder(folder: Path) -> RawImages:
    """The folder's train files, and its t10k files where it has them."""
    if not folder.is_dir():
        raise ValueError(f"data.path {folder} is not a folder: give the one that holds {FILES[0]}[.gz]")
    found = [_find(folder, name) for name in FILES]
    missing = [name for name, path in zip(FILES, found, strict=True) if path is None]
    if missing and missing != list(FILES[2:]):
        raise ValueError(f"{folder} lacks {', '.join(missing)} (plain or .gz): add it (the t10k pair may be left out)")
    return load_idx([path for path in found if path is not None])


def load_idx(files: list[Path], class_names: list[str] | None = None) -> RawImages:
    """files: training images and labels, then test images and labels or nothing more."""
    pairs = [
        Pair(read_idx(images), read_idx(labels), str(images), str(labels))
        for images, labels in zip(files[::2], files[1::2], strict=True)
    ]
    digest = hashlib.sha256("".join(hash_file(path) for path in files).encode()).hexdigest()
    return raw_images(*pairs, sha256=digest, class_names=class_names)


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)
