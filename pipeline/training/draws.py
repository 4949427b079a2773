"""One generator for every label draw, each on the labels that the draw's smallest budget allows."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from pipeline.artifacts import read_json, write_json
from pipeline.config.generators import Gan, Vae
from pipeline.data.prepared import Prepared
from pipeline.data.pseudo_labels import spread_labels
from pipeline.launch.launcher import Failure, Launcher, raise_failures
from pipeline.models.losses import UNLABELLED
from pipeline.seeding import derive_seed
from pipeline.training.generators import FittedGenerator, GeneratorData, GeneratorTask, fit_generator
from pipeline.training.plan import PrivateSteps
from pipeline.weights import load_weights, save_weights

MIN_CONFIDENCE = 0.5
"""Spread labels below this share of the vote count as unknown: a wrong label teaches a wrong class."""


def generator_labels(prepared: Prepared, *, seed: int) -> npt.NDArray[np.int64]:
    """(draws, N) labels for the train pool, spread from each draw's smallest subset; -1 where that is too unsure.

    No label outside the subset is looked at, so every arm of the draw may use what a generator learns from them.
    """
    return np.stack([draw_labels(prepared, draw, seed=seed) for draw in range(len(prepared.subsets))])


def draw_labels(prepared: Prepared, draw: int, *, seed: int) -> npt.NDArray[np.int64]:
    """(N,): one row of `generator_labels`."""
    labelled = prepared.subset(draw, prepared.label_budgets[0])
    spread = spread_labels(
        np.asarray(prepared.train.images), prepared.train.labels, labelled, seed=derive_seed(seed, "spread", draw)
    )
    return np.where(spread.confidence >= MIN_CONFIDENCE, spread.labels, UNLABELLED)


def known_labels(prepared: Prepared) -> npt.NDArray[np.int64]:
    """(draws, N): the labels of each draw's smallest subset, -1 elsewhere. For private training: a label that is spread
    depends on other people's images.
    """
    labels = np.full((len(prepared.subsets), len(prepared.train.labels)), UNLABELLED, dtype=np.int64)
    for draw in range(len(labels)):
        subset = prepared.subset(draw, prepared.label_budgets[0])
        labels[draw, subset] = prepared.train.labels[subset]
    return labels


def fit_draws(
    config: Vae | Gan,
    prepared: Prepared,
    labels: npt.NDArray[np.int64],
    launcher: Launcher,
    *,
    seed: int,
    accelerator: str,
    precision: str,
    work: Path,
    on_fitted: Callable[[int], None],
    private: PrivateSteps | None = None,
) -> list[FittedGenerator]:
    """Fits one generator a draw, skipping those that `work` holds; on_fitted(draws done) hears of each.

    labels: what `generator_labels` gives.  private: of every draw, whose secrets are derived from the one given.
    Raises ValueError naming every draw that failed.
    """
    data = GeneratorData(
        np.array(prepared.train.images),
        labels,
        np.array(prepared.validation.images),
        np.array(prepared.validation.labels),
        prepared.num_classes,
    )
    tasks = [
        GeneratorTask(
            config=config,
            draw=draw,
            seed=seed,
            precision=precision,
            accelerator=accelerator,
            checkpoint=(work / f"draw-{draw}.ckpt").absolute(),
            private=None if private is None else private.with_secret_of("draw", draw),
            looks=True,
        )
        for draw in range(len(prepared.subsets))
    ]
    finished = {task.draw: _load(work, task) for task in tasks if _piece(work, task).with_suffix(".json").is_file()}
    on_fitted(len(finished))

    def keep(task: GeneratorTask, fitted: FittedGenerator) -> None:
        _save(work, task, fitted)
        finished[task.draw] = fitted
        on_fitted(len(finished))

    results = launcher.map_trials(
        fit_generator, [task for task in tasks if task.draw not in finished], data, on_result=keep
    )
    failures = [result for result in results if isinstance(result, Failure)]
    raise_failures(failures, len(tasks), f"Mend it in section {tasks[0].kind} of params.yaml and run again.")
    return [finished[task.draw] for task in tasks]


def _piece(work: Path, task: GeneratorTask) -> Path:
    return work / f"draw-{task.draw}.safetensors"


def _save(work: Path, task: GeneratorTask, fitted: FittedGenerator) -> None:
    write_json(work / f"draw-{task.draw}.history.json", fitted.history)
    state = {name: torch.from_numpy(array) for name, array in fitted.state.items()}
    save_weights(_piece(work, task), state, kind=task.kind, config=fitted.config)


def _load(work: Path, task: GeneratorTask) -> FittedGenerator:
    state, config = load_weights(_piece(work, task), kind=task.kind)
    history = read_json(work / f"draw-{task.draw}.history.json")
    return FittedGenerator({name: tensor.numpy() for name, tensor in state.items()}, config, history)
