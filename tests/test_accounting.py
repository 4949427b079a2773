"""Privacy accounting against numerical integrals, opacus' own bound and the Gaussian mechanism's closed form."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from pipeline.config.dp import Dp
from pipeline.metrics.renyi import epsilon_of_divergences, renyi_epsilon, sampled_gaussian_divergence
from pipeline.training import accounting
from pipeline.training.accounting import Steps, check_epsilon, find_noise, spent_epsilon
from pipeline.training.guarantee import load_secret, plan_guarantee


@pytest.mark.parametrize(("order", "rate", "noise"), [(2, 0.01, 1.0), (5, 0.2, 2.0), (16, 0.05, 1.5), (3, 1.0, 1.2)])
def test_divergence_of_the_sampled_gaussian_is_the_integral(order: int, rate: float, noise: float) -> None:
    def integrand(x: float) -> float:
        ratio = np.logaddexp(math.log1p(-rate) if rate < 1 else -np.inf, math.log(rate) + (2 * x - 1) / (2 * noise**2))
        return float(np.exp(norm.logpdf(x, 0, noise) + order * ratio))

    integral = quad(integrand, -30 * noise, 30 * noise + order, limit=400, points=[0, order])[0]
    found = sampled_gaussian_divergence(order, rate, noise)
    assert found == pytest.approx(math.log(integral) / (order - 1), rel=1e-6)


def test_divergence_is_opacus_own() -> None:
    from opacus.accountants.analysis import rdp

    theirs = rdp.compute_rdp(q=0.02, noise_multiplier=1.1, steps=10, orders=[2, 7, 32])
    assert np.allclose([10 * sampled_gaussian_divergence(order, 0.02, 1.1) for order in (2, 7, 32)], theirs)


def gaussian_delta(epsilon: float, noise: float) -> float:
    """Of the Gaussian mechanism of sensitivity 1, exactly (Balle & Wang 2018, theorem 8)."""
    a, b = 1 / (2 * noise), epsilon * noise
    return float(norm.cdf(a - b) - math.exp(epsilon) * norm.cdf(-a - b))


def test_both_accountants_bound_the_gaussian_mechanism_and_opacus_tightly() -> None:
    steps, noise = Steps(sample_rate=1.0, count=16, delta=1e-5), 8.0  # together one mechanism with a noise of 2
    low, high = 0.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_delta(middle, 2.0) > steps.delta else (low, middle)
    assert spent_epsilon(noise, steps) == pytest.approx(high, abs=0.03)
    assert high < renyi_epsilon(noise, 1.0, 16, steps.delta) < 1.2 * high


def test_conversion_from_divergences_takes_the_best_order() -> None:
    by_order = {2: 0.1, 10: 0.5}
    expected = [r + math.log((a - 1) / a) - (math.log(1e-3) + math.log(a)) / (a - 1) for a, r in by_order.items()]
    assert epsilon_of_divergences(by_order, 1e-3) == pytest.approx(min(expected))
    assert epsilon_of_divergences({64: 0.0}, 0.9) == 0


def test_found_noise_is_the_least_that_keeps_epsilon() -> None:
    steps = Steps(sample_rate=0.05, count=10, delta=1e-5)
    noise = find_noise(2.0, steps)
    assert spent_epsilon(noise, steps) <= 2.0 < spent_epsilon(0.98 * noise, steps)
    assert 1.95 < check_epsilon(noise, steps)["renyi"] < 3


def test_accountants_that_contradict_each_other_are_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounting, "renyi_epsilon", lambda *_: 0.2)
    with pytest.raises(ValueError, match="two privacy accountants disagree"):
        check_epsilon(1.0, Steps(sample_rate=0.05, count=100, delta=1e-5))


def test_without_opacus_the_message_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opacus.accountants", None)
    with pytest.raises(ValueError, match=r"dp\.models needs the package opacus"):
        spent_epsilon(2.0, Steps(sample_rate=0.05, count=10, delta=1e-5))


def test_a_guarantee_covers_all_fits_together() -> None:
    dp = Dp(models=["vae"], epsilon=3.0, delta=1e-4, max_grad_norm=0.5)
    found = plan_guarantee(dp, num_images=1000, batch_size=50, steps=4, fits=3)
    assert found.epsilon == spent_epsilon(found.noise_multiplier, Steps(sample_rate=0.05, count=12, delta=1e-4)) <= 3.0
    assert "3 models together: epsilon" in found.sentence
    with pytest.raises(ValueError, match=r"dp\.delta must be < 1 / 1000 training images, got 0\.001"):
        plan_guarantee(replace(dp, delta=1e-3), num_images=1000, batch_size=50, steps=20, fits=3)


def test_a_secret_lives_with_its_resume_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = load_secret(tmp_path / "a")
    assert load_secret(tmp_path / "a") == first != load_secret(tmp_path / "b")
    assert (tmp_path / "a" / "dp-secret").stat().st_mode & 0o077 == 0
