"""Search space, sweeps in process and by Ray Tune, replay after a kill."""

import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.space import Choice, LogUniform, Uniform, check_start, parse_space
from pipeline.launch.ray_local_sweep import LocalSweeper
from pipeline.launch.ray_sweep import RaySweeper
from pipeline.tuning.points import Values
from pipeline.tuning.sweep import Recorder, Report, SweepPlan, SweptTrial
from pipeline.tuning.sweep_log import SweepLog
from pipeline.tuning.sweep_results import best_trial, trial_rows
from tests.ray_settings import ray_settings

SPACE: dict[str, dict[str, Any]] = {
    "lr": {"type": "loguniform", "low": 1e-4, "high": 1e-1},
    "weight_decay": {"type": "choice", "values": [0, 0.01]},
    "dropout": {"type": "uniform", "low": 0.0, "high": 0.5},
}
START = {"lr": 1e-3, "weight_decay": 0.01, "dropout": 0.25}


def make_plan(**changes: Any) -> SweepPlan:
    values: dict[str, Any] = {
        "name": "scratch",
        "space": parse_space({name: SPACE[name] for name in ("lr", "dropout")}),
        "start": START,
        "num_trials": 12,
        "num_reports": 4,
        "reduction_factor": 2,
        "max_concurrent": 1,
        "threads": 1,
        "seed": 2**62 + 5,
    }
    return SweepPlan(**(values | changes))


def bowl(values: Values, shared: Any, report: Report, checkpoint: Path | None) -> None:
    """A loss with its minimum at lr 0.01, dropout 0.1, that falls from report to report; diverges at high lr."""
    if shared is not None:
        with Path(shared).open("a") as file:
            file.write(f"{values['lr']}\n")
    for step in range(1, 5):
        if values["lr"] > 0.05 and step == 3:
            raise ValueError(f"training diverged at step {step}")
        distance = math.log10(values["lr"] / 0.01) ** 2 + (values["dropout"] - 0.1) ** 2
        report({"validation_nll": distance + 1 / step, "validation_accuracy": 1 - distance / 10})


def bowl_with_deaths(values: Values, shared: Any, report: Report, checkpoint: Path | None) -> None:
    """`bowl`, but the process of the first trial dies once, and that of every other one always."""
    marker = Path(shared) / "died"
    first = values == START
    if not first or not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    bowl(values, None, report, checkpoint)


def run_local(plan: SweepPlan, folder: Path, shared: Any = None) -> list[SweptTrial]:
    with LocalSweeper() as sweeper:
        return sweeper.sweep(plan, bowl, shared, Recorder(SweepLog(folder)))


def test_a_space_is_parsed_into_distributions() -> None:
    assert parse_space(SPACE) == {
        "lr": LogUniform(1e-4, 1e-1),
        "weight_decay": Choice((0.0, 0.01)),
        "dropout": Uniform(0.0, 0.5),
    }


@pytest.mark.parametrize(
    ("name", "entry", "message"),
    [
        ("lr", {"type": "normal"}, r"tune.space.lr.type must be one of uniform, loguniform, quniform, .* got 'normal'"),
        ("lr", {"low": 1, "high": 2}, r"tune.space.lr.type must be one of"),
        ("lr", {"type": "uniform", "low": 1}, r"keys of tune.space.lr must be type and low and high for uniform"),
        ("lr", {"type": "uniform", "low": 1, "high": 2, "q": 1}, r"keys of tune.space.lr must be"),
        ("lr", {"type": "uniform", "low": 2, "high": 1}, r"tune.space.lr.high must be > tune.space.lr.low \(2.0\)"),
        ("lr", {"type": "uniform", "low": 0, "high": 1}, r"tune.space.lr.low must be > 0, got 0.0"),
        ("weight_decay", {"type": "loguniform", "low": 0, "high": 1}, r"tune.space.weight_decay.low must be > 0"),
        ("weight_decay", {"type": "uniform", "low": -1, "high": 1}, r"tune.space.weight_decay.low must be >= 0"),
        ("dropout", {"type": "uniform", "low": 0, "high": 1}, r"tune.space.dropout.high must be in \[0, 1\)"),
        ("dropout", {"type": "choice", "values": []}, r"tune.space.dropout.values must be a list of numbers"),
        ("dropout", {"type": "choice", "values": [0.1, "a"]}, r"tune.space.dropout.values must be a number, got 'a'"),
    ],
)
def test_a_bad_space_is_an_error_that_names_its_key(name: str, entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_space({name: entry})


def test_a_start_outside_the_space_is_an_error() -> None:
    space = parse_space(SPACE)
    check_start(START, space)
    with pytest.raises(ValueError, match=r"tune.start.lr must be within tune.space.lr .*, got 1.0"):
        check_start(START | {"lr": 1.0}, space)
    with pytest.raises(ValueError, match=r"tune.start.weight_decay must be within"):
        check_start(START | {"weight_decay": 0.5}, space)


def test_a_sweep_starts_with_the_given_values_and_is_a_function_of_its_seed(tmp_path: Path) -> None:
    first, again = run_local(make_plan(), tmp_path / "a"), run_local(make_plan(), tmp_path / "b")
    other = run_local(make_plan(seed=1), tmp_path / "c")
    assert first == again
    assert first[0].values == other[0].values == START
    assert [trial.values for trial in first[1:]] != [trial.values for trial in other[1:]]
    assert len({trial.values["lr"] for trial in first}) == 12
    assert all(1e-4 <= trial.values["lr"] <= 1e-1 and trial.values["weight_decay"] == 0.01 for trial in first)


def test_successive_halving_stops_trials_worse_than_the_median_at_a_rung(tmp_path: Path) -> None:
    plan = make_plan()
    trials = run_local(plan, tmp_path)
    for rung in (1, 2):
        seen: list[float] = []
        for trial in trials:
            if len(trial.curve) < rung:
                continue
            value = trial.curve[rung - 1]["validation_nll"]
            median = sorted(seen)[len(seen) // 2] if len(seen) % 2 else sum(sorted(seen)[len(seen) // 2 - 1 :][:2]) / 2
            stopped = len(trial.curve) == rung and trial.status(plan) == "stopped"
            assert stopped == (bool(seen) and value > median), (rung, trial.number)
            seen.append(value)
    assert {trial.status(plan) for trial in trials} >= {"completed", "stopped"}


def test_the_best_trial_is_the_completed_one_with_the_lowest_last_loss(tmp_path: Path) -> None:
    plan = make_plan()
    trials = run_local(plan, tmp_path)
    completed = [trial for trial in trials if len(trial.curve) == 4]
    best = best_trial(trials, plan)
    assert best.curve[-1]["validation_nll"] == min(trial.curve[-1]["validation_nll"] for trial in completed)
    assert best.curve[-1]["validation_nll"] < trials[0].curve[-1]["validation_nll"], "the sweep beats its start"


def test_a_diverging_trial_is_reported_and_does_not_stop_the_sweep(tmp_path: Path) -> None:
    plan = make_plan(space=parse_space({"lr": {"type": "loguniform", "low": 1e-3, "high": 1e-1}}), num_trials=16)
    trials = run_local(plan, tmp_path)
    failed = [trial for trial in trials if trial.failure]
    assert failed
    assert all(trial.values["lr"] > 0.05 and "diverged at step 3" in trial.failure for trial in failed)
    assert len(trials) == 16
    table = trial_rows(trials, plan)
    assert [row["status"] for row in table].count("failed") == len(failed)
    assert best_trial(trials, plan) not in failed


def test_a_sweep_whose_trials_all_fail_says_why(tmp_path: Path) -> None:
    plan = make_plan(
        start=START | {"lr": 0.09}, space=parse_space({"lr": {"type": "uniform", "low": 0.08, "high": 0.1}})
    )
    with pytest.raises(ValueError, match=r"all 12 trials of the sweep of scratch failed:\n  trial 0 .*diverged"):
        best_trial(run_local(plan, tmp_path), plan)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", [1, 5, 14])
def test_a_killed_sweep_ends_as_if_never_killed_and_repeats_only_what_it_lost(tmp_path: Path, after: int) -> None:
    plan, calls = make_plan(), tmp_path / "calls"
    undisturbed = run_local(plan, tmp_path / "undisturbed", str(calls))
    all_calls = calls.read_text().split()
    calls.unlink()

    def reports() -> Iterator[None]:
        yield from [None] * after
        raise Killed

    clock = reports()
    with pytest.raises(Killed), LocalSweeper() as sweeper:
        sweeper.sweep(plan, bowl, str(calls), Recorder(SweepLog(tmp_path / "log"), lambda _: next(clock)))
    before_kill = calls.read_text().split()
    calls.unlink()
    resumed = run_local(plan, tmp_path / "log", str(calls))
    assert resumed == undisturbed
    after_kill = calls.read_text().split()
    assert len(before_kill) + len(after_kill) <= len(all_calls) + 1, "at most the trial that was cut is repeated"


@pytest.mark.ray
def test_ray_tune_gives_the_sweep_of_the_local_loop_and_survives_dying_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # where the actor finds the functions above
    monkeypatch.setattr("pipeline.launch.ray_listener.MAX_RETRIES", 1)
    space = parse_space({**SPACE, "lr": {"type": "loguniform", "low": 1e-3, "high": 1e-1}})
    plan = make_plan(space=space, num_trials=14, seed=5)
    log, calls = tmp_path / "log", tmp_path / "calls"
    local = run_local(plan, log)
    assert {trial.status(plan) for trial in local} == {"completed", "stopped", "failed"}
    for file in sorted(log.glob("*.json"))[::2]:
        file.unlink()  # half of the trials are replayed, the others run
    with RaySweeper(ray_settings()) as sweeper:
        remote = sweeper.sweep(plan, bowl, str(calls), Recorder(SweepLog(log)))
        mortal = sweeper.sweep(
            make_plan(num_trials=2), bowl_with_deaths, str(tmp_path), Recorder(SweepLog(tmp_path / "mortal"))
        )
    assert remote == local
    assert 0 < len(calls.read_text().split()) < 14
    assert [trial.status(plan) for trial in mortal] == ["completed", "failed"]
    assert "process died 2 times" in mortal[1].failure
