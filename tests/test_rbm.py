"""Oracles: enumeration of every state of tiny machines, finite differences, chi-square, scikit-learn."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from sklearn.neural_network import BernoulliRBM
from torch import Tensor

from pipeline.models.contrastive import sparsity_penalty
from pipeline.models.losses import Batch
from pipeline.models.pseudo_likelihood import unit_losses
from pipeline.models.rbm import RBM
from pipeline.models.sampling import sample_bernoulli, sample_blocks
from tests.rbm_oracles import as_batch, finite_difference, seeded, states, tiny

KINDS = pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])


def exact_visible_distribution(model: RBM) -> Tensor:
    return torch.softmax(-model.free_energy(states(model.num_visible)), 0).detach()


@torch.no_grad()
def log_likelihood(model: RBM, v: Tensor) -> float:
    return float(-model.free_energy(v).mean() - model.log_partition())


def bars(count: int, seed: int = 0) -> Tensor:
    """3x3 images of whole rows, each on with probability a half."""
    rows = sample_bernoulli(torch.full((count, 3), 0.5), seeded(seed))
    return rows[:, :, None].expand(-1, 3, 3).reshape(count, 9)


def test_bernoulli_samples_have_their_probabilities() -> None:
    probabilities = torch.tensor([0.0, 0.05, 0.5, 0.9, 1.0])
    total = sample_bernoulli(probabilities.expand(20_000, 5), seeded()).sum(0)
    assert total[0] == 0
    assert total[4] == 20_000
    for on, p in zip(total[1:4].tolist(), (0.05, 0.5, 0.9), strict=True):
        assert stats.binomtest(int(on), 20_000, p).pvalue > 0.001


def test_block_samples_follow_the_categorical_distribution() -> None:
    probabilities = torch.tensor([0.1, 0.0, 0.35, 0.25])
    samples = sample_blocks(probabilities[None, :, None].expand(100, 4, 200), seeded()).sum((0, 2))
    observed = [*samples.tolist(), 20_000 - float(samples.sum())]
    assert observed[1] == 0
    kept = [0, 2, 3, 4]
    expected = 20_000 * np.array([0.1, 0.0, 0.35, 0.25, 0.3])
    assert stats.chisquare(np.array(observed)[kept], expected[kept]).pvalue > 0.001


@KINDS
def test_free_energy_matches_enumeration_of_the_hidden_states(visible: str) -> None:
    model = tiny(visible=visible)
    h = states(3)
    for v in torch.randn(5, 4, generator=seeded(), dtype=torch.float64):
        by_hand = -torch.logsumexp(-model.energy(v.expand(8, 4), h), 0)
        torch.testing.assert_close(model.free_energy(v[None])[0], by_hand)


def test_energy_matches_the_formula() -> None:
    model, v, h = tiny(), states(4)[11], states(3)[5]
    W, b, c = (p.detach().numpy() for p in (model.weight, model.visible_bias, model.hidden_bias))
    by_hand = -(b @ v.numpy()) - c @ h.numpy() - v.numpy() @ W @ h.numpy()
    assert model.energy(v[None], h[None]).item() == pytest.approx(by_hand)
    gaussian = tiny(visible="gaussian")
    by_hand = 0.5 * np.sum((v.numpy() - b) ** 2) - c @ h.numpy() - v.numpy() @ W @ h.numpy()
    assert gaussian.energy(v[None], h[None]).item() == pytest.approx(by_hand)


def test_log_partition_matches_enumeration_of_the_joint_states() -> None:
    model = tiny(4, 3)
    v, h = states(4), states(3)
    joint = torch.stack([-model.energy(v, unit.expand(16, 3)) for unit in h])
    torch.testing.assert_close(model.log_partition(), torch.logsumexp(joint.flatten(), 0))


def test_log_partition_of_gaussian_units_matches_quadrature() -> None:
    model = tiny(1, 3, visible="gaussian")

    def density(v: float) -> float:
        return math.exp(-model.free_energy(torch.tensor([[v]], dtype=torch.float64)).item())

    integral, _ = integrate.quad(density, -20, 20)
    assert model.log_partition().item() == pytest.approx(math.log(integral), abs=1e-8)


def test_log_partition_refuses_what_cannot_be_enumerated() -> None:
    with pytest.raises(ValueError, match="up to 20 hidden units, not 21"):
        RBM(4, 21).log_partition()


def test_conditionals_match_enumeration() -> None:
    model = tiny()
    v, h = states(4), states(3)
    over_h = torch.softmax(-model.energy(v[9].expand(8, 4), h), 0)
    torch.testing.assert_close(model.hidden_probabilities(v[9:10])[0], over_h @ h)
    over_v = torch.softmax(-model.energy(v, h[6].expand(16, 3)), 0)
    torch.testing.assert_close(model.visible_mean(h[6:7])[0], over_v @ v)


def test_free_energies_features_and_pseudo_likelihoods_agree_with_scikit_learn() -> None:
    model, v = tiny(6, 4), sample_bernoulli(torch.full((50, 6), 0.4).double(), seeded())
    peer = BernoulliRBM(4, random_state=3)
    peer.components_ = model.weight.detach().t().numpy()
    peer.intercept_hidden_ = model.hidden_bias.detach().numpy()
    peer.intercept_visible_ = model.visible_bias.detach().numpy()
    with torch.no_grad():
        np.testing.assert_allclose(model.free_energy(v), peer._free_energy(v.numpy()))
        np.testing.assert_allclose(model.encode(v), peer.transform(v.numpy()))
        flipped = np.random.RandomState(3).randint(0, 6, 50)  # what score_samples draws first
        found = -6 * unit_losses(model, v, torch.as_tensor(flipped))
    np.testing.assert_allclose(found, peer.score_samples(v.numpy()))


def expected_update(model: RBM, start: Tensor, k: int | None) -> Tensor:
    """E[weight gradient] of CD-k from data that are spread over the visible states as `start`; None: k = infinity."""
    v, h = states(model.num_visible), states(model.num_hidden)
    with torch.no_grad():
        up = torch.stack([model.hidden_probabilities(v)[:, None].expand(-1, len(h), -1), h.expand(len(v), -1, -1)])
        to_h = torch.where(up[1] > 0, up[0], 1 - up[0]).prod(2)
        mean = model.visible_mean(h)
        to_v = torch.where(v[None] > 0, mean[:, None], 1 - mean[:, None]).prod(2)
        end = exact_visible_distribution(model) if k is None else start @ torch.matrix_power(to_h @ to_v, k)
        statistics = torch.einsum("nv,nh->nvh", v, model.hidden_probabilities(v))
    return torch.einsum("n,nvh->vh", end - start, statistics)


def test_the_bias_of_cd_shrinks_with_k() -> None:
    model = tiny(scale=3.0)
    start = torch.zeros(16, dtype=torch.float64)
    start[[3, 9, 14]] = 1 / 3
    exact = expected_update(model, start, None)
    bias = [(expected_update(model, start, k) - exact).norm().item() for k in (1, 2, 5, 20)]
    assert bias == sorted(bias, reverse=True)
    assert bias[0] > 0.05 * exact.norm()
    assert bias[-1] < 0.05 * bias[0]


@pytest.mark.parametrize("k", [1, 3])
def test_training_draws_the_enumerated_cd_gradient(k: int) -> None:
    model = tiny(gibbs_steps=k)
    v = states(4)[[3, 9, 14, 14]].repeat(10_000, 1)
    model.training_losses(as_batch(v), 0, seeded()).total.backward()
    start = torch.zeros(16, dtype=torch.float64)
    start[[3, 9]], start[14] = 0.25, 0.5
    assert model.weight.grad is not None
    # 40,000 chains: a standard error below 0.0025 in every entry
    torch.testing.assert_close(model.weight.grad, expected_update(model, start, k), atol=0.012, rtol=0)


def test_exact_gradient_matches_finite_differences_of_the_log_likelihood() -> None:
    model = tiny()
    v = states(4)[[3, 9, 14]]
    start = torch.zeros(16, dtype=torch.float64)
    start[[3, 9, 14]] = 1 / 3
    slope = finite_difference(model.weight, lambda: torch.tensor(-log_likelihood(model, v), dtype=torch.float64))
    assert expected_update(model, start, None)[0, 0].item() == pytest.approx(slope, abs=1e-6)


def test_gibbs_chains_reach_the_model_distribution() -> None:
    model = tiny(3, 2, scale=0.7)
    v = model.gibbs(torch.zeros(20_000, 3, dtype=torch.float64), 60, seeded())
    observed = torch.bincount((v @ torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)).long(), minlength=8)
    assert stats.chisquare(observed.numpy(), 20_000 * exact_visible_distribution(model).numpy()).pvalue > 0.001


@pytest.mark.parametrize(("num_chains", "half"), [(0, False), (64, False), (0, True), (64, True)])
def test_training_raises_the_exact_log_likelihood(num_chains: int, half: bool) -> None:
    model, batch = RBM(9, 6, num_chains=num_chains), as_batch(bars(256))
    model.initialise(batch, seeded())
    before = log_likelihood(model, batch.images)
    generator, optimizer = seeded(1), torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.5)
    for step in range(600):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            model.training_losses(batch, step, generator).total.backward()
        optimizer.step()
    after = log_likelihood(model, batch.images)
    # -3 log 2 = -2.08 is the entropy of the data, 9 independent pixels have -6.24
    assert before < -6
    assert after > -3.6


def test_equal_seeds_give_equal_bits() -> None:
    def run() -> RBM:
        model, batch = RBM(9, 6, num_chains=8), as_batch(bars(32))
        model.initialise(batch, seeded(5))
        model.training_losses(batch, 0, seeded(6)).total.backward()
        return model

    first, second = run(), run()
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    assert torch.equal(first.weight.grad, second.weight.grad)  # type: ignore[arg-type]


def test_chains_go_on_in_training_and_stand_still_in_validation() -> None:
    model, batch = RBM(9, 6, num_chains=8), as_batch(bars(32))
    model.initialise(batch, seeded())
    start = model.chains.clone()
    model.validation_losses(batch, 0, seeded(1))
    assert torch.equal(model.chains, start)
    model.training_losses(batch, 0, seeded(1))
    assert torch.equal(model.chains, model.gibbs(start, 1, after_data_draws(model, batch, seeded(1))))


def after_data_draws(model: RBM, batch: Batch, generator: torch.Generator) -> torch.Generator:
    model.sample_hidden(batch.images, generator)  # the reconstruction that is shown
    return generator


def test_sparsity_moves_hidden_biases_by_cost_times_excess_activity() -> None:
    activity = torch.tensor([0.5, 0.1, 0.02])
    bias = torch.zeros(3, requires_grad=True)
    penalty = sparsity_penalty(bias, activity, 0.1, 2.0)
    assert penalty.item() == 0
    torch.testing.assert_close(torch.autograd.grad(penalty, bias)[0], torch.tensor([0.8, 0.0, -0.16]))


def test_sparsity_pulls_the_activity_to_its_target() -> None:
    model, batch = RBM(9, 6, sparsity_target=0.2, sparsity_cost=5.0), as_batch(bars(128))
    model.initialise(batch, seeded())
    generator, optimizer = seeded(1), torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(200):
        optimizer.zero_grad()
        model.training_losses(batch, step, generator).total.backward()
        optimizer.step()
    assert model.hidden_probabilities(batch.images).mean().item() == pytest.approx(0.2, abs=0.05)


def test_bernoulli_visible_biases_start_at_the_data_mean() -> None:
    model, x = RBM(9, 6), bars(64)
    x[:, 0] = 0
    model.initialise(as_batch(x), seeded())
    expected = x.mean(0).clamp(0.01, 0.99)
    torch.testing.assert_close(torch.sigmoid(model.visible_bias.detach()), expected)


def test_gaussian_inputs_are_standardised_and_given_back_in_their_own_units() -> None:
    model, x = RBM(5, 3, visible="gaussian"), torch.rand(200, 5, generator=seeded()) * 3 + 7
    x[:, 4] = 2.0  # a constant input must not become an infinity
    model.initialise(as_batch(x), seeded())
    v = model.standardise(x)
    torch.testing.assert_close(v.mean(0), torch.zeros(5), atol=1e-4, rtol=0)
    torch.testing.assert_close(v.std(0)[:4], torch.ones(4))
    h = model.encode(x)
    torch.testing.assert_close(model.decode(h), model.visible_mean(h) * model.std + model.mean)
    with pytest.raises(ValueError, match="std must be > 0"):
        model.set_statistics(torch.zeros(5), torch.zeros(5))


def test_bfloat16_products_leave_losses_and_gradients_close() -> None:
    model, batch = RBM(9, 6), as_batch(bars(256))
    model.initialise(batch, seeded())

    def losses() -> tuple[Tensor, Tensor]:
        model.zero_grad()
        total = model.training_losses(batch, 0, seeded(1)).total
        total.backward()
        assert model.weight.grad is not None
        return total.detach(), model.weight.grad

    total, gradient = losses()
    with torch.autocast("cpu", torch.bfloat16):
        half_total, half_gradient = losses()
    assert half_gradient.dtype == torch.float32
    torch.testing.assert_close(half_total, total, atol=0.05, rtol=0.05)
    torch.testing.assert_close(half_gradient, gradient, atol=0.02, rtol=0.05)
