"""Oracle: a linear-Gaussian model, whose log p(x) is known; repeated estimates, whose scatter is the error."""

import math

import pytest
import torch
from torch import Tensor, distributions

from pipeline.metrics import importance
from pipeline.metrics.importance import bound_by_importance
from pipeline.metrics.score import Bound
from pipeline.row_noise import draw_normal


class LinearGaussian:
    """x = A z + 0.5 e with z of two dimensions; q is the true posterior, moved and widened by `off`."""

    def __init__(self, off: float, count: int = 6) -> None:
        generator = torch.Generator().manual_seed(0)
        directions, _ = torch.linalg.qr(torch.randn(5, 2, generator=generator, dtype=torch.float64))
        self.A = directions * torch.tensor([1.5, 0.7], dtype=torch.float64)  # orthogonal: the posterior factorises
        covariance = self.A @ self.A.T + 0.25 * torch.eye(5, dtype=torch.float64)
        self.p = distributions.MultivariateNormal(torch.zeros(5, dtype=torch.float64), covariance)
        self.x = torch.randn(count, 5, generator=generator, dtype=torch.float64)
        self.labels, self.off = torch.zeros(count, dtype=torch.long), off

    def log_weights(self, images: Tensor, labels: Tensor, k: int, generator: torch.Generator) -> Tensor:
        assert len(images) == len(labels)
        variance = 1 / (1 + self.A.square().sum(0) / 0.25)
        mean_BZ = images @ self.A * variance / 0.25 + self.off
        q = distributions.Normal(mean_BZ[:, None], (variance.sqrt() * math.exp(self.off)))
        z_BKZ = q.mean + q.stddev * draw_normal((len(images), k, 2), generator, images)
        log_prior = distributions.Normal(0.0, 1.0).log_prob(z_BKZ).sum(2)
        log_p = distributions.Normal(z_BKZ @ self.A.T, 0.5).log_prob(images[:, None]).sum(2) + log_prior
        log_weights: Tensor = log_p - q.log_prob(z_BKZ).sum(2)
        return log_weights

    def bound(self, k: int, seed: int = 0) -> Bound:
        return bound_by_importance(self, self.x, self.labels, k=k, seed=seed)

    def log_p(self) -> float:
        return float(self.p.log_prob(self.x).mean())


def test_with_the_true_posterior_every_k_gives_the_evidence_without_error() -> None:
    toy = LinearGaussian(0.0)
    for k in (2, 60):
        bound = toy.bound(k)
        assert bound.value == pytest.approx(toy.log_p(), abs=1e-9)
        assert bound.standard_error == pytest.approx(0, abs=1e-6)


def test_the_bound_rises_with_k_to_the_evidence() -> None:
    toy = LinearGaussian(0.4)
    few = [toy.bound(2, seed).value for seed in range(200)]
    more = [toy.bound(8, seed).value for seed in range(50)]
    most = toy.bound(20_000)
    assert sum(few) / 200 < sum(more) / 50 - 0.01 < most.value
    assert abs(most.value - toy.log_p()) < 4 * most.standard_error
    assert most.standard_error < 0.01
    assert most.high - most.value == pytest.approx(1.96 * most.standard_error, rel=1e-3)


def test_the_standard_error_is_the_scatter_of_repeated_estimates() -> None:
    toy = LinearGaussian(0.3)
    bounds = [toy.bound(100, seed) for seed in range(200)]
    scatter = float(torch.tensor([bound.value for bound in bounds]).std())
    claimed = sum(bound.standard_error for bound in bounds) / 200
    assert claimed == pytest.approx(scatter, rel=0.2)


def test_images_at_once_do_not_change_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = LinearGaussian(0.4)
    expected = toy.bound(70).value
    monkeypatch.setattr(importance, "IMAGES_AT_ONCE", 4)
    assert toy.bound(70).value == pytest.approx(expected, abs=1e-12)


class Far:
    """Log weights from -2000 to `most`."""

    def __init__(self, most: float) -> None:
        self.most = most

    def log_weights(self, images: Tensor, labels: Tensor, k: int, generator: torch.Generator) -> Tensor:
        del labels, generator
        return torch.linspace(-2000, self.most, k).expand(len(images), k)


def test_weights_that_differ_by_thousands_of_nats_neither_overflow_nor_vanish() -> None:
    bound = bound_by_importance(Far(900), torch.zeros(3, 1), torch.zeros(3), k=50, seed=0)
    assert bound.value == pytest.approx(900 - math.log(50), abs=1e-6)


def test_one_sample_and_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="k must be >= 2, for a standard error, got 1"):
        LinearGaussian(0.0).bound(1)
    with pytest.raises(ValueError, match="the model has diverged"):
        bound_by_importance(Far(math.inf), torch.zeros(3, 1), torch.zeros(3), k=50, seed=0)
