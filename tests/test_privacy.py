"""The audit's verdicts on sets whose answer is known, and its control: a blind attack is called broken."""

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from pipeline.config.generators import Vae
from pipeline.config.privacy import Privacy
from pipeline.data.arrays import Images, Labels
from pipeline.data.embedded import load_embedded
from pipeline.metrics import membership
from pipeline.metrics.membership import Scored
from pipeline.metrics.privacy import (
    Audit,
    Check,
    Yardstick,
    audit_privacy,
    black_box_attacks,
    draw_candidates,
    make_yardstick,
)
from pipeline.metrics.roc import area_under_curve
from pipeline.models.losses import Batch
from pipeline.models.vae import ConditionalVAE, kl_to_standard_normal
from pipeline.training.generators import sample_images
from pipeline.training.model_attacks import model_attacks
from tests.test_vae import SMALL, small_vae, train

CONFIG = Privacy(gate="warn", max_attack_auc=0.62, max_copy_rate=0.05, min_distance_ratio=0.9, audit_images=250)


def digits(first: int, last: int) -> Images:
    """Real digits in random order."""
    return _digits()[0][first:last]


def labels_of(first: int, last: int) -> Labels:
    return _digits()[1][first:last]


@cache
def _digits() -> tuple[Images, Labels]:
    order, raw = np.random.default_rng(0).permutation(5000)[:1200], load_embedded()
    return raw.images[order], raw.labels[order]


@pytest.fixture(scope="module")
def yardstick() -> Yardstick:
    train = digits(0, 500)
    return make_yardstick(train, train[:250], digits(500, 750), 300, seed=0)


def audit(yardstick: Yardstick, synthetic: Images, config: Privacy = CONFIG) -> Audit:
    return audit_privacy(yardstick, synthetic, {}, config=config, seed=0)


def test_real_strangers_pass(yardstick: Yardstick) -> None:
    found = audit(yardstick, digits(800, 1100))
    assert (found.verdict, {check.outcome for check in found.checks}) == ("passed", {"within"})
    assert all(0.4 < row["auc"].value < 0.6 for row in found.attacks.values())
    assert min(found.control.values()) > 0.9
    assert found.counts == {"members": 250, "others": 250, "synthetic": 300, "train": 500}


def test_noisy_training_images_fail_with_number_limit_and_key(yardstick: Yardstick) -> None:
    noise = np.random.default_rng(1).normal(0, 10, (300, 1, 28, 28))
    found = audit(yardstick, (yardstick.train[:300] + noise).clip(0, 255).astype(np.uint8))
    beyond = {check.name for check in found.checks if check.outcome == "beyond"}
    assert found.verdict == "failed"
    assert beyond == {check.name for check in found.checks} - {"exact copies"}
    assert re.search(
        r"near copies beyond chance 0.9\d+ \[.*\] \(limit privacy.max_copy_rate: at most 0.05\)", found.sentence
    )
    mixed = audit(yardstick, np.concatenate([yardstick.train[:30], digits(800, 1070)]))
    exact = next(check for check in mixed.checks if check.name == "exact copies")
    assert (mixed.verdict, exact.value, exact.outcome) == ("failed", 0.1, "beyond")


def test_few_images_conclude_nothing(yardstick: Yardstick) -> None:
    found = audit(yardstick, digits(800, 899))
    assert found.verdict == "inconclusive"
    assert "99 synthetic: at least 100 of each are needed" in found.sentence
    strict = audit(yardstick, digits(800, 1100), replace(CONFIG, max_attack_auc=0.51))
    assert strict.verdict == "inconclusive"
    assert "nothing can be concluded: attack" in strict.sentence


def test_a_blind_attack_is_called_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(membership.ATTACKS, "radius", lambda distances: Scored(np.zeros(120), np.zeros(120)))
    train = digits(0, 120)
    blind = make_yardstick(train, train, digits(500, 620), 120, seed=0)
    found = audit(
        blind, digits(800, 920), replace(CONFIG, max_attack_auc=1.0, max_copy_rate=1.0, min_distance_ratio=0.0)
    )
    assert found.verdict == "broken"
    assert "radius pixels 0.50" in found.sentence


@pytest.mark.parametrize(
    ("low", "high", "at_most", "outcome"),
    [
        (0.1, 0.5, True, "within"),
        (0.1, 0.6, True, "open"),
        (0.6, 0.7, True, "beyond"),
        (0.5, 0.7, False, "within"),
        (0.4, 0.7, False, "open"),
        (0.1, 0.4, False, "beyond"),
    ],
)
def test_an_interval_is_within_beyond_or_on_its_limit(low: float, high: float, at_most: bool, outcome: str) -> None:
    assert Check("a", (low + high) / 2, low, high, 0.5, at_most, "privacy.a").outcome == outcome


def test_candidates_are_equally_many_and_drawn_by_the_seed() -> None:
    members, others = draw_candidates(50, 20, 100, 3)
    assert (len(set(members.tolist())), len(set(others.tolist()))) == (20, 20)
    assert max(members) >= 20
    assert np.array_equal(draw_candidates(50, 20, 100, 3)[0], members)
    assert [len(part) for part in draw_candidates(50, 20, 5, 3)] == [5, 5]


def test_model_attacks_take_the_best_label() -> None:
    model = small_vae(seed=0).eval()
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 28, 28), dtype=np.uint8)
    x = torch.from_numpy(images).float() / 255
    bounds, errors = [], []
    for label in range(-1, model.num_classes):
        y = torch.full((4,), label)
        mean, log_variance = model.encode(x, y)
        bounds.append(model.log_likelihood(x, mean, y) - kl_to_standard_normal(mean, log_variance))
        errors.append((x - model.decode(mean, y)).square().flatten(1).sum(1))
    found = model_attacks(model, images, images[:2])
    assert np.allclose(found["bound of the model"].members, torch.stack(bounds).amax(0).detach())
    assert np.allclose(found["reconstruction of the model"].others, -torch.stack(errors).amin(0)[:2].detach())


@pytest.mark.slow
def test_attacks_catch_a_vae_that_overfits_100_images() -> None:
    members, others = digits(0, 100), digits(100, 200)
    config = Vae(**SMALL | {"latent_dim": 8, "width": 8, "warmup_steps": 0})
    model = ConditionalVAE((1, 28, 28), 10, config=config, generator=torch.Generator().manual_seed(0))
    train(model, Batch(torch.from_numpy(members).float() / 255, torch.from_numpy(labels_of(0, 100))), 500, lr=0.005)
    model.eval()
    samples = sample_images(model, torch.arange(600) % 10, torch.Generator().manual_seed(2))
    scored = {**black_box_attacks(members, others, samples, 0), **model_attacks(model, members, others)}
    areas = {name: area_under_curve(scores.members, scores.others).value for name, scores in scored.items()}
    assert max(areas[name] for name in areas if "model" not in name) >= 0.9, areas
    assert min(areas[name] for name in areas if "model" in name) >= 0.9, areas
    found = audit_privacy(make_yardstick(members, members, others, 600, seed=0), samples, scored, config=CONFIG, seed=0)
    assert found.verdict == "failed"
