"""Published numbers for RBMs and DBNs on full MNIST, reached with the pipeline's own training.

`python -m benchmarks.published_rbm [--quick] [--rows rbm dbn ...]`; the files are looked for in the folder named by
LAYERWISE_DATA_MIRROR before anything is downloaded. Test images are only scored: whatever was chosen was chosen on
5,000 of the training images, which no model here learns from. Log-likelihoods are those of one binary draw of the test
images, with log Z from annealed importance sampling; a number whose log Z rests on fewer than 50 effective chains stops
the program.

rows: rbm (784-500, PCD, 20 epochs; about -91 is right), rbm_best (long PCD-5; Salakhutdinov & Murray 2008 have -86.34
from CD-25), dbn (500-2000, the variational bound; -84.55 there), features (logistic regression on 500 hidden units).
"""

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from benchmarks.record import Row, record
from pipeline.config.data import Data
from pipeline.config.load import load_params
from pipeline.config.pretrain import DenseLayer
from pipeline.data.sources import load_source
from pipeline.data.watcher import Silent
from pipeline.device import resolve_accelerator, resolve_device, set_threads
from pipeline.metrics.annealing import Annealing, LogPartition, base_rate_biases, estimate_log_partition
from pipeline.metrics.likelihood import MIN_ESS, bound_log_likelihood, compute_log_likelihood
from pipeline.metrics.score import score_rate
from pipeline.models.dbn import DBN
from pipeline.models.rbm import RBM
from pipeline.models.sampling import sample_bernoulli
from pipeline.seeding import derive_seed, make_generator, make_numpy_rng
from pipeline.training.greedy import LayerData, LayerTask, fit_layer
from pipeline.training.stream import as_tensor

SEED = 0
HELD_OUT = 5_000
BATCH = 100
THREADS = 2
QUICK_STEPS = 200
RBM_TIME_BAR_S = 180.0
INVERSE_PENALTIES = (0.1, 1.0, 10.0)
"""C of the logistic regression, chosen on the held-out images."""


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

    def steps(self, epochs: int, images: int) -> int:
        return QUICK_STEPS if self.quick else epochs * (images // BATCH)

    def annealing(self, num_temperatures: int, num_chains: int = 500) -> Annealing:
        if self.quick:
            return Annealing(num_chains=100, num_temperatures=300)
        return Annealing(num_chains=num_chains, num_temperatures=num_temperatures)

    @property
    def min_ess(self) -> float:
        return 0.0 if self.quick else MIN_ESS

    def bar(self, value: float) -> float | None:
        return None if self.quick else value


def load_digits() -> Digits:
    section = load_params(Path("params.yaml"), ["data.source=mnist"]).section(Data)
    raw = load_source(section, Silent())
    assert raw.test_images is not None
    assert raw.test_labels is not None
    order = make_numpy_rng(SEED, "held out").permutation(len(raw.images))
    kept, held_out = order[HELD_OUT:], order[:HELD_OUT]
    data = LayerData(raw.images[kept], raw.images[held_out])
    return Digits(data, raw.labels[kept], raw.labels[held_out], raw.test_images, raw.test_labels)


def as_floats(images: npt.NDArray[np.uint8]) -> Tensor:
    """(N, C, H, W) in [0, 1]."""
    return as_tensor(images).float().div_(255)


def dense_layer(**changes: Any) -> DenseLayer:
    """The dense layer of params.yaml with these changes."""
    layer = load_params(Path("params.yaml")).layers["dense"]
    assert isinstance(layer, DenseLayer)
    plain = {"below": "prepare", "batch_size": BATCH, "momentum": 0.0, "weight_decay": 0.0, "sparsity_cost": 0.0}
    return replace(layer, **{**plain, **changes})


def train(digits: Digits, effort: Effort, layer: DenseLayer, *, sampled: bool, below: DBN | None = None) -> DBN:
    """One more layer on top of `below`, on the images themselves without it."""
    task = LayerTask(
        name="published_rbm",
        below=below or DBN([], (1, 28, 28)),
        layer=layer,
        seed=SEED,
        accelerator=effort.accelerator,
        precision="32",
        checkpoint=None,
        sampled=sampled,
    )
    return fit_layer(task, digits.data, lambda *_: None)[0]


def top_partition(digits: Digits, dbn: DBN, annealing: Annealing) -> LogPartition:
    """log Z of the top layer; its base rates are the mean of what it was trained on."""
    top = dbn.rbms()[-1]
    assert isinstance(top, RBM)
    device = resolve_device("auto")
    dbn.to(device)
    with torch.no_grad():
        inputs = dbn.mean_field(as_floats(digits.data.images).to(device), len(dbn.layers) - 1)
    partition = estimate_log_partition(top, base_rate_biases(inputs), annealing, seed=derive_seed(SEED, "log Z"))
    print(
        f"log Z = {partition.log_z:.2f} [{partition.low:.2f}, {partition.high:.2f}] from {partition.ess:.0f} effective "
        f"chains of {partition.num_chains} at {partition.num_temperatures} temperatures",
        file=sys.stderr,
        flush=True,
    )
    return partition


def likelihood_row(
    name: str, digits: Digits, effort: Effort, dbn: DBN, annealing: Annealing, bar: float, baseline: float
) -> Row:
    """Mean log p(v) of the test images under the one layer of `dbn`."""
    rbm = dbn.rbms()[0]
    assert isinstance(rbm, RBM)
    partition = top_partition(digits, dbn, annealing)
    score = compute_log_likelihood(rbm, digits.binary_test_images, partition, min_ess=effort.min_ess)
    return Row(
        name=name,
        value=score.value,
        unit="nats",
        low=score.low,
        high=score.high,
        seeds=1,
        baseline=baseline,
        bar=effort.bar(bar),
        better="higher",
    )


def measure_rbm(digits: Digits, effort: Effort) -> list[Row]:
    """784-500 by PCD-1, 20 epochs: score and time, from images in memory to the score."""
    began = time.perf_counter()
    steps = effort.steps(20, len(digits.data.images))
    layer = dense_layer(num_hidden=500, steps=steps, lr=0.1, gibbs_steps=1, persistent=True)
    dbn = train(digits, effort, layer, sampled=True)
    row = likelihood_row("RBM 784-500, PCD, test log p(v)", digits, effort, dbn, effort.annealing(6_000), -93.0, -91.0)
    seconds = time.perf_counter() - began
    return [row, Row(name="its training and scoring", value=seconds, unit="s", bar=effort.bar(RBM_TIME_BAR_S))]


def measure_best_rbm(digits: Digits, effort: Effort) -> list[Row]:
    """784-500 by PCD-5, 200 epochs: some hours on two cores."""
    steps = effort.steps(200, len(digits.data.images))
    layer = dense_layer(num_hidden=500, steps=steps, lr=0.05, gibbs_steps=5, persistent=True)
    dbn = train(digits, effort, layer, sampled=True)
    annealing = effort.annealing(20_000)
    return [likelihood_row("RBM 784-500, best, test log p(v)", digits, effort, dbn, annealing, -85.5, -86.34)]


def measure_dbn(digits: Digits, effort: Effort) -> list[Row]:
    """784-500-2000: each layer by PCD on draws from below, then the variational bound."""
    count = len(digits.data.images)
    first = dense_layer(num_hidden=500, steps=effort.steps(100, count), lr=0.05, gibbs_steps=5, persistent=True)
    second = replace(first, num_hidden=2000, below="pretrain/dense", steps=effort.steps(100, count))
    dbn = train(digits, effort, first, sampled=True)
    dbn = train(digits, effort, second, sampled=True, below=dbn)
    partition = top_partition(digits, dbn, effort.annealing(20_000))
    bound = bound_log_likelihood(
        dbn,
        digits.binary_test_images,
        partition,
        num_samples=2 if effort.quick else 20,
        seed=derive_seed(SEED, "bound"),
        min_ess=effort.min_ess,
    )
    row = Row(
        name="DBN 784-500-2000, test bound",
        value=bound.value,
        unit="nats",
        low=bound.low,
        high=bound.high,
        seeds=1,
        baseline=-84.55,
        bar=effort.bar(-85.0),
        better="higher",
    )
    return [row]


def measure_features(digits: Digits, effort: Effort) -> list[Row]:
    """Test error of a logistic regression on P(h = 1 | image), and on the pixels."""
    steps = effort.steps(20, len(digits.data.images))
    layer = dense_layer(num_hidden=500, steps=steps, lr=0.1, gibbs_steps=1, persistent=True)
    dbn = train(digits, effort, layer, sampled=False)
    rows = []
    for name, depth, baseline, bar in (("500 RBM features", 1, 2.33, 2.3), ("raw pixels", 0, 8.0, None)):
        wrong = linear_errors(digits, dbn, depth, effort)
        rate = score_rate(wrong)
        rows.append(
            Row(
                name=f"test error, {name}",
                value=100 * rate.value,
                unit="%",
                low=100 * rate.low,
                high=100 * rate.high,
                seeds=1,
                baseline=baseline,
                bar=None if bar is None else effort.bar(bar),
            )
        )
    return rows


@torch.no_grad()
def linear_errors(digits: Digits, dbn: DBN, depth: int, effort: Effort) -> npt.NDArray[np.bool_]:
    """(N,) True where a logistic regression on layer `depth` is wrong about a test image."""
    sets = (digits.data.images, digits.data.validation, digits.test_images)
    x, x_validation, x_test = (dbn.mean_field(as_floats(images), depth).flatten(1).numpy() for images in sets)
    best, best_accuracy = None, -1.0
    for inverse_penalty in INVERSE_PENALTIES[:1] if effort.quick else INVERSE_PENALTIES:
        model = LogisticRegression(C=inverse_penalty, tol=1e-3, max_iter=20 if effort.quick else 300)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # stopping early is one more penalty
            model.fit(x, digits.labels)
        accuracy = float(model.score(x_validation, digits.validation_labels))
        print(f"C = {inverse_penalty:g}: {100 - 100 * accuracy:.2f} % of the held-out images wrong", file=sys.stderr)
        if accuracy > best_accuracy:
            best, best_accuracy = model, accuracy
    assert best is not None
    return np.asarray(best.predict(x_test) != digits.test_labels)


ROWS: dict[str, Callable[[Digits, Effort], list[Row]]] = {
    "rbm": measure_rbm,
    "rbm_best": measure_best_rbm,
    "dbn": measure_dbn,
    "features": measure_features,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short training and annealing, without bars")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=["rbm", "features"])
    parser.add_argument("--threads", type=int, default=THREADS)
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    effort, digits = Effort(arguments.quick, resolve_accelerator("auto")), load_digits()
    return record("published_rbm", [row for name in arguments.rows for row in ROWS[name](digits, effort)])


if __name__ == "__main__":
    sys.exit(main())
