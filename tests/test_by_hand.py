"""A sweep by hand: names, options, what is written, and going on after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.artifacts import read_table
from pipeline.config.load import write_changed
from pipeline.data.prepared import Split
from pipeline.data.splits import label_subsets
from pipeline.data.write import write_prepared
from pipeline.tuning.by_hand import ByHand, begin, parse_command

ROOT = Path(__file__).parent.parent
SMALL = (
    "run.launch=local",
    "run.threads=1",
    "run.tracking=disabled",
    "vae.steps=12",
    "vae.width=4",
    "vae.batch_size=16",
    "tune.reports=4",
)


def test_options_become_assignments_and_the_target_names_the_sweep(tmp_path: Path) -> None:
    words = ["--target", "pretrain@conv1", "--num-trials", "4", "--searcher", "random", "-S", "vae.steps=3"]
    command = parse_command(words, tmp_path)
    assert command == ByHand(
        "pretrain-conv1",
        ("tune.target=pretrain@conv1", "tune.num_trials=4", "tune.searcher=random", "vae.steps=3"),
        resume=False,
    )
    assert command.folder == Path(".layerwise/sweeps/pretrain-conv1")
    assert parse_command(["--num-trials", "4", "--name", "mine"], tmp_path).name == "mine"
    with pytest.raises(ValueError, match=r"--name must be letters, .* got '../out'"):
        parse_command(["--name", "../out"], tmp_path)


def test_a_taken_name_and_a_resume_of_nothing_are_errors(tmp_path: Path) -> None:
    words = ["--target", "vae"]
    with pytest.raises(ValueError, match=r"no sweep named vae to go on with: none was begun"):
        parse_command([*words, "--resume"], tmp_path)
    command = parse_command(words, tmp_path)
    work = tmp_path / command.work / "0123"
    work.mkdir(parents=True)
    begin(command, work)
    with pytest.raises(ValueError, match=r"an unfinished sweep named vae lies in .*: go on with --resume, choose"):
        parse_command(words, tmp_path)
    assert parse_command([*words, "--resume"], tmp_path) == ByHand("vae", command.overrides, resume=True)
    assert parse_command(["--name", "vae", "--resume"], tmp_path).overrides == command.overrides
    with pytest.raises(ValueError, match=r"was begun with tune.target=vae, not with .*tune.num_trials=9"):
        parse_command([*words, "--num-trials", "9", "--resume"], tmp_path)
    changed = tmp_path / command.work / "4567"
    changed.mkdir()
    with pytest.raises(ValueError, match=r"parameters, code or inputs changed since the sweep named vae was killed"):
        begin(ByHand("vae", command.overrides, resume=True), changed)
    assert not changed.exists()
    (tmp_path / command.folder).mkdir(parents=True)
    with pytest.raises(ValueError, match=r"a finished sweep named vae lies in .*: choose another --name, or delete"):
        parse_command(words, tmp_path)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("pipeline", "stages"):
        (tmp_path / name).symlink_to(ROOT / name)
    write_changed(ROOT / "params.yaml", tmp_path / "params.yaml", SMALL)
    labels, rng = np.arange(80, dtype=np.int64) % 2, np.random.default_rng(0)
    train, held_out = (Split(rng.integers(0, 256, (80, 1, 28, 28), dtype=np.uint8), labels) for _ in range(2))
    names, budgets = ["a", "b"], [8, 20]
    write_prepared(
        tmp_path / "out" / "prepare",
        train=train,
        validation=held_out,
        subsets=label_subsets(labels, class_names=names, budgets=budgets, draws=2, seed=0),
        class_names=names,
        label_budgets=budgets,
    )
    return tmp_path


def start(project: Path, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "stages.tune", "--target", "vae", "--searcher", "random", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=project, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


@pytest.mark.slow
def test_a_killed_sweep_by_hand_goes_on_and_leaves_what_an_undisturbed_one_leaves(project: Path) -> None:
    options = ("--num-trials", "3", "--scheduler", "none")
    undisturbed = start(project, *options, "--name", "whole")
    said, _ = undisturbed.communicate(timeout=300)
    assert undisturbed.returncode == 0, said
    assert "validation_negative_elbo" in said
    killed = start(project, *options, "--name", "cut")
    work, deadline = project / ".layerwise" / "work" / "tune@cut", time.monotonic() + 300
    while sum(len(json.loads(file.read_text())["curve"]) for file in work.glob("*/sweep-vae/*.json")) < 6:
        assert time.monotonic() < deadline, "no trial ever reported"
        assert killed.poll() is None, killed.communicate()[0]
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    sweeps = project / ".layerwise" / "sweeps"
    assert not (sweeps / "cut").exists(), "nothing is published half-done"
    resumed = start(project, "--name", "cut", "--resume")
    said, _ = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, said
    for name in ("best.json", "reports.csv", "summary.json", "importance-vae.svg", "parallel_coordinates-vae.svg"):
        assert (sweeps / "cut" / name).read_bytes() == (sweeps / "whole" / name).read_bytes(), name
    whole, cut = (read_table(sweeps / name / "trials.csv") for name in ("whole", "cut"))
    assert len(whole) == 3
    assert all(float(row.pop("seconds")) > 0 for row in [*whole, *cut])
    assert whole == cut
    assert not (project / "out" / "tune").exists(), "DVC's outs are left alone"
    assert not (project / "metrics").exists()
