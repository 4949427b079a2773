"""Pictures by hand: pixels are the model's own, equal seeds give equal bytes, what does not fit is refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from pipeline.config.load import write_changed
from pipeline.data.pictures import image_grid
from pipeline.data.prepared import Split
from pipeline.data.splits import label_subsets
from pipeline.data.write import write_prepared
from pipeline.models.interpolation import interpolate
from pipeline.models.pictures import chain_strips
from pipeline.models.vae import ConditionalVAE
from pipeline.seeding import make_generator
from pipeline.training.generators import Model, sample_images
from pipeline.training.picture_rows import class_rows
from pipeline.training.stored import save_dbn
from pipeline.weights import save_weights
from stages.sample import main
from tests.gan_models import small_gan
from tests.test_dbn import dense, random_dbn
from tests.test_vae import small_vae

ROOT = Path(__file__).parent.parent
NAMES = ["cat", "dog"]
OUT = Path("grid.png")


def save_model(path: Path, model: Model) -> None:
    kind = "vae" if isinstance(model, ConditionalVAE) else "gan"
    save_weights(path, model.state_dict(), kind=kind, config=model.to_config())


def validation() -> Split:
    images = np.random.default_rng(1).integers(0, 256, (12, 1, 28, 28), dtype=np.uint8)
    return Split(images, np.arange(12, dtype=np.int64) % 2)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes and, of both kinds, the models of label draws 0 and 1."""
    monkeypatch.chdir(tmp_path)
    write_changed(ROOT / "params.yaml", Path("params.yaml"), ["run.threads=1", "monitor.chain_rounds=[0,2,5]"])
    write_prepared(
        Path("out/prepare"),
        train=validation(),
        validation=validation(),
        subsets=label_subsets(validation().labels, class_names=NAMES, budgets=[4], draws=2, seed=0),
        class_names=NAMES,
        label_budgets=[4],
    )
    for draw in (0, 1):
        save_model(Path(f"out/vae/{draw}.safetensors"), small_vae(seed=draw))
        save_model(Path(f"out/gan/{draw}.safetensors"), small_gan(seed=draw))
    return tmp_path


def picture() -> npt.NDArray[np.uint8]:
    """What was written, not magnified, (H, W)."""
    with Image.open(OUT) as image:
        pixels = np.array(image)
    assert np.array_equal(pixels, pixels[::2, ::2].repeat(2, 0).repeat(2, 1))
    return pixels[::2, ::2]


def grid(images: npt.NDArray[Any], columns: int) -> npt.NDArray[np.uint8]:
    return image_grid(images, columns)[:, :, 0]


@pytest.mark.parametrize("kind", ["vae", "gan"])
def test_the_grid_holds_the_models_own_samples_class_after_class(project: Path, kind: str) -> None:
    chosen = ["--model", kind, "--classes", "dog", "0", "--num", "5", "--seed", "3", "--out", str(OUT)]
    words = [*chosen, "--draw", "1"]
    assert main(words) == 0
    model = (small_vae if kind == "vae" else small_gan)(seed=1).eval()
    own = sample_images(model, torch.tensor([1, 1, 1, 0, 0]), make_generator(3, "sample"))
    black = np.zeros_like(own[:1])
    assert np.array_equal(picture(), grid(np.concatenate([own, black]), 3))
    before = OUT.read_bytes()
    assert main(words) == 0
    assert OUT.read_bytes() == before
    assert main([*words, "--seed", "4"]) == 0
    assert OUT.read_bytes() != before
    elsewhere = Path("elsewhere.safetensors")
    save_model(elsewhere, model)
    assert main([*chosen, "--path", str(elsewhere)]) == 0
    assert OUT.read_bytes() == before


def test_without_options_every_class_has_a_row_of_eight(project: Path) -> None:
    assert main(["--model", "gan", "--out", "made/grid.png"]) == 0
    with Image.open("made/grid.png") as image:
        assert image.size == (2 * (8 * 29 - 1), 2 * (2 * 29 - 1))


def test_long_classes_go_on_in_a_further_row() -> None:
    rows = class_rows(torch.tensor([1] * 33 + [0] * 2))
    assert rows == [slice(0, 16), slice(16, 32), slice(32, 33), slice(33, 35)]


@pytest.mark.parametrize("kind", ["vae", "gan"])
def test_each_row_of_an_interpolation_goes_from_one_sample_of_its_class_to_another(project: Path, kind: str) -> None:
    assert main(["--model", kind, "--interpolate", "--num", "3", "--seed", "3", "--out", str(OUT)]) == 0
    shown = picture()
    assert shown.shape == (3 * 29 - 1, 10 * 29 - 1)
    model = (small_vae if kind == "vae" else small_gan)().eval()
    ends = sample_images(model, torch.tensor([0, 0, 0, 0, 1, 1]), make_generator(3, "sample"))
    tiles = np.stack([[shown[top : top + 28, left : left + 28] for left in (0, 9 * 29)] for top in (0, 29, 58)])
    assert np.abs(tiles.reshape(6, 28, 28).astype(int) - ends[:, 0]).max() <= 1


def test_reconstructions_stand_below_the_validation_images_of_their_class(project: Path) -> None:
    assert main(["--model", "vae", "--reconstruct", "--classes", "1", "--num", "4", "--out", str(OUT)]) == 0
    images = validation().images[1:8:2]
    pixels, labels = torch.from_numpy(images).float() / 255, torch.ones(4, dtype=torch.int64)
    made = small_vae().eval().reconstruct(pixels, labels).mul(255).round().to(torch.uint8).numpy()
    assert np.array_equal(picture(), grid(np.concatenate([images, made]), 4))


def test_a_layer_shows_its_chains_from_validation_images_and_from_noise(project: Path) -> None:
    dbn = random_dbn([dense(6, "prepare")], (1, 28, 28))
    save_dbn(Path("out/pretrain/dense"), dbn)
    assert main(["--model", "pretrain@dense", "--num", "3", "--seed", "3", "--out", str(OUT)]) == 0
    start = torch.from_numpy(validation().images[[0, 2, 1]])
    assert np.array_equal(picture(), grid(chain_strips(dbn, start, [0, 2, 5], make_generator(3, "sample")), 3))


WRONG = [
    ("--model flow", r"--model must be vae, gan or a layer such as pretrain@dense, got 'flow'"),
    ("--model gan --classes dog 2 bird", r"--classes has no 2, bird: the classes are cat, dog, also by number"),
    ("--model gan --num 1", r"--num must be >= 2, one a class, got 1: raise it"),
    ("--model gan --reconstruct", r"--reconstruct needs an encoder, which a gan lacks: use --model vae"),
    ("--model vae --reconstruct --num 14", r"class cat has 6 validation images, --num wants 7: lower it"),
    ("--model gan --draw 2", r"out/gan/2.safetensors does not exist: set --draw to one of 0, 1"),
    ("--model gan --draw 1 --path out/gan/0.safetensors", r"--draw chooses .*, --path names another: give one"),
    ("--model gan --path out/vae/0.safetensors", r"out/vae/0.safetensors holds a 'vae', not a 'gan'"),
    ("--model gan --path no.safetensors", r"no.safetensors does not exist"),
    ("--model gan --path large.safetensors", r"image shape \(1, 32, 32\), out/prepare has \(1, 28, 28\): give"),
    ("--model gan --out grid.jpg", r"--out must end in .png, got grid.jpg"),
    ("--model pretrain@dense", r"out/pretrain/dense/dbn.safetensors does not exist: run `dvc repro pretrain@dense`"),
    ("--model pretrain@conv9", r"pretrain.layers has no layer 'conv9', only conv1, conv2, dense: choose one"),
    ("--model pretrain@dense --interpolate", r"pretrain@dense has Gibbs chains alone: leave out --interpolate"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_what_does_not_fit_is_refused_by_name(
    project: Path, capsys: pytest.CaptureFixture[str], options: str, message: str
) -> None:
    save_model(Path("large.safetensors"), small_gan((1, 32, 32)))
    assert main(["--out", str(OUT), *options.split()]) == 1
    assert not OUT.exists()
    with pytest.raises(ValueError, match=message):
        raise ValueError(capsys.readouterr().err)


def test_a_missing_model_other_classes_and_other_shapes_are_told(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in Path("out/vae").iterdir():
        file.unlink()
    assert main(["--model", "vae", "--out", str(OUT)]) == 1
    assert "out/vae/0.safetensors does not exist: run `dvc repro vae`" in capsys.readouterr().err
    three = ConditionalVAE((1, 28, 28), 3, config=small_vae().config)
    save_model(Path("out/vae/0.safetensors"), three)
    assert main(["--model", "vae", "--out", str(OUT)]) == 1
    assert "has number of classes 3, out/prepare has 2: give a model of these" in capsys.readouterr().err
    save_dbn(Path("out/pretrain/dense"), random_dbn([dense(6, "prepare")], (1, 8, 8)))
    assert main(["--model", "pretrain@dense", "--out", str(OUT)]) == 1
    assert "dbn.safetensors has image shape (1, 8, 8), out/prepare has (1, 28, 28): give" in capsys.readouterr().err


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = capsys.readouterr().out
    for option in ("model", "classes", "num", "out", "interpolate", "reconstruct", "seed", "draw", "path"):
        assert f"--{option}" in said


def test_interpolation_of_unit_vectors_at_a_right_angle_is_the_quarter_circle() -> None:
    start, end = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    angles = torch.linspace(0, torch.pi / 2, 5)
    torch.testing.assert_close(interpolate(start, end, 5)[0], torch.stack([angles.cos(), angles.sin()], dim=1))


def test_interpolation_has_its_ends_equal_angles_and_no_shorter_vectors() -> None:
    start, end = torch.randn(2, 40, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start, end = start / start.norm(dim=1, keepdim=True), end / end.norm(dim=1, keepdim=True)
    ways = interpolate(start, end, 7)
    torch.testing.assert_close(ways[:, 0], start)
    torch.testing.assert_close(ways[:, -1], end)
    torch.testing.assert_close(ways.norm(dim=2), torch.ones(40, 7, dtype=torch.float64))
    steps = (ways[:, 1:] * ways[:, :-1]).sum(dim=2).acos()
    torch.testing.assert_close(steps, steps[:, :1].expand(-1, 6))


def test_parallel_and_opposite_points_are_joined_by_the_straight_line() -> None:
    start = torch.tensor([[2.0], [2.0]])
    ways = interpolate(start, torch.tensor([[4.0], [-2.0]]), 3)
    torch.testing.assert_close(ways[:, :, 0], torch.tensor([[2.0, 3.0, 4.0], [2.0, 0.0, -2.0]]))
    with pytest.raises(ValueError, match="num_steps must be >= 2, got 1"):
        interpolate(start, start, 1)
