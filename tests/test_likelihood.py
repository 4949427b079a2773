"""Annealed importance sampling and the DBN's bound against enumeration of every state of small machines."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from pipeline.metrics.annealing import (
    Annealing,
    BaseRates,
    LogPartition,
    estimate_log_partition,
    estimate_log_partition_downwards,
    temperatures,
)
from pipeline.metrics.likelihood import bound_log_likelihood, compute_log_likelihood
from pipeline.models.dbn import DBN
from pipeline.models.losses import Batch
from pipeline.models.rbm import RBM
from pipeline.models.sampling import sample_bernoulli
from tests.test_dbn import conv, dense

SIDE = 6
REPEATS = 200


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def states(count: int) -> Tensor:
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=count)), dtype=torch.float64)


def randomise(model: torch.nn.Module, scale: float, seed: int = 1) -> None:
    generator = seeded(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, scale, generator=generator)


def tiny(num_visible: int = 6, num_hidden: int = 4, scale: float = 1.0) -> RBM:
    model = RBM(num_visible, num_hidden).double()
    randomise(model, scale)
    return model


def even(num_visible: int = 6, num_hidden: int = 4) -> BaseRates:
    """Fair coins."""
    return BaseRates(visible=torch.zeros(num_visible), hidden=torch.zeros(num_hidden))


def exactly(log_z: Tensor | float) -> LogPartition:
    """log Z as enumeration knows it."""
    value = float(log_z)
    return LogPartition(log_z=value, low=value, high=value, ess=1e9, num_chains=2, num_temperatures=2)


def bars(count: int, seed: int = 0) -> Tensor:
    """6x6 images of whole rows, or of whole columns, each line on with probability 0.3; one pixel in twenty flipped."""
    generator = seeded(seed)
    lines = sample_bernoulli(torch.full((count, SIDE), 0.3), generator)[:, :, None].expand(-1, SIDE, SIDE)
    turned = torch.where(sample_bernoulli(torch.full((count, 1, 1), 0.5), generator) > 0, lines, lines.mT)
    flips = sample_bernoulli(torch.full(turned.shape, 0.05), generator)
    return (turned - flips).abs().flatten(1)


@pytest.fixture(scope="module")
def trained() -> RBM:
    """36 visible and 16 hidden units after 1,000 updates of PCD."""
    model, images = RBM(SIDE**2, 16, num_chains=64), bars(2000)
    batch = Batch(images, torch.full((len(images),), -1))
    model.initialise(batch, seeded())
    generator, optimizer = seeded(1), torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(1000):
        rows = slice(step % 20 * 100, step % 20 * 100 + 100)
        optimizer.zero_grad()
        model.training_losses(Batch(images[rows], batch.labels[rows]), step, generator).total.backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("seed", range(5))
def test_annealing_finds_the_enumerated_log_partition_of_a_trained_rbm(trained: RBM, seed: int) -> None:
    base = BaseRates.of(trained, bars(2000))
    found = estimate_log_partition(trained, base, Annealing(num_chains=200, num_temperatures=1000), seed=seed)
    exact = float(trained.log_partition())
    assert abs(found.log_z - exact) < 0.1
    assert found.low < found.log_z < found.high
    assert 50 < found.ess <= 200
    # The test means something: independent pixels are far from this model.
    assert abs(base.log_partition - exact) > 1


def test_downward_annealing_from_mixed_chains_finds_it_from_above(trained: RBM) -> None:
    base, annealing = BaseRates.of(trained, bars(2000)), Annealing(num_chains=200, num_temperatures=1000)
    samples = trained.gibbs(bars(200, seed=5), 2000, seeded(2))
    found = estimate_log_partition_downwards(trained, base, samples, annealing, seed=0)
    assert abs(found.log_z - float(trained.log_partition())) < 0.1


def test_the_interval_covers() -> None:
    """With a coverage of 95 %, fewer than 181 hits in 200, or 200, come about once in 300 tests of this kind."""
    model, base = tiny(), even()
    exact, annealing = float(model.log_partition()), Annealing(num_chains=100, num_temperatures=20)
    found = [estimate_log_partition(model, base, annealing, seed=seed) for seed in range(REPEATS)]
    hits = sum(one.low <= exact <= one.high for one in found)
    assert stats.binom.cdf(180, REPEATS, 0.95) + stats.binom.sf(199, REPEATS, 0.95) < 1 / 200
    assert 181 <= hits <= 199


def test_the_interval_is_as_wide_as_repeats_scatter() -> None:
    model, base, annealing = tiny(), even(), Annealing(num_chains=100, num_temperatures=20)
    found = [estimate_log_partition(model, base, annealing, seed=seed) for seed in range(REPEATS)]
    scatter = float(np.std([one.log_z for one in found]))
    claimed = float(np.mean([one.high - one.low for one in found])) / 2 / float(stats.t.ppf(0.975, 99))
    assert claimed == pytest.approx(scatter, rel=0.2)  # four standard errors of a deviation from 200 repeats


def test_upward_and_downward_estimates_stand_on_either_side_of_the_truth() -> None:
    model, base = tiny(scale=1.5), even()
    exact, annealing = float(model.log_partition()), Annealing(num_chains=4, num_temperatures=5)
    v = states(6)
    chances = torch.softmax(-model.free_energy(v), 0).detach()
    up, down = [], []
    for seed in range(REPEATS):
        samples = v[torch.multinomial(chances, 4, replacement=True, generator=seeded(seed))]
        up.append(estimate_log_partition(model, base, annealing, seed=seed).log_z - exact)
        down.append(estimate_log_partition_downwards(model, base, samples, annealing, seed=seed).log_z - exact)
    assert stats.ttest_1samp(up, 0, alternative="less").pvalue < 1e-3
    assert stats.ttest_1samp(down, 0, alternative="greater").pvalue < 1e-3


def test_the_mean_weight_is_unbiased_however_few_the_temperatures() -> None:
    model = tiny()
    base = BaseRates(visible=torch.full((6,), 0.3), hidden=torch.tensor([-2.0, 0.5, 1.0, 0.0]))
    exact = float(model.log_partition())
    for count in (2, 3, 6):
        annealing = Annealing(num_chains=20_000, num_temperatures=count)
        found = estimate_log_partition(model, base, annealing, seed=count)
        assert abs(found.log_z - exact) < 2 * (found.high - found.log_z)  # four standard errors
        assert found.high - found.low < 0.1


def test_a_model_without_weights_is_its_own_base_rate_model() -> None:
    model = tiny()
    with torch.no_grad():
        model.weight.zero_()
    base = BaseRates(visible=model.visible_bias.detach(), hidden=model.hidden_bias.detach())
    found = estimate_log_partition(model, base, Annealing(num_chains=8, num_temperatures=7), seed=0)
    assert found.log_z == pytest.approx(float(model.log_partition()), abs=1e-12)
    assert found.ess == pytest.approx(8)
    assert found.high - found.low == pytest.approx(0, abs=1e-9)


def test_base_rates_are_the_smoothed_means_of_both_kinds_of_units() -> None:
    model, images = tiny(3, 2), torch.tensor([[0.0, 1.0, 0.2], [0.0, 1.0, 0.6]], dtype=torch.float64)
    base = BaseRates.of(model, images)
    expected = torch.tensor([0.05, 1.05, 0.45], dtype=torch.float64) / 1.1
    torch.testing.assert_close(torch.sigmoid(base.visible), expected)
    active = torch.sigmoid(images @ model.weight + model.hidden_bias).mean(0).detach()
    torch.testing.assert_close(torch.sigmoid(base.hidden), (active + 0.05) / 1.1)


def test_the_base_rate_models_log_partition_is_that_of_enumeration() -> None:
    base = BaseRates(visible=torch.tensor([0.3, -1.0]), hidden=torch.tensor([2.0]))
    energies = states(3) @ torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    assert base.log_partition == pytest.approx(float(torch.logsumexp(energies, 0)), abs=1e-6)


def test_temperatures_rise_from_zero_to_one() -> None:
    for count in (2, 3, 30, 1000):
        betas = temperatures(count)
        assert (len(betas), betas[0], betas[-1]) == (count, 0.0, 1.0)
        assert betas == sorted(set(betas))


def test_equal_seeds_give_equal_estimates_and_other_seeds_others(trained: RBM) -> None:
    base, annealing = BaseRates.of(trained, bars(100)), Annealing(num_chains=50, num_temperatures=50)
    first, again, other = (estimate_log_partition(trained, base, annealing, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first.log_z != other.log_z


@pytest.mark.parametrize("at_once", [1, 7, 64, 100])
def test_the_estimate_does_not_depend_on_how_many_chains_move_at_once(at_once: int) -> None:
    model, base = tiny(), even()
    whole = Annealing(num_chains=150, num_temperatures=12)
    parts = replace(whole, chains_at_once=at_once)
    samples = model.gibbs(torch.zeros(150, 6, dtype=torch.float64), 20, seeded())
    assert estimate_log_partition(model, base, parts, seed=0).log_z == pytest.approx(
        estimate_log_partition(model, base, whole, seed=0).log_z, abs=1e-9
    )
    assert estimate_log_partition_downwards(model, base, samples, parts, seed=0).log_z == pytest.approx(
        estimate_log_partition_downwards(model, base, samples, whole, seed=0).log_z, abs=1e-9
    )


def test_the_log_likelihood_matches_enumeration() -> None:
    model, v = tiny(), states(6)
    partition = exactly(model.log_partition())
    every = [compute_log_likelihood(model, one[None], partition).value for one in v]
    assert np.exp(every).sum() == pytest.approx(1)
    images = v[[3, 17, 40]].view(3, 1, 2, 3)
    mean = compute_log_likelihood(model, images, replace(partition, low=partition.low - 1, high=partition.high + 2))
    assert mean.value == pytest.approx(np.mean([every[3], every[17], every[40]]))
    assert mean.low == pytest.approx(mean.value - 2)
    assert mean.high == pytest.approx(mean.value + 1)


def test_too_few_effective_chains_are_refused() -> None:
    model = tiny(scale=4.0)
    hasty = estimate_log_partition(model, even(), Annealing(num_chains=60, num_temperatures=2), seed=0)
    assert hasty.ess < 50
    with pytest.raises(ValueError, match=r"rests on [\d.]+ effective chains of 60, fewer than 50: raise num_temp"):
        compute_log_likelihood(model, states(6), hasty)
    with pytest.raises(ValueError, match="effective chains"):
        bound_log_likelihood(tiny_dbn([4, 3]), states(6), hasty, num_samples=2, seed=0)
    compute_log_likelihood(model, states(6), hasty, min_ess=0)


def test_grey_images_are_refused() -> None:
    model = tiny()
    with pytest.raises(ValueError, match="binary images"):
        compute_log_likelihood(model, torch.full((2, 6), 0.5), exactly(model.log_partition()))


def test_what_annealing_cannot_do_is_refused() -> None:
    annealing = Annealing(num_chains=4, num_temperatures=3)
    with pytest.raises(ValueError, match="bernoulli visible units, got gaussian"):
        estimate_log_partition(RBM(6, 4, visible="gaussian"), even(), annealing, seed=0)
    with pytest.raises(ValueError, match="bernoulli hidden units, got relu"):
        estimate_log_partition(RBM(6, 4, hidden="relu"), even(), annealing, seed=0)
    with pytest.raises(ValueError, match="needs 6 visible biases"):
        estimate_log_partition(RBM(6, 4), even(5, 4), annealing, seed=0)
    with pytest.raises(ValueError, match="needs 4 hidden biases"):
        estimate_log_partition(RBM(6, 4), even(6, 5), annealing, seed=0)
    with pytest.raises(ValueError, match=r"shape \(4, 6\).*got \(3, 6\)"):
        estimate_log_partition_downwards(RBM(6, 4), even(), torch.zeros(3, 6), annealing, seed=0)
    for changes in ({"num_chains": 1}, {"num_temperatures": 1}, {"chains_at_once": 0}):
        with pytest.raises(ValueError, match="of annealing must be >="):
            replace(annealing, **changes)


def tiny_dbn(sizes: list[int], scale: float = 1.0, **changes: Any) -> DBN:
    """Dense layers of these sizes over 2x3 images."""
    below = ["prepare", *(f"pretrain/{number}" for number in range(len(sizes)))]
    configs = [dense(size, name, **changes) for size, name in zip(sizes, below, strict=False)]
    dbn = DBN(configs, (1, 2, 3)).double()
    randomise(dbn, scale, seed=2)
    return dbn


def top(dbn: DBN) -> RBM:
    layer = dbn.rbms()[-1]
    assert isinstance(layer, RBM)
    return layer


def log_conditional(units: Tensor, probabilities: Tensor) -> Tensor:
    """log p of every state of `units` (N, U) given each row of `probabilities` (K, U): (N, K)."""
    return units @ probabilities.log().T + (1 - units) @ (1 - probabilities).log().T


@torch.no_grad()
def exact_log_probabilities(dbn: DBN) -> Tensor:
    """log p(v) of every state of the 6 visible units, by enumeration of all hidden ones."""
    layers = dbn.rbms()
    h = states(layers[-1].weight.shape[0])
    log_p = -top(dbn).free_energy(h) - top(dbn).log_partition()
    for layer in reversed(layers[:-1]):
        assert isinstance(layer, RBM)
        v = states(layer.num_visible)
        log_p = torch.logsumexp(log_conditional(v, layer.visible_mean(h)) + log_p, 1)
        h = v
    return log_p


def test_the_exact_dbn_is_a_distribution() -> None:
    for sizes in ([4, 3], [4, 3, 5]):
        assert float(torch.logsumexp(exact_log_probabilities(tiny_dbn(sizes)), 0)) == pytest.approx(0, abs=1e-9)


@torch.no_grad()
def test_the_bound_of_two_layers_matches_its_enumerated_expectation() -> None:
    dbn, v, h = tiny_dbn([4, 3]), states(6), states(4)
    first = dbn.rbms()[0]
    assert isinstance(first, RBM)
    log_q = log_conditional(h, first.hidden_probabilities(v)).T
    log_joint = log_conditional(v, first.visible_mean(h)) - top(dbn).free_energy(h) - top(dbn).log_partition()
    enumerated = (log_q.exp() * (log_joint - log_q)).sum(1)
    exact = exact_log_probabilities(dbn)
    assert bool((enumerated < exact).all())
    found = bound_log_likelihood(dbn, v, exactly(top(dbn).log_partition()), num_samples=400, seed=0)
    assert abs(found.value - float(enumerated.mean())) < 4 * found.standard_error
    assert found.standard_error < 0.05
    assert found.high < float(exact.mean())


def test_the_bounds_standard_error_is_the_scatter_of_repeats() -> None:
    dbn, v = tiny_dbn([4, 3]), states(6)
    partition = exactly(top(dbn).log_partition())
    found = [bound_log_likelihood(dbn, v, partition, num_samples=5, seed=seed) for seed in range(REPEATS)]
    scatter = float(np.std([one.value for one in found]))
    assert np.mean([one.standard_error for one in found]) == pytest.approx(scatter, rel=0.2)


def test_the_bound_of_three_layers_stays_below_the_exact_log_likelihood() -> None:
    dbn, v = tiny_dbn([4, 3, 5], scale=0.7), states(6)
    exact = exact_log_probabilities(dbn)
    partition = exactly(top(dbn).log_partition())
    for index in range(0, 64, 7):
        copies = v[index].expand(2000, -1)
        found = bound_log_likelihood(dbn, copies, partition, num_samples=2, seed=index)
        assert found.value - 4 * found.standard_error < float(exact[index])
        assert found.value > float(exact[index]) - 3  # a bound, and not a hopeless one


@torch.no_grad()
def test_a_second_layer_that_is_the_first_transposed_makes_the_bound_tight() -> None:
    dbn, v = tiny_dbn([4, 6]), states(6)
    first, second = dbn.rbms()
    second.weight.copy_(first.weight.T)
    second.visible_bias.copy_(first.hidden_bias)
    second.hidden_bias.copy_(first.visible_bias)
    exact = exact_log_probabilities(dbn)
    torch.testing.assert_close(exact, -first.free_energy(v) - top(dbn).log_partition())
    found = bound_log_likelihood(dbn, v, exactly(top(dbn).log_partition()), num_samples=2, seed=0)
    assert found.value == pytest.approx(float(exact.mean()), abs=1e-9)
    assert found.standard_error == pytest.approx(0, abs=1e-9)


def test_the_bound_of_one_layer_is_the_rbms_log_likelihood() -> None:
    dbn, v = tiny_dbn([4]), states(6)
    partition = exactly(top(dbn).log_partition())
    found = bound_log_likelihood(dbn, v, partition, num_samples=2, seed=0)
    assert found.value == pytest.approx(compute_log_likelihood(top(dbn), v, partition).value)


def test_the_bound_carries_the_interval_of_the_partition() -> None:
    dbn, v = tiny_dbn([4]), states(6)
    exact = exactly(top(dbn).log_partition())
    found = bound_log_likelihood(dbn, v, replace(exact, low=exact.low - 1, high=exact.high + 2), num_samples=2, seed=0)
    assert (found.value - found.low, found.high - found.value) == pytest.approx((2, 1))


def test_layers_without_a_bound_are_refused() -> None:
    images = torch.zeros(2, 1, 28, 28)
    with pytest.raises(ValueError, match="got conv bernoulli: build such a DBN"):
        bound_log_likelihood(DBN([conv(4, 5)], (1, 28, 28)), images, exactly(0), num_samples=2, seed=0)
    with pytest.raises(ValueError, match="got dense gaussian"):
        bound_log_likelihood(tiny_dbn([4], visible="gaussian"), states(6), exactly(0), num_samples=2, seed=0)
    with pytest.raises(ValueError, match=r"num_samples must be >= 2.*got 1"):
        bound_log_likelihood(tiny_dbn([4, 3]), states(6), exactly(0), num_samples=1, seed=0)
