"""Gibbs chains against enumeration, with wrong samplers as controls that the same test must turn down."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from pipeline.models.dbn import DBN
from pipeline.models.dbn_sampling import Chains, sample_dbn, sample_rbm
from pipeline.models.rbm import RBM
from pipeline.models.sampling import sample_bernoulli
from tests.test_dbn import conv
from tests.test_likelihood import exact_log_probabilities, seeded, states, tiny, tiny_dbn, top

FALSE_ALARMS = 0.001
"""How often a right sampler would fail a chi-square test here, were the seeds not fixed."""
CHAINS = Chains(num_chains=4000, burn_in=60, num_frames=5, thinning=40)


def chi_square_p(samples: Tensor, log_probabilities: Tensor) -> float:
    """p-value of the counts of all states: samples (..., U) zeros and ones against log p of the 2^U states."""
    flat = samples.flatten(0, -2).double()
    powers = 2.0 ** torch.arange(flat.shape[1] - 1, -1, -1, dtype=torch.float64)
    observed = torch.bincount((flat @ powers).long(), minlength=len(log_probabilities)).numpy()
    expected = log_probabilities.exp().numpy()
    assert expected.min() * len(flat) > 5, "chi-square wants five expected counts a state"
    return float(stats.chisquare(observed, len(flat) * expected / expected.sum()).pvalue)


@torch.no_grad()
def exact(model: RBM) -> Tensor:
    return torch.log_softmax(-model.free_energy(states(model.num_visible)), 0)


@torch.no_grad()
def second_eigenvalue(model: RBM) -> float:
    """Of a round of Gibbs sampling v -> h -> v, by enumeration: the correlation that is left after one round."""
    v, h = states(model.num_visible), states(model.num_hidden)

    def chances(units: Tensor, on: Tensor) -> Tensor:
        return torch.where(units[None] > 0, on[:, None], 1 - on[:, None]).prod(2)

    round_trip = chances(h, model.hidden_probabilities(v)) @ chances(v, model.visible_mean(h))
    return float(np.sort(np.abs(np.linalg.eigvals(round_trip.numpy())))[-2])


def test_the_chains_forget_between_frames_so_that_counts_are_independent() -> None:
    assert second_eigenvalue(tiny(4, 3, scale=0.8)) ** CHAINS.thinning < 1e-6


def test_rbm_samples_have_the_enumerated_distribution() -> None:
    model = tiny(4, 3, scale=0.8)
    movie = sample_rbm(model, CHAINS, seeded())
    assert movie.shape == (5, 4000, 4)
    assert chi_square_p(movie, exact(model)) > FALSE_ALARMS


@pytest.mark.parametrize("dropped", ["visible_bias", "hidden_bias", "weight"])
def test_a_sampler_that_drops_a_term_fails_the_same_test(dropped: str) -> None:
    model, wrong = tiny(4, 3, scale=0.8), tiny(4, 3, scale=0.8)
    with torch.no_grad():
        getattr(wrong, dropped).zero_()
    assert chi_square_p(sample_rbm(wrong, CHAINS, seeded()), exact(model)) < 1e-9


def test_frames_are_the_states_after_burn_in_and_each_thinning() -> None:
    model, start = tiny(4, 3), states(4)[:6]
    chains = Chains(num_chains=6, burn_in=2, num_frames=3, thinning=4)
    movie = sample_rbm(model, chains, seeded(1), start=start)
    generator, v = seeded(1), start
    for frame, rounds in zip(movie, (2, 4, 4), strict=True):
        v = model.gibbs(v, rounds, generator)
        assert torch.equal(frame, v)
    assert torch.equal(sample_rbm(model, replace(chains, burn_in=0), seeded(1), start=start)[0], start)


def test_means_have_the_average_of_the_samples() -> None:
    model = tiny(4, 3, scale=0.8)
    means = sample_rbm(model, CHAINS, seeded(), means=True)
    assert bool(((means > 0) & (means < 1)).all())
    expected = exact(model).exp() @ states(4)
    # 20,000 samples: a standard error of at most 0.0036
    torch.testing.assert_close(means.mean((0, 1)), expected, atol=0.015, rtol=0)


def test_gaussian_samples_come_in_the_inputs_units() -> None:
    model = tiny(4, 3)
    model.visible = "gaussian"
    model.set_statistics(torch.full((4,), 100.0), torch.full((4,), 10.0))
    chains = Chains(num_chains=3, burn_in=5)
    start = torch.zeros(3, 4, dtype=torch.float64)
    found = sample_rbm(model, chains, seeded(), start=start)[0]
    torch.testing.assert_close(found, model.gibbs(start, 5, seeded()) * 10 + 100)


@pytest.mark.parametrize("sizes", [[4], [4, 3], [4, 3, 5]])
def test_dbn_samples_have_the_enumerated_distribution(sizes: list[int]) -> None:
    dbn = tiny_dbn(sizes, scale=0.6)
    movie = sample_dbn(dbn, CHAINS, seeded(3))
    assert movie.shape == (5, 4000, 1, 2, 3)
    assert chi_square_p(movie.flatten(2), exact_log_probabilities(dbn)) > FALSE_ALARMS


def test_passing_probabilities_down_in_place_of_draws_fails_the_same_test() -> None:
    dbn = tiny_dbn([4, 3], scale=0.6)
    first = dbn.rbms()[0]
    assert isinstance(first, RBM)
    with torch.no_grad():
        first.weight.mul_(4)  # a mean of hidden states is far from any of them
        h = sample_rbm(top(dbn), CHAINS, seeded(3), means=True)
        images = sample_bernoulli(first.visible_mean(h.flatten(0, 1)), seeded(4))
    log_p = exact_log_probabilities(dbn)
    common = log_p.exp() * len(images) > 5
    kept = [int(index) for index in common.nonzero()]
    powers = 2.0 ** torch.arange(5, -1, -1, dtype=torch.float64)
    observed = torch.bincount((images @ powers).long(), minlength=64)
    counts = np.append(observed[kept].numpy(), observed.sum() - observed[kept].sum())
    chances = np.append(log_p.exp()[kept].numpy(), 1 - log_p.exp()[kept].sum())
    assert stats.chisquare(counts, chances * len(images)).pvalue < 1e-9


def test_equal_seeds_give_equal_movies() -> None:
    dbn, chains = tiny_dbn([4, 3]), Chains(num_chains=8, burn_in=3, num_frames=2)
    assert torch.equal(sample_dbn(dbn, chains, seeded(1)), sample_dbn(dbn, chains, seeded(1)))
    assert not torch.equal(sample_dbn(dbn, chains, seeded(1)), sample_dbn(dbn, chains, seeded(2)))
    smooth = sample_dbn(dbn, chains, seeded(1), means=True)
    assert bool(((smooth > 0) & (smooth < 1)).all())


def test_what_cannot_be_sampled_is_refused() -> None:
    chains = Chains(num_chains=2, burn_in=0)
    with pytest.raises(ValueError, match="through dense layers, got conv"):
        sample_dbn(DBN([conv(4, 5)], (1, 28, 28)), chains, seeded())
    with pytest.raises(ValueError, match=r"start must have shape \(2, 4\).*got \(3, 4\)"):
        sample_rbm(tiny(4, 3), chains, seeded(), start=torch.zeros(3, 4))
    for changes in ({"num_chains": 0}, {"burn_in": -1}, {"num_frames": 0}, {"thinning": 0}):
        with pytest.raises(ValueError, match="of Gibbs chains must be >="):
            replace(chains, **changes)
