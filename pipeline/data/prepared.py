"""What `prepare` leaves for every later stage but `evaluate`: train and validation images, and who may see which label.

The test split lies in a folder of its own, which only `pipeline.data.test_split` reads.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.artifacts import Json, hash_file, read_array, read_json
from pipeline.data.arrays import Images, Indices, Labels

MANIFEST = "manifest.json"
SUBSETS = "subsets.npy"


@dataclass(frozen=True)
class Split:
    """images: (N, C, H, W) uint8, mapped from the file.  labels: (N,) int64, -1 where there is none (train only)."""

    images: Images
    labels: Labels


@dataclass(frozen=True)
class Prepared:
    """The train and validation splits.

    image_shape: (C, H, W).  label_budgets: rising.  subsets: (draws, largest budget), row d a sequence of which every
    start is a stratified subset of the labelled train images.
    """

    folder: Path
    image_shape: tuple[int, int, int]
    class_names: list[str]
    train: Split
    validation: Split
    label_budgets: list[int]
    subsets: npt.NDArray[np.int64]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def subset(self, draw: int, budget: int) -> Indices:
        """(budget,) positions in train whose labels an arm may see; larger budgets of a draw hold the smaller ones."""
        if budget not in self.label_budgets:
            raise ValueError(f"label budget {budget} is not in data.label_budgets {self.label_budgets}: add it there")
        if not 0 <= draw < len(self.subsets):
            raise ValueError(f"label draw {draw} does not exist: data.label_draws is {len(self.subsets)}, raise it")
        return np.array(self.subsets[draw, :budget])


def load_prepared(folder: Path) -> Prepared:
    """The folder written by `write_prepared`.

    Raises ValueError when a file is missing, or is not the one that the manifest describes.
    """
    manifest = load_manifest(folder)
    channels, height, width = manifest["image_shape"]
    return Prepared(
        folder=folder,
        image_shape=(channels, height, width),
        class_names=manifest["class_names"],
        train=load_split(folder, manifest, "train-"),
        validation=load_split(folder, manifest, "validation-"),
        label_budgets=manifest["label_budgets"],
        subsets=load_checked(folder, manifest, SUBSETS),
    )


def load_manifest(folder: Path) -> Json:
    path = folder / MANIFEST
    if not path.is_file():
        raise ValueError(f"{path} does not exist: run `dvc repro prepare` or `dvc pull`")
    return read_json(path)


def load_split(folder: Path, manifest: Json, prefix: str) -> Split:
    return Split(
        images=load_checked(folder, manifest, f"{prefix}images.npy", whole=False),
        labels=load_checked(folder, manifest, f"{prefix}labels.npy"),
    )


def load_checked(folder: Path, manifest: Json, name: str, *, whole: bool = True) -> npt.NDArray[Any]:
    """An array that has the manifest's shape and type and, with `whole`, its sha256; mapped unless `whole`.

    Images are checked by shape and length only: reading them all would undo the mapping.
    """
    path, wanted = folder / name, manifest["files"][name]
    if not path.is_file():
        raise ValueError(f"{path} does not exist: run `dvc repro prepare` or `dvc pull`")
    try:
        array = read_array(path)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error}): run `dvc repro --force prepare`") from error
    described = list(array.shape) == wanted["shape"] and str(array.dtype) == wanted["dtype"]
    if not described or (whole and hash_file(path) != wanted["sha256"]):
        raise ValueError(f"{path} is not the file that {MANIFEST} describes: run `dvc repro --force prepare`")
    return np.array(array) if whole else array
