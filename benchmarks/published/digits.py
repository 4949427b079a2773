"""Full MNIST as the published rows need it, and how much of their training `--quick` leaves."""

from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from pipeline.config.data import Data
from pipeline.config.load import load_params
from pipeline.config.pretrain import DenseLayer
from pipeline.data.sources import load_source
from pipeline.data.watcher import Silent
from pipeline.metrics.annealing import Annealing
from pipeline.metrics.likelihood import MIN_ESS
from pipeline.models.dbn import DBN
from pipeline.models.sampling import sample_bernoulli
from pipeline.paths import WORK
from pipeline.seeding import make_generator, make_numpy_rng
from pipeline.training.greedy import LayerData, LayerTask, fit_layer
from pipeline.training.stored import DBN_FILE, load_dbn, save_dbn
from pipeline.training.stream import as_tensor

SEED = 0
HELD_OUT = 5_000
BATCH = 100
QUICK_STEPS = 200


@dataclass(frozen=True)
class Digits:
    """MNIST: uint8 images (N, 1, 28, 28) and labels (N,)."""

    data: LayerData
    labels: npt.NDArray[np.int64]
    validation_labels: npt.NDArray[np.int64]
    test_images: npt.NDArray[np.uint8]
    test_labels: npt.NDArray[np.int64]

    @property
    def binary_test_images(self) -> Tensor:
        return sample_bernoulli(as_floats(self.test_images), make_generator(SEED, "binary test images"))


@dataclass(frozen=True)
class Effort:
    """How much of it: `--quick` cuts training and annealing short, and what it prints has no bar and is no result."""

    quick: bool
    accelerator: str

    def steps(self, epochs: int, images: int, batch_size: int = BATCH) -> int:
        return QUICK_STEPS if self.quick else epochs * (images // batch_size)

    def annealing(self, num_temperatures: int, num_chains: int = 500) -> Annealing:
        if self.quick:
            return Annealing(num_chains=100, num_temperatures=300)
        return Annealing(num_chains=num_chains, num_temperatures=num_temperatures)

    @property
    def min_ess(self) -> float:
        return 0.0 if self.quick else MIN_ESS

    def bar(self, value: float) -> float | None:
        return None if self.quick else value


def load_digits(source: str = "mnist") -> Digits:
    """source: another set with MNIST's shapes, such as fashion_mnist."""
    section = load_params(Path("params.yaml"), [f"data.source={source}"]).section(Data)
    raw = load_source(section, Silent())
    assert raw.test_images is not None
    assert raw.test_labels is not None
    order = make_numpy_rng(SEED, "held out").permutation(len(raw.images))
    learned, held_out = order[HELD_OUT:], order[:HELD_OUT]
    data = LayerData(raw.images[learned], raw.images[held_out])
    return Digits(data, raw.labels[learned], raw.labels[held_out], raw.test_images, raw.test_labels)


def as_floats(images: npt.NDArray[np.uint8]) -> Tensor:
    """(N, C, H, W) in [0, 1]."""
    return as_tensor(images).float().div_(255)


def dense_layer(**changes: Any) -> DenseLayer:
    """The dense layer of params.yaml with these changes."""
    layer = load_params(Path("params.yaml")).layers["dense"]
    assert isinstance(layer, DenseLayer)
    plain = {"below": "prepare", "batch_size": BATCH, "momentum": 0.0, "weight_decay": 0.0, "sparsity_cost": 0.0}
    return replace(layer, **{**plain, **changes})


def kept(name: str, *settings: object) -> Path:
    """Where a long training keeps what it has: delete the folder to begin again, as after a change of its code."""
    return WORK / "published_rbm" / f"{name}-{sha256(repr(settings).encode()).hexdigest()[:12]}"


def train(
    digits: Digits,
    effort: Effort,
    layer: DenseLayer,
    *,
    sampled: bool,
    below: DBN | None = None,
    name: str | None = None,
) -> DBN:
    """One more layer on top of `below`, on the images themselves without it.

    name: a killed training goes on, and a finished one is not repeated.
    """
    below = below or DBN([], (1, 28, 28))
    folder = None if name is None or effort.quick else kept(name, [*below.configs, layer], sampled)
    if folder is not None and (folder / DBN_FILE).is_file():
        return load_dbn(folder)
    task = LayerTask(
        name="published_rbm",
        below=below,
        layer=layer,
        seed=SEED,
        accelerator=effort.accelerator,
        precision="32",
        checkpoint=None if folder is None else folder / "fit.ckpt",
        sampled=sampled,
    )
    dbn = fit_layer(task, digits.data, lambda *_: None)[0]
    if folder is not None:
        save_dbn(folder, dbn)
    return dbn
