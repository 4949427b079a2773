"""The gate: what leaves the house was audited, passed, and is what was audited; the card says so, to the bit."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.artifacts import read_array, read_json, write_array, write_json
from pipeline.config.load import load_params, write_changed
from pipeline.config.privacy import Privacy
from pipeline.data.card import card_metrics, pass_gate
from pipeline.data.prepared import Split, load_prepared
from pipeline.data.splits import label_subsets
from pipeline.data.write import write_prepared
from pipeline.report.audit import render_card
from pipeline.training.audit import audit_sets
from stages.export import main
from tests.test_privacy import digits, labels_of
from tests.test_sample import save_model
from tests.test_vae import small_vae

ROOT = Path(__file__).parent.parent
FOLDER = Path("out/augment/vae")
NAMES = [str(name) for name in range(10)]
SETTINGS = ["privacy.max_attack_auc=0.65", "privacy.max_copy_rate=0.1", "run.threads=1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two audited sets, told to be the VAE's: real strangers, and training images with noise."""
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_changed(ROOT / "params.yaml", Path("params.yaml"), SETTINGS)
        train, held = (0, 240), (240, 440)
        write_prepared(
            Path("out/prepare"),
            train=split(*train),
            validation=split(*held),
            subsets=label_subsets(split(*train).labels, class_names=NAMES, budgets=[20], draws=2, seed=0),
            class_names=NAMES,
            label_budgets=[20],
        )
        noise = np.random.default_rng(0).normal(0, 10, (200, 1, 28, 28))
        copies = (digits(0, 200) + noise).clip(0, 255).astype(np.uint8)
        for draw, images in enumerate((digits(440, 640), copies)):
            save_model(Path(f"out/vae/{draw}.safetensors"), small_vae(seed=draw))
            write_array(FOLDER / f"images-{draw}.npy", images)
            write_array(FOLDER / f"labels-{draw}.npy", np.arange(200) % 10)
        card = audit_sets("vae", load_prepared(Path("out/prepare")), FOLDER, limits(), seed=0)
        write_json(FOLDER / "card.json", card)
    return root


def split(first: int, last: int) -> Split:
    return Split(digits(first, last), labels_of(first, last))


def limits() -> Privacy:
    return load_params(Path("params.yaml")).section(Privacy)


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def test_a_set_that_passed_leaves_with_its_card(project: Path, tmp_path: Path) -> None:
    out = tmp_path / "a"
    assert main(["--model", "vae", "--out", str(out)]) == 0
    assert np.array_equal(read_array(out / "images.npy"), digits(440, 640))
    assert np.array_equal(read_array(out / "labels.npy"), np.arange(200) % 10)
    card = read_json(out / "card.json")
    assert (card["verdict"], [entry["draw"] for entry in card["sets"]]) == ("passed", [0])
    assert (out / "card.html").read_text() == render_card(card)
    assert main(["--model", "vae", "--out", str(tmp_path / "b")]) == 0
    for file in out.iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_a_set_that_failed_stays_with_number_limit_and_remedy(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--model", "vae", "--draw", "1", "--out", str(tmp_path / "a")]) == 1
    told = capsys.readouterr().err
    assert "label draw 1 is not exported: failed: attack nearest pixels" in told
    assert "(limit privacy.max_attack_auc: at most 0.65)" in told
    assert "train the generator for fewer steps" in told
    assert not (tmp_path / "a").exists()


def test_what_is_not_what_was_audited_stays(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--model", "vae", "--out", str(tmp_path / "a")]
    assert main([*words, "--draw", "7"]) == 1
    assert "set --draw to one of [0, 1]" in capsys.readouterr().err
    assert main(["--model", "gan", "--out", str(tmp_path / "a")]) == 1
    assert "run `dvc repro augment@gan`" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert main(["--model", "vae", "--out", str(tmp_path / "full")]) == 1
    assert "--out must be a new or empty folder" in capsys.readouterr().err
    images = FOLDER / "images-0.npy"
    before = images.read_bytes()
    write_array(images, digits(0, 200))
    assert main(words) == 1
    assert "images-0.npy is not the set that out/augment/vae/card.json describes" in capsys.readouterr().err
    images.write_bytes(before)
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("max_attack_auc: 0.65", "max_attack_auc: 1.0"))
    assert main([*words, "--draw", "1"]) == 1
    assert "audited against other limits" in capsys.readouterr().err
    Path("params.yaml").write_text(text)
    assert main(words) == 0


def test_the_study_is_warned_or_stopped(project: Path) -> None:
    heard: list[str] = []
    pass_gate([], "block", heard.append)
    pass_gate(["vae"], "warn", heard.append)
    assert "the vae's synthetic sets: label draw 1: failed: attack nearest pixels" in heard[0]
    with pytest.raises(ValueError, match=r"privacy\.gate blocks their use: mend that, or leave vae out of study\.arms"):
        pass_gate(["vae"], "block", heard.append)
    with pytest.raises(ValueError, match="run `dvc repro augment@gan`"):
        pass_gate(["gan"], "block", heard.append)


def test_the_card_repeats_to_the_bit_and_names_no_folder(project: Path) -> None:
    torch.manual_seed(5)
    again = audit_sets("vae", load_prepared(Path("out/prepare")), FOLDER, limits(), seed=0)
    write_json(Path("again.json"), again)
    text = Path("again.json").read_text()
    assert text == (FOLDER / "card.json").read_text()
    assert str(project) not in text + render_card(again)
    assert card_metrics(again)["set 1"]["passed"] == 0
    assert again["differential_privacy"] is None
    write_json(Path("out/vae/privacy.json"), {"sentence": "Trained privately."})
    private = audit_sets("vae", load_prepared(Path("out/prepare")), FOLDER, limits(), seed=0)
    Path("out/vae/privacy.json").unlink()
    assert "Trained privately." in render_card(private)
