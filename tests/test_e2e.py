"""The whole chain as DVC runs it, with little training: what a user relies on, not how good the models are."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from benchmarks.pipeline import QUICK, copy_project
from pipeline.config.load import write_changed

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "DVC_NO_ANALYTICS": "1",
    "GIT_AUTHOR_NAME": "test",
    "GIT_AUTHOR_EMAIL": "test@localhost",
    "GIT_COMMITTER_NAME": "test",
    "GIT_COMMITTER_EMAIL": "test@localhost",
}
NOISE = ("Warning", "Tip:", "Traceback", "[2m", "INFO", "HPU", "TPU")

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def dvc(project: Path, *words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(["dvc", *words], cwd=project, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def git(project: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=project, env=ENVIRONMENT, check=True, capture_output=True)


def change(project: Path, *overrides: str) -> None:
    write_changed(project / "params.yaml", project / "params.yaml", overrides)


def out_hashes(project: Path) -> dict[str, str]:
    """Hash of every out of every stage, as dvc.lock has them."""
    lock = YAML(typ="safe").load((project / "dvc.lock").read_text())
    return {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage["outs"]}


def stale(project: Path) -> set[str]:
    """Stages that `dvc status` says would run again for a change of their own params or deps."""
    return set(json.loads(dvc(project, "status", "--json").stdout))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project on which `dvc repro` has run, committed; its output beside it."""
    project = tmp_path_factory.mktemp("project")
    copy_project(ROOT, project)
    change(project, *QUICK)
    git(project, "commit", "-qam", "train little")
    result = dvc(project, "repro")
    (project / ".layerwise" / "repro.log").write_text(result.stdout + result.stderr)
    git(project, "add", "-A")
    git(project, "commit", "-q", "-m", "repro")
    return project


def test_one_command_ends_with_a_verdict_and_a_report_and_without_noise(done: Path) -> None:
    log = (done / ".layerwise" / "repro.log").read_text()
    assert "scratch" in log
    assert [line for line in log.splitlines() if any(word in line for word in NOISE)] == []
    page = (done / "report" / "index.html").read_text()
    assert page.index("erdict") < page.index("<svg")


def test_nothing_reruns_when_nothing_changed(done: Path) -> None:
    began = time.monotonic()
    out = dvc(done, "repro").stdout
    assert "Data and pipelines are up to date" in out
    assert time.monotonic() - began < 60  # hangs, not speed: the benchmark holds the bar of 5 s
    assert stale(done) == set()


@pytest.mark.parametrize(
    ("override", "own"),
    [
        ("pretrain.layers.dense.lr=0.051", {"pretrain@dense", "tune", "study", "finetune"}),
        ("gan.lr=0.0011", {"gan", "tune", "anomaly"}),  # a sweep may have the GAN for its target
        ("study.steps=13", {"study"}),
        ("evaluate.resamples=5000", {"evaluate"}),
        ("run.tracking=disabled", set()),
    ],
)
def test_a_changed_parameter_makes_only_its_own_stages_stale(done: Path, override: str, own: set[str]) -> None:
    before = (done / "params.yaml").read_text()
    try:
        change(done, override)
        assert stale(done) - {"report"} == own
    finally:
        (done / "params.yaml").write_text(before)


def test_running_everything_again_gives_the_same_bits(done: Path) -> None:
    before = out_hashes(done)
    dvc(done, "repro", "--force")
    assert out_hashes(done) == before


def test_dvc_shows_params_metrics_plots_and_experiments(done: Path) -> None:
    assert "winner" in dvc(done, "metrics", "show").stdout
    result = dvc(done, "exp", "run", "-n", "slower", "-S", "finetune.lr=0.0005", "-S", "evaluate.resamples=2000")
    assert "slower" in result.stdout + result.stderr
    assert "finetune.lr" in dvc(done, "params", "diff").stdout
    assert "slower" in dvc(done, "exp", "show", "--csv").stdout
    dvc(done, "metrics", "diff")
    dvc(done, "plots", "diff", "-o", "plots-diff")
    dvc(done, "plots", "show", "-o", "plots-shown")
    assert (done / "plots-shown" / "index.html").stat().st_size > 10_000
    for folder in ("plots-diff", "plots-shown"):
        shutil.rmtree(done / folder)
    git(done, "checkout", "-q", ".")
    dvc(done, "checkout")


def test_push_and_pull_bring_every_out_back(done: Path, tmp_path: Path) -> None:
    dvc(done, "remote", "add", "-f", "-d", "local", str(tmp_path / "remote"))
    dvc(done, "push")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(done), str(clone)], check=True)
    dvc(clone, "remote", "add", "-f", "-d", "local", str(tmp_path / "remote"))
    dvc(clone, "pull")
    assert "up to date" in dvc(clone, "status").stdout


def test_offline_tracking_leaves_one_run_per_training_stage(done: Path) -> None:
    runs = list((done / ".layerwise" / "wandb").rglob("*.wandb"))
    assert len(runs) >= 8  # three layers, vae, gan, tune, study, finetune


def test_a_pipeline_killed_in_a_stage_goes_on_and_ends_with_the_same_bits(done: Path, tmp_path: Path) -> None:
    project = tmp_path / "killed"
    shutil.copytree(done, project, ignore=shutil.ignore_patterns(".layerwise"))
    before = out_hashes(project)
    process = subprocess.Popen(
        ["dvc", "repro", "--force", "--single-item", "study"],
        cwd=project,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    work = project / ".layerwise" / "work" / "study"
    deadline = time.monotonic() + 120
    while len(list(work.glob("*/*.safetensors"))) < 3:
        assert time.monotonic() < deadline, "no trial ever finished"
        assert process.poll() is None, "the study ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1)
    dvc(project, "repro", "--force", "--single-item", "study")
    assert out_hashes(project) == before


@pytest.mark.parametrize("launch", ["local"])
def test_a_folder_of_the_users_own_colour_images_goes_through_everything(tmp_path: Path, launch: str) -> None:
    project = tmp_path / "project"
    copy_project(ROOT, project)
    write_shapes(project / "mine")
    change(
        project,
        *QUICK,
        "data.source=image_folder",
        "data.path=mine",
        "data.image_size=32",
        "data.label_budgets=[12,24]",
        "tune.budget=12",
        "augment.quality_images=100",
        f"run.launch={launch}",
        "run.tracking=disabled",
    )
    dvc(project, "repro")
    manifest = json.loads((project / "out" / "prepare" / "manifest.json").read_text())
    assert manifest["image_shape"] == [3, 32, 32]
    assert manifest["class_names"] == ["disc", "square", "stripes"]
    assert (project / "report" / "index.html").is_file()


def write_shapes(folder: Path) -> None:
    """Three classes of coloured shapes, 200 pngs each, and some without a label."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:40, :40]
    for name, count in (("disc", 200), ("square", 200), ("stripes", 200), ("unlabelled", 60)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            kind = ("disc", "square", "stripes")[number % 3] if name == "unlabelled" else name
            y, x, size = rng.integers(12, 28), rng.integers(12, 28), rng.integers(6, 12)
            mask = {
                "disc": (rows - y) ** 2 + (columns - x) ** 2 < size**2,
                "square": (abs(rows - y) < size) & (abs(columns - x) < size),
                "stripes": (rows + number) // 4 % 2 == 0,
            }[kind]
            pixels = rng.integers(0, 60, (40, 40, 3))
            pixels[mask] += rng.integers(80, 190, 3)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")
