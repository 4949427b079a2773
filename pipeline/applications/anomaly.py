"""One-class anomaly detection: every detector for every normal class and seed, judged on what else there is."""

# N held-out normal images, M judged images

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.applications.anomaly_fits import (
    BASELINES,
    FITS,
    DetectorData,
    DetectorTask,
    FittedDetector,
    Scores,
    fit_detector,
)
from pipeline.artifacts import read_array, read_json, write_array, write_json
from pipeline.config.anomaly import Anomaly
from pipeline.config.generators import Gan, Vae
from pipeline.data.arrays import Labels
from pipeline.launch.launcher import Failure, Launcher, raise_failures
from pipeline.metrics.detection import Detection, combine_scores, judge_scores, normal_threshold, rows_needed
from pipeline.seeding import derive_seed
from pipeline.weights import save_weights

ENSEMBLE = ("f_anogan", "vae_elbo", "rbm_free_energy", "conv_rbm_neighbours")
"""One score of each kind of model, all of equal weight: decided before anything was measured."""
TRAINED = ("ensemble", "f_anogan", "vae_elbo", "vae_reconstruction", "rbm_free_energy", "conv_rbm_neighbours")
HEADLINE = "conv_rbm_neighbours"
"""The score that the bars are for: decided on training images of three digits and four kinds of clothes."""
SIMPLE = ("nearest_neighbour", "pca", "isolation_forest")
"""The baselines' scores."""
KIND = "anomaly"
"""Of the saved weights."""
NAMES = "scores.json"


@dataclass(frozen=True)
class Found:
    """What one detector's score gave with one normal class under one seed."""

    normal_class: int
    number: int
    score: str
    detection: Detection


def make_tasks(
    settings: Anomaly,
    vae: Vae,
    gan: Gan,
    class_names: Sequence[str],
    *,
    seed: int,
    accelerator: str,
    precision: str,
    work: Path,
    kinds: Sequence[str] = (*FITS, BASELINES),
) -> list[DetectorTask]:
    """Normal classes x seeds x kinds, each with a folder in `work`.  Raises ValueError for a class that is missing."""
    classes = settings.normal_classes or list(range(len(class_names)))
    if max(classes) >= len(class_names):
        raise ValueError(
            f"anomaly.normal_classes must be below {len(class_names)}, the number of classes, got {classes}: set it in "
            "params.yaml"
        )
    return [
        DetectorTask(
            kind=kind,
            normal_class=normal_class,
            class_name=class_names[normal_class],
            number=number,
            settings=settings,
            vae=vae,
            gan=gan,
            seed=derive_seed(seed, "anomaly", normal_class, number),
            accelerator=accelerator,
            precision=precision,
            work=(work / f"{kind}-{normal_class}-{number}").absolute(),
        )
        for normal_class in classes
        for number in range(settings.seeds)
        for kind in kinds
    ]


def run_tasks(
    tasks: Sequence[DetectorTask], data: DetectorData, launcher: Launcher, on_done: Callable[[int], None]
) -> list[tuple[Scores, Scores]]:
    """(normal, judged) scores of every task; finished ones are read.  Raises ValueError naming what failed.

    on_done(count) hears of every finished task.
    """
    waiting = [task for task in tasks if not _is_done(task)]
    on_done(len(tasks) - len(waiting))

    def keep(task: DetectorTask, fitted: FittedDetector) -> None:
        _save(task, fitted)
        on_done(sum(map(_is_done, tasks)))

    if waiting:
        results = launcher.map_trials(fit_detector, waiting, data, on_result=keep)
        failures = [result for result in results if isinstance(result, Failure)]
        raise_failures(failures, len(tasks), "Mend it in section anomaly, vae or gan of params.yaml and run again.")
    return [_load(task) for task in tasks]


def judge_tasks(tasks: Sequence[DetectorTask], results: Sequence[tuple[Scores, Scores]], labels: Labels) -> list[Found]:
    """labels: (M,) of the judged images; every class but the normal one is an anomaly."""
    together: dict[tuple[int, int], tuple[Scores, Scores]] = {}
    for task, parts in zip(tasks, results, strict=True):
        kept = together.setdefault((task.normal_class, task.number), ({}, {}))
        for whole, part in zip(kept, parts, strict=True):
            whole.update(part)
    rate, found = tasks[0].settings.false_positive_rate, []
    for (normal_class, number), scores in together.items():
        normal, judged = with_ensemble(*scores, ENSEMBLE)
        for name in (name for name in (*TRAINED, *SIMPLE) if name in normal):
            detection = judge_scores(judged[name], labels != normal_class, threshold_of(normal[name], rate))
            found.append(Found(normal_class, number, name, detection))
    return found


def with_ensemble(normal: Scores, judged: Scores, members: Sequence[str]) -> tuple[Scores, Scores]:
    """Both with the score `ensemble` added where all its members are there; the normal rows alone scale it."""
    if not set(members) <= set(normal):
        return normal, judged
    held_out = [normal[name] for name in members]
    first, second = (
        {**scores, "ensemble": combine_scores(held_out, [scores[name] for name in members])}
        for scores in (normal, judged)
    )
    return first, second


def threshold_of(normal_N: npt.NDArray[Any], rate: float) -> float | None:
    """None where there are too few normal rows for the rate."""
    return None if len(normal_N) < rows_needed(rate) else normal_threshold(normal_N, rate)


def publish_model(task: DetectorTask, folder: Path) -> None:
    """Copies the detector's <kind>.safetensors, which knows the thresholds of its scores."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in (".safetensors", ".json"):
        shutil.copy((task.work / task.kind).with_suffix(suffix), folder)


def _is_done(task: DetectorTask) -> bool:
    return (task.work / NAMES).is_file()


def _save(task: DetectorTask, fitted: FittedDetector) -> None:
    """The names of the scores come last: with them the task is finished."""
    if fitted.model is not None:
        rate, (state, model) = task.settings.false_positive_rate, fitted.model
        config = {
            "kind": task.kind,
            "normal": task.class_name,
            "false_positive_rate": rate,
            "thresholds": {name: threshold_of(scores, rate) for name, scores in fitted.normal.items()},
            "model": model,
        }
        weights = {name: torch.from_numpy(array) for name, array in state.items()}
        save_weights(task.work / f"{task.kind}.safetensors", weights, kind=KIND, config=config)
    for part, scores in (("normal", fitted.normal), ("judged", fitted.judged)):
        write_array(task.work / f"{part}.npy", np.stack([scores[name] for name in fitted.normal]))
    write_json(task.work / NAMES, list(fitted.normal))


def _load(task: DetectorTask) -> tuple[Scores, Scores]:
    names = read_json(task.work / NAMES)
    normal, judged = (
        dict(zip(names, np.array(read_array(task.work / f"{part}.npy")), strict=True)) for part in ("normal", "judged")
    )
    return normal, judged
