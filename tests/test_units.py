"""Oracles: every state of tiny machines (a fine grid for Gaussian units), autograd, finite differences, moments."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.models.pseudo_likelihood import unit_losses
from pipeline.models.rbm import RBM
from tests.rbm_oracles import (
    as_batch,
    cd_loss,
    finite_difference,
    fixed,
    joint_table,
    learned,
    seeded,
    states,
    table,
    tiny,
    train,
)

SIZES = {"bernoulli": 4, "gaussian": 2, "gaussian_variance": 2, "softmax": 6, "replicated_softmax": 3}
KINDS = pytest.mark.parametrize("visible", SIZES)


def machine(visible: str) -> RBM:
    """Three hidden units; variances between 0.5 and 2."""
    size, num_values = SIZES[visible], 3 if visible == "softmax" else 0
    model = tiny(size, 3, scale=0.7, visible=visible, num_values=num_values)
    if visible == "gaussian_variance":
        with torch.no_grad():
            model.log_variance.copy_(torch.tensor([-0.7, 0.6]))
    return model


def examples(model: RBM, count: int, seed: int = 0) -> Tensor:
    """Visible states as data have them."""
    if model.visible.startswith("gaussian"):
        return torch.randn(count, 2, generator=seeded(seed), dtype=torch.float64)
    if model.units.per_example:
        v = table(model)[0]
        return v[torch.randint(len(v), (count,), generator=seeded(seed))]
    return torch.rand(count, 4, generator=seeded(seed), dtype=torch.float64)


@KINDS
def test_free_energy_matches_the_sum_over_hidden_states(visible: str) -> None:
    model = machine(visible)
    v = examples(model, 6)
    by_hand = -torch.logsumexp(joint_table(model, v, torch.zeros(6, dtype=torch.float64)), 1)
    torch.testing.assert_close(model.free_energy(v).detach(), by_hand)


@KINDS
def test_log_partition_matches_the_sum_over_all_states(visible: str) -> None:
    model = machine(visible)
    expected = torch.logsumexp(joint_table(model, *table(model)).flatten(), 0)
    torch.testing.assert_close(model.log_partition(fixed(model)).squeeze(), expected)


@KINDS
def test_conditionals_match_the_joint(visible: str) -> None:
    model = machine(visible)
    h = states(3)
    given = examples(model, 5)
    over_h = torch.softmax(joint_table(model, given, torch.zeros(5, dtype=torch.float64)), 1)
    torch.testing.assert_close(model.hidden_probabilities(given).detach(), over_h @ h)
    v, log_weights = table(model)
    over_v = torch.softmax(joint_table(model, v, log_weights), 0)
    torch.testing.assert_close(model.visible_mean(h, fixed(model, 8)).detach(), over_v.t() @ v)
    if visible.startswith("gaussian"):
        variance = over_v.t() @ v.square() - (over_v.t() @ v).square()
        torch.testing.assert_close(model.visible_std().detach().square().expand(8, 2), variance)


@KINDS
def test_samples_given_the_hidden_units_have_the_conditional_moments(visible: str) -> None:
    model, h, count = machine(visible), states(3)[5], 40_000
    with torch.no_grad():
        v = model.sample_visible(h.expand(count, -1), seeded(), fixed(model, count))
    support, log_weights = table(model)
    p = torch.softmax(joint_table(model, support, log_weights)[:, 5], 0)
    mean = p @ support
    covariance = (support - mean).t() @ ((support - mean) * p[:, None])
    # 5 standard errors of a mean, and of a covariance of units with a kurtosis up to 3
    error = 5 * float(covariance.diagonal().max()) / count**0.5
    torch.testing.assert_close(v.mean(0), mean, atol=5 * float(covariance.diagonal().max() ** 0.5) / count**0.5, rtol=0)
    torch.testing.assert_close(torch.cov(v.t()), covariance, atol=1.5 * error, rtol=0)


@KINDS
def test_closed_form_gradients_match_autograd_of_the_free_energies(visible: str) -> None:
    model = machine(visible)
    v_data, v_model = examples(model, 6), examples(model, 9, seed=1)

    def reference() -> Tensor:
        return model.free_energy(v_data).mean() - model.free_energy(v_model).mean()

    loss = cd_loss(model, v_data, v_model)
    torch.testing.assert_close(loss, reference())
    closed = torch.autograd.grad(3 * loss, learned(model))
    for gradient, expected in zip(closed, torch.autograd.grad(3 * reference(), learned(model)), strict=True):
        torch.testing.assert_close(gradient, expected)


@KINDS
def test_gradients_over_the_model_distribution_match_finite_differences_of_the_likelihood(visible: str) -> None:
    model = machine(visible)
    v_data = examples(model, 6)
    v, log_weights = table(model)

    def loss() -> Tensor:
        log_z = torch.logsumexp(joint_table(model, v, log_weights).flatten(), 0)
        return model.free_energy(v_data).detach().mean() + log_z

    p = torch.softmax(log_weights - model.free_energy(v).detach(), 0)
    gradients = torch.autograd.grad(model.free_energy(v_data).mean() - p @ model.free_energy(v), learned(model))
    for parameter, gradient in zip(learned(model), gradients, strict=True):
        assert finite_difference(parameter, loss) == pytest.approx(gradient.flatten()[0].item(), abs=1e-6)


def test_the_energy_of_learned_variances_matches_the_formula() -> None:
    model = machine("gaussian_variance")
    v, h = examples(model, 1)[0], states(3)[5]
    W, b, c = (p.detach().numpy() for p in (model.weight, model.visible_bias, model.hidden_bias))
    variance = np.exp([-0.7, 0.6])
    by_hand = np.sum((v.numpy() - b) ** 2 / (2 * variance)) - c @ h.numpy() - (v.numpy() / variance) @ W @ h.numpy()
    assert model.energy(v[None], h[None]).item() == pytest.approx(by_hand, rel=1e-6)


def test_variances_of_one_make_learned_gaussians_plain_ones() -> None:
    plain, learning = tiny(2, 3, visible="gaussian"), RBM(2, 3, visible="gaussian_variance").double()
    learning.load_state_dict(plain.state_dict() | {"log_variance": torch.zeros(2)})
    v = examples(plain, 7)
    torch.testing.assert_close(learning.free_energy(v), plain.free_energy(v))
    torch.testing.assert_close(learning.log_partition(), plain.log_partition())
    assert "log_variance" not in plain.state_dict()


def test_learned_variances_find_the_noise_of_the_data() -> None:
    """Two clusters around +-m, with noise that unit variances cannot describe: the likelihood tells."""
    generator = seeded()
    side = torch.randint(0, 2, (2000, 1), generator=generator).double() * 2 - 1
    noise = torch.tensor([0.2, 0.5], dtype=torch.float64)
    x = side + noise * torch.randn(2000, 2, generator=generator, dtype=torch.float64)
    learning, plain = (fit(visible, x) for visible in ("gaussian_variance", "gaussian"))
    found = learning.visible_std().detach() * learning.std
    torch.testing.assert_close(found, noise, atol=0.05, rtol=0.1)
    likelihood = [mean_log_likelihood(model, x) for model in (learning, plain)]
    assert likelihood[0] > likelihood[1] + 0.5


def fit(visible: str, x: Tensor) -> RBM:
    model = RBM(2, 2, visible=visible, gibbs_steps=5).double()
    model.initialise(as_batch(x), seeded(1))
    train(model, x, lr=0.02, steps=1000)
    return model


@torch.no_grad()
def mean_log_likelihood(model: RBM, x: Tensor) -> float:
    """In nats per example, of the standardised inputs."""
    return float(-model.free_energy(model.standardise(x)).mean() - model.log_partition())


@torch.no_grad()
def test_the_pseudo_likelihood_of_learned_variances_matches_the_grid() -> None:
    model = machine("gaussian_variance")
    v = examples(model, 8)
    axis = torch.arange(-14, 14, 0.02, dtype=torch.float64)
    line = torch.stack([torch.stack([axis, one.expand(len(axis))], 1) for one in v[:, 1]])
    log_z = torch.logsumexp(-model.free_energy(line.flatten(0, 1)).view(8, -1), 1) + np.log(0.02)
    found = unit_losses(model, v, torch.zeros(8, dtype=torch.long))
    torch.testing.assert_close(found, model.free_energy(v) + log_z, atol=1e-4, rtol=1e-4)
