"""Source -> train and validation arrays with nested label subsets, and the test split in a folder of its own."""

import sys

from pipeline import paths
from pipeline.artifacts import write_table
from pipeline.config.data import Data
from pipeline.data.pictures import class_grid, write_png
from pipeline.data.sources import load_source
from pipeline.data.splits import label_subsets, split_images
from pipeline.data.write import count_classes, write_prepared, write_test
from pipeline.stage import Stage, StageSpec, run_stage

SPEC = StageSpec(
    "prepare",
    params=("run.seed", "data"),
    outputs=(paths.PREPARED, paths.TEST, paths.plots("prepare")),
)
SAMPLES_PER_CLASS = 12


def prepare(stage: Stage) -> None:
    data = stage.section(Data)
    raw = load_source(data, stage)
    names, source = raw.class_names, {"name": data.source, "sha256": raw.sha256}
    train, validation, test = split_images(raw, data, stage.run.seed)
    subsets = label_subsets(
        train.labels, class_names=names, budgets=data.label_budgets, draws=data.label_draws, seed=stage.run.seed
    )
    write_prepared(
        stage.output(paths.PREPARED),
        train=train,
        validation=validation,
        subsets=subsets,
        class_names=names,
        label_budgets=data.label_budgets,
        source=source,
    )
    write_test(stage.output(paths.TEST), test, class_names=names, source=source)

    splits = {"train": train, "validation": validation, "test": test}
    counts = {name: count_classes(split.labels, names) for name, split in splits.items()}
    stage.write_metrics(
        {name: {"images": len(split.labels), "classes": counts[name]} for name, split in splits.items()}
    )
    plots = stage.output(paths.plots(stage.name))
    write_table(
        plots / "class_counts.csv",
        [{"class": name, **{split: counts[split][name] for split in splits}} for name in names],
    )
    write_png(plots / "samples.png", class_grid(train.images, train.labels, len(names), SAMPLES_PER_CLASS), magnify=2)
    sizes = ", ".join(f"{len(split.labels)} {name}" for name, split in splits.items())
    stage.say(f"{sizes} images of {len(names)} classes")


if __name__ == "__main__":
    sys.exit(run_stage(SPEC, prepare))
