"""Oracles: quadrature over [0, 1] in 64 bits, torch.distributions, finite differences."""

import math

import torch

from pipeline.models.continuous_bernoulli import (
    SERIES_BELOW,
    continuous_bernoulli_log_density,
    continuous_bernoulli_mean,
    log_normaliser,
)

EDGE = [SERIES_BELOW * (1 - 1e-6), SERIES_BELOW]
LOGITS = torch.tensor([-30, -4, -EDGE[0], -1e-3, 0, 1e-8, 1e-3, 0.3, *EDGE, 4, 30], dtype=torch.float64)


def density_on_grid() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    logits = LOGITS[:, None].expand(-1, len(x))
    return x, continuous_bernoulli_log_density(x.expand_as(logits), logits).exp()


def test_density_integrates_to_one_and_the_mean_is_the_quadratures() -> None:
    x, density = density_on_grid()
    torch.testing.assert_close(torch.trapezoid(density, x), torch.ones_like(LOGITS), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.trapezoid(x * density, x), continuous_bernoulli_mean(LOGITS), atol=1e-6, rtol=0)


def test_log_density_matches_torch_in_32_bits() -> None:
    logits, x = LOGITS.float(), torch.linspace(0, 1, len(LOGITS))
    expected = torch.distributions.ContinuousBernoulli(logits=LOGITS).log_prob(x.double())
    torch.testing.assert_close(continuous_bernoulli_log_density(x, logits), expected.float(), atol=1e-4, rtol=1e-4)
    assert math.isclose(float(log_normaliser(torch.zeros(1))), math.log(2), rel_tol=1e-6)


def test_gradients_are_finite_at_every_logit_and_match_finite_differences() -> None:
    logits = torch.tensor([-200.0, -20.0, -1e-6, 0.0, 1e-6, 0.2, 20.0, 200.0], requires_grad=True)
    for function in (log_normaliser, continuous_bernoulli_mean):
        (gradient,) = torch.autograd.grad(function(logits).sum(), logits)
        assert gradient.isfinite().all()
    inside = torch.tensor([-3.0, -0.2, 0.0, 0.2, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(log_normaliser, (inside,))
    assert torch.autograd.gradcheck(continuous_bernoulli_mean, (inside,))
