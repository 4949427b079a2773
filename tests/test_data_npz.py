from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.data.npz import load_npz

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 28, 28), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def save(folder: Path, **arrays: npt.ArrayLike) -> Path:
    path = folder / "images.npz"
    np.savez(path, allow_pickle=True, **{key: np.asarray(value) for key, value in arrays.items()})
    return path


@pytest.mark.parametrize("keys", [("images", "labels"), ("x", "y"), ("x_train", "y_train")])
def test_every_pair_of_keys_gives_the_same_images(tmp_path: Path, keys: tuple[str, str]) -> None:
    raw = load_npz(save(tmp_path, **{keys[0]: GREY, keys[1]: LABELS}))
    assert np.array_equal(raw.images, GREY[:, None])
    assert np.array_equal(raw.labels, LABELS)
    assert raw.images.dtype == np.uint8
    assert raw.labels.dtype == np.int64
    assert raw.test_images is None
    assert raw.class_names == ["0", "1", "2"]


def test_x_test_is_kept_as_the_test_set(tmp_path: Path) -> None:
    raw = load_npz(save(tmp_path, x_train=GREY, y_train=LABELS, x_test=GREY[:2], y_test=LABELS[1:3]))
    assert raw.test_images is not None
    assert raw.test_labels is not None
    assert np.array_equal(raw.test_images, GREY[:2, None])
    assert raw.test_labels.tolist() == [1, 2]


def test_both_channel_orders_give_the_same_images(tmp_path: Path) -> None:
    colour = RNG.integers(0, 256, (6, 3, 28, 28), dtype=np.uint8)
    first = load_npz(save(tmp_path, x=colour, y=LABELS))
    last = load_npz(save(tmp_path, x=colour.transpose(0, 2, 3, 1), y=LABELS))
    assert np.array_equal(first.images, colour)
    assert np.array_equal(last.images, colour)


def test_floats_in_zero_one_become_the_nearest_byte(tmp_path: Path) -> None:
    raw = load_npz(save(tmp_path, x=(GREY / 255).astype(np.float32), y=LABELS))
    assert np.array_equal(raw.images, GREY[:, None])


def test_labels_with_gaps_become_consecutive_and_keep_their_names(tmp_path: Path) -> None:
    raw = load_npz(save(tmp_path, x=GREY, y=np.array([7, 3, -1, 7, 3, 12])))
    assert raw.labels.tolist() == [1, 0, -1, 1, 0, 2]
    assert raw.class_names == ["3", "7", "12"]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_or_infinity_names_key_and_index(tmp_path: Path, bad: float) -> None:
    images = GREY / 255
    images[4, 3, 2] = bad
    with pytest.raises(ValueError, match=r"images\.npz: x\[4\] holds NaN or infinity: repair or remove"):
        load_npz(save(tmp_path, x=images, y=LABELS))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": GREY.astype(np.float32), "y": LABELS}, r"x\[0\] has values in .*must lie in \[0, 1\]: divide"),
        ({"x": GREY.astype(np.int64), "y": LABELS}, r"x has dtype int64: images must be uint8"),
        ({"x": GREY.reshape(6, -1), "y": LABELS}, r"x has shape \(6, 784\): wanted \(N, H, W\)"),
        ({"x": GREY.reshape(6, 28, 7, 4), "y": LABELS}, r"x has shape \(6, 28, 7, 4\): wanted"),
        ({"x": GREY[:0], "y": LABELS[:0]}, "x holds no images"),
        ({"x": GREY, "y": LABELS[:5]}, r"y has shape \(5,\), wanted \(6,\)"),
        ({"x": GREY, "y": LABELS / 2}, "y has dtype float64: labels must be integers"),
        ({"x": GREY, "y": LABELS - 2}, "y holds -2: labels must be integers >= 0"),
        ({"x": GREY, "y": LABELS * 0}, r"y holds 1 class\(es\)"),
        (
            {"x": GREY, "labels": LABELS},
            r"has the keys \['labels', 'x'\]: wanted exactly one pair of images and labels",
        ),
        ({"x": GREY, "y": LABELS, "images": GREY, "labels": LABELS}, "wanted exactly one pair"),
        ({"x_train": GREY, "y_train": LABELS, "x_test": GREY}, "has x_test without its partner"),
        ({"x_train": GREY, "y_train": LABELS, "x_test": GREY[:2, :20], "y_test": LABELS[:2]}, "make them equal"),
        (
            {"x_train": GREY, "y_train": LABELS, "x_test": GREY[:1], "y_test": [9]},
            r"y_test holds \[9\], which .*y_train",
        ),
        ({"x": np.array([{}] * 6, dtype=object), "y": LABELS}, "cannot be read as an .npz of plain arrays"),
    ],
)
def test_a_bad_archive_names_key_value_and_rule(
    tmp_path: Path, arrays: dict[str, npt.NDArray[np.uint8]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_npz(save(tmp_path, **arrays))


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 broken")
    np.save(tmp_path / "b.npy", GREY)
    for name in ("a.npz", "b.npy"):
        with pytest.raises(ValueError, match=f"{name} cannot be read"):
            load_npz(tmp_path / name)
    with pytest.raises(ValueError, match=r"data\.path .*missing\.npz is not a file"):
        load_npz(tmp_path / "missing.npz")
