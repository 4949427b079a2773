"""What every source returns, and the rules its arrays must keep before they are split."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.data.arrays import SIDES, UNLABELLED, Images, Labels


@dataclass(frozen=True)
class RawImages:
    """A source as it was read. The test arrays are None where the source has no test set of its own.

    sha256: of the source's files, in hex; it enters the manifest.
    """

    images: Images
    labels: Labels
    test_images: Images | None
    test_labels: Labels | None
    class_names: list[str]
    sha256: str


@dataclass(frozen=True)
class Pair:
    """Images and labels as a file holds them, with what to call each of them in an error."""

    images: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    images_name: str
    labels_name: str


def raw_images(
    train: Pair, test: Pair | None = None, *, sha256: str, class_names: list[str] | None = None
) -> RawImages:
    """Converts and checks the arrays of one source.

    Labels may be any integers >= 0, and -1 (no label) among the training labels; they become 0..K-1 in rising order.
    class_names: by default each label as text.  Raises ValueError naming the array, the value and the rule.
    """
    images = to_channels_first(train.images, train.images_name)
    values = _label_values(train.labels, len(images), train.labels_name)
    classes = np.unique(values[values != UNLABELLED])
    if len(classes) < 2:
        raise ValueError(f"{train.labels_name} holds {len(classes)} class(es): a classifier needs at least 2, add one")
    if class_names is not None and not np.array_equal(classes, np.arange(len(class_names))):
        last = len(class_names) - 1
        raise ValueError(f"{train.labels_name} holds the classes {classes.tolist()}, wanted 0..{last}: replace it")
    labels = np.where(values == UNLABELLED, UNLABELLED, np.searchsorted(classes, values))
    test_images, test_labels = (None, None) if test is None else _test_arrays(test, train, images, classes)
    return RawImages(
        images=images,
        labels=labels.astype(np.int64),
        test_images=test_images,
        test_labels=test_labels,
        class_names=class_names or [str(value) for value in classes],
        sha256=sha256,
    )


def _test_arrays(test: Pair, train: Pair, train_images: Images, classes: Labels) -> tuple[Images, Labels]:
    images = to_channels_first(test.images, test.images_name)
    if images.shape[1:] != train_images.shape[1:]:
        raise ValueError(
            f"{test.images_name} has images of shape {images.shape[1:]}, {train.images_name} "
            f"{train_images.shape[1:]} (channels, height, width): make them equal"
        )
    values = _label_values(test.labels, len(images), test.labels_name)
    unknown = np.setdiff1d(values, classes)
    if len(unknown):
        raise ValueError(
            f"{test.labels_name} holds {unknown.tolist()}, which {train.labels_name} lacks: give training "
            "images of it, or remove it"
        )
    return images, np.searchsorted(classes, values).astype(np.int64)


def to_channels_first(images: npt.NDArray[Any], name: str) -> Images:
    """(N, H, W), (N, H, W, C) or (N, C, H, W) with C 1 or 3, uint8 or float in [0, 1] -> (N, C, H, W) uint8."""
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[3] in (1, 3) and images.shape[1] not in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"{name} has shape {images.shape}: wanted (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 channels C"
        )
    if len(images) == 0:
        raise ValueError(f"{name} holds no images: give at least three of each class")
    return np.ascontiguousarray(_to_uint8(images, name))


def check_side(height: int, width: int, *, what: str, remedy: str) -> None:
    """Raises ValueError unless images are square with a side that the models take."""
    if height != width or height not in SIDES:
        raise ValueError(
            f"{what} of {height}x{width} pixels: images must be square with a side that is a multiple of 4 in "
            f"{SIDES[0]}..{SIDES[-1]}: {remedy}"
        )


def _to_uint8(images: npt.NDArray[Any], name: str) -> Images:
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(
            f"{name} has dtype {images.dtype}: images must be uint8 (0..255) or float (0..1): convert them"
        )
    converted = np.empty(images.shape, dtype=np.uint8)
    for index, image in enumerate(images):
        if not np.isfinite(image).all():
            raise ValueError(f"{name}[{index}] holds NaN or infinity: repair or remove that image")
        if image.min() < 0 or image.max() > 1:
            raise ValueError(
                f"{name}[{index}] has values in {image.min():g}..{image.max():g}: float images must lie in [0, 1]: "
                "divide by their largest value, or store uint8"
            )
        converted[index] = np.rint(image * 255)
    return converted


def _label_values(labels: npt.NDArray[Any], count: int, name: str) -> Labels:
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{name} has dtype {labels.dtype}: labels must be integers >= 0, or -1 for no label")
    if labels.shape != (count,):
        raise ValueError(f"{name} has shape {labels.shape}, wanted ({count},): one label per image")
    if labels.min() < UNLABELLED:
        raise ValueError(f"{name} holds {labels.min()}: labels must be integers >= 0, or -1 for no label")
    return labels.astype(np.int64)
