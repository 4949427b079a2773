"""Gaussian and noisy rectified linear units: moments of their samples, quadrature, finite differences, the sum of
Bernoulli units that the latter stand for."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate
from torch import Tensor

from pipeline.models.hidden_units import BernoulliHidden, GaussianHidden, NoisyRelu
from pipeline.models.rbm import RBM
from tests.rbm_oracles import as_batch, cd_loss, finite_difference, learned, seeded, states, tiny, train

INPUTS = torch.tensor([-12.0, -3.0, -0.5, 0.0, 0.5, 2.0, 9.0], dtype=torch.float64)


def rectified_moments(x: float) -> tuple[float, float]:
    """Mean and variance of max(0, N(x, sigmoid(x))), by quadrature."""
    std = math.sqrt(1 / (1 + math.exp(-x)))

    def moment(power: int) -> float:
        def density(y: float) -> float:
            return y**power * math.exp(-0.5 * ((y - x) / std) ** 2) / (std * math.sqrt(2 * math.pi))

        return float(integrate.quad(density, 0, max(x, 0) + 12 * std, epsabs=1e-12, limit=200)[0])

    return moment(1), moment(2) - moment(1) ** 2


def test_the_mean_matches_quadrature() -> None:
    expected = [rectified_moments(x)[0] for x in INPUTS.tolist()]
    np.testing.assert_allclose(NoisyRelu().mean(INPUTS).numpy(), expected, atol=1e-9)
    assert (NoisyRelu().mean(torch.tensor([-40.0, -90.0, -200.0])) == 0).all()


def test_samples_have_the_moments_of_rectified_noise() -> None:
    count = 40_000
    drawn = NoisyRelu().sample(INPUTS.expand(count, -1), seeded())
    assert (drawn >= 0).all()
    for column, x in zip(drawn.t(), INPUTS.tolist(), strict=True):
        mean, variance = rectified_moments(x)
        # five standard errors; the fourth moment is at most some 10 variances squared where samples are seldom > 0
        assert column.mean().item() == pytest.approx(mean, abs=5 * math.sqrt(variance / count) + 1e-9)
        assert column.var().item() == pytest.approx(variance, rel=0.15, abs=1e-3)


def test_the_free_energy_is_that_of_a_sum_of_bernoulli_units() -> None:
    def softplus_integral(x: float) -> float:
        return float(integrate.quad(lambda y: np.logaddexp(0, y), -60, x, epsabs=1e-12, limit=200)[0])

    expected = [softplus_integral(x) for x in INPUTS.tolist()]
    np.testing.assert_allclose(NoisyRelu().log_sum(INPUTS).numpy(), expected, atol=1e-8)
    offsets = torch.arange(60, dtype=torch.float64) + 0.5
    stepped = BernoulliHidden().log_sum(INPUTS[:, None] - offsets).sum(1)
    # midpoints against the integral: off by at most softplus' / 24
    torch.testing.assert_close(NoisyRelu().log_sum(INPUTS), stepped, atol=1 / 24 + 1e-6, rtol=0)
    x = INPUTS.clone().requires_grad_()
    slope = torch.autograd.grad(NoisyRelu().log_sum(x).sum(), x)[0]
    torch.testing.assert_close(slope, torch.nn.functional.softplus(INPUTS), atol=1e-7, rtol=0)


def test_a_large_input_passes_through_with_unit_noise() -> None:
    """Nair & Hinton 2010, sec. 2: far from 0 the unit is linear, with the noise of a Gaussian unit."""
    x = torch.full((40_000,), 30.0, dtype=torch.float64)
    assert NoisyRelu().mean(x[:1]).item() == pytest.approx(30)
    assert NoisyRelu().sample(x, seeded()).std().item() == pytest.approx(1, abs=0.02)


def test_gaussian_units_have_the_conditional_and_the_free_energy_of_their_joint_density() -> None:
    """exp(t(v) W h + c.h - |h|^2 / 2) integrated over a grid of h: the trapezoid rule is exact to rounding here."""
    model = tiny(4, 1, scale=0.7, hidden="gaussian")
    v = states(4)
    h = torch.arange(-14, 14.05, 0.1, dtype=torch.float64)
    with torch.no_grad():
        log_joint = v @ model.visible_bias[:, None] + (v @ model.weight + model.hidden_bias) * h - 0.5 * h.square()
        total = torch.logsumexp(log_joint, 1) + math.log(0.1)
        torch.testing.assert_close(model.free_energy(v), -total)
        density = torch.softmax(log_joint, 1)
        mean = density @ h
        torch.testing.assert_close(model.hidden_probabilities(v)[:, 0], mean)
        torch.testing.assert_close(density @ h.square() - mean.square(), torch.ones(16, dtype=torch.float64))
    drawn = GaussianHidden().sample(INPUTS.expand(40_000, -1), seeded())
    assert (drawn.mean(0) - INPUTS).abs().max() < 5 / 200
    assert (drawn.std(0) - 1).abs().max() < 5 / math.sqrt(2 * 40_000)


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian", "gaussian_variance"])
def test_the_update_of_gaussian_units_matches_finite_differences(visible: str) -> None:
    model = tiny(4, 3, scale=0.5, visible=visible, hidden="gaussian")
    v, end = (torch.rand(8, 4, generator=seeded(number), dtype=torch.float64) for number in (0, 1))
    cd_loss(model, v, end).backward()

    @torch.no_grad()
    def loss() -> Tensor:
        return model.free_energy(v).mean() - model.free_energy(end).mean()

    for parameter in learned(model):
        assert parameter.grad is not None
        assert parameter.grad.view(-1)[0].item() == pytest.approx(finite_difference(parameter, loss), abs=1e-8)


def test_chains_of_gaussian_units_have_the_models_distribution() -> None:
    model = tiny(3, 2, scale=0.6, hidden="gaussian")
    v = states(3)
    with torch.no_grad():
        exact = torch.softmax(-model.free_energy(v), 0)
    end = model.gibbs(torch.zeros(20_000, 3, dtype=torch.float64), 30, seeded())
    shares = torch.bincount((end @ torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)).long(), minlength=8) / len(end)
    assert ((shares - exact).abs() < 4.5 * (exact * (1 - exact) / len(end)).sqrt()).all()


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_the_update_is_made_of_means_on_the_data_and_on_their_chains(visible: str) -> None:
    model = tiny(4, 3, scale=0.5, visible=visible, hidden="relu")
    v = torch.rand(8, 4, generator=seeded(), dtype=torch.float64)
    model.training_losses(as_batch(v), 0, seeded(5)).total.backward()
    generator = seeded(5)
    with torch.no_grad():
        end = model.sample_visible(model.sample_hidden(v, generator), generator)
        h, h_end = model.hidden_probabilities(v), model.hidden_probabilities(end)
    for parameter, expected in (
        (model.weight, end.t() @ h_end / 8 - v.t() @ h / 8),
        (model.hidden_bias, (h_end - h).mean(0)),
        (model.visible_bias, (end - v).mean(0)),
    ):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, expected)


def test_rectified_units_learn_intensities() -> None:
    """One pattern at strengths from 0 to 3: a rectified unit says how strong better than a Bernoulli one."""
    strength = 3 * torch.rand(400, 1, generator=seeded())
    x = strength * torch.tensor([1.0, -1.0, 2.0, 0.5]) + 0.1 * torch.randn(400, 4, generator=seeded(1))
    errors: dict[str, Tensor] = {}
    for hidden in ("relu", "bernoulli"):
        model = RBM(4, 1, visible="gaussian", hidden=hidden)
        model.initialise(as_batch(x), seeded(2))
        train(model, x, lr=0.02, steps=600)
        with torch.no_grad():
            errors[hidden] = (model.decode(model.encode(x)) - x).square().mean() / x.var(0).mean()
    assert errors["relu"] < 0.15
    assert errors["relu"] < 0.7 * errors["bernoulli"]


def test_what_needs_an_energy_is_refused() -> None:
    with pytest.raises(ValueError, match=r"hidden must be bernoulli for exact gradients .* relu: use CD or PCD"):
        RBM(4, 3, hidden="relu", exact=True)
    with pytest.raises(ValueError, match="hidden must be bernoulli for exact"):
        RBM(4, 3, hidden="relu", num_chains=5, num_temperatures=3)
    with pytest.raises(ValueError, match="log Z is enumerated for bernoulli hidden units alone"):
        RBM(4, 3, hidden="relu").log_partition()
