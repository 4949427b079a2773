"""Synthetic sets of a generator, one per label draw, and how good they are: `python -m stages.augment <vae | gan>`."""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pipeline import paths
from pipeline.artifacts import read_array, write_array, write_json, write_text
from pipeline.config.generators import Augment
from pipeline.config.privacy import Privacy
from pipeline.data.card import CARD, CARD_PAGE, card_metrics
from pipeline.data.pictures import class_grid, write_png
from pipeline.data.prepared import load_prepared
from pipeline.device import set_threads
from pipeline.metrics.generative import LabelledImages, judge_collapse, quality_report
from pipeline.report.audit import render_card
from pipeline.seeding import derive_seed, make_generator
from pipeline.stage import Stage, StageSpec, run_stage
from pipeline.training.audit import audit_sets
from pipeline.training.generators import load_generator, sample_images
from pipeline.weights import load_weights

TEMPLATES = Path("pipeline/report/templates")
"""Not Python, so no import leads to it: named here for the hash of the inputs."""
SHOWN_PER_CLASS = 12
JUDGED_DRAW = 0
"""The draw whose set is scored and shown: the others differ in their labels alone."""


def spec(kind: str) -> StageSpec:
    name = f"augment@{kind}"
    return StageSpec(
        name,
        params=("run.seed", "run.threads", "augment", "privacy"),
        inputs=(paths.PREPARED, paths.generator(kind), TEMPLATES),
        outputs=(paths.synthetic(kind), paths.plots(name)),
    )


def augment(stage: Stage, kind: str) -> None:
    run, config, prepared = stage.run, stage.section(Augment), load_prepared(paths.PREPARED)
    set_threads(run.threads)
    folder, models = stage.output(paths.synthetic(kind)), paths.generator(kind)
    labels = torch.arange(prepared.num_classes).repeat_interleave(config.images_per_class)
    draws = len(prepared.subsets)
    with stage.progress(draws, f"{stage.name}: synthetic sets") as progress:
        for draw in range(draws):
            model = load_generator(kind, *load_weights(models / f"{draw}.safetensors", kind=kind))
            images = sample_images(model, labels, make_generator(run.seed, "augment", kind, draw))
            write_array(folder / f"images-{draw}.npy", images)
            write_array(folder / f"labels-{draw}.npy", labels.numpy())
            progress.update(draw + 1)
    images = read_array(folder / f"images-{JUDGED_DRAW}.npy")
    picture = class_grid(images, labels.numpy(), prepared.num_classes, SHOWN_PER_CLASS)
    write_png(stage.output(paths.plots(stage.name)) / "samples.png", picture, magnify=2)
    report = quality_report(
        LabelledImages(np.array(prepared.train.images), np.array(read_array(models / f"labels-{JUDGED_DRAW}.npy"))),
        LabelledImages(np.array(prepared.validation.images), prepared.validation.labels),
        LabelledImages(np.array(images), labels.numpy()),
        num_images=config.quality_images,
        seed=derive_seed(run.seed, "quality"),
    )
    verdict = judge_collapse(report)
    stage.say(f"{kind}: {verdict.sentence}")
    write_json(folder / "quality.json", {"rows": report, "verdict": verdict.name, "sentence": verdict.sentence})
    card = audit_sets(kind, prepared, folder, stage.section(Privacy), seed=derive_seed(run.seed, "privacy audit"))
    stage.say(f"{kind}: privacy audit, {card['sentence']}")
    write_json(folder / CARD, card)
    write_text(folder / CARD_PAGE, render_card(card))
    values = {row: {name: score["value"] for name, score in scores.items()} for row, scores in report.items()}
    stage.write_metrics(values | {"privacy": card_metrics(card)})


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in ("vae", "gan"):
        sys.exit("usage: python -m stages.augment <vae | gan>")
    sys.exit(run_stage(spec(sys.argv[1]), partial(augment, kind=sys.argv[1])))
