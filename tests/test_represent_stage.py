"""The stage and the command `represent`: both priors, seeds by ELBO, codes of pngs that fit."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.applications.represent import best_by_elbo
from pipeline.applications.represent_command import load_vae
from pipeline.applications.represent_fit import Representation, encode_images
from pipeline.artifacts import hash_tree, read_json, read_table
from pipeline.config.load import write_changed
from pipeline.models.dense_vae import DenseVAE
from pipeline.models.mixture_vae import MixtureVAE
from pipeline.stage import run_stage
from stages.represent import SPEC, main, represent
from tests.test_denoise_stage import save_png, stop_in, write_project

LITTLE = (
    "run.threads=1",
    "represent.prior=mixture",
    "represent.hidden_sizes=[8]",
    "represent.latent_dim=2",
    "represent.steps=5",
    "represent.mixture_steps=5",
    "represent.batch_size=8",
    "represent.seeds=2",
    "represent.map_images=50",
)
MODEL = Path("out/applications/represent/vae.safetensors")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_project(tmp_path, monkeypatch, LITTLE)
    return tmp_path


def outs() -> list[str]:
    return [
        hash_tree(Path(path)) for path in ("out/applications/represent", "plots/represent", "metrics/represent.json")
    ]


def test_a_killed_stage_ends_as_an_undisturbed_one_and_its_model_gives_codes(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.training.fit.fit", stop_in(2))
        assert run_stage(SPEC, represent) == 1
    assert run_stage(SPEC, represent) == 0
    resumed = outs()
    assert run_stage(SPEC, represent) == 0
    assert outs() == resumed
    (table,) = read_json(Path("out/applications/represent/story.json"))["tables"]
    assert [(row["name"], row["baseline"]) for row in table["rows"]] == [
        ("VAE codes", False),
        ("PCA-30", True),
        ("pixels", True),
    ]
    assert "over 2 seeds" in table["caption"]
    model = load_vae(MODEL)
    assert isinstance(model, MixtureVAE)
    images = np.stack([save_png(Path("in") / name, (28, 28)) for name in ("a.png", "bb.png")])[:, None]
    assert main(["--in", "in", "--out", "codes.csv"]) == 0
    rows = read_table(Path("codes.csv"))
    assert [row["file"] for row in rows] == ["a.png", "bb.png"]
    np.testing.assert_allclose([[float(row["z0"]), float(row["z1"])] for row in rows], encode_images(model, images))
    save_png(Path("in/odd.png"), (20, 20))
    assert main(["--in", "in", "--out", "codes.csv"]) == 1
    assert "odd.png is 20 x 20 pixels" in capsys.readouterr().err


def test_the_seed_is_chosen_by_the_bound() -> None:
    model = DenseVAE((1, 4, 4), hidden_sizes=[4], latent_dim=1)
    assert best_by_elbo([Representation(model, elbo) for elbo in (-120.0, -90.0, -100.0)]) == 1


def test_a_misspelt_prior_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"represent\.prior must be one of standard, mixture, got 'vade'"):
        write_changed(Path(__file__).parent.parent / "params.yaml", tmp_path / "p.yaml", ["represent.prior=vade"])
