"""What a sweep leaves: figures, importances, a W&B run for each trial, and lines about what failed."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config.space import parse_space
from pipeline.launch.ray_importance import compute_importance
from pipeline.report.sweep_figures import Line, draw_importance, draw_parallel
from pipeline.tracking import FinishedRun, track_finished
from pipeline.tuning.study import study_recipes
from pipeline.tuning.sweep import SweepPlan, SweptTrial
from pipeline.tuning.sweep_results import (
    Swept,
    coordinates,
    finished_runs,
    log_scales,
    report_rows,
    say_sweep,
    trial_rows,
)
from tests.wandb_log import read_records

ROOT = Path(__file__).parent.parent
SPACE = {
    "lr": {"type": "loguniform", "low": 1e-4, "high": 1e-1},
    "dropout": {"type": "uniform", "low": 0.0, "high": 0.5},
}


def make_plan(count: int) -> SweepPlan:
    return SweepPlan(
        name="scratch",
        space=parse_space(SPACE),
        start={"lr": 0.01, "dropout": 0.1, "weight_decay": 0.0},
        num_trials=count,
        num_reports=2,
        reduction_factor=2,
        max_concurrent=1,
        threads=1,
        seed=0,
    )


def make_trials(count: int) -> list[SweptTrial]:
    """The loss follows the learning rate; the third trial was stopped after one report, the fourth failed at once."""
    rng = np.random.default_rng(0)
    trials = []
    for number in range(count):
        values = {"lr": float(10 ** rng.uniform(-4, -1)), "dropout": float(rng.uniform(0, 0.5)), "weight_decay": 0.0}
        loss = abs(np.log10(values["lr"]) + 2)
        curve = [{"validation_nll": float(loss + 1 / step), "validation_accuracy": 0.5} for step in (1, 2)]
        trials.append(SweptTrial(number, values, curve[: {2: 1, 3: 0}.get(number, 2)], seconds=1.5))
    trials[3].failure = "training diverged at step 1\nlower the learning rate"
    return trials


def test_tables_hold_every_trial_and_every_report() -> None:
    plan, trials = make_plan(6), make_trials(6)
    rows = trial_rows(trials, plan, seconds=True)
    assert [row["status"] for row in rows] == ["completed", "completed", "stopped", "failed", "completed", "completed"]
    assert rows[0]["best_validation_nll"] == min(entry["validation_nll"] for entry in trials[0].curve)
    assert (rows[0]["seconds"], rows[3]["validation_nll"], rows[3]["best_validation_nll"]) == (1.5, "", "")
    assert [(row["trial"], row["report"]) for row in report_rows(trials, plan)][:5] == [
        (0, 1),
        (0, 2),
        (1, 1),
        (1, 2),
        (2, 1),
    ]
    lines = say_sweep(trials, plan)
    assert lines[0].startswith("scratch: trial 3 failed (dropout ")
    assert lines[0].endswith("training diverged at step 1")
    assert "validation_nll" in lines[-1]


def test_importance_finds_what_the_loss_follows_and_warns_of_few_trials() -> None:
    many = compute_importance(make_trials(30), make_plan(30))
    assert next(iter(many.shares)) == "lr"
    assert many.shares["lr"] > 0.7
    assert sum(many.shares.values()) == pytest.approx(1)
    assert (many.report, many.trials, many.warning) == (2, 28, "")
    assert compute_importance(make_trials(30), make_plan(30)) == many
    few = compute_importance(make_trials(5), make_plan(5))
    assert few.warning == "3 trials, fewer than 10: mostly noise"
    nothing = compute_importance([SweptTrial(0, {}, failure="no")], make_plan(1))
    assert nothing.shares == {}
    assert "too few" in nothing.warning


def test_figures_are_svg_files_of_their_own_and_equal_for_equal_sweeps() -> None:
    plan, trials = make_plan(6), make_trials(6)
    lines = [Line(values, completed) for values, completed in coordinates(Swept(plan, trials, "arm"))]
    assert len(lines) == 5
    assert log_scales(plan) == ["lr"]

    def draw() -> tuple[str, str]:
        return (
            draw_parallel("scratch", lines, log_scales(plan), plan.metric),
            draw_importance("scratch", {"lr": 0.9, "dropout": 0.1}, "at report 2"),
        )

    assert draw() == draw()
    for svg in draw():
        root = ElementTree.fromstring(svg)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(" not in svg
        assert "currentColor" not in svg
    one = [Line({"lr": 0.01, plan.metric: 1.0}, True)]
    assert "1 trials" in draw_parallel("one", one, ["lr"], plan.metric)
    ElementTree.fromstring(draw_importance("none", {}, "too few"))


TRACK = """
from pathlib import Path
from tests.test_sweep_outputs import make_plan, make_trials
from pipeline.tracking import start_tracking, track_finished
from pipeline.tuning.sweep_results import Swept, finished_runs
import sys
folder = Path(sys.argv[1])
stage = start_tracking("offline", stage="tune", group="g", config={}, folder=folder)
stage.log({"a": 1.0}, 0)
runs = finished_runs(Swept(make_plan(5), make_trials(5), "arm"))
track_finished("offline", runs, job_type="trial", group="g", folder=folder)
stage.log({"a": 2.0}, 1)
stage.finish({}, 0)
"""


@pytest.mark.slow
def test_every_trial_is_a_run_of_the_stages_group(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    subprocess.run([sys.executable, "-c", TRACK, str(tmp_path)], cwd=ROOT, env=environment, check=True)
    runs: dict[str, Any] = {}
    for file in tmp_path.rglob("*.wandb"):
        records = list(read_records(file))
        (run,) = (record.run for record in records if record.WhichOneof("record_type") == "run")
        history = [record.history for record in records if record.WhichOneof("record_type") == "history"]
        (ended,) = (record.exit for record in records if record.WhichOneof("record_type") == "exit")
        runs[run.display_name] = (run.run_group, run.job_type, len(history), ended.exit_code)
    assert runs == {
        "tune": ("g", "tune", 2, 0),
        "scratch-0": ("g", "trial", 2, 0),
        "scratch-1": ("g", "trial", 2, 0),
        "scratch-2": ("g", "trial", 1, 0),
        "scratch-3": ("g", "trial", 0, 1),
        "scratch-4": ("g", "trial", 2, 0),
    }


def test_disabled_tracking_writes_and_imports_nothing(tmp_path: Path) -> None:
    run = FinishedRun("a", {}, [], {}, "")
    track_finished("disabled", [run], job_type="trial", group="g", folder=tmp_path / "wandb")
    assert not (tmp_path / "wandb").exists()


def test_runs_carry_values_and_failures() -> None:
    runs = finished_runs(Swept(make_plan(5), make_trials(5), "arm"))
    assert [run.name for run in runs][:2] == ["scratch-0", "scratch-1"]
    assert set(runs[0].curve[0]) == {"validation_nll", "validation_accuracy", "lr", "dropout"}
    assert runs[3].failed.startswith("training diverged")


def test_a_study_without_a_sweep_of_classifiers_says_what_to_set() -> None:
    with pytest.raises(ValueError, match=r"out/tune holds a sweep of vae, .* set tune.target to classifier"):
        study_recipes(None, {"vae": {"lr": 0.1}})  # type: ignore[arg-type]
