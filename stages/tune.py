"""Sweeps learning rate, weight decay and dropout of the arms in tune.arms, on validation data.

Writes out/tune: best.json (values of the best trial by arm) and trials.csv (every trial).
"""

import sys
from functools import partial

from pipeline import paths
from pipeline.artifacts import write_json, write_table
from pipeline.config.classifier import Tune
from pipeline.data.prepared import load_prepared
from pipeline.device import resolve_accelerator
from pipeline.launch.choose_sweeper import open_sweeper
from pipeline.seeding import derive_seed
from pipeline.stage import Stage, StageSpec, run_stage
from pipeline.tuning.gather import gather_trial_data
from pipeline.tuning.sweep import METRIC, Recorder, SweepLog, SweepPlan, SweptTrial, sweep_trial
from pipeline.tuning.sweep_results import best_trial, history_rows, summarise_sweep, trial_rows
from pipeline.tuning.trial import TrialSpec, pick_values

SEED = 0
"""Every sweep uses the same draw of labels."""

SPEC = StageSpec(
    "tune",
    params=("run.seed", "run.threads", "run.accelerator", "run.precision", "pretrain.layers", "tune"),
    inputs=(paths.PREPARED, paths.PRETRAINED),
    outputs=(paths.TUNE, paths.plots("tune")),
)


def tune(stage: Stage) -> None:
    settings = stage.section(Tune)
    data = gather_trial_data(
        load_prepared(paths.PREPARED), stage.top_layer, settings.arms, seeds=[SEED], budgets=[settings.budget]
    )
    plans = {arm: make_plan(stage, settings, arm) for arm in settings.arms}
    swept: dict[str, list[SweptTrial]] = {}
    total = settings.num_trials * len(plans)
    with stage.progress(total, stage.name) as progress, open_sweeper(stage.run) as sweeper:
        for arm, plan in plans.items():

            def show(trial: SweptTrial, arm: str = arm) -> None:
                latest = {METRIC: trial.curve[-1][METRIC]} if trial.curve else {}
                progress.update(len(swept) * settings.num_trials + trial.number, arm=arm, **latest)

            recorder = Recorder(SweepLog(stage.work / f"sweep-{arm}"), show)
            swept[arm] = sweeper.sweep(plan, partial(sweep_trial, spec=make_spec(stage, settings, arm)), data, recorder)
    best = {arm: best_trial(swept[arm], plan) for arm, plan in plans.items()}
    table = [row for arm, plan in plans.items() for row in trial_rows(swept[arm], plan)]
    history = history_rows(swept, plans)
    for row in history:
        stage.track({f"{arm}/{METRIC}": row[arm] for arm in swept if row[arm] != ""}, row["trial"])
    folder, plots = stage.output(paths.TUNE), stage.output(paths.plots(stage.name))
    write_json(folder / "best.json", {arm: trial.values | trial.curve[-1] for arm, trial in best.items()})
    write_table(folder / "trials.csv", table)
    write_table(plots / "trials.csv", history)
    stage.write_metrics({arm: summarise_sweep(swept[arm], plan) for arm, plan in plans.items()})
    for arm, trial in best.items():
        values = ", ".join(f"{name} {value:.3g}" for name, value in sorted(trial.values.items()))
        stage.say(f"{arm}: {values} ({METRIC} {trial.curve[-1][METRIC]:.4f}, trial {trial.number})")


def make_plan(stage: Stage, settings: Tune, arm: str) -> SweepPlan:
    return SweepPlan(
        name=arm,
        space=settings.distributions,
        start={name: float(value) for name, value in settings.start.items()},
        num_trials=settings.num_trials,
        num_reports=make_spec(stage, settings, arm).num_reports,
        reduction_factor=settings.reduction_factor,
        max_concurrent=settings.max_concurrent,
        threads=stage.run.threads,
        seed=derive_seed(stage.run.seed, "tune", "searcher"),
    )


def make_spec(stage: Stage, settings: Tune, arm: str) -> TrialSpec:
    """The sweep's first trial; others differ in what is drawn."""
    return TrialSpec(
        purpose="tune",
        arm=arm,
        budget=settings.budget,
        seed=SEED,
        root_seed=stage.run.seed,
        steps=settings.steps,
        reports=settings.reports,
        batch_size=settings.batch_size,
        accelerator=resolve_accelerator(stage.run.accelerator),
        precision=stage.run.precision,
        **pick_values(settings.start),
    )


if __name__ == "__main__":
    sys.exit(run_stage(SPEC, tune))
