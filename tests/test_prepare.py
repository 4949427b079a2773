"""The stage `prepare`, run in this process in a project folder of its own."""

import csv
import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from pipeline.artifacts import hash_tree, read_json
from pipeline.data.prepared import load_prepared
from pipeline.data.test_split import load_test
from pipeline.stage import run_stage
from stages.prepare import SPEC, prepare

PARAMS = Path(__file__).parent.parent / "params.yaml"
RNG = np.random.default_rng(0)

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the stage with dotted assignments changed in params.yaml; returns the exit code and what it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.stage.die_with_dvc", lambda: None)  # it would tie pytest to its parent
    monkeypatch.delenv("LAYERWISE_DATA_MIRROR", raising=False)

    def start(*changes: str) -> tuple[int, str]:
        OmegaConf.save(OmegaConf.merge(OmegaConf.load(PARAMS), OmegaConf.from_dotlist(list(changes))), "params.yaml")
        code = run_stage(SPEC, prepare)
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return start


def save_folder(folder: Path, *, side: int = 28, channels: int = 1, per_class: int = 20, unlabelled: int = 0) -> None:
    for name, count in (("cat", per_class), ("dog", per_class), ("unlabelled", unlabelled)):
        for index in range(count):
            path = folder / name / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = RNG.integers(0, 256, (side, side, channels), dtype=np.uint8)
            Image.fromarray(pixels.squeeze()).save(path)


FOLDER = ("data.source=image_folder", "data.path=pictures", "data.label_budgets=[4,10]", "tune.budget=4")


def test_embedded_digits_are_split_counted_and_pictured(run: Run, tmp_path: Path) -> None:
    code, said = run()
    assert code == 0, said
    prepared, test = load_prepared(Path("out/prepare")), load_test(Path("out/test"))
    assert [len(split.labels) for split in (prepared.train, prepared.validation, test)] == [3500, 500, 1000]
    assert np.bincount(prepared.train.labels).tolist() == [350] * 10
    budgets = prepared.label_budgets
    assert set(prepared.subset(1, budgets[0])) < set(prepared.subset(1, budgets[-1]))
    assert read_json(Path("metrics/prepare.json"))["validation"] == {
        "images": 500,
        "classes": {str(digit): 50 for digit in range(10)},
    }
    with Path("plots/prepare/class_counts.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert rows[3] == {"class": "3", "train": "350", "validation": "50", "test": "100"}
    with Image.open("plots/prepare/samples.png") as picture:
        assert picture.size == (2 * (12 * 29 - 1), 2 * (10 * 29 - 1))
    assert "3500 train, 500 validation, 1000 test images of 10 classes" in said


def test_no_image_is_in_two_splits(run: Run) -> None:
    assert run()[0] == 0
    prepared, test = load_prepared(Path("out/prepare")), load_test(Path("out/test"))
    images = [{image.tobytes() for image in split.images} for split in (prepared.train, prepared.validation, test)]
    assert sum(map(len, images)) == len(set.union(*images)) == 5000


def test_equal_seeds_give_equal_bytes_without_a_trace_of_the_folder(run: Run, tmp_path: Path) -> None:
    hashes = []
    for seed in (0, 0, 1):
        assert run(f"run.seed={seed}")[0] == 0
        hashes.append([hash_tree(Path(name)) for name in ("out", "metrics", "plots")])
        outs = [path for name in ("out", "metrics", "plots") for path in Path(name).rglob("*") if path.is_file()]
        assert not any(str(tmp_path).encode() in path.read_bytes() for path in outs)
    assert hashes[0] == hashes[1]
    assert hashes[0][0] != hashes[2][0]


def test_a_folder_of_colour_images_with_unlabelled_ones_is_prepared(run: Run) -> None:
    save_folder(Path("pictures"), side=40, channels=3, unlabelled=7)
    code, said = run(*FOLDER, "data.image_size=32")
    assert code == 0, said
    prepared, test = load_prepared(Path("out/prepare")), load_test(Path("out/test"))
    assert prepared.image_shape == (3, 32, 32)
    assert prepared.class_names == ["cat", "dog"]
    assert np.bincount(prepared.train.labels + 1).tolist() == [7, 14, 14]
    assert (prepared.train.labels[prepared.subset(0, 10)] >= 0).all()
    assert np.bincount(prepared.validation.labels).tolist() == [2, 2]
    assert np.bincount(test.labels).tolist() == [4, 4]
    assert read_json(Path("metrics/prepare.json"))["train"]["classes"]["unlabelled"] == 7


def save_npz(**arrays: Any) -> None:
    np.savez("images.npz", **arrays)


def damage(name: str) -> tuple[list[str], str]:
    """Makes bad input in the current folder; returns the parameters that use it and the message it deserves."""
    pictures = Path("pictures")
    images, labels = np.zeros((60, 28, 28), dtype=np.float32), np.arange(60) % 2
    npz = ["data.source=npz", "data.path=images.npz", "data.label_budgets=[4,10]", "tune.budget=4"]
    match name:
        case "missing folder":
            return [*FOLDER], "data.path pictures is not a folder"
        case "empty folder":
            save_folder(pictures)
            (pictures / "bird").mkdir()
            return [*FOLDER], "pictures/bird is empty"
        case "undecodable image":
            save_folder(pictures)
            (pictures / "cat" / "3.png").write_bytes(b"no image")
            return [*FOLDER], "pictures/cat/3.png is not a png or jpeg image"
        case "small images":
            save_folder(pictures, side=20)
            return [*FOLDER], "20x20 pixels: images must be square with a side that is a multiple of 4 in 28..64: set"
        case "rare class":
            save_folder(pictures, per_class=2)
            return [*FOLDER], "class 'cat' has 2 labelled image(s), too few for train, validation and test"
        case "large budget":
            save_folder(pictures)
            return [*FOLDER, "data.label_budgets=[4,29]"], "asks for 29 labels, the train split has 28 labelled images"
        case "small budget":
            return ["data.label_budgets=[9,50]", "tune.budget=9"], "asks for 9 labels of 10 classes"
        case "nan":
            images[17, 3, 3] = np.nan
            save_npz(x=images, y=labels)
            return npz, "images.npz: x[17] holds NaN or infinity"
        case "wrong dtype":
            save_npz(x=images.astype(np.int32), y=labels)
            return npz, "images.npz: x has dtype int32"
        case "wrong shape":
            save_npz(x=images.reshape(60, 784), y=labels)
            return npz, "images.npz: x has shape (60, 784)"
        case "corrupt gz":
            Path("idx").mkdir()
            for stem in ("train-images-idx3", "train-labels-idx1"):
                Path(f"idx/{stem}-ubyte.gz").write_bytes(b"\x1f\x8b\x08 broken")
            return ["data.source=idx", "data.path=idx"], "idx/train-images-idx3-ubyte.gz is a corrupt gzip file"
    raise AssertionError(name)


@pytest.mark.parametrize(
    "name",
    [
        *("missing folder", "empty folder", "undecodable image", "small images", "rare class", "large budget"),
        *("small budget", "nan", "wrong dtype", "wrong shape", "corrupt gz"),
    ],
)
def test_bad_input_ends_with_one_message_and_no_outs(run: Run, tmp_path: Path, name: str) -> None:
    changes, message = damage(name)
    code, said = run(*changes)
    assert code == 1
    assert message in said
    assert "Traceback" not in said
    assert not any((tmp_path / out).exists() for out in ("out", "metrics", "plots"))


def test_a_wrong_checksum_in_the_mirror_ends_the_stage(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mirror" / "mnist").mkdir(parents=True)
    (tmp_path / "mirror" / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"other")
    monkeypatch.setenv("LAYERWISE_DATA_MIRROR", str(tmp_path / "mirror"))
    code, said = run("data.source=mnist")
    assert code == 1
    assert "mnist/train-images-idx3-ubyte.gz has sha256" in said
    assert "wanted 440fcabf" in said


def test_a_full_disk_ends_the_stage_and_keeps_the_outs_of_the_last_run(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run()[0] == 0
    before = hash_tree(tmp_path / "out")
    save = np.save

    def fill_disk(handle: Any, array: Any, **options: Any) -> None:
        if len(array) == 500:  # validation, after train has been written
            handle.write(b"the first bytes")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(handle, array, **options)

    monkeypatch.setattr(np, "save", fill_disk)
    code, said = run("run.seed=1")
    assert code == 1
    assert "validation-images.npy: No space left on device: free some" in said
    assert "Traceback" not in said
    assert hash_tree(tmp_path / "out") == before
    assert not list(tmp_path.rglob("*.tmp"))
