"""Trials with two workers each, mapped and swept: those that one worker trains, however they are stopped or killed."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config.space import parse_space
from pipeline.launch.launcher import Failure
from pipeline.launch.ray_launcher import RayLauncher
from pipeline.launch.ray_sweep import RaySweeper
from pipeline.training.workers import current_shard
from pipeline.tuning.points import Values
from pipeline.tuning.sweep import Recorder, Report, SweepPlan, SweptTrial
from pipeline.tuning.sweep_log import SweepLog
from tests.ray_settings import ray_settings
from tests.test_ray_workers import Shared, train_quietly
from tests.test_workers import TOLERANCE
from tests.worker_fits import fit_model, make_images

pytestmark = [pytest.mark.ray, pytest.mark.slow]
REPORTS = 3
LOSS = "val/cross_entropy"


def make_plan(**changes: Any) -> SweepPlan:
    values: dict[str, Any] = {
        "name": "team",
        "metric": "loss",
        "searcher": "random",
        "scheduler": "none",
        "space": parse_space({"lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2}}),
        "start": {"lr": 0.003},
        "num_trials": 3,
        "num_reports": REPORTS,
        "reduction_factor": 2,
        "max_concurrent": 1,
        "threads": 1,
        "seed": 4,
    }
    return SweepPlan(**(values | changes))


def train(values: Values, shared: str, report: Report, checkpoint: Path | None) -> None:
    """The small classifier of the tests of workers. What is in the name of the folder `shared` happens in the second
    worker alone, at lr 0.003."""
    rank = current_shard().rank
    folder = Path(shared)
    (folder / f"rank{rank}-{os.getpid()}").touch()
    if rank == 1 and values["lr"] == 0.003:
        if "die" in folder.name and not (folder / "died").exists():
            (folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if "fail" in folder.name:
            raise ValueError("the second worker has no data")
    fit_model(
        "classifier",
        checkpoint,
        on_epoch=lambda _, entry: report({"loss": entry[LOSS]}),
        lr=values["lr"],
    )


@pytest.fixture(scope="module")
def sweeper() -> Iterator[RaySweeper]:
    with pytest.MonkeyPatch.context() as patch, RaySweeper(ray_settings("run.workers=2")) as opened:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))  # where workers find this file
        yield opened


def run(sweeper: RaySweeper, plan: SweepPlan, folder: Path, shared: str) -> list[SweptTrial]:
    (folder / shared).mkdir()
    return sweeper.sweep(plan, train, str(folder / shared), Recorder(SweepLog(folder / f"log-{shared}")))


def check_losses(trial: SweptTrial) -> None:
    """Those of a fit in this process that nothing ever stopped."""
    alone = [entry[LOSS] for entry in fit_model("classifier", lr=trial.values["lr"])[0]]
    assert [entry["loss"] for entry in trial.curve] == pytest.approx(alone[: len(trial.curve)], rel=TOLERANCE)


def processes(folder: Path, rank: int) -> int:
    return len(list(folder.glob(f"rank{rank}-*")))


def test_mapped_trials_have_two_workers_each_and_outlive_one_that_dies(tmp_path: Path) -> None:
    shared = Shared(make_images()[0].numpy(), str(tmp_path))
    settings = ray_settings("run.workers=2", "run.trials_at_once=1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
        with RayLauncher(settings) as launcher:
            killed, diverged, two = launcher.map_trials(train_quietly, ["killed", "diverges", "two"], shared)
    alone = train_quietly("one", shared)
    assert (tmp_path / "killed-1").exists()
    assert diverged == Failure("diverges", "training diverged at step 4: lower the learning rate")
    assert not isinstance(killed, Failure)
    assert not isinstance(two, Failure)
    assert (alone["size"], two["size"]) == (1, 2)
    assert killed["history"] == two["history"]
    for name, array in alone["state"].items():
        np.testing.assert_allclose(two["state"][name], array, rtol=5e-4, atol=5e-4)
        assert killed["state"][name].tobytes() == two["state"][name].tobytes(), name


def test_two_workers_give_the_trials_of_one_and_stay_from_trial_to_trial(sweeper: RaySweeper, tmp_path: Path) -> None:
    plan = make_plan()
    trials = run(sweeper, plan, tmp_path, "quiet")
    assert [trial.status(plan) for trial in trials] == ["completed"] * 3
    for trial in trials:
        check_losses(trial)
    assert [processes(tmp_path / "quiet", rank) for rank in range(3)] == [1, 1, 0]


def test_trials_that_are_paused_and_stopped_leave_their_workers_to_others(sweeper: RaySweeper, tmp_path: Path) -> None:
    plan = make_plan(scheduler="hyperband", num_trials=4)
    trials = run(sweeper, plan, tmp_path, "quiet")
    assert {trial.status(plan) for trial in trials} == {"completed", "stopped"}
    for trial in trials:
        check_losses(trial)
    assert run(sweeper, plan, tmp_path, "again") == trials


def test_a_trial_whose_second_worker_is_killed_is_tried_again(sweeper: RaySweeper, tmp_path: Path) -> None:
    plan = make_plan(num_trials=2)
    trials = run(sweeper, plan, tmp_path, "die")
    assert (tmp_path / "die" / "died").exists()
    assert [trial.status(plan) for trial in trials] == ["completed"] * 2
    assert trials == run(sweeper, plan, tmp_path, "quiet")


def test_an_error_of_the_second_worker_is_the_trials_reason(sweeper: RaySweeper, tmp_path: Path) -> None:
    plan = make_plan(num_trials=2)
    failed, other = run(sweeper, plan, tmp_path, "fail")
    assert failed.failure == "the second worker has no data"
    assert other.status(plan) == "completed"
