"""The stage and the command `denoise`: equal bits after a kill, tables with baselines, pngs that fit or are refused."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from pipeline.artifacts import hash_tree, read_json
from pipeline.config.load import write_changed
from pipeline.data.prepared import Split
from pipeline.data.splits import label_subsets
from pipeline.data.write import write_prepared, write_test
from pipeline.models.denoiser import Denoiser
from pipeline.models.pictures import to_uint8
from pipeline.seeding import make_generator
from pipeline.stage import run_stage
from pipeline.weights import save_weights
from stages.denoise import SPEC, denoise, main

ROOT = Path(__file__).parent.parent
NAMES = ["cat", "dog"]
LITTLE = (
    "run.threads=1",
    "denoise.hidden_sizes=[8]",
    "denoise.latent_dim=2",
    "denoise.steps=5",
    "denoise.batch_size=8",
    "denoise.rbm_hidden=4",
    "denoise.rbm_steps=5",
    "denoise.gibbs_rounds=3",
    "denoise.posterior_steps=2",
    "denoise.posterior_samples=2",
    "denoise.images=10",
)


def split(count: int, seed: int) -> Split:
    images = np.random.default_rng(seed).integers(0, 2, (count, 1, 28, 28), dtype=np.uint8) * 255
    return Split(images, np.arange(count, dtype=np.int64) % 2)


def write_project(folder: Path, monkeypatch: pytest.MonkeyPatch, changes: Sequence[str]) -> None:
    """A project of two classes, and the working folder there."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("pipeline.stage.die_with_dvc", lambda: None)  # it would tie pytest to its parent
    write_changed(ROOT / "params.yaml", Path("params.yaml"), changes)
    train = split(40, 0)
    write_prepared(
        Path("out/prepare"),
        train=train,
        validation=split(12, 1),
        subsets=label_subsets(train.labels, class_names=NAMES, budgets=[4], draws=2, seed=0),
        class_names=NAMES,
        label_budgets=[4],
    )
    write_test(Path("out/test"), split(15, 2), class_names=NAMES)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_project(tmp_path, monkeypatch, LITTLE)
    return tmp_path


def outs() -> list[str]:
    return [hash_tree(Path(path)) for path in ("out/applications/denoise", "plots/denoise", "metrics/denoise.json")]


def stop_in(call: int) -> Callable[..., None]:
    """A fit that is killed in its `call`-th network, after its third epoch."""
    from pipeline.training import fit as module

    fits, original = [0], module.fit

    def fit(*arguments: object, **others: object) -> object:
        fits[0] += 1

        def on_epoch(step: int, entry: object) -> None:
            if fits[0] == call and step == 3:
                raise OSError("stopped")

        return original(*arguments, **{**others, "on_epoch": on_epoch})  # type: ignore[arg-type]

    return fit  # type: ignore[return-value]


def test_a_killed_stage_ends_as_an_undisturbed_one_and_tells_its_story(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_stage(SPEC, denoise) == 0
    undisturbed = outs()
    story = read_json(Path("out/applications/denoise/story.json"))
    assert [row["name"] for row in story["tables"][0]["rows"] if row["baseline"]] == [
        "spoilt images",
        "linear MMSE",
        "denoising autoencoder",
    ]
    assert len(story["tables"]) == 3
    assert "10 test images" in story["tables"][0]["caption"]
    assert Path(story["drawings"][0]["path"]).is_file()
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.training.fit.fit", stop_in(2))
        assert run_stage(SPEC, denoise) == 1
    assert run_stage(SPEC, denoise) == 0
    assert outs() == undisturbed


def save_denoiser(path: Path) -> Denoiser:
    generator = make_generator(0, "weights")
    model = Denoiser((1, 28, 28), hidden_sizes=[8], latent_dim=2, generator=generator)
    save_weights(path, model.state_dict(), kind="denoiser", config=model.to_config())
    return model.eval()


def save_png(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def test_the_command_writes_what_the_model_says_under_the_same_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, path = save_denoiser(tmp_path / "m.safetensors"), tmp_path / "m.safetensors"
    pixels = np.stack([save_png(tmp_path / "in" / name, (28, 28)) for name in ("a.png", "bb.png")])
    words = ["--in", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--model", str(path)]
    assert main(words) == 0
    assert "2 images denoised" in capsys.readouterr().out
    y = torch.from_numpy(pixels)[:, None].float() / 255
    expected = to_uint8(model.denoise(y, 20, make_generator(0, "denoise", "command")))
    for name, picture in zip(("a.png", "bb.png"), expected, strict=True):
        with Image.open(tmp_path / "out" / name) as written:
            assert np.array_equal(np.asarray(written), picture[0])


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((30, 20), "odd.png is 20 x 30 pixels of mode L, .* wants 28 x 28 of mode L: resize or convert"),
        ((28, 28, 3), "odd.png is 28 x 28 pixels of mode RGB, .* wants 28 x 28 of mode L"),
    ],
)
def test_a_picture_of_another_shape_is_refused_by_name_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shape: tuple[int, ...], said: str
) -> None:
    path = tmp_path / "m.safetensors"
    save_denoiser(path)
    save_png(tmp_path / "in" / "fits.png", (28, 28))
    save_png(tmp_path / "in" / "odd.png", shape)
    assert main(["--in", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--model", str(path)]) == 1
    assert re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_another_kind_of_model_and_an_empty_folder_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, folder = tmp_path / "m.safetensors", tmp_path / "in"
    folder.mkdir()
    words = ["--in", str(folder), "--out", str(tmp_path / "out"), "--model", str(path)]
    save_weights(path, {"w": torch.zeros(1)}, kind="gan", config={})
    assert main(words) == 1
    assert "holds a 'gan', not a 'denoiser'" in capsys.readouterr().err
    save_denoiser(path)
    assert main(words) == 1
    assert "holds no png files" in capsys.readouterr().err
    assert main([*words, "--out", str(folder)]) == 1
    assert "which would be lost" in capsys.readouterr().err
