"""Anomaly detection, each class normal in turn: `python -m stages.anomaly`; with --model, a detector of pictures."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline import paths
from pipeline.applications.anomaly import Found, judge_tasks, make_tasks, publish_model, run_tasks, threshold_of
from pipeline.applications.anomaly_command import MAGNIFY, judge_folder, load_detector
from pipeline.applications.anomaly_fits import BASELINES, FITS, DetectorData, DetectorTask
from pipeline.applications.anomaly_pictures import map_grid
from pipeline.applications.anomaly_story import as_metrics, as_rows, summarise, tell
from pipeline.applications.anomaly_table import load_table, rate_table
from pipeline.applications.story import Drawing, write_story
from pipeline.artifacts import write_table
from pipeline.command import run_command
from pipeline.config.anomaly import Anomaly
from pipeline.config.generators import Gan, Vae
from pipeline.data.pictures import write_png
from pipeline.data.prepared import Split, load_prepared
from pipeline.data.test_split import load_test
from pipeline.device import run_accelerator, set_threads
from pipeline.launch.choose import open_launcher
from pipeline.metrics.detection import judge_scores
from pipeline.seeding import derive_seed
from pipeline.stage import Stage, StageSpec, run_stage

NAME = "anomaly"
SPEC = StageSpec(
    NAME,
    params=(
        "run.seed",
        "run.accelerator",
        "run.precision",
        "run.workers",
        "run.cpus_per_worker",
        "vae",
        "gan",
        "anomaly",
    ),
    inputs=(paths.PREPARED, paths.TEST),
    outputs=(paths.application(NAME), paths.plots(NAME)),
)


def anomaly(stage: Stage) -> None:
    run, settings, prepared = stage.run, stage.section(Anomaly), load_prepared(paths.PREPARED)
    set_threads(run.cpus_per_worker)
    test = load_test(paths.TEST)
    tasks = make_tasks(
        settings,
        stage.section(Vae),
        stage.section(Gan),
        prepared.class_names,
        seed=run.seed,
        accelerator=run_accelerator(run),
        precision=run.precision,
        work=stage.work,
    )
    train, validation = prepared.train, prepared.validation
    data = DetectorData(
        np.array(train.images), train.labels, np.array(validation.images), validation.labels, np.array(test.images)
    )
    with stage.progress(len(tasks), f"{NAME}: detectors") as progress, open_launcher(run) as launcher:
        results = run_tasks(tasks, data, launcher, progress.update)
    found = judge_tasks(tasks, results, test.labels)
    on_table = judge_table(stage, settings)
    folder, plots = stage.output(paths.application(NAME)), stage.output(paths.plots(NAME))
    story = tell(
        found,
        on_table,
        prepared.class_names,
        settings,
        num_judged=len(test.labels),
        table_name=Path(settings.table).name,
        drawings=draw(tasks, test, folder, plots),
    )
    write_table(folder / "detections.csv", as_rows(found, prepared.class_names))
    write_story(folder, story)
    stage.write_metrics(as_metrics(summarise(found)))
    stage.say(story.sentence)


def judge_table(stage: Stage, settings: Anomaly) -> list[Found]:
    """The scores of `anomaly.table`, one set a seed; none where it is a folder."""
    if Path(settings.table).is_dir():
        return []
    table, found = load_table(Path(settings.table)), []
    for number in range(settings.seeds):
        work = stage.work / f"table-{table.sha256[:16]}-{number}"
        seed = derive_seed(stage.run.seed, "anomaly", "table", number)
        rating = rate_table(table, settings, seed=seed, accelerator=run_accelerator(stage.run), work=work)
        for name, scores in rating.judged.items():
            limit = threshold_of(rating.normal[name], settings.false_positive_rate)
            found.append(Found(0, number, name, judge_scores(scores, rating.anomalous, limit)))
    return found


def draw(tasks: Sequence[DetectorTask], test: Split, folder: Path, plots: Path) -> list[Drawing]:
    """Keeps the first seed's detectors in `folder`, a folder a normal class, and draws their maps into `plots`."""
    drawings = []
    for normal_class in dict.fromkeys(task.normal_class for task in tasks):
        models = folder / str(normal_class)
        first = [task for task in tasks if task.normal_class == normal_class and task.number == 0]
        for task in first:
            if task.kind != BASELINES:
                publish_model(task, models)
        detectors = [load_detector(models / f"{kind}.safetensors").detector for kind in FITS]
        grid = map_grid(detectors, test.images, test.labels, normal_class)
        name, file = first[0].class_name, f"maps-{normal_class}.png"
        write_png(plots / file, grid, magnify=MAGNIFY)
        drawings.append(
            Drawing(
                (paths.plots(NAME) / file).as_posix(),
                f"test images and below them maps of where three detectors that know {name} find them strange",
                f"Normal: {name}. Test images, normal ones first; below them |image - reconstruction| of the VAE, of "
                "f-AnoGAN and of the RBM, black 0, white 1 (the first seed's detectors).",
            )
        )
    return drawings


def main(words: list[str]) -> int:
    """The exit code of the stage, or of the command when there are words."""
    return run_command(NAME, lambda: judge_folder(words)) if words else run_stage(SPEC, anomaly)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
