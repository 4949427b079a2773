"""The body that the stages `vae` and `gan` share."""

from typing import Any

import torch

from pipeline import paths
from pipeline.artifacts import write_array, write_json, write_table
from pipeline.config.dp import PRIVATE, Dp
from pipeline.config.generators import Gan, Vae
from pipeline.data.card import GUARANTEE
from pipeline.data.prepared import load_prepared
from pipeline.device import run_accelerator, set_threads
from pipeline.launch.choose import open_fits
from pipeline.stage import Stage, StageSpec
from pipeline.training.collapse import last_verdict
from pipeline.training.draws import fit_draws, generator_labels, known_labels
from pipeline.training.generators import mean_curves
from pipeline.training.guarantee import load_secret, plan_guarantee
from pipeline.weights import save_weights


def generator_spec(kind: str) -> StageSpec:
    private = ("dp",) if kind in PRIVATE else ()
    return StageSpec(
        kind,
        params=("run.seed", "run.accelerator", "run.precision", "run.workers", "run.cpus_per_worker", *private, kind),
        inputs=(paths.PREPARED,),
        outputs=(paths.generator(kind), paths.plots(kind)),
    )


def run_generator_stage(stage: Stage, config: Vae | Gan, dp: Dp | None = None) -> None:
    """Fits one model a label draw; writes the models, their mean curves and where the curves ended.

    dp: where the models are to be trained privately; then privacy.json says what is promised for all of them together.
    """
    run, prepared = stage.run, load_prepared(paths.PREPARED)
    set_threads(run.cpus_per_worker)  # for the spreading of labels: its bits depend on the count
    draws = len(prepared.subsets)
    labels = generator_labels(prepared, seed=run.seed) if dp is None else known_labels(prepared)
    guarantee = None
    if dp is not None:
        images = len(prepared.train.images)
        guarantee = plan_guarantee(dp, num_images=images, batch_size=config.batch_size, steps=config.steps, fits=draws)
        stage.say(guarantee.sentence)
    with (
        stage.progress(draws, f"{stage.name}: label draws") as progress,
        open_fits(run, stage.run_name) as launcher,
    ):
        fitted = fit_draws(
            config,
            prepared,
            labels,
            launcher,
            seed=run.seed,
            accelerator=run_accelerator(run),
            precision=run.precision,
            work=stage.work,
            on_fitted=progress.update,
            private=None if guarantee is None else guarantee.private_steps(load_secret(stage.work)),
        )
    folder = stage.output(paths.generator(stage.name))
    for draw, model in enumerate(fitted):
        state = {name: torch.from_numpy(array) for name, array in model.state.items()}
        save_weights(folder / f"{draw}.safetensors", state, kind=stage.name, config=model.config)
        write_array(folder / f"labels-{draw}.npy", labels[draw])
    curves = mean_curves([model.history for model in fitted])
    write_table(stage.output(paths.plots(stage.name)) / "curves.csv", curves)
    for entry in curves:
        stage.track(entry, int(entry["step"]))
    metrics: dict[str, Any] = {k.replace("/", "_"): value for k, value in curves[-1].items() if k != "step"}
    if guarantee is not None:
        write_json(folder / GUARANTEE, guarantee.as_json())
        metrics["differential_privacy"] = guarantee.numbers()
    verdicts = {draw: verdict for draw, model in enumerate(fitted) if (verdict := last_verdict(model.history))}
    for draw, verdict in verdicts.items():
        stage.say(f"{stage.name}, label draw {draw}: {verdict.sentence}")
    if verdicts:
        metrics["verdicts"] = {f"draw_{draw}": verdict.name for draw, verdict in verdicts.items()}
    stage.write_metrics(metrics)
