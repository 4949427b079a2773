"""A folder with one folder of png or jpeg files per class, and perhaps one named `unlabelled`."""

import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.data.arrays import UNLABELLED, Images, Labels
from pipeline.data.raw import RawImages, check_side
from pipeline.data.watcher import Watcher

UNLABELLED_FOLDER = "unlabelled"
LIKE_UNLABELLED = (UNLABELLED_FOLDER, "unlabeled")
SUFFIXES = (".png", ".jpg", ".jpeg")
LITTER = ("thumbs.db", "desktop.ini")
"""What file managers leave behind; hidden files are passed over too."""
BAD_IMAGE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
"""What Pillow raises for files it cannot decode."""
BLOCK = 512
RESIZE = "set data.image_size in params.yaml, to which all images are resized"


def load_image_folder(folder: Path, *, size: int | None, channels: int | None, watcher: Watcher) -> RawImages:
    """Images in the order of class and file names; class names are the folders' names, sorted.

    size: side in pixels to which images are resized, with anti-aliasing, stretched where they are not square; None
    keeps their size, which must then be the same for all.  channels: 1 or 3; None keeps what the files have, which
    must then be the same too.  Raises ValueError naming the file or folder, the rule and the remedy.
    """
    files, labels, class_names = _list(folder)
    first, _ = _decode(files[0], size=size, channels=channels)
    check_side(first.shape[1], first.shape[2], what=f"{files[0]} has an image", remedy=RESIZE)
    images = np.empty((len(files), *first.shape), dtype=np.uint8)
    digest = hashlib.sha256()
    decode = partial(_decode, size=size, channels=channels)
    # Threads, because Pillow releases the interpreter lock; in blocks, so that a bad file stops the work at once.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool, watcher.progress(len(files), "decoding") as progress:
        for start in range(0, len(files), BLOCK):
            block = files[start : start + BLOCK]
            for index, (file, (image, content)) in enumerate(zip(block, pool.map(decode, block), strict=True), start):
                _check_same(image.shape, first.shape, file, files[0])
                images[index] = image
                digest.update(f"{file.relative_to(folder).as_posix()}\0{content}\n".encode())
            progress.update(start + len(block))
    return RawImages(images, labels, None, None, class_names, digest.hexdigest())


def load_pictures(folder: Path, shape: tuple[int, int, int]) -> tuple[list[Path], Images]:
    """The png and jpeg files of one folder without classes, by name, as a model of `shape` (C, H, W) takes them.

    Channels are converted, sizes are not.  Raises ValueError naming the file, the rule and the remedy.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: give one with png or jpeg images")
    files = _images_in(folder)
    decoded = [_decode(file, size=None, channels=shape[0])[0] for file in files]
    for file, image in zip(files, decoded, strict=True):
        if image.shape != shape:
            raise ValueError(
                f"{file} has {image.shape[1]}x{image.shape[2]} pixels, the model's images have {shape[1]}x{shape[2]}: "
                "resize it, or give a model of such images"
            )
    return files, np.stack(decoded)


def _list(folder: Path) -> tuple[list[Path], Labels, list[str]]:
    """Files, their labels, and the names of the classes."""
    if not folder.is_dir():
        raise ValueError(f"data.path {folder} is not a folder: give the one that holds a folder per class")
    entries = sorted(entry for entry in folder.iterdir() if not _is_litter(entry))
    stray = [entry for entry in entries if entry.suffix.lower() in SUFFIXES and entry.is_file()]
    if stray:
        raise ValueError(f"{stray[0]} lies outside the class folders: move it into one, or into {UNLABELLED_FOLDER}/")
    for entry in entries:
        if entry.is_dir() and entry.name != UNLABELLED_FOLDER and entry.name.lower() in LIKE_UNLABELLED:
            raise ValueError(f"{entry} would count as a class: rename it {UNLABELLED_FOLDER}")
    names = [entry.name for entry in entries if entry.is_dir() and entry.name != UNLABELLED_FOLDER]
    if len(names) < 2:
        raise ValueError(f"{folder} has {len(names)} class folder(s) {names}, at least 2 are needed: one per class")
    files: list[Path] = []
    labels: list[int] = []
    for label, name in [*enumerate(names), (UNLABELLED, UNLABELLED_FOLDER)]:
        found = _images_in(folder / name) if (folder / name).is_dir() else []
        files += found
        labels += [label] * len(found)
    return files, np.array(labels, dtype=np.int64), names


def _images_in(folder: Path) -> list[Path]:
    entries = sorted(entry for entry in folder.iterdir() if not _is_litter(entry))
    if not entries:
        raise ValueError(f"{folder} is empty: put png or jpeg images into it, or remove it")
    for entry in entries:
        if not entry.is_file() or entry.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{entry} is not a png or jpeg file: convert it, or move it out of the class folder")
    return entries


def _is_litter(entry: Path) -> bool:
    return entry.name.startswith(".") or entry.name.lower() in LITTER


def _decode(file: Path, *, size: int | None, channels: int | None) -> tuple[Images, str]:
    """(C, H, W) and the sha256 of the file."""
    data = file.read_bytes()
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as opened:
            image = _flatten(ImageOps.exif_transpose(opened), channels)
    except UnidentifiedImageError as error:
        raise ValueError(f"{file} is not a png or jpeg image, whatever its name says: replace or remove it") from error
    except BAD_IMAGE as error:
        raise ValueError(f"{file} cannot be used: {error}; replace or remove it") from error
    if size is not None:
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    pixels = np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)
    return pixels, hashlib.sha256(data).hexdigest()


def _flatten(image: Image.Image, channels: int | None) -> Image.Image:
    """Grey (L) or RGB. 16-bit grey is scaled to 8 bits, which Pillow's own conversion would clip."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"it has 32-bit pixels (mode {image.mode}): save it with 8 bits a channel")
    if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
        raise ValueError("it has transparent pixels, whose colour is undefined: save it on an opaque background")
    if channels is None:
        channels = 1 if image.mode in ("1", "L", "LA") else 3
    return image.convert("L" if channels == 1 else "RGB")


def _check_same(shape: tuple[int, ...], first: tuple[int, ...], file: Path, first_file: Path) -> None:
    if shape[1:] != first[1:]:
        raise ValueError(f"{file} has {shape[1]}x{shape[2]} pixels, {first_file} {first[1]}x{first[2]}: {RESIZE}")
    if shape[0] != first[0]:
        raise ValueError(
            f"{file} has {shape[0]} channel(s), {first_file} {first[0]}: set data.channels in params.yaml to 1 or 3"
        )
