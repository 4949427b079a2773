import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.artifacts import hash_file, read_json
from pipeline.data.prepared import Split, load_prepared
from pipeline.data.splits import label_subsets
from pipeline.data.test_split import load_test
from pipeline.data.write import write_prepared, write_test

NAMES = ["a", "b"]


def make_split(count: int, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % 2
    return Split(rng.integers(0, 256, (count, 1, 28, 28), dtype=np.uint8), labels)


TRAIN, VALIDATION = make_split(20, 0), make_split(6, 1)
SUBSETS = label_subsets(TRAIN.labels, class_names=NAMES, budgets=[2, 8], draws=3, seed=0)


def write(folder: Path) -> None:
    write_prepared(
        folder,
        train=TRAIN,
        validation=VALIDATION,
        subsets=SUBSETS,
        class_names=NAMES,
        label_budgets=[2, 8],
        source={"name": "npz", "sha256": "00"},
    )


def test_what_is_written_comes_back_mapped(tmp_path: Path) -> None:
    write(tmp_path)
    prepared = load_prepared(tmp_path)
    assert prepared.image_shape == (1, 28, 28)
    assert prepared.num_classes == 2
    assert isinstance(prepared.train.images, np.memmap)
    assert np.array_equal(prepared.train.images, TRAIN.images)
    assert np.array_equal(prepared.validation.labels, VALIDATION.labels)
    assert np.array_equal(prepared.subset(2, 8), SUBSETS[2])
    assert np.array_equal(prepared.subset(2, 2), SUBSETS[2, :2])


def test_the_manifest_tells_counts_shapes_and_hashes(tmp_path: Path) -> None:
    unlabelled = Split(TRAIN.images, np.where(np.arange(20) < 5, -1, TRAIN.labels))
    write_test(tmp_path, unlabelled, class_names=NAMES)
    manifest = read_json(tmp_path / "manifest.json")
    assert manifest["counts"] == {"test": {"a": 7, "b": 8, "unlabelled": 5}}
    assert manifest["files"]["images.npy"] == {
        "shape": [20, 1, 28, 28],
        "dtype": "uint8",
        "sha256": hash_file(tmp_path / "images.npy"),
    }


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == [
        *("manifest.json", "subsets.npy", "train-images.npy", "train-labels.npy"),
        *("validation-images.npy", "validation-labels.npy"),
    ]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_budget_or_draw_outside_the_parameters_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    prepared = load_prepared(tmp_path)
    with pytest.raises(ValueError, match=r"label budget 4 is not in data\.label_budgets \[2, 8\]"):
        prepared.subset(0, 4)
    for draw in (3, -1):
        with pytest.raises(ValueError, match=rf"label draw {draw} does not exist: data\.label_draws is 3"):
            prepared.subset(draw, 8)


def test_the_test_split_comes_back(tmp_path: Path) -> None:
    write_test(tmp_path, VALIDATION, class_names=NAMES)
    assert np.array_equal(load_test(tmp_path).images, VALIDATION.images)


def test_missing_truncated_and_changed_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"manifest\.json does not exist: run `dvc repro prepare`"):
        load_prepared(tmp_path)
    write(tmp_path)
    images, labels = tmp_path / "train-images.npy", tmp_path / "validation-labels.npy"
    whole = images.read_bytes()
    images.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=r"train-images\.npy cannot be read"):
        load_prepared(tmp_path)
    images.unlink()
    with pytest.raises(ValueError, match=r"train-images\.npy does not exist"):
        load_prepared(tmp_path)
    images.write_bytes(whole)
    np.save(labels, VALIDATION.labels[::-1])
    with pytest.raises(ValueError, match=r"validation-labels\.npy is not the file that manifest\.json describes"):
        load_prepared(tmp_path)


def test_a_full_disk_names_the_file_and_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_disk(handle: Any, array: Any, **_: Any) -> None:
        handle.write(b"the first bytes")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", fill_disk)
    with pytest.raises(OSError, match=r"No space left on device: free some .*run the same command again: .*\.npy'"):
        write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_fault_while_writing_keeps_its_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file") as caught:
        write(tmp_path / "file")
    assert "free some" not in str(caught.value)


def test_loading_what_is_prepared_imports_neither_torch_nor_sklearn_nor_pillow() -> None:
    code = "import sys, pipeline.data.prepared, pipeline.data.test_split; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "sklearn", "scipy", "PIL", "pandas"} & set(modules)
