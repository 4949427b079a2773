"""Estimators of the likelihood's gradient against enumeration: exact, CD, PCD, parallel tempering."""

from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from pipeline.models.enumeration import enumerate_log_partition
from pipeline.models.rbm import RBM
from pipeline.models.rbm_gradients import Parameters
from pipeline.models.sampling import sample_bernoulli
from tests.rbm_oracles import (
    as_batch,
    finite_difference,
    joint_table,
    learned,
    seeded,
    states,
    table,
    tiny,
)

BASE = torch.tensor([0.5, -1.0, 0.2, 0.0], dtype=torch.float64)


def gradients_of_training(model: RBM, v: Tensor, step: int, generator: torch.Generator) -> list[Tensor]:
    model.zero_grad()
    model.training_losses(as_batch(v), step, generator).total.backward()
    return [parameter.grad.clone() for parameter in learned(model) if parameter.grad is not None]


def tempered(num_temperatures: int = 3, num_chains: int = 6, **options: Any) -> RBM:
    """Four Bernoulli units (two Gaussian ones) under three hidden ones, away from their base rates."""
    gaussian = str(options.get("visible", "")).startswith("gaussian")
    model = tiny(2 if gaussian else 4, 3, num_chains=num_chains, num_temperatures=num_temperatures, **options)
    model.base_bias.copy_(BASE[:2] if gaussian else BASE)
    return model


@torch.no_grad()
def tempered_table(model: RBM, v: Tensor, log_weights: Tensor, beta: float) -> Tensor:
    """-E_beta(v, h) for every pair of states, written out, with the weights of v: (N, 2^H)."""
    joint = joint_table(model, v, torch.zeros_like(log_weights))
    base = -(v @ model.base_bias)
    if model.visible.startswith("gaussian"):
        base = 0.5 * (v - model.base_bias).square().sum(1)
    return beta * joint - (1 - beta) * base[:, None] + log_weights[:, None]


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian", "gaussian_variance"])
def test_the_exact_mode_has_the_gradient_of_the_likelihood(visible: str) -> None:
    model = tiny(2 if visible.startswith("gaussian") else 4, 3, scale=0.5, visible=visible, exact=True)
    v = torch.rand(5, model.num_visible, generator=seeded(), dtype=torch.float64)

    def loss() -> Tensor:
        log_z = torch.logsumexp(joint_table(model, *table(model)).flatten(), 0)
        return model.free_energy(model.standardise(v)).detach().mean() + log_z

    losses = model.training_losses(as_batch(v), 0, seeded())
    torch.testing.assert_close(losses.total.detach(), loss())
    gradients = gradients_of_training(model, v, 0, seeded())
    assert len(gradients) == len(learned(model))
    for parameter, gradient in zip(learned(model), gradients, strict=True):
        assert finite_difference(parameter, loss) == pytest.approx(gradient.flatten()[0].item(), abs=1e-6)


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian", "gaussian_variance"])
@torch.no_grad()
def test_the_ladder_has_the_conditionals_and_free_energies_of_its_energies(visible: str) -> None:
    model, h = tempered(visible=visible), states(3)
    ladder = model.ladder()
    z = model.log_variance
    biases, gains, log_variances = ladder.units.tempered(ladder.betas, model.visible_bias, z, model.base_bias)
    v, log_weights = table(model)
    chains = v[::1001][:3] if visible.startswith("gaussian") else v[[3, 9, 14]]
    free_energy = ladder.free_energy(chains[:, None].expand(-1, 3, -1))
    for number, beta in enumerate((1.0, 0.5, 0.0)):
        over_h = tempered_table(model, chains, torch.zeros(len(chains), dtype=torch.float64), beta)
        torch.testing.assert_close(free_energy[:, number], -torch.logsumexp(over_h, 1))
        over_v = torch.softmax(tempered_table(model, v, log_weights, beta), 0).t()
        gain = gains.expand(3, model.num_visible)[number]
        mean = ladder.units.mean(biases[number] + gain * (h @ model.weight.t()), None)
        torch.testing.assert_close(mean, over_v @ v)
        if visible == "gaussian_variance":
            variance = over_v @ v.square() - (over_v @ v).square()
            torch.testing.assert_close(torch.exp(log_variances[number]).expand(8, -1), variance)


@pytest.mark.parametrize("turn", [0, 1])
@torch.no_grad()
def test_moves_and_swaps_leave_every_temperature_its_distribution(turn: int) -> None:
    model, v, count = tempered(), states(4), 20_000
    expected = [
        torch.softmax(torch.logsumexp(tempered_table(model, v, torch.zeros(16).double(), beta), 1), 0)
        for beta in (1.0, 0.5, 0.0)
    ]
    start = torch.stack([v[torch.multinomial(p, count, True, generator=seeded(n))] for n, p in enumerate(expected)], 1)
    end, rate = model.ladder().move(start, 1, turn, seeded(9))
    assert 0.2 < rate < 1
    for number, p in enumerate(expected):
        observed = torch.bincount((end[:, number] @ torch.tensor([8.0, 4.0, 2.0, 1.0]).double()).long(), minlength=16)
        assert stats.chisquare(observed.numpy(), count * p.numpy()).pvalue > 0.001


@torch.no_grad()
def test_swaps_are_accepted_as_often_as_enumeration_says() -> None:
    model, v, count = tempered(2), states(4), 40_000
    log_p = torch.stack(
        [torch.logsumexp(tempered_table(model, v, torch.zeros(16).double(), beta), 1) for beta in (1.0, 0.0)]
    )
    cold, hot = torch.softmax(log_p, 1)
    ratio = log_p[0][None, :] + log_p[1][:, None] - log_p[0][:, None] - log_p[1][None, :]
    expected = (cold[:, None] * hot[None, :] * torch.exp(ratio).clamp(max=1)).sum()
    pairs = [v[torch.multinomial(p, count, True, generator=seeded(n))] for n, p in enumerate((cold, hot))]
    for turn in (0, 1):  # a single pair has every turn
        rate = model.ladder().swap(torch.stack(pairs, 1), turn, seeded(5))[1]
        assert rate.item() == pytest.approx(expected.item(), abs=0.01)


def two_modes(**options: object) -> RBM:
    """All units off or all on, with equal probabilities and e^-18 or less between them."""
    model = RBM(8, 4, num_chains=100, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        model.weight.fill_(3.0)
        model.visible_bias.fill_(-6.0)
        model.hidden_bias.fill_(-12.0)
    return model


def test_tempering_mixes_between_two_modes_where_gibbs_sampling_stays_in_one() -> None:
    batch = as_batch(torch.zeros(100, 8))
    plain, tempering = two_modes(), two_modes(num_temperatures=8)
    for model in (plain, tempering):
        generator = seeded(3)
        for step in range(300):
            rate = model.training_losses(batch, step, generator).parts.get("swap_rate")
    assert rate is not None
    assert 0.2 < rate < 1
    assert plain.chains.mean() < 0.05
    # 100 chains: a standard error of 0.05
    assert tempering.chains[:, 0].mean().item() == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("num_temperatures", [1, 4])
@pytest.mark.parametrize("visible", ["bernoulli", "gaussian", "gaussian_variance"])
def test_the_long_run_gradient_of_persistent_chains_is_the_exact_one(visible: str, num_temperatures: int) -> None:
    size = 2 if visible.startswith("gaussian") else 4
    options = {"visible": visible, "num_chains": 500, "num_temperatures": num_temperatures}
    model, exact = tiny(size, 3, scale=0.6, **options), tiny(size, 3, scale=0.6, visible=visible, exact=True)
    v, generator = torch.rand(5, size, generator=seeded(), dtype=torch.float64), seeded(1)
    rounds = [gradients_of_training(model, v, step, generator) for step in range(220)][20:]
    for drawn, expected in zip(zip(*rounds, strict=True), gradients_of_training(exact, v, 0, seeded()), strict=True):
        groups = torch.stack(drawn).view(10, 20, *expected.shape).mean(1)
        error = groups.std(0) / 10**0.5
        # ten almost independent means: 5 standard errors, with a floor for entries whose spread came out small
        assert ((groups.mean(0) - expected).abs() < 5 * error + 0.002).all()


def test_the_chains_of_all_temperatures_stand_still_in_validation_and_are_saved() -> None:
    model = RBM(9, 6, num_chains=8, num_temperatures=4)
    batch = as_batch(sample_bernoulli(torch.full((32, 9), 0.3), seeded()))
    model.initialise(batch, seeded())
    torch.testing.assert_close(model.base_bias, model.visible_bias.detach())
    start = model.chains.clone()
    model.validation_losses(batch, 0, seeded(1))
    assert torch.equal(model.chains, start)
    model.training_losses(batch, 0, seeded(1))
    assert not torch.equal(model.chains, start)
    assert model.state_dict()["chains"].shape == (8, 4, 9)
    assert "base_bias" in model.state_dict()


def test_tempering_without_chains_is_refused() -> None:
    with pytest.raises(ValueError, match="num_temperatures must be 1 without persistent chains, got 3: use PCD"):
        RBM(4, 3, num_temperatures=3)


def gradients_with_offsets(model: RBM, v: Tensor, mu: Tensor, lam: Tensor) -> list[Tensor]:
    model.visible_offset.copy_(mu)
    model.hidden_offset.copy_(lam)
    return gradients_of_training(model, v, 0, seeded(4))


OPTIONS = pytest.mark.parametrize(
    "options", [{}, {"exact": True}, {"num_chains": 50}, {"num_chains": 50, "num_temperatures": 3}]
)
UNITS = pytest.mark.parametrize("visible", ["bernoulli", "gaussian", "gaussian_variance"])


@UNITS
@OPTIONS
def test_centred_gradients_with_offsets_of_zero_are_the_plain_ones(visible: str, options: Any) -> None:
    centred, plain = (tiny(4, 3, visible=visible, centred=value, **options) for value in (True, False))
    v = torch.rand(6, 4, generator=seeded(), dtype=torch.float64)
    found = gradients_with_offsets(centred, v, torch.zeros(4), torch.zeros(3))
    for gradient, expected in zip(found, gradients_of_training(plain, v, 0, seeded(4)), strict=True):
        torch.testing.assert_close(gradient, expected)
    assert not any("offset" in name for name in plain.state_dict())


@UNITS
def test_centred_gradients_are_those_of_the_centred_energy(visible: str) -> None:
    """By autograd in W, b', c' of b = b' - W lambda, c = c' - mu W, carried back to b and c."""
    model = tiny(2 if visible.startswith("gaussian") else 4, 3, scale=0.5, visible=visible, centred=True, exact=True)
    size = model.num_visible
    v = torch.rand(6, size, generator=seeded(), dtype=torch.float64)
    mu, lam = torch.rand(size, generator=seeded(1)).double(), torch.rand(3, generator=seeded(2)).double()
    found = gradients_with_offsets(model, v, mu, lam)
    W, c, b, *z = (parameter.detach().clone().requires_grad_() for parameter in learned(model))
    b_centred, c_centred = (b + W @ lam).detach().requires_grad_(), (c + mu @ W).detach().requires_grad_()
    at = Parameters(W, c_centred - mu @ W, b_centred - W @ lam, z[0] if z else torch.zeros(0))
    t = model.units.statistic(v, at.log_variance)
    free_energy = model.units.energy(v, at.visible_bias, at.log_variance)
    free_energy = free_energy - torch.nn.functional.softplus(t @ W + at.hidden_bias).sum(1)
    loss = free_energy.mean() + enumerate_log_partition(model.units, at)
    dW, dc, db, *dz = torch.autograd.grad(loss, [W, c_centred, b_centred, *z])
    for gradient, expected in zip(found, [dW, dc - mu @ dW, db - dW @ lam, *dz], strict=True):
        torch.testing.assert_close(gradient, expected)


def climb(model: RBM, v: Tensor, steps: int = 300) -> list[float]:
    """The exact log-likelihood of v along a fit with the model's own gradients, nats per example."""
    generator, optimizer, curve = seeded(7), torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5), []
    for step in range(steps):
        optimizer.zero_grad()
        model.training_losses(as_batch(v), step, generator).total.backward()
        optimizer.step()
        with torch.no_grad():
            curve.append(float(-model.free_energy(v).mean() - model.log_partition()))
    return curve


@torch.no_grad()
def flipped(model: RBM, **options: Any) -> RBM:
    """The same distribution over 1 - v: -W, -b, c + 1 W; offsets as they are for the flipped data."""
    twin = RBM(model.num_visible, model.num_hidden, **options).double()
    twin.weight.copy_(-model.weight)
    twin.visible_bias.copy_(-model.visible_bias)
    twin.hidden_bias.copy_(model.hidden_bias + model.weight.sum(0))
    if model.centred:
        twin.visible_offset.copy_(1 - model.visible_offset)
        twin.hidden_offset.copy_(model.hidden_offset)
    return twin


def test_centred_learning_does_not_depend_on_which_value_is_called_one() -> None:
    """Montavon & Mueller: fits to v and to 1 - v are the same fit, here without noise; not with plain gradients."""
    v = sample_bernoulli(torch.tensor([0.1, 0.2, 0.1, 0.3]).double().expand(50, -1), seeded())
    largest = {}
    for centred in (True, False):
        options = {"centred": centred, "exact": True}
        model = tiny(4, 3, scale=0.5, **options)
        if centred:
            model.visible_offset.copy_(v.mean(0))
            model.hidden_offset.fill_(0.5)
        twin = flipped(model, **options)
        curves = climb(model, v), climb(twin, 1 - v)
        largest[centred] = max(abs(one - other) for one, other in zip(*curves, strict=True))
    assert largest[True] < 1e-9
    assert largest[False] > 0.01


def test_centred_learning_from_chains_is_as_good_on_flipped_data() -> None:
    v = sample_bernoulli(torch.full((100, 2), 0.15), seeded()).double().repeat_interleave(3, 1)  # two blocks of three
    gaps = {}
    for centred in (True, False):
        ends = []
        for data in (v, 1 - v):
            model = RBM(6, 4, centred=centred, num_chains=100).double()
            model.initialise(as_batch(data), seeded(1))
            ends.append(sum(climb(model, data, 400)[-100:]) / 100)
        gaps[centred] = abs(ends[0] - ends[1])
    assert gaps[True] < 0.05
    assert gaps[True] < gaps[False]


def test_offsets_run_after_the_means_of_the_data_and_stand_still_in_validation() -> None:
    model, v = tiny(4, 3, centred=True), torch.rand(6, 4, generator=seeded(), dtype=torch.float64)
    gradients_with_offsets(model, v, torch.zeros(4), torch.ones(3))
    torch.testing.assert_close(model.visible_offset, 0.01 * v.mean(0))
    torch.testing.assert_close(model.hidden_offset, 0.99 + 0.01 * model.hidden_probabilities(v).mean(0).detach())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.validation_losses(as_batch(v), 0, seeded())
    assert {"visible_offset", "hidden_offset"} <= before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
