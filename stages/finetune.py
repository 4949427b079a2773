"""Trains the study's best recipe on all labels, and the scratch recipe beside it with the same seed and steps.

Writes out/finetune: recipe.json (what was chosen and why), winner.safetensors, scratch.safetensors.
"""

import sys

import numpy as np

from pipeline import paths
from pipeline.artifacts import read_json, read_table, write_json, write_table
from pipeline.config.classifier import GENERATORS, Finetune
from pipeline.config.dp import Dp
from pipeline.config.privacy import Privacy
from pipeline.data.card import GUARANTEE, pass_gate
from pipeline.data.prepared import load_prepared
from pipeline.device import run_accelerator
from pipeline.launch.choose import open_fitter
from pipeline.stage import Stage, StageSpec, run_stage
from pipeline.training.guarantee import load_secret
from pipeline.tuning.finetune import SEED, curve_rows, finetune_specs, make_private, run_finetune
from pipeline.tuning.gather import gather_trial_data
from pipeline.tuning.results import save_classifier
from pipeline.tuning.study import choose_arm, parse_rows, summarise

SPEC = StageSpec(
    "finetune",
    params=(
        "run.seed",
        "run.threads",
        "run.accelerator",
        "run.precision",
        "run.workers",
        "run.cpus_per_worker",
        "pretrain.layers",
        "privacy",
        "dp",
        "finetune",
    ),
    inputs=(paths.PREPARED, paths.PRETRAINED, paths.SYNTHETIC, paths.STUDY),
    outputs=(paths.FINETUNE, paths.plots("finetune")),
)


def finetune(stage: Stage) -> None:
    run, prepared = stage.run, load_prepared(paths.PREPARED)
    arm, reason = choose_arm(summarise(parse_rows(read_table(paths.STUDY / "trials.csv"))))
    stage.say(reason)
    pass_gate([arm] if arm in GENERATORS else [], stage.section(Privacy).gate, stage.say)
    dp, num_images = stage.section(Dp), int(np.count_nonzero(prepared.train.labels >= 0))
    specs = finetune_specs(
        stage.section(Finetune),
        arm,
        read_json(paths.STUDY / "recipes.json"),
        num_images=num_images,
        root_seed=run.seed,
        accelerator=run_accelerator(run),
        precision=run.precision,
    )
    guarantee = None
    if "finetune" in dp.models:
        specs, guarantee = make_private(specs, dp, num_images=num_images, secret=load_secret(stage.work))
        stage.say(guarantee.sentence)
    data = gather_trial_data(prepared, stage.top_layer, {arm, "scratch"}, seeds=[SEED], budgets=[])
    total = {name: spec.steps for name, spec in specs.items()}
    with stage.progress(sum(total.values()), stage.name) as progress, open_fitter(run, stage.run_name) as fitter:

        def show(name: str, step: int, metrics: dict[str, float]) -> None:
            progress.update(step + (total["winner"] if name == "scratch" else 0), model=name, **metrics)

        results = run_finetune(specs, data, stage.work, show, fitter)
    folder, plots = stage.output(paths.FINETUNE), stage.output(paths.plots(stage.name))
    for name, result in results.items():
        save_classifier(folder / f"{name}.safetensors", result)
    values = {name: getattr(specs["winner"], name) for name in ("lr", "weight_decay", "dropout")}
    write_json(folder / "recipe.json", {"arm": arm, "reason": reason, **values})
    curves = curve_rows(results)
    write_table(plots / "curves.csv", curves)
    for row in curves:
        stage.track(row, int(row["step"]))
    metrics: dict[str, dict[str, float]] = {name: result.metrics for name, result in results.items()}
    if guarantee is not None:
        write_json(folder / GUARANTEE, guarantee.as_json())
        metrics["differential_privacy"] = guarantee.numbers()
    stage.write_metrics(metrics)


if __name__ == "__main__":
    sys.exit(run_stage(SPEC, finetune))
