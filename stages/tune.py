"""Sweeps tune.target on validation data; `--target vae --num-trials 4` and the like run one by hand, outside DVC.

Writes best.json (values of the best trial), trials.csv and reports.csv: for DVC to out/tune, by hand to
.layerwise/sweeps/<name>.
"""

import sys
from functools import partial
from pathlib import Path

from pipeline import paths
from pipeline.artifacts import write_json, write_table, write_text
from pipeline.config.generators import Gan, Vae
from pipeline.config.load import Params, load_params
from pipeline.config.targets import target_section
from pipeline.config.tune import CLASSIFIER, LAYER_PREFIX, Tune
from pipeline.data.prepared import load_prepared
from pipeline.launch.choose_sweeper import open_sweeper
from pipeline.launch.ray_importance import compute_importance
from pipeline.report.sweep_figures import Line, draw_importance, draw_parallel
from pipeline.stage import Stage, StageSpec, run_stage
from pipeline.tuning.by_hand import ByHand, begin, parse_command
from pipeline.tuning.sweep import Recorder, SweptTrial
from pipeline.tuning.sweep_log import SweepLog
from pipeline.tuning.sweep_results import (
    Swept,
    best_trial,
    coordinates,
    finished_runs,
    history_rows,
    log_scales,
    report_rows,
    say_sweep,
    summarise_sweep,
    trial_rows,
)
from pipeline.tuning.targets import Sweep, classifier_sweeps, target_sweep

RUN = ("run.seed", "run.threads", "run.accelerator", "run.precision", "run.workers", "run.cpus_per_worker")
SPEC = StageSpec(
    "tune",
    params=(*RUN, "pretrain.layers", "vae", "gan", "tune"),
    inputs=(paths.PREPARED, paths.PRETRAINED),
    outputs=(paths.TUNE, paths.plots("tune")),
)


def tune(stage: Stage) -> None:
    """The stage of dvc.yaml."""
    swept = run_sweeps(stage)
    folder, plots = stage.output(paths.TUNE), stage.output(paths.plots(stage.name))
    write_results(swept, folder, plots)
    history = history_rows(list(swept.values()))
    write_table(plots / "trials.csv", history)
    for row in history:
        told = {f"{name}/{found.plan.metric}": row[name] for name, found in swept.items() if row[name] != ""}
        stage.track(told, row["trial"])
    stage.write_metrics({name: summarise_sweep(found.trials, found.plan) for name, found in swept.items()})


def tune_by_hand(stage: Stage, command: ByHand) -> None:
    """A sweep outside of DVC: its own folder, no metrics file, and how long each trial took."""
    begin(command, stage.work)
    swept = run_sweeps(stage)
    folder = stage.output(command.folder)
    write_results(swept, folder, folder, seconds=True)
    write_json(
        folder / "summary.json", {name: summarise_sweep(found.trials, found.plan) for name, found in swept.items()}
    )
    stage.say(f"results: {command.folder}")


def run_sweeps(stage: Stage) -> dict[str, Swept]:
    """Every sweep of tune.target by name, one after another; what is best is said."""
    settings = stage.section(Tune)
    sweeps = list_sweeps(stage, settings)
    swept: dict[str, Swept] = {}
    total = sum(sweep.plan.num_trials for sweep in sweeps)
    with stage.progress(total, stage.name) as progress, open_sweeper(stage.run) as sweeper:
        for sweep in sweeps:
            plan, done = sweep.plan, sum(len(found.trials) for found in swept.values())

            def show(trial: SweptTrial, sweep: Sweep = sweep, done: int = done) -> None:
                latest = {sweep.plan.metric: trial.curve[-1][sweep.plan.metric]} if trial.curve else {}
                progress.update(done + trial.number, **{sweep.column: sweep.plan.name}, **latest)

            recorder = Recorder(SweepLog(stage.work / f"sweep-{plan.name}"), show)
            trials = sweeper.sweep(plan, sweep.function, sweep.data, recorder)
            swept[plan.name] = Swept(plan, trials, sweep.column)
    for found in swept.values():
        for line in say_sweep(found.trials, found.plan):
            stage.say(line)
        stage.track_finished(finished_runs(found), "trial")
    return swept


def list_sweeps(stage: Stage, settings: Tune) -> list[Sweep]:
    prepared = load_prepared(paths.PREPARED)
    if settings.target == CLASSIFIER:
        return classifier_sweeps(settings, stage.run, prepared, stage.top_layer)
    sections = {"vae": stage.section(Vae), "gan": stage.section(Gan)}
    section = target_section(settings.target, sections, stage.layers)
    return [target_sweep(settings, stage.run, prepared, section, stage.layers)]


def write_results(swept: dict[str, Swept], folder: Path, plots: Path, *, seconds: bool = False) -> None:
    """seconds: also how long each trial took, which differs from run to run."""
    found = list(swept.values())
    best = {sweep.plan.name: best_trial(sweep.trials, sweep.plan) for sweep in found}
    write_json(folder / "best.json", {name: trial.values | trial.curve[-1] for name, trial in best.items()})
    table = [trial_rows(sweep.trials, sweep.plan, sweep.column, seconds=seconds) for sweep in found]
    write_table(folder / "trials.csv", [row for rows in table for row in rows])
    reports = [report_rows(sweep.trials, sweep.plan, sweep.column) for sweep in found]
    write_table(folder / "reports.csv", [row for rows in reports for row in rows])
    for sweep in found:
        name = sweep.plan.name.replace("@", "-")
        lines = [Line(values, completed) for values, completed in coordinates(sweep)]
        parallel = draw_parallel(sweep.plan.name, lines, log_scales(sweep.plan), sweep.plan.metric)
        write_text(plots / f"parallel_coordinates-{name}.svg", parallel)
        importance = compute_importance(sweep.trials, sweep.plan)
        note = f"at report {importance.report}" + (f"; {importance.warning}" if importance.warning else "")
        write_text(plots / f"importance-{name}.svg", draw_importance(sweep.plan.name, importance.shares, note))


def inputs_of(params: Params) -> tuple[Path, ...]:
    """What the trials of a sweep by hand read."""
    target = params.section(Tune).target
    if target == CLASSIFIER:
        return SPEC.inputs
    below = params.layers[target.removeprefix(LAYER_PREFIX)].below if target.startswith(LAYER_PREFIX) else "prepare"
    return (paths.PREPARED,) if below == "prepare" else (paths.PREPARED, paths.OUT / below)


def main(words: list[str]) -> int:
    """The exit code. Without words, the stage of dvc.yaml."""
    if not words:
        return run_stage(SPEC, tune)
    try:
        command = parse_command(words, Path.cwd())
        inputs = inputs_of(load_params(Path("params.yaml"), command.overrides))
    except ValueError as error:
        print(f"tune: {error}", file=sys.stderr)
        return 1
    spec = StageSpec(command.stage, SPEC.params, inputs, (command.folder,))
    return run_stage(spec, partial(tune_by_hand, command=command), command.overrides)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
