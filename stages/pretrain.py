"""One layer of the Deep Belief Network: `python -m stages.pretrain <layer> <below>`."""

import sys
from functools import partial

import numpy as np
import torch

from pipeline import paths
from pipeline.artifacts import write_table
from pipeline.config.monitor import Monitor
from pipeline.data.pictures import image_grid, write_png
from pipeline.data.prepared import load_prepared
from pipeline.device import run_accelerator
from pipeline.launch.choose import open_fitter
from pipeline.models.dbn import DBN
from pipeline.models.pictures import chain_strips, filters_as_pictures, reconstruction_pairs
from pipeline.seeding import make_generator
from pipeline.stage import Stage, StageSpec, run_stage
from pipeline.training.greedy import LayerData, LayerTask, fit_layer
from pipeline.training.monitor import Point, say_why_refused
from pipeline.training.stored import load_dbn, save_dbn

SHOWN_IMAGES = 12
SHOWN_CHAINS = 5
"""From images, and as many from noise."""


def spec(layer: str, below: str) -> StageSpec:
    """`below`: prepare, or pretrain/<layer>."""
    name = f"pretrain@{layer}"
    inputs = (paths.PREPARED,) if below == "prepare" else (paths.PREPARED, paths.OUT / below)
    run = ("run.seed", "run.threads", "run.accelerator", "run.precision", "run.workers", "run.cpus_per_worker")
    outputs = (paths.pretrained(layer), paths.plots(name))
    return StageSpec(name, params=(*run, f"pretrain.layers.{layer}", "monitor"), inputs=inputs, outputs=outputs)


def pretrain(stage: Stage, name: str) -> None:
    run, layer, monitor = stage.run, stage.layer(name), stage.section(Monitor)
    prepared = load_prepared(paths.PREPARED)
    data = LayerData(np.array(prepared.train.images), np.array(prepared.validation.images))
    below = DBN([], prepared.image_shape) if layer.below == "prepare" else load_dbn(paths.OUT / layer.below)
    task = LayerTask(
        name=name,
        below=below,
        layer=layer,
        seed=run.seed,
        accelerator=run_accelerator(run),
        precision=run.precision,
        checkpoint=stage.work / "fit.ckpt",
        monitor=monitor,
    )
    with stage.progress(layer.steps, stage.name) as progress, open_fitter(run, stage.run_name) as fitter:

        def show(step: int, epoch: Point) -> None:
            progress.update(step, gap=epoch["gap"], reconstruction=epoch["train/reconstruction_error"])
            stage.track(epoch, step)

        dbn, curves = fitter(fit_layer, task, data, show)
    folder, plots = stage.output(paths.pretrained(name)), stage.output(paths.plots(stage.name))
    save_dbn(folder, dbn)
    write_table(plots / "free_energy.csv", curves)
    write_png(plots / "filters.png", image_grid(filters_as_pictures(dbn), columns=8), magnify=3)
    pairs = reconstruction_pairs(dbn, torch.from_numpy(data.validation[:SHOWN_IMAGES]))
    write_png(plots / "reconstructions.png", image_grid(pairs, columns=SHOWN_IMAGES), magnify=2)
    shown = torch.from_numpy(data.validation[:SHOWN_CHAINS])
    strips = chain_strips(dbn, shown, monitor.chain_rounds, make_generator(run.seed, "chains", name))
    write_png(plots / "chains.png", image_grid(strips, columns=len(monitor.chain_rounds)), magnify=2)
    last = {key: value for key, value in curves[-1].items() if key != "step"}
    stage.write_metrics(last | {"log_likelihood_refused": say_why_refused(layer, monitor, last)})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m stages.pretrain <layer of pretrain.layers> <prepare | pretrain/layer below>")
    sys.exit(run_stage(spec(*sys.argv[1:]), partial(pretrain, name=sys.argv[1])))
