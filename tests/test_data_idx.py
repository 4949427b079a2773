import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.idx import FILES, load_idx_folder, read_idx

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 28, 28), dtype=np.uint8)
LABELS = np.array([0, 1] * 4, dtype=np.uint8)


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_set(folder: Path, *, test: bool = True, compress: bool = True) -> None:
    arrays = [IMAGES, LABELS, IMAGES[:4], LABELS[:4]] if test else [IMAGES, LABELS]
    for name, array in zip(FILES, arrays, strict=False):
        data = idx_bytes(array)
        (folder / (f"{name}.gz" if compress else name)).write_bytes(gzip.compress(data) if compress else data)


@pytest.mark.parametrize("compress", [True, False])
def test_gzipped_and_plain_files_give_the_arrays_back(tmp_path: Path, compress: bool) -> None:
    write_set(tmp_path, compress=compress)
    raw = load_idx_folder(tmp_path)
    assert np.array_equal(raw.images, IMAGES[:, None])
    assert np.array_equal(raw.labels, LABELS)
    assert raw.test_images is not None
    assert np.array_equal(raw.test_images, IMAGES[:4, None])


def test_the_test_pair_may_be_left_out_but_not_half_of_it(tmp_path: Path) -> None:
    write_set(tmp_path, test=False)
    assert load_idx_folder(tmp_path).test_images is None
    (tmp_path / FILES[2]).write_bytes(idx_bytes(IMAGES[:4]))
    with pytest.raises(ValueError, match="lacks t10k-labels-idx1-ubyte"):
        load_idx_folder(tmp_path)


def test_a_missing_folder_or_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.path .*nowhere is not a folder"):
        load_idx_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="lacks train-images-idx3-ubyte, train-labels-idx1-ubyte"):
        load_idx_folder(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "flip", "header"])
def test_a_corrupt_gz_is_named(tmp_path: Path, damage: str) -> None:
    data = bytearray(gzip.compress(idx_bytes(IMAGES)))
    if damage == "cut":
        data = data[:1000]
    else:
        data[len(data) // 2 if damage == "flip" else 2] ^= 0xFF
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz is a corrupt gzip file .*fetch it again"):
        read_idx(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not an IDX file"),
        (b"\x89PNG\r\n", "is not an IDX file, it starts with '89504e47'"),
        (b"\0\0\x0d\1" + bytes(8), "holds values of IDX type 0x0d"),
        (b"\0\0\x08\3\0\0", r"it is cut short or corrupt"),
        (idx_bytes(LABELS)[:-1], r"has 15 bytes, its header promises 16 \(shape \(8,\)\)"),
        (idx_bytes(LABELS) + b"x", "has 17 bytes, its header promises 16"),
    ],
)
def test_a_wrong_header_or_length_is_explained(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "labels"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_idx(path)
