"""Trains every arm at every label budget with every seed, paired, and judges them on validation data.

Writes out/study: trials.csv, models/<arm>-<budget>-<seed>.safetensors, and recipes.json (the values each arm used).
"""

import sys
from dataclasses import asdict

from pipeline import paths
from pipeline.artifacts import read_json, write_json, write_table
from pipeline.config.classifier import GENERATORS, Study
from pipeline.config.privacy import Privacy
from pipeline.data.card import pass_gate
from pipeline.data.prepared import load_prepared
from pipeline.device import run_accelerator
from pipeline.launch.choose import open_launcher
from pipeline.stage import Stage, StageSpec, run_stage
from pipeline.tuning.gather import gather_trial_data
from pipeline.tuning.results import copy_classifier
from pipeline.tuning.study import StudyRow, budget_rows, list_specs, run_study, study_recipes, summarise

SPEC = StageSpec(
    "study",
    params=(
        "run.seed",
        "run.accelerator",
        "run.precision",
        "run.workers",
        "run.cpus_per_worker",
        "pretrain.layers",
        "privacy",
        "study",
    ),
    inputs=(paths.PREPARED, paths.PRETRAINED, paths.SYNTHETIC, paths.TUNE),
    outputs=(paths.STUDY, paths.plots("study")),
)


def study(stage: Stage) -> None:
    settings, run, prepared = stage.section(Study), stage.run, load_prepared(paths.PREPARED)
    used = [arm for arm in settings.arms if arm in GENERATORS]
    pass_gate(used, stage.section(Privacy).gate, stage.say)
    budgets, seeds = prepared.label_budgets, range(len(prepared.subsets))
    recipes = study_recipes(settings, read_json(paths.TUNE / "best.json"))
    specs = list_specs(
        settings,
        recipes,
        budgets=budgets,
        num_seeds=len(seeds),
        root_seed=run.seed,
        accelerator=run_accelerator(run),
        precision=run.precision,
    )
    data = gather_trial_data(prepared, stage.top_layer, settings.arms, seeds=seeds, budgets=budgets)
    with stage.progress(len(specs), stage.name) as progress, open_launcher(run) as launcher:

        def show(done: int, row: StudyRow | None) -> None:
            latest = {} if row is None else {f"{row.arm}-{row.budget}": row.validation_accuracy}
            progress.update(done, **latest)

        rows = run_study(specs, data, launcher, stage.work, show)
    cells = summarise(rows)
    folder, plots = stage.output(paths.STUDY), stage.output(paths.plots(stage.name))
    write_table(folder / "trials.csv", [asdict(row) for row in rows])
    write_json(folder / "recipes.json", recipes)
    for spec in specs:
        copy_classifier(stage.work, str(spec), folder / "models")
    write_table(plots / "budgets.csv", budget_rows(cells))
    for budget in budgets:  # W&B wants rising steps
        here = [cell for cell in cells if cell.budget == budget]
        stage.track({f"{cell.arm}/{key}": value for cell in here for key, value in cell.scores.items()}, budget)
    stage.write_metrics(
        {arm: {str(cell.budget): cell.scores for cell in cells if cell.arm == arm} for arm in settings.arms}
    )


if __name__ == "__main__":
    sys.exit(run_stage(SPEC, study))
