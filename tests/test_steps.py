"""Sweeps that pause trials or move their weights: HyperBand, its TPE, Population Based Training, and a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config.space import (
    Choice,
    Distribution,
    Grid,
    LogRandInt,
    LogUniform,
    QUniform,
    RandInt,
    Uniform,
    extremes,
    parse_space,
)
from pipeline.launch.ray_local_sweep import LocalSweeper
from pipeline.launch.ray_sweep import RaySweeper
from pipeline.tuning.points import Values, draw, explore, grid_points, random_points
from pipeline.tuning.steps import FIT_FILE, Past, StepStore, run_steps
from pipeline.tuning.sweep import Recorder, Report, SweepPlan, SweptTrial
from pipeline.tuning.sweep_log import SweepLog
from pipeline.tuning.sweep_results import best_trial, report_rows, trial_rows
from tests.ray_settings import ray_settings

ROOT = Path(__file__).parent.parent
REPORTS = 4


def make_plan(**changes: Any) -> SweepPlan:
    values: dict[str, Any] = {
        "name": "walk",
        "metric": "loss",
        "searcher": "random",
        "scheduler": "pbt",
        "space": parse_space({"lr": {"type": "uniform", "low": 0.05, "high": 1.9}}),
        "start": {"lr": 0.1, "momentum": 0.0},
        "num_trials": 4,
        "num_reports": REPORTS,
        "reduction_factor": 2,
        "max_concurrent": 1,
        "threads": 1,
        "seed": 11,
    }
    return SweepPlan(**(values | changes))


def walk(values: Values, shared: Any, report: Report, checkpoint: Path | None) -> None:
    """Adds lr to a weight that should reach 8, and keeps weight and step count in the checkpoint.

    shared: a folder, in which each update leaves a line, or None. "fail" and "die" in its name do what they say once
    per trial that has a learning rate above 0.5.
    """
    state = {"weight": 0.0, "step": 0}
    if checkpoint is not None and checkpoint.is_file():
        state = json.loads(checkpoint.read_text())
    while state["step"] < REPORTS:
        state = {"weight": state["weight"] + values["lr"], "step": state["step"] + 1}
        if shared is not None:
            _misbehave(Path(shared), values, state["step"])
            with (Path(shared) / "updates").open("a") as file:
                file.write(f"{values['lr']} {state['weight']}\n")
        if checkpoint is not None and state["step"] < REPORTS:
            checkpoint.write_text(json.dumps(state))
        report({"loss": abs(8.0 - state["weight"]), "weight": state["weight"]})


def _misbehave(folder: Path, values: Values, step: float) -> None:
    if values["lr"] <= 0.5 or step != 2:
        return
    if "fail" in folder.name:
        raise ValueError("training diverged at step 2")
    marker = folder / f"died-{values['lr']}"
    if "die" in folder.name and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def run_ray(sweeper: RaySweeper, plan: SweepPlan, folder: Path, shared: Path | None = None) -> list[SweptTrial]:
    if shared is not None:
        shared.mkdir(exist_ok=True)
    return sweeper.sweep(plan, walk, None if shared is None else str(shared), Recorder(SweepLog(folder)))


# --- points that no result decides


def test_every_distribution_draws_from_its_range_and_reaches_its_ends() -> None:
    rng = np.random.default_rng(0)

    def drawn(distribution: Any) -> list[Any]:
        return [draw(distribution, rng) for _ in range(4000)]

    for continuous in (Uniform(2.0, 5.0), LogUniform(0.01, 10.0)):
        values = drawn(continuous)
        assert all(value in continuous for value in values)
    assert np.mean(np.log10(drawn(LogUniform(0.01, 10.0)))) == pytest.approx(-0.5, abs=0.06)
    assert np.mean(drawn(Uniform(2.0, 5.0))) == pytest.approx(3.5, abs=0.06)
    assert sorted(set(drawn(QUniform(0.0, 1.0, 0.25)))) == [0.0, 0.25, 0.5, 0.75, 1.0]
    counts = np.bincount(drawn(RandInt(1, 4)))[1:]
    assert (np.abs(counts / 4000 - 0.25) < 0.04).all()
    logs = np.bincount(drawn(LogRandInt(1, 8)), minlength=9)[1:]
    assert all(logs[0] > logs[1:])
    assert logs.min() > 0
    assert {type(value) for value in drawn(LogRandInt(1, 8))} == {int}
    assert set(drawn(Choice((True, False)))) == {True, False}


def test_a_grid_is_every_combination_once_and_random_points_do_not_depend_on_their_number() -> None:
    space: dict[str, Distribution] = {"b": Grid((1, 2)), "a": Choice((0.1, 0.2, 0.3))}
    assert [(point["a"], point["b"]) for point in grid_points(space)] == [
        (a, b) for a in (0.1, 0.2, 0.3) for b in (1, 2)
    ]
    space = {"lr": LogUniform(0.001, 1.0), "depth": RandInt(1, 5)}
    assert random_points(space, 6, seed=3)[:4] == random_points(space, 4, seed=3)
    assert random_points(space, 4, seed=3) != random_points(space, 4, seed=4)


def test_a_changed_value_is_near_the_old_one_or_drawn_anew_and_never_outside() -> None:
    space: dict[str, Distribution] = {
        "lr": LogUniform(0.01, 1.0),
        "k": Choice((1, 2, 3)),
        "n": RandInt(1, 10),
        "q": QUniform(0, 1, 0.5),
    }
    values = {"lr": 0.9, "k": 1, "n": 10, "q": 0.5, "other": 7}
    rng = np.random.default_rng(1)
    changed = [explore(values, space, rng) for _ in range(300)]
    assert all(new[name] in space[name] for new in changed for name in space)
    assert all(new["other"] == 7 for new in changed)
    near = [new["lr"] for new in changed if new["lr"] in (0.9 * 0.8, 1.0)]
    assert 0.65 < len(near) / len(changed) < 0.85
    assert {new["k"] for new in changed} == {1, 2, 3}
    assert {type(new["n"]) for new in changed} == {int}


@pytest.mark.parametrize("scheduler", ["none", "asha"])
@pytest.mark.parametrize("searcher", ["random", "grid"])
def test_a_sweep_without_a_model_tries_its_points_in_order(tmp_path: Path, searcher: str, scheduler: str) -> None:
    space = {"lr": Grid((0.9, 0.2, 0.5, 0.1))} if searcher == "grid" else make_plan().space
    plan = make_plan(searcher=searcher, scheduler=scheduler, space=space, num_trials=4)
    with LocalSweeper() as sweeper:
        trials = sweeper.sweep(plan, walk, None, Recorder(SweepLog(tmp_path)))
    assert [trial.values["lr"] for trial in trials] == [point["lr"] for point in plan.points()]
    assert (trials[0].values["lr"] == 0.1) == (searcher == "random")
    stopped = [trial.number for trial in trials if trial.status(plan) == "stopped"]
    assert bool(stopped) == (scheduler == "asha" and searcher == "grid"), "falling rates: the best comes first"


def test_what_pauses_needs_ray(tmp_path: Path) -> None:
    with LocalSweeper() as sweeper, pytest.raises(ValueError, match=r"tune.scheduler pbt pauses .* run.launch ray"):
        sweeper.sweep(make_plan(), walk, None, Recorder(SweepLog(tmp_path)))


# --- steps


def test_a_trial_goes_on_from_a_donors_checkpoint_with_its_own_values(tmp_path: Path) -> None:
    plan, told = make_plan(), []
    donor = tmp_path / "donor"
    donor.mkdir()
    half = {"lr": 0.5, "momentum": 0.0}
    pasts: list[Past] = []

    def stop_after_two(message: Any, now: Past, before: Past) -> None:
        pasts.append(now)
        if now.reports == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_steps(
            walk,
            half,
            None,
            donor,
            Past(),
            plan,
            known={},
            store=StepStore(str(tmp_path / "store")),
            tell=stop_after_two,
        )
    assert json.loads((donor / FIT_FILE).read_text()) == {"weight": 1.0, "step": 2}
    run_steps(
        walk,
        half | {"lr": 0.25},
        None,
        donor,
        pasts[-1],
        plan,
        known={},
        store=StepStore(str(tmp_path / "store")),
        tell=lambda message, now, before: told.append((message["weight"], now.reports, before)),
    )
    assert [(weight, reports) for weight, reports, _ in told] == [(1.25, 3), (1.5, 4)]
    assert told[0][2] == pasts[-1], "what came before is the donor's step"


def test_known_steps_are_not_trained_again_and_give_the_same_checkpoints(tmp_path: Path) -> None:
    plan, values, store = make_plan(), {"lr": 0.5, "momentum": 0.0}, tmp_path / "store"
    shared = tmp_path / "shared"
    shared.mkdir()
    known: dict[str, Any] = {}

    def run(folder: Path) -> list[tuple[float, Past, bytes]]:
        folder.mkdir()
        told: list[tuple[float, Past, bytes]] = []

        def tell(message: Any, now: Past, before: Past) -> None:
            known[now.key] = message
            told.append((message["weight"], now, (folder / FIT_FILE).read_bytes()))

        run_steps(
            walk, values, str(shared), folder, Past(), plan, known=dict(known), store=StepStore(str(store)), tell=tell
        )
        return told

    first = run(tmp_path / "a")
    assert run(tmp_path / "b")[:3] == first[:3]
    assert len((shared / "updates").read_text().splitlines()) == REPORTS
    (store / f"{first[1][1].key}.ckpt").unlink()
    assert run(tmp_path / "c")[:3] == first[:3], "what is missing is trained again"
    assert len((shared / "updates").read_text().splitlines()) == REPORTS + 3


# --- by Ray


@pytest.fixture(scope="module")
def sweeper() -> Any:
    with pytest.MonkeyPatch.context() as patch, RaySweeper(ray_settings()) as opened:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # where the actor finds the functions above
        yield opened


def check_paths(trials: list[SweptTrial], plan: SweepPlan) -> int:
    """Every report's weight is the one before it, of the donor where there is one, plus the report's own lr."""
    moves = 0
    for trial in trials:
        for position, (entry, values) in enumerate(zip(trial.curve, trial.path, strict=True)):
            origin = trials[trial.donors[position]] if position in trial.donors else trial
            weight = origin.curve[position - 1]["weight"] if position else 0.0
            assert entry["weight"] == pytest.approx(weight + values["lr"]), (trial.number, position)
            if position in trial.donors:
                moves += 1
                assert origin is not trial
                changed = values["lr"] != origin.path[position - 1]["lr"] or values["lr"] in extremes(plan.space["lr"])
                assert changed, "its own value"
                assert values["lr"] in plan.space["lr"]
    return moves


@pytest.mark.ray
def test_losers_of_a_population_go_on_from_winners_weights_with_changed_values(
    sweeper: RaySweeper, tmp_path: Path
) -> None:
    plan = make_plan()
    trials = run_ray(sweeper, plan, tmp_path / "log", tmp_path / "shared")
    assert [trial.status(plan) for trial in trials] == ["completed"] * 4
    assert trials[0].path[0]["lr"] == 0.1
    assert check_paths(trials, plan) == REPORTS - 1, "one of four is replaced at every report but the last"
    alone = {trial.number: 8 - REPORTS * trial.path[0]["lr"] for trial in trials}
    assert trials[0].curve[-1]["loss"] < alone[0], "the population carried its slowest member"
    rows = report_rows(trials, plan, "target")
    assert len(rows) == 4 * REPORTS
    assert sum(row["donor"] != "" for row in rows) == REPORTS - 1
    assert {row["status"] for row in trial_rows(trials, plan, "target")} == {"completed"}
    # run again with half of its log gone: replayed where it can be, trained where not, and the same
    for file in sorted((tmp_path / "log" / "steps").glob("*.json"))[::2]:
        file.unlink()
    before = len((tmp_path / "shared" / "updates").read_text().splitlines())
    assert run_ray(sweeper, plan, tmp_path / "log", tmp_path / "shared") == trials
    trained = len((tmp_path / "shared" / "updates").read_text().splitlines()) - before
    assert 0 < trained < before


@pytest.mark.ray
@pytest.mark.parametrize(("scheduler", "searcher"), [("hyperband", "random"), ("bohb", "tpe")])
def test_hyperband_pauses_stops_and_goes_on(sweeper: RaySweeper, tmp_path: Path, scheduler: str, searcher: str) -> None:
    plan = make_plan(scheduler=scheduler, searcher=searcher, num_trials=8)
    trials = run_ray(sweeper, plan, tmp_path / "log", tmp_path / "shared")
    assert len(trials) == 8
    assert {trial.status(plan) for trial in trials} == {"completed", "stopped"}
    assert check_paths(trials, plan) == 0
    updates = (tmp_path / "shared" / "updates").read_text().splitlines()
    assert len(updates) == sum(len(trial.curve) for trial in trials), "no step is trained twice after a pause"
    assert run_ray(sweeper, plan, tmp_path / "log", tmp_path / "shared") == trials
    assert len((tmp_path / "shared" / "updates").read_text().splitlines()) == len(updates)
    best = best_trial(trials, plan)
    assert best.values["lr"] > 0.3
    if scheduler == "bohb":
        late = [trial.values["lr"] for trial in trials[5:]]
        assert np.mean(late) > np.mean([trial.values["lr"] for trial in trials[:3]]), "it learns from the rungs"


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["hyperband", "pbt"])
def test_a_failing_trial_is_reported_and_a_dying_one_goes_on(
    sweeper: RaySweeper, tmp_path: Path, scheduler: str
) -> None:
    low = {"lr": {"type": "uniform", "low": 0.05, "high": 0.6}}  # most trials stay below what fails
    plan = make_plan(scheduler=scheduler, num_trials=5, seed=2, space=parse_space(low))
    failing = run_ray(sweeper, plan, tmp_path / "log", tmp_path / "fail")
    failed = [trial for trial in failing if trial.failure]
    assert failed
    assert all("diverged at step 2" in trial.failure for trial in failed)
    assert any(trial.status(plan) == "completed" for trial in failing)
    dying = run_ray(sweeper, plan, tmp_path / "log-die", tmp_path / "die")
    assert len(list((tmp_path / "die").glob("died-*"))) > 0
    assert not any(trial.failure for trial in dying)
    check_paths(dying, plan)
    if scheduler == "pbt":  # HyperBand sorts a trial that comes back into another bracket
        assert dying == run_ray(sweeper, plan, tmp_path / "log-none", tmp_path / "none")


DRIVER = """
import sys
from pathlib import Path
from tests.test_steps import make_plan, walk_slowly
from pipeline.launch.ray_sweep import RaySweeper
from pipeline.tuning.sweep import Recorder
from pipeline.tuning.sweep_log import SweepLog
from tests.ray_settings import ray_settings
with RaySweeper(ray_settings()) as sweeper:
    sweeper.sweep(make_plan(), walk_slowly, sys.argv[2], Recorder(SweepLog(Path(sys.argv[1]))))
"""


def walk_slowly(values: Values, shared: Any, report: Report, checkpoint: Path | None) -> None:
    def report_late(message: Any) -> None:
        time.sleep(0.3)
        report(message)

    walk(values, shared, report_late, checkpoint)


@pytest.mark.ray
@pytest.mark.slow
def test_a_population_whose_driver_was_killed_goes_on_and_ends_as_if_never_killed(
    sweeper: RaySweeper, tmp_path: Path
) -> None:
    log, shared = tmp_path / "log", tmp_path / "shared"
    shared.mkdir()
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}"}
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(log), str(shared)], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while len(list(log.glob("steps/*.json"))) < 7:
        assert time.monotonic() < deadline, "no step was ever recorded"
        assert driver.poll() is None, "the sweep ended before it could be killed"
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = len((shared / "updates").read_text().splitlines())
    resumed = run_ray(sweeper, make_plan(), log, shared)
    assert resumed == run_ray(sweeper, make_plan(), tmp_path / "undisturbed", tmp_path / "other")
    trained = len((shared / "updates").read_text().splitlines()) - before
    assert trained <= 4 * REPORTS - 7 + 1, "only what was lost is trained again"
