"""Writes what `pipeline.data.prepared` and `pipeline.data.test_split` read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.artifacts import Json, hash_file, write_array, write_json
from pipeline.data.arrays import UNLABELLED, Labels
from pipeline.data.prepared import MANIFEST, SUBSETS, Split


def write_prepared(
    folder: Path,
    *,
    train: Split,
    validation: Split,
    subsets: npt.NDArray[np.int64],
    class_names: Sequence[str],
    label_budgets: Sequence[int],
    source: Json = None,
) -> None:
    """The train and validation arrays, the subsets of `label_subsets`, and a manifest with counts and hashes.

    source: json that says where the images come from. Equal content gives equal bytes.
    """
    arrays: dict[str, npt.NDArray[Any]] = {SUBSETS: subsets.astype(np.int64)}
    for name, split in (("train", train), ("validation", validation)):
        arrays[f"{name}-images.npy"] = split.images
        arrays[f"{name}-labels.npy"] = split.labels
    described = {
        "label_budgets": list(label_budgets),
        "label_draws": len(subsets),
        "counts": {
            "train": count_classes(train.labels, class_names),
            "validation": count_classes(validation.labels, class_names),
        },
    }
    _write(folder, arrays, _describe(train, class_names, source) | described)


def write_test(folder: Path, test: Split, *, class_names: Sequence[str], source: Json = None) -> None:
    """The test arrays and a manifest of the same form."""
    counts = {"test": count_classes(test.labels, class_names)}
    arrays: dict[str, npt.NDArray[Any]] = {"images.npy": test.images, "labels.npy": test.labels}
    _write(folder, arrays, _describe(test, class_names, source) | {"counts": counts})


def count_classes(labels: Labels, class_names: Sequence[str]) -> dict[str, int]:
    """Images per class, by name, and under `unlabelled` those without a label where there are any."""
    counts = {name: int((labels == label).sum()) for label, name in enumerate(class_names)}
    unlabelled = int((labels == UNLABELLED).sum())
    return counts | ({"unlabelled": unlabelled} if unlabelled else {})


def _describe(split: Split, class_names: Sequence[str], source: Json) -> dict[str, Json]:
    return {"image_shape": list(split.images.shape[1:]), "class_names": list(class_names), "source": source}


def _write(folder: Path, arrays: dict[str, npt.NDArray[Any]], manifest: dict[str, Json]) -> None:
    files = {}
    for name, array in arrays.items():
        write_array(folder / name, array)
        files[name] = {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": hash_file(folder / name)}
    write_json(folder / MANIFEST, manifest | {"files": files})
