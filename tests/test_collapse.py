"""A collapse is found in made-up images, and ends a fit whose generator has collapsed."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.metrics.collapse import Reference, name_verdict
from pipeline.training.collapse import IN_A_ROW, PATIENCE, collapse_watch, last_verdict
from pipeline.training.generators import GeneratorData, GeneratorTask, fit_generator
from tests.gan_models import SMALL, halves, seeded, small_gan


def rows(count: int, seed: int) -> Any:
    return np.random.default_rng(seed).normal(size=(count, 6))


def test_a_look_counts_covered_images_and_near_duplicates() -> None:
    real, others = rows(100, 1), rows(100, 2)
    reference = Reference(real, others)
    radius = np.sort(np.linalg.norm(real[:, None] - real[None], axis=2), axis=1)[:, 5]
    nearest = np.sort(np.linalg.norm(real[:, None] - real[None], axis=2), axis=1)[:, 1]
    made = np.concatenate([rows(60, 3), np.repeat(rows(1, 4), 40, axis=0)])
    found = reference.look(made)
    covered = (np.linalg.norm(real[:, None] - made[None], axis=2) < radius[:, None]).any(axis=1).mean()
    apart = np.linalg.norm(made[:, None] - made[None], axis=2) + np.diag(np.full(100, np.inf))
    assert found["coverage"] == pytest.approx(covered)
    assert found["duplicates"] == pytest.approx((apart.min(axis=1) < np.quantile(nearest, 0.01)).mean())


def kinds(count: int, seed: int, num_kinds: int = 3) -> Any:
    """Images of three kinds far apart, or of the first of them."""
    return rows(count, seed) + 30.0 * (np.arange(count) % num_kinds)[:, None]


def test_verdicts_of_sets_whose_answer_is_known() -> None:
    reference = Reference(kinds(100, 1), kinds(100, 2))
    for made, name in (
        (kinds(100, 3), "diverse"),
        (kinds(100, 3, num_kinds=1), "narrow"),
        (np.repeat(rows(1, 5), 100, axis=0) + 1e-6 * rows(100, 6), "collapsed"),
        (kinds(100, 4) + 15, "off_the_data"),
    ):
        assert name_verdict(**reference.look(made)).name == name


def data(count: int = 120) -> GeneratorData:
    batch = halves(count)
    noise = torch.rand(batch.images.shape, generator=seeded(1))
    images = (batch.images * 0.5 + noise * 0.5).mul(255).to(torch.uint8).numpy()
    return GeneratorData(images, batch.labels.numpy()[None], images[:8], batch.labels.numpy()[:8], 2)


def run_task(**changes: Any) -> list[dict[str, float]]:
    config = replace(SMALL, latent_dim=1, steps=8, lr=1e-6, **changes)
    how: dict[str, Any] = {"seed": 0, "precision": "32", "accelerator": "cpu", "checkpoint": None}
    return fit_generator(GeneratorTask(config=config, draw=0, epochs=8, looks=True, **how), data()).history


def test_a_generator_that_never_learns_to_vary_ends_the_fit_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """At this rate the first weights stay, and make one blur a class."""
    assert run_task()[-1][IN_A_ROW] == 0  # so short a run is nothing else
    monkeypatch.setattr("pipeline.training.collapse.UNTRAINED", 0)
    message = rf"gan, label draw 0: collapsed.* at step 6 of 8, {PATIENCE} looks in a row. Lower gan.lr"
    with pytest.raises(ValueError, match=message):
        run_task()
    history = run_task(on_collapse="warn")
    assert [entry[IN_A_ROW] for entry in history] == [0, 0, 1, 2, 3, 4, 5, 6]
    verdict = last_verdict(history)
    assert verdict is not None
    assert verdict.name == "collapsed"


def test_the_last_look_alone_can_end_a_fit_and_the_count_goes_on_from_the_history() -> None:
    model, images = small_gan(latent_dim=1), data().images
    watch = collapse_watch(replace(SMALL, steps=1000), images, name="gan", seed=0)
    assert watch(model, 250, [])[IN_A_ROW] == 0
    assert watch(model, 300, [])[IN_A_ROW] == 1
    with pytest.raises(ValueError, match=r"at step 600 of 1000, 4 looks in a row"):
        watch(model, 600, [{IN_A_ROW: 3.0}])
    with pytest.raises(ValueError, match=r"at step 1000 of 1000, 1 looks in a row"):
        watch(model, 1000, [{IN_A_ROW: 0.0}])


def test_looks_change_no_weight() -> None:
    config = replace(SMALL, steps=4, on_collapse="warn")
    how: dict[str, Any] = {"seed": 0, "precision": "32", "accelerator": "cpu", "checkpoint": None, "epochs": 2}
    one, other = (
        fit_generator(GeneratorTask(config=config, draw=0, looks=looks, **how), data()) for looks in (True, False)
    )
    assert all(np.array_equal(one.state[name], other.state[name]) for name in one.state)
    assert last_verdict(other.history) is None
