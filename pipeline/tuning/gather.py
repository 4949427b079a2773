"""Collects what trials read from the outs of earlier stages."""

from collections.abc import Collection, Sequence

import numpy as np

from pipeline import paths
from pipeline.artifacts import read_array
from pipeline.data.prepared import Prepared
from pipeline.training.stored import DBN_FILE
from pipeline.tuning.arms import recipe
from pipeline.tuning.trial import Array, TrialData
from pipeline.weights import load_weights


def gather_trial_data(
    prepared: Prepared,
    top_layer: str,
    arms: Collection[str],
    *,
    seeds: Sequence[int],
    budgets: Sequence[int],
) -> TrialData:
    """The data for trials of `arms` at `budgets`, one draw of labels and of synthetic images per seed.

    top_layer: the last of pretrain.layers, whose folder holds the whole stack.
    Raises ValueError when a budget, a draw or a file is missing, or the DBN was trained on images of another shape.
    """
    dbn_file = paths.pretrained(top_layer) / DBN_FILE
    state, config = load_weights(dbn_file, kind="dbn")
    if tuple(config["image_shape"]) != prepared.image_shape:
        raise ValueError(
            f"{dbn_file} was trained on images {tuple(config['image_shape'])}, {prepared.folder} holds "
            f"{prepared.image_shape}: run `dvc repro`, which trains it again"
        )
    generators = {name for arm in arms if (name := recipe(arm).generator) is not None}
    return TrialData(
        images=np.asarray(prepared.train.images),
        labels=np.asarray(prepared.train.labels),
        validation_images=np.asarray(prepared.validation.images),
        validation_labels=np.asarray(prepared.validation.labels),
        num_classes=prepared.num_classes,
        dbn_config=config,
        dbn_state={name: tensor.numpy() for name, tensor in state.items()},
        subsets={(seed, budget): prepared.subset(seed, budget) for seed in seeds for budget in budgets},
        synthetic={(name, seed): _synthetic(name, seed) for name in sorted(generators) for seed in seeds},
    )


def _synthetic(name: str, seed: int) -> tuple[Array, Array]:
    folder = paths.synthetic(name)
    files = folder / f"images-{seed}.npy", folder / f"labels-{seed}.npy"
    for file in files:
        if not file.is_file():
            raise ValueError(f"{file} does not exist: run `dvc repro augment@{name}` or `dvc pull`")
    images, labels = (np.asarray(read_array(file)) for file in files)
    return images, labels
