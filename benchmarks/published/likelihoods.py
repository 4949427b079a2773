"""Log-likelihoods of an RBM and of a DBN on binary MNIST, with log Z from annealed importance sampling.

Of one binary draw of the test images; a number whose log Z rests on fewer than 50 effective chains stops the program.
"""

import sys
import time
from dataclasses import replace

import torch

from benchmarks.published.digits import SEED, Digits, Effort, as_floats, dense_layer, train
from benchmarks.record import Row
from pipeline.config.pretrain import DenseLayer
from pipeline.device import resolve_device
from pipeline.metrics.annealing import Annealing, BaseRates, LogPartition, estimate_log_partition
from pipeline.metrics.likelihood import bound_log_likelihood, compute_log_likelihood
from pipeline.models.dbn import DBN
from pipeline.models.rbm import RBM
from pipeline.seeding import derive_seed

RBM_TIME_BAR_S = 180.0


def top_partition(digits: Digits, dbn: DBN, annealing: Annealing) -> LogPartition:
    """log Z of the top layer; its base rates are the mean of what it was trained on."""
    top = dbn.rbms()[-1]
    assert isinstance(top, RBM)
    device = resolve_device("auto")
    dbn.to(device)
    with torch.no_grad():
        inputs = dbn.mean_field(as_floats(digits.data.images).to(device), len(dbn.layers) - 1)
    partition = estimate_log_partition(top, BaseRates.of(top, inputs), annealing, seed=derive_seed(SEED, "log Z"))
    print(
        f"log Z = {partition.log_z:.2f} [{partition.low:.2f}, {partition.high:.2f}] from {partition.ess:.0f} effective "
        f"chains of {partition.num_chains} at {partition.num_temperatures} temperatures",
        file=sys.stderr,
        flush=True,
    )
    return partition


def likelihood_row(
    name: str,
    digits: Digits,
    effort: Effort,
    dbn: DBN,
    annealing: Annealing,
    *,
    bar: float,
    baseline: float,
    goal: float | None = None,
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
        goal=None if goal is None else effort.bar(goal),
        better="higher",
    )


def measure_rbm(digits: Digits, effort: Effort) -> list[Row]:
    """784-500 by PCD-1, 20 epochs: score and time, from images in memory to the score."""
    began = time.perf_counter()
    steps = effort.steps(20, len(digits.data.images))
    layer = dense_layer(num_hidden=500, steps=steps, lr=0.1, gibbs_steps=1, persistent=True)
    dbn = train(digits, effort, layer, sampled=True)
    name, annealing = "RBM 784-500, PCD, test log p(v)", effort.annealing(6_000)
    row = likelihood_row(name, digits, effort, dbn, annealing, bar=-93.0, baseline=-91.0)
    seconds = time.perf_counter() - began
    return [row, Row(name="its training and scoring", value=seconds, unit="s", bar=effort.bar(RBM_TIME_BAR_S))]


def best_layer(digits: Digits, effort: Effort) -> DenseLayer:
    steps = effort.steps(200, len(digits.data.images))
    return dense_layer(num_hidden=500, steps=steps, lr=0.05, gibbs_steps=5, persistent=True, centred=True)


def train_best_rbm(digits: Digits, effort: Effort) -> DBN:
    return train(digits, effort, best_layer(digits, effort), sampled=True, name="rbm_best")


def measure_best_rbm(digits: Digits, effort: Effort) -> list[Row]:
    """784-500 by centred PCD-5, 200 epochs: 40 minutes of one core, and the annealing."""
    dbn = train_best_rbm(digits, effort)
    annealing = effort.annealing(20_000)
    name = "RBM 784-500, best, test log p(v)"
    return [likelihood_row(name, digits, effort, dbn, annealing, bar=-85.5, baseline=-86.34, goal=-84.5)]


def measure_dbn(digits: Digits, effort: Effort) -> list[Row]:
    """784-500-2000: another layer by PCD on draws from the best RBM's, then the variational bound."""
    steps = effort.steps(100, len(digits.data.images))
    second = replace(best_layer(digits, effort), num_hidden=2000, below="pretrain/dense", steps=steps)
    dbn = train(digits, effort, second, sampled=True, below=train_best_rbm(digits, effort), name="dbn")
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
        goal=effort.bar(-84.0),
        better="higher",
    )
    return [row]
