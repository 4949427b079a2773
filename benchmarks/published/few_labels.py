"""MNIST with 100 or 1,000 labels and all 60,000 images: a CDBN, a graph on its features, a CNN that starts from it.

The labels of a draw spread over a graph of neighbours among the training images, and a CNN learns from the surest of
them. Ten draws, numbered 0 to 9 in advance. No label outside the draw is used and nothing is validated: the constants
below come from looks at training labels of three draws under another seed, never at test images.
"""

# N images of the pool, T test images, S draws, K classes

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.published.digits import SEED, Digits, Effort, as_floats
from benchmarks.published.label_pool import Pool, load_pool
from benchmarks.record import Row
from pipeline.artifacts import read_array, write_array
from pipeline.data.arrays import Indices, Labels
from pipeline.data.label_graph import Floats, choose_confident, one_hot, spread_shares
from pipeline.data.splits import label_subsets
from pipeline.data.transforms import affine_elastic
from pipeline.metrics.statistics import compare_paired
from pipeline.models.cnn import ConvNet
from pipeline.paths import WORK
from pipeline.seeding import derive_seed, make_generator, make_numpy_rng
from pipeline.training.fit import fit
from pipeline.training.plan import FitPlan
from pipeline.training.stream import BatchStream, as_tensor

NAMES = tuple("0123456789")
BUDGETS = (100, 1000)
DRAWS = 10
RESULTS = WORK / "few_labels"
STEPS, PLAIN_STEPS, BATCH = 500, 200, 64
"""Updates with and without augmentation: images that never change are learnt sooner."""
LR, WEIGHT_DECAY, DROPOUT = 0.01, 1e-4, 0.1
ALPHA = 0.99
KEPT_SHARE = 0.95
"""Part of each class's spread labels that the network learns from."""
MEASURED_IMAGES = 512
LEAST_SHARE = 0.01
"""Of a class among a test image's neighbours: none is ruled out by them alone."""
QUICK_UPDATES = 20
RESAMPLES = 10_000

Correct = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """How a network learns. All arms of a row have one network, schedule and augmentation."""

    budget: int
    """Labels of the draw, one of BUDGETS."""
    augmented: bool
    """Images go through random affine maps and elastic distortion."""
    pretrained: bool
    """The network starts from the CDBN; otherwise from random filters."""
    graph: str | None
    """What labels spread over: features of the `cdbn` or of an `untrained` one, `pixels`; None for no spreading."""
    voting: bool = False
    """The test image's neighbours in the pool vote beside the network, with the labels that spread to them."""

    def __str__(self) -> str:
        start = "cdbn" if self.pretrained else "random"
        kind = f"{self.budget}-{'augmented' if self.augmented else 'plain'}-{start}-{self.graph or 'labels'}"
        return f"{kind}-voting" if self.voting else kind


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One line of the table: what the arms have in common, and what their best is held against."""

    budget: int
    augmented: bool
    baseline: float
    bar: float
    goal: float
    gain_bar: float | None = None
    """Least gain over the same network from scratch, in points."""
    voting: bool = False

    def __str__(self) -> str:
        return f"{self.budget} labels{', augmented' if self.augmented else ''}"

    def arm(self, *, pretrained: bool, graph: str | None, voting: bool = False) -> Arm:
        return Arm(budget=self.budget, augmented=self.augmented, pretrained=pretrained, graph=graph, voting=voting)


def measure_100(digits: Digits, effort: Effort) -> list[Row]:
    """Test error with 100 labels as they are; the anchor is a network from scratch, 14.9 +- 1.8."""
    return _measure(
        Setting(budget=100, augmented=False, baseline=14.9, bar=8.0, goal=2.5, gain_bar=4.0), digits, effort
    )


def measure_100_augmented(digits: Digits, effort: Effort) -> list[Row]:
    """Test error with 100 labels and augmentation; the anchor is an augmented network from scratch, 3.98 +- 0.26."""
    return _measure(Setting(budget=100, augmented=True, baseline=3.98, bar=3.0, goal=1.0), digits, effort)


def measure_1000(digits: Digits, effort: Effort) -> list[Row]:
    """Test error with 1,000 labels and augmentation; the anchor is an augmented network from scratch, 1.90."""
    setting = Setting(budget=1000, augmented=True, baseline=1.90, bar=1.7, goal=0.9, voting=True)
    return _measure(setting, digits, effort)


def _measure(setting: Setting, digits: Digits, effort: Effort) -> list[Row]:
    """Errors of the setting's arm and of those that lack a part of it, and its gains over them."""
    draws = range(2 if effort.quick else DRAWS)
    pool = load_pool(digits, effort)
    arms = {
        "scratch": setting.arm(pretrained=False, graph=None),
        "scratch + pixel graph": setting.arm(pretrained=False, graph="pixels"),
        "scratch + untrained graph": setting.arm(pretrained=False, graph="untrained"),
    }
    if setting.voting:
        arms["CDBN -> CNN, no votes"] = setting.arm(pretrained=True, graph="cdbn")
    best = run_draws(setting.arm(pretrained=True, graph="cdbn", voting=setting.voting), draws, pool, digits, effort)
    rows = [_error_row("CDBN -> CNN", setting, best, effort)]
    for name, arm in arms.items():
        other = run_draws(arm, draws, pool, digits, effort)
        rows += [_error_row(name, setting, other), _gain_row(name, setting, best, other, effort)]
    return rows


def _error_row(name: str, setting: Setting, correct_ST: Correct, effort: Effort | None = None) -> Row:
    """Mean error over draws; low and high are one standard deviation of the draws away. effort: of what has a bar."""
    errors_S = 100 - 100 * correct_ST.mean(axis=1)
    mean, deviation = float(errors_S.mean()), float(errors_S.std(ddof=1))
    return Row(
        name=f"{name}, {setting}",
        value=mean,
        unit="%",
        low=mean - deviation,
        high=mean + deviation,
        seeds=len(errors_S),
        baseline=setting.baseline if effort else None,
        bar=effort.bar(setting.bar) if effort else None,
        goal=setting.goal if effort else None,
    )


def _gain_row(name: str, setting: Setting, best_ST: Correct, other_ST: Correct, effort: Effort) -> Row:
    """What the setting's arm gains, paired by draw and test image, with its 95 % interval."""
    rng = make_numpy_rng(SEED, "few labels", name)
    gain = compare_paired(best_ST, other_ST, confidence=0.95, resamples=RESAMPLES, rng=rng)
    low, high = (None if bound is None else 100 * bound for bound in (gain.low, gain.high))
    bar = setting.gain_bar if name == "scratch" else None
    return Row(
        name=f"gain over {name}, {setting}",
        value=100 * gain.value,
        unit="points",
        low=low,
        high=high,
        seeds=gain.seeds,
        bar=None if bar is None else effort.bar(bar),
        better="higher",
    )


def run_draws(arm: Arm, draws: Sequence[int], pool: Pool, digits: Digits, effort: Effort) -> Correct:
    """(draws, test images): where the arm is right. Draws that were finished before are read."""
    folder = RESULTS / ("quick" if effort.quick else "full")
    for draw in draws:
        if not (folder / f"{arm}-{draw}.npy").is_file():
            for name, correct in _run_draw(arm, draw, pool, digits, effort).items():
                write_array(folder / f"{name}-{draw}.npy", correct)
                print(
                    f"{name}, draw {draw}: {100 - 100 * correct.mean():.2f} % of the test images wrong", file=sys.stderr
                )
    return np.stack([read_array(folder / f"{arm}-{draw}.npy") for draw in draws])


def _run_draw(arm: Arm, draw: int, pool: Pool, digits: Digits, effort: Effort) -> dict[str, Correct]:
    """(test images,) by arm: a network whose neighbours vote is one without their votes as well."""
    labelled = label_draws(pool.labels, SEED)[draw][: arm.budget]
    known = pool.labels[labelled]
    shares_NK = None if arm.graph is None else spread_labels(pool.graphs[arm.graph], labelled, known)
    positions, labels = (labelled, known) if shares_NK is None else choose_confident(shares_NK, KEPT_SHARE)
    model = train_network(arm, draw, pool, positions, labels, effort)
    predicted_TK = model.predict_log_probabilities(as_floats(digits.test_images)).numpy()
    found = {str(replace(arm, voting=False)): predicted_TK.argmax(1) == digits.test_labels}
    if arm.voting:
        assert shares_NK is not None
        votes_TK = np.log(np.maximum(shares_NK[pool.neighbours].mean(axis=1), LEAST_SHARE))
        found[str(arm)] = (predicted_TK + votes_TK).argmax(1) == digits.test_labels
    return found


def train_network(
    arm: Arm, draw: int, pool: Pool, positions: Indices, labels: Labels, effort: Effort, *, seed: int = SEED
) -> ConvNet:
    """The arm's network, trained on these images of the pool with these labels."""
    model = ConvNet(pool.dbn.configs, (1, 28, 28), len(NAMES), activation="probabilistic", dropout=DROPOUT)
    generator = make_generator(seed, "few labels", "weights", draw)
    if arm.pretrained:
        model.init_from_dbn(pool.dbn, as_floats(pool.images[:MEASURED_IMAGES]), generator)
    else:
        model.init_random(generator)
    stream = BatchStream(
        as_tensor(pool.images[positions]),
        torch.from_numpy(labels),
        batch_size=BATCH,
        seed=derive_seed(seed, "few labels", "batches", draw),
        transform=affine_elastic if arm.augmented else None,
    )
    steps = QUICK_UPDATES if effort.quick else STEPS if arm.augmented else PLAIN_STEPS
    plan = FitPlan(
        steps=steps,
        steps_per_epoch=steps,
        lr=LR,
        weight_decay=WEIGHT_DECAY,
        schedule="cosine",
        seed=derive_seed(seed, "few labels", "fit", draw),
        accelerator=effort.accelerator,
    )
    fit(model, stream, plan)
    return model


def spread_labels(graph: Any, labelled: Indices, known: Labels) -> Floats:
    """(N, K) shares of each class for the whole pool, from the draw's own labels; those stay as they are.

    labelled, known: the draw's positions and their labels, the only ones that come here.
    """
    given_NK = one_hot(known, labelled, (graph.shape[0], len(NAMES)))
    shares_NK = spread_shares(graph, given_NK, alpha=ALPHA)
    shares_NK[labelled] = given_NK[labelled]
    return shares_NK


def label_draws(labels: Labels, seed: int) -> npt.NDArray[np.int64]:
    """(DRAWS, 1000) positions: each row a draw with equal counts per class; its first 100 are the smaller budget's."""
    return label_subsets(labels, class_names=NAMES, budgets=BUDGETS, draws=DRAWS, seed=seed)
