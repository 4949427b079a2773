"""A small study's data: two classes of images, a pretrained DBN, two draws of labels and of synthetic images."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.config.pretrain import ConvLayer, DenseLayer, Layer
from pipeline.models.dbn import DBN
from pipeline.tuning.trial import TrialData, TrialResult, TrialSpec

NUM_CLASSES = 3
COMMON: dict[str, Any] = {
    "visible": "bernoulli",
    "steps": 1,
    "batch_size": 4,
    "lr": 0.1,
    "schedule": "linear_tail",
    "momentum": 0.0,
    "weight_decay": 0.0,
    "gibbs_steps": 1,
    "sparsity_target": 0.1,
    "sparsity_cost": 0.0,
}
LAYERS: list[Layer] = [
    ConvLayer(kind="conv", below="prepare", num_filters=4, kernel_size=3, pool_size=2, persistent=False, **COMMON),
    DenseLayer(
        kind="dense",
        below="pretrain/conv1",
        num_hidden=8,
        persistent=False,
        num_temperatures=1,
        centred=False,
        hidden="bernoulli",
        **COMMON,
    ),
]


def make_images(labels: np.ndarray, seed: int) -> np.ndarray:
    """(N, 1, 12, 12) uint8: a bright bar whose place is the class, over noise."""
    images = np.random.default_rng(seed).integers(0, 90, (len(labels), 1, 12, 12))
    for image, label in zip(images, labels, strict=True):
        image[0, :, 4 * label : 4 * label + 4] += 120
    return images.astype(np.uint8)


def make_dbn() -> DBN:
    dbn = DBN(LAYERS, (1, 12, 12))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in dbn.parameters():
            parameter.normal_(0, 0.2, generator=generator)
    return dbn.eval()


def make_data(**changes: Any) -> TrialData:
    """60 training images, the last 6 without a label; budgets 6 and 12 of draws 0 and 1."""
    labels = np.arange(60) % NUM_CLASSES
    validation = np.arange(30) % NUM_CLASSES
    dbn = make_dbn()
    values: dict[str, Any] = {
        "images": make_images(labels, 0),
        "labels": np.where(np.arange(60) < 54, labels, -1),
        "validation_images": make_images(validation, 1),
        "validation_labels": validation,
        "num_classes": NUM_CLASSES,
        "dbn_config": dbn.to_config(),
        "dbn_state": {name: tensor.numpy() for name, tensor in dbn.state_dict().items()},
        "subsets": {(draw, budget): np.arange(12 * draw, 12 * draw + budget) for draw in (0, 1) for budget in (6, 12)},
        "synthetic": {
            (name, draw): (make_images(validation, 10 * number + draw), validation)
            for number, name in enumerate(("vae", "gan"), start=2)
            for draw in (0, 1)
        },
    }
    return TrialData(**(values | changes))


def make_spec(**changes: Any) -> TrialSpec:
    values: dict[str, Any] = {
        "purpose": "study",
        "arm": "scratch",
        "budget": 6,
        "seed": 0,
        "root_seed": 3,
        "steps": 6,
        "batch_size": 8,
        "synthetic_share": 0.25,
        "lr": 0.01,
        "weight_decay": 0.01,
        "dropout": 0.5,
    }
    return TrialSpec(**(values | changes))


def read_all(folder: Path) -> dict[str, bytes]:
    """The bytes of every file below a folder, by relative path."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def same_results(left: TrialResult, right: TrialResult) -> bool:
    arrays = all(np.array_equal(left.state[name], right.state[name]) for name in left.state)
    return arrays and (left.metrics, left.history, left.config) == (right.metrics, right.history, right.config)
