"""From section `data` to images: one dispatch over the sources."""

import os
from pathlib import Path

from pipeline import paths
from pipeline.config.data import Data
from pipeline.config.rules import require
from pipeline.data.download import PUBLISHED, fetch_published
from pipeline.data.embedded import load_embedded
from pipeline.data.idx import load_idx, load_idx_folder
from pipeline.data.image_folder import load_image_folder
from pipeline.data.npz import load_npz
from pipeline.data.raw import RawImages, check_side
from pipeline.data.watcher import Watcher

MIRROR = "LAYERWISE_DATA_MIRROR"
"""Environment variable: a folder with mnist/, fashion-mnist/ and kmnist/, looked into before anything is downloaded."""


def load_source(data: Data, watcher: Watcher) -> RawImages:
    """All images of `data.source`, checked but not shuffled.

    Raises ValueError naming the file or key, the value, the rule and the remedy.
    """
    if data.source == "image_folder":
        return load_image_folder(_path(data), size=data.image_size, channels=data.channels, watcher=watcher)
    raw = _load_arrays(data, watcher)
    _, channels, height, width = raw.images.shape
    check_side(
        height, width, what=f"data.source {data.source} has images", remedy="resize the arrays before saving them"
    )
    for key, wanted, found in (("image_size", data.image_size, height), ("channels", data.channels, channels)):
        require(
            wanted in (None, found),
            f"data.{key}",
            wanted,
            f"null or {found} for source {data.source}, whose arrays stay as they are",
        )
    return raw


def _load_arrays(data: Data, watcher: Watcher) -> RawImages:
    if data.source == "embedded":
        return load_embedded()
    if data.source == "npz":
        return load_npz(_path(data))
    if data.source == "idx":
        return load_idx_folder(_path(data))
    published = PUBLISHED[data.source]
    files = fetch_published(published, cache=paths.DOWNLOADS, mirror=_mirror(), watcher=watcher)
    return load_idx(files, published.class_names)


def _path(data: Data) -> Path:
    return Path(data.path).expanduser()


def _mirror() -> Path | None:
    given = os.environ.get(MIRROR)
    if not given:
        return None
    if not Path(given).is_dir():
        raise ValueError(f"{MIRROR} is {given!r}, which is not a folder: correct it or unset it")
    return Path(given)
